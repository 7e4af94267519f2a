//! Records are read as they were written, and other bytes are not records.

use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;

use super::expiries::ExpiryId;
use super::*;
use crate::policy::{IgnoredSelectors, MadeTag, NoVarySearch, RuleTtl};
use crate::storage::{Key, Record};
use crate::time::Timestamp;

fn fields() -> impl Strategy<Value = HeaderMap> {
    let byte = prop_oneof![Just(b'\t'), 32..=126_u8, 128..=255_u8];
    vec(("[a-z0-9!#$%&\'*+.^_`|~-]{1,12}", vec(byte, 0..40)), 0..12).prop_map(|fields| {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            // A repeated name adds another line of the field.
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a token");
            map.append(name, HeaderValue::from_bytes(&value).expect("a value"));
        }
        map
    })
}

fn moment() -> impl Strategy<Value = Timestamp> {
    prop_oneof![any::<u64>().prop_map(Timestamp::from_millis), Just(Timestamp::NEVER), Just(Timestamp::EPOCH)]
}

fn body() -> impl Strategy<Value = StoredBody> {
    // No more chunks than keys can number.
    let len = |(chunk_len, parts): (u32, u32)| (chunk_len, u64::from(chunk_len) * u64::from(parts));
    let chunked = (any::<[u8; 16]>(), (1..u32::MAX, any::<u32>()).prop_map(len), moment());
    prop_oneof![
        vec((1_u64..1000, 0_u64..1000, any::<[u8; 16]>(), 1_u32..100), 1..5).prop_map(|parts| {
            let part = |(len, start, id, chunk_len)| {
                Parts::new([7; 16], 2000, Extent { id, chunk_len, len, start }, Timestamp::NEVER)
            };
            let parts = parts.into_iter().map(part);
            StoredBody::Parts(
                parts.reduce(|parts, new| parts.with(&new).expect("few runs")).expect("one").into(),
            )
        }),
        vec(any::<u8>(), 0..300).prop_map(|bytes| StoredBody::Inline(Bytes::from(bytes))),
        chunked.prop_map(|(id, (chunk_len, len), retain_until)| StoredBody::Chunked {
            id,
            chunk_len,
            len,
            retain_until
        }),
    ]
}

prop_compose! {
    fn variant()(
        status in 200..1000_u16,
        (headers, trailers) in (fields(), of(fields())),
        (request_time, response_time, until) in (moment(), moment(), moment()),
        (initial_age_ms, selection, body) in (any::<u64>(), any::<[u8; 16]>(), body()),
        (is_personal, has_hidden_selector) in any::<(bool, bool)>(),
        given in of((any::<u64>(), any::<bool>())),
        groups in vec((".{0,40}", any::<bool>(), any::<[u8; 16]>(), any::<[u8; 16]>(), expiry_id()), 0..4),
        (expiry, expired_at, made_tag) in (expiry_id(), of(moment()), of(any::<[u8; 16]>())),
    ) -> Variant {
        let response = StoredResponse {
            status: StatusCode::from_u16(status).expect("a status"),
            headers, initial_age_ms, request_time, response_time,
            content: OnceLock::from(StoredContent::new(body, trailers).with_made_tag(made_tag.map(MadeTag))),
            given: given.map(|(millis, overrides)| {
                let lifetime = if millis == u64::MAX { Duration::MAX } else { Duration::from_millis(millis) };
                RuleTtl { lifetime, overrides }
            }),
            expired_at,
            groups: groups
                .into_iter()
                .map(|(name, is_tag, entry, value, expiry)| Membership {
                    name: name.into(), is_tag, key: Key::group(entry), value, expiry, retain_until: Timestamp::EPOCH,
                })
                .collect(),
            freshness: OnceLock::new(),
        };
        Variant { until, selection, is_personal, has_hidden_selector, expiry, response }
    }
}

fn expiry_id() -> impl Strategy<Value = ExpiryId> {
    prop_oneof![Just([0; 16]), any::<[u8; 16]>()]
}

fn expiries() -> impl Strategy<Value = Expiries> {
    let expiry =
        (any::<[u8; 16]>(), moment(), any::<[u8; 16]>()).prop_map(|(id, at, by)| Expiry { id, at, by });
    vec(expiry, 0..12).prop_map(|all| all.into_iter().fold(Expiries::default(), |list, of| list.with(of)))
}

fn slot() -> impl Strategy<Value = DecodedRecord> {
    let text = || ".{0,60}".prop_map(String::into_boxed_str);
    let names = || {
        vec("[a-z-]{1,20}", 0..5).prop_map(|names| {
            names.iter().map(|name| name.parse().expect("a name")).collect::<Vec<HeaderName>>()
        })
    };
    let ignored_selectors = of((names(), names(), any::<[u64; 2]>())).prop_map(|of| {
        of.map(|(named, credentials, [query, cookies])| {
            Box::new(IgnoredSelectors { named, credentials, query, cookies })
        })
    });
    let head = (text(), names(), ignored_selectors, any::<[u8; 16]>(), moment(), expiries(), variant())
        .prop_map(|(key_text, names, ignored_selectors, generation, fence, expiries, inline)| Head {
            key_text,
            names,
            ignored_selectors,
            generation,
            fence,
            expiries,
            inline,
        });
    let tagged =
        (any::<[u8; 16]>(), "\"[a-z]{0,9}\"", vec(any::<u8>(), 0..9)).prop_map(|(selection, tag, coding)| {
            Tagged { selection, tag: tag.parse().expect("a tag"), coding: coding.into() }
        });
    let names =
        proptest::collection::btree_set(".{0,20}", 0..4).prop_map(|names| names.into_iter().collect());
    let search = (any::<(bool, bool)>(), names, any::<[u8; 16]>(), of((text(), moment()))).prop_map(
        |((ignores_order, is_except), names, id, first)| Search {
            value: NoVarySearch { ignores_order, is_except, names },
            id,
            first: first.map(|(key_text, at)| FirstOfSearch { key_text, at }),
        },
    );
    prop_oneof![
        vec(search, 0..5).prop_map(DecodedRecord::Searches),
        head.prop_map(DecodedRecord::Head),
        (text(), any::<[u8; 16]>(), variant()).prop_map(|(key_text, generation, variant)| {
            DecodedRecord::Variant { key_text, generation, variant }
        }),
        (moment(), any::<bool>())
            .prop_map(|(until, placeholder)| DecodedRecord::Fence { until, placeholder }),
        vec(tagged, 0..5).prop_map(DecodedRecord::Index),
        (any::<[u8; 16]>(), moment(), any::<[u8; 16]>(), expiries()).prop_map(
            |(value, since, by, expiries)| DecodedRecord::Group(GroupValue { value, since, by, expiries })
        ),
    ]
}

#[test]
fn record_of_more_chunks_than_keys_is_not_read() {
    let response = |len| StoredResponse {
        status: StatusCode::OK,
        headers: HeaderMap::new(),
        initial_age_ms: 0,
        request_time: Timestamp::EPOCH,
        response_time: Timestamp::EPOCH,
        given: None,
        expired_at: None,
        groups: [].into(),
        content: OnceLock::from(StoredContent::new(
            StoredBody::Chunked { id: [1; 16], chunk_len: 2, len, retain_until: Timestamp::NEVER },
            None,
        )),
        freshness: OnceLock::new(),
    };
    let read = |len| {
        let variant = Variant {
            until: Timestamp::NEVER,
            selection: [0; 16],
            is_personal: false,
            has_hidden_selector: false,
            expiry: [0; 16],
            response: response(len),
        };
        let slot = DecodedRecord::Variant { key_text: "http://a/".into(), generation: [0; 16], variant };
        let read = Record::from_bytes(record(slot, Timestamp::NEVER).to_bytes()).expect("its own bytes");
        decode(&read).is_some()
    };
    let most = 2 * u64::from(u32::MAX);
    assert!(read(most) && !read(most + 1) && !read(u64::MAX));
}

#[test]
fn chunk_keys_come_in_batches_and_in_order() {
    let len = 4 * ChunkKeys::BATCH as u64 + 1;
    let body = StoredBody::Chunked { id: [3; 16], chunk_len: 2, len, retain_until: Timestamp::EPOCH };
    let mut keys = body.chunks(Key::head([7; 16]));
    assert_eq!(keys.len(), 2 * ChunkKeys::BATCH + 1);
    let mut parts = Vec::new();
    while let Some(batch) = keys.next_batch() {
        assert!(batch.len() <= ChunkKeys::BATCH);
        assert!(batch.iter().all(|key| (key.entry, key.slot) == ([7; 16], [3; 16])));
        parts.extend(batch.iter().map(|key| key.part));
    }
    assert!(parts.into_iter().eq(0..2 * ChunkKeys::BATCH as u32 + 1));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn slot_is_read_as_it_was_written(slot in slot(), until in moment()) {
        let expected = format!("{slot:?}");
        let bytes = record(slot, until).to_bytes();
        let read = Record::from_bytes(bytes.clone()).expect("its own bytes");
        prop_assert_eq!(format!("{:?}", decode(&read).expect("its own form")), expected);
        prop_assert_eq!(read.to_bytes(), bytes);
    }

    #[test]
    fn foreign_payload_does_not_panic(bytes in vec(any::<u8>(), 0..200), version in any::<bool>()) {
        let bytes = if version { [&[codec::VERSION], &bytes[..]].concat() } else { bytes };
        let foreign = Record::new(bytes, Timestamp::NEVER);
        if let Some(slot) = decode(&foreign) {
            let again = format!("{slot:?}");
            let copy = Record::from_bytes(foreign.to_bytes()).expect("its own bytes");
            prop_assert_eq!(format!("{:?}", decode(&copy).expect("the same")), again);
        }
    }
}
