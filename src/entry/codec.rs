//! The encoding of decoded records as bytes.
//!
//! A record is a version byte, the length of the description (four bytes, big-endian), the description in
//! postcard, and the body. The body comes last and is not part of the description, so that it can be a slice
//! of the record.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};

use super::expiries::{Expiries, Expiry, ExpiryId};
use super::head::{
    DecodedRecord, FirstOfSearch, GroupValue, Head, Membership, Search, StoredBody, StoredContent,
    StoredResponse, Tagged, Variant,
};
use super::parts::{Extent, Parts, Run};
use crate::policy::{IgnoredSelectors, MAX_FIELDS, MadeTag, NoVarySearch, RuleTtl};
use crate::storage::{Decoded, FORM_VERSION, Key, Record, Stamp};
use crate::time::Timestamp;

pub(super) const VERSION: u8 = FORM_VERSION;

/// The most header fields that are decoded.
///
/// A response is stored with at most [`MAX_FIELDS`], and each 304 may add some. `HeaderMap` panics beyond
/// 24,576.
const MAX_STORED_FIELDS: usize = 4 * MAX_FIELDS;

/// The description of a record. Every change of its fields needs a new [`FORM_VERSION`].
///
/// postcard does not store the names of fields, so their order and types are the format. An [`ExpiryForm`] may follow.
#[derive(Serialize, Deserialize)]
enum SlotForm<'a> {
    #[serde(borrow)]
    Head(HeadForm<'a>),
    #[serde(borrow)]
    Variant(KeyedForm<'a>),
    Fence(Timestamp, bool),
    #[serde(borrow)]
    Index(Vec<([u8; 16], &'a [u8], &'a [u8])>),
    Group([u8; 16], Timestamp, [u8; 16]),
    #[serde(borrow)]
    Searches(Vec<SearchForm<'a>>),
}

#[derive(Serialize, Deserialize)]
struct SearchForm<'a> {
    ignores_order: bool,
    is_except: bool,
    #[serde(borrow)]
    names: Vec<&'a str>,
    id: [u8; 16],
    /// The text of the key of the first response, and the time of the lookup before its fetch.
    #[serde(borrow)]
    first: Option<(&'a str, Timestamp)>,
}

#[derive(Serialize, Deserialize)]
struct KeyedForm<'a> {
    key_text: &'a str,
    generation: [u8; 16],
    #[serde(borrow)]
    variant: VariantForm<'a>,
}

#[derive(Serialize, Deserialize)]
struct HeadForm<'a> {
    key_text: &'a str,
    #[serde(borrow)]
    names: Vec<&'a str>,
    /// The fields that Vary names, those that carry credentials, and the fingerprints of the settings on the query and on
    /// cookies.
    #[serde(borrow)]
    ignored_selectors: Option<(Vec<&'a str>, Vec<&'a str>, u64, u64)>,
    generation: [u8; 16],
    fence: Timestamp,
    #[serde(borrow)]
    inline: VariantForm<'a>,
}

#[derive(Serialize, Deserialize)]
struct VariantForm<'a> {
    until: Timestamp,
    selection: [u8; 16],
    is_personal: bool,
    has_hidden_selector: bool,
    status: u16,
    #[serde(borrow)]
    headers: Fields<'a>,
    #[serde(borrow)]
    trailers: Option<Fields<'a>>,
    initial_age_ms: u64,
    request_time: Timestamp,
    response_time: Timestamp,
    /// The lifetime that a rule gives, and whether it overrides the response's.
    ///
    /// In milliseconds, with `u64::MAX` for no end.
    given: Option<(u64, bool)>,
    /// The groups of the response.
    ///
    /// For each its name, whether it is a tag, the entry of its key, and its value.
    #[serde(borrow)]
    groups: Vec<(&'a str, bool, [u8; 16], [u8; 16])>,
    body_len: u64,
    /// The entity tag that the cache made.
    made_tag: Option<[u8; 16]>,
    /// The id and the length of the chunks, and their retention time.
    ///
    /// `None` if the body is the rest of the record.
    chunked: Option<([u8; 16], u32, Timestamp)>,
    /// The id of the stored parts, their retention time, and their runs.
    ///
    /// `None` if the body is stored as a whole.
    parts: Option<([u8; 16], Timestamp, Vec<RunForm>)>,
}

/// The range of a run, and the id, the length of the chunks, the length and the start of its extent.
type RunForm = (u64, u64, [u8; 16], u32, u64, u64);

type Fields<'a> = Vec<(&'a str, &'a [u8])>;

/// The expiries of a record, its entry and its groups, which follow the description.
///
/// Most records have none, and end with their description.
#[derive(Default, PartialEq, Serialize, Deserialize)]
struct ExpiryForm {
    /// When the response itself was expired.
    expired_at: Option<Timestamp>,
    /// The expiry of the entry that the response remembers.
    expiry: ExpiryId,
    /// The expiries that it remembers of its groups, in their order. Empty if all are zero.
    groups: Vec<ExpiryId>,
    /// The expiries of the head or the group, each with its time and the id of its cache.
    expiries: Vec<(ExpiryId, Timestamp, [u8; 16])>,
}

impl ExpiryForm {
    fn of(slot: &DecodedRecord) -> Self {
        let expiries = match slot {
            DecodedRecord::Head(head) => &head.expiries,
            DecodedRecord::Group(group) => &group.expiries,
            _ => &Expiries::default(),
        };
        let expiries = expiries.list().iter().map(|of| (of.id, of.at, of.by)).collect();
        let Some(variant) = slot.variant() else { return Self { expiries, ..Self::default() } };
        let mut groups: Vec<_> = variant.response.groups.iter().map(|group| group.expiry).collect();
        if groups.iter().all(|expiry| *expiry == [0; 16]) {
            groups.clear();
        }
        Self { expired_at: variant.response.expired_at, expiry: variant.expiry, groups, expiries }
    }

    /// Sets what was described on a variant. Returns `None` if it is about other groups.
    fn apply(&self, variant: &mut Variant) -> Option<()> {
        (variant.expiry, variant.response.expired_at) = (self.expiry, self.expired_at);
        if self.groups.is_empty() {
            return Some(());
        }
        let groups = Arc::get_mut(&mut variant.response.groups)?;
        if groups.len() != self.groups.len() {
            return None;
        }
        groups.iter_mut().zip(&self.groups).for_each(|(group, expiry)| group.expiry = *expiry);
        Some(())
    }
}

/// Makes a record, which is not encoded before a storage asks for its bytes.
///
/// It shares no memory with the connection from which its fields came.
pub(crate) fn record(mut slot: DecodedRecord, retain_until: Timestamp) -> Record {
    slot.pack();
    packed_record(slot, Stamp::random(), retain_until)
}

/// Makes a record of a response whose fields were [packed](StoredResponse::pack) before.
///
/// `stamp` must be that of no other record.
pub(crate) fn packed_record(
    slot: impl Into<Arc<DecodedRecord>>,
    stamp: Stamp,
    retain_until: Timestamp,
) -> Record {
    Record::from_decoded(slot.into(), stamp, retain_until)
}

/// Makes the record that reserves a head's key, with a stamp that was drawn before.
pub(crate) fn placeholder(stamp: Stamp, fence: Timestamp, retain_until: Timestamp) -> Record {
    let slot = DecodedRecord::Fence { until: fence, placeholder: true };
    Record::from_decoded(Arc::new(slot), stamp, retain_until)
}

/// Returns the decoded form of a record.
///
/// Returns `None` if the record is foreign, damaged or of another version.
///
/// A record is decoded once and keeps its decoded form.
pub(crate) fn decode(record: &Record) -> Option<&DecodedRecord> {
    if let Some(slot) = record.decoded() {
        return Some(slot);
    }
    record.set_decoded(Arc::new(from_payload(&record.payload())?));
    record.decoded()
}

impl Decoded for DecodedRecord {
    fn encode(&self, out: &mut BytesMut) {
        let (form, body) = describe(self);
        // Serializing to memory cannot fail for these types. If it did, the empty description would decode to
        // nothing.
        let mut description = postcard::to_stdvec(&form).unwrap_or_default();
        let expiry = ExpiryForm::of(self);
        if expiry != ExpiryForm::default() {
            description.extend(postcard::to_stdvec(&expiry).unwrap_or_default());
        }
        out.put_u8(VERSION);
        out.put_u32(u32::try_from(description.len()).unwrap_or(u32::MAX));
        out.put_slice(&description);
        out.put_slice(body);
    }

    // The fixed numbers are the lengths of what has a fixed size, or slightly more. They need not be exact, since the
    // weight is only the capacity with which encoding begins.
    fn weight(&self) -> usize {
        let variant = match self {
            Self::Head(head) => &head.inline,
            Self::Variant { variant, .. } => variant,
            Self::Fence { .. } => return 32,
            Self::Group(group) => return 64 + 48 * group.expiries.list().len(),
            Self::Searches(searches) => {
                let own = |of: &Search| {
                    let names = of.value.names.iter().map(|name| name.len() + 2).sum::<usize>();
                    32 + names + of.first.as_ref().map_or(0, |first| first.key_text.len() + 12)
                };
                return 32 + searches.iter().map(own).sum::<usize>();
            }
            Self::Index(tags) => {
                return 32 + tags.iter().map(|of| 24 + of.tag.len() + of.coding.len()).sum::<usize>();
            }
        };
        let fields = |map: &HeaderMap| -> usize {
            map.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum()
        };
        let response = &variant.response;
        let body = match response.body() {
            StoredBody::Inline(body) => body.len(),
            StoredBody::Chunked { .. } => 0,
            StoredBody::Parts(parts) => 48 * parts.runs().len(),
        };
        let groups: usize = response.groups.iter().map(|group| 56 + group.name.len()).sum();
        let expiries = self.expiries().map_or(0, |expiries| 48 * expiries.list().len());
        256 + groups + expiries + fields(&response.headers) + response.trailers().map_or(0, fields) + body
    }

    fn memory(&self, within_payload: bool) -> usize {
        self.memory(within_payload)
    }
}

/// Returns the description of a record, and the body that follows it.
fn describe(slot: &DecodedRecord) -> (SlotForm<'_>, &[u8]) {
    match slot {
        DecodedRecord::Head(head) => {
            let (inline, body) = describe_variant(&head.inline);
            let ignored_selectors = head.ignored_selectors.as_ref();
            let form = HeadForm {
                key_text: &head.key_text,
                names: name_texts(&head.names),
                ignored_selectors: ignored_selectors
                    .map(|of| (name_texts(&of.named), name_texts(&of.credentials), of.query, of.cookies)),
                generation: head.generation,
                fence: head.fence,
                inline,
            };
            (SlotForm::Head(form), body)
        }
        DecodedRecord::Variant { key_text, generation, variant } => {
            let (form, body) = describe_variant(variant);
            (SlotForm::Variant(KeyedForm { key_text, generation: *generation, variant: form }), body)
        }
        DecodedRecord::Fence { until, placeholder } => (SlotForm::Fence(*until, *placeholder), &[]),
        DecodedRecord::Index(tags) => {
            let forms = tags.iter().map(|of| (of.selection, of.tag.as_bytes(), &*of.coding));
            (SlotForm::Index(forms.collect()), &[])
        }
        DecodedRecord::Group(GroupValue { value, since, by, expiries: _ }) => {
            (SlotForm::Group(*value, *since, *by), &[])
        }
        DecodedRecord::Searches(searches) => {
            let form = |of| {
                let Search { value: NoVarySearch { ignores_order, is_except, names }, id, first }: &Search =
                    of;
                SearchForm {
                    ignores_order: *ignores_order,
                    is_except: *is_except,
                    names: names.iter().map(String::as_str).collect(),
                    id: *id,
                    first: first.as_ref().map(|first| (&*first.key_text, first.at)),
                }
            };
            (SlotForm::Searches(searches.iter().map(form).collect()), &[])
        }
    }
}

fn name_texts(names: &[HeaderName]) -> Vec<&str> {
    names.iter().map(HeaderName::as_str).collect()
}

fn parse_names(texts: Vec<&str>) -> Option<Vec<HeaderName>> {
    texts.into_iter().map(|text| text.parse().ok()).collect()
}

fn describe_variant(variant: &Variant) -> (VariantForm<'_>, &[u8]) {
    fn fields(map: &HeaderMap) -> Fields<'_> {
        map.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect()
    }
    let response = &variant.response;
    let (chunked, parts, body): (_, _, &[u8]) = match response.body() {
        StoredBody::Inline(body) => (None, None, body),
        StoredBody::Chunked { id, chunk_len, retain_until, .. } => {
            (Some((*id, *chunk_len, *retain_until)), None, &[])
        }
        StoredBody::Parts(parts) => {
            let form = |&Run { ref range, extent: Extent { id, chunk_len, len, start } }: &Run| {
                (range.start, range.end, id, chunk_len, len, start)
            };
            let runs = parts.runs().iter().map(form).collect();
            (None, Some((parts.id, parts.retain_until, runs)), &[])
        }
    };
    let form = VariantForm {
        until: variant.until,
        selection: variant.selection,
        is_personal: variant.is_personal,
        has_hidden_selector: variant.has_hidden_selector,
        status: response.status.as_u16(),
        headers: fields(&response.headers),
        trailers: response.trailers().map(fields),
        initial_age_ms: response.initial_age_ms,
        request_time: response.request_time,
        response_time: response.response_time,
        given: response
            .given
            .map(|given| (u64::try_from(given.lifetime.as_millis()).unwrap_or(u64::MAX), given.overrides)),
        groups: response
            .groups
            .iter()
            .map(|group| (&*group.name, group.is_tag, group.key.entry, group.value))
            .collect(),
        body_len: response.body().len(),
        made_tag: response.content.get().and_then(|content| content.made_tag).map(|MadeTag(tag)| tag),
        chunked,
        parts,
    };
    (form, body)
}

/// Decodes the payload of a record.
fn from_payload(payload: &Bytes) -> Option<DecodedRecord> {
    let mut rest = payload.clone();
    if rest.try_get_u8().ok()? != VERSION {
        return None;
    }
    let len = rest.try_get_u32().ok()? as usize;
    if len > rest.len() {
        return None;
    }
    let description = rest.split_to(len);
    let (form, expiry): (SlotForm<'_>, _) = postcard::take_from_bytes(&description).ok()?;
    let expiry: ExpiryForm = match expiry {
        [] => ExpiryForm::default(),
        described => postcard::from_bytes(described).ok()?,
    };
    let expiries = expiry.expiries.iter().map(|&(id, at, by)| Expiry { id, at, by }).collect();
    let expiries = Expiries::from_list(expiries)?;
    Some(match form {
        SlotForm::Head(form) => DecodedRecord::Head(Head {
            key_text: form.key_text.into(),
            names: parse_names(form.names)?,
            ignored_selectors: match form.ignored_selectors {
                Some((named, credentials, query, cookies)) => Some(Box::new(IgnoredSelectors {
                    named: parse_names(named)?,
                    credentials: parse_names(credentials)?,
                    query,
                    cookies,
                })),
                None => None,
            },
            generation: form.generation,
            fence: form.fence,
            expiries,
            inline: read_variant(form.inline, &expiry, &description, rest)?,
        }),
        SlotForm::Variant(form) => {
            let variant = read_variant(form.variant, &expiry, &description, rest)?;
            DecodedRecord::Variant { key_text: form.key_text.into(), generation: form.generation, variant }
        }
        SlotForm::Fence(until, placeholder) => DecodedRecord::Fence { until, placeholder },
        SlotForm::Index(tags) => {
            let tag = |(selection, tag, coding): (_, _, &[u8])| {
                Some(Tagged { selection, tag: HeaderValue::from_bytes(tag).ok()?, coding: coding.into() })
            };
            DecodedRecord::Index(tags.into_iter().map(tag).collect::<Option<_>>()?)
        }
        SlotForm::Group(value, since, by) => DecodedRecord::Group(GroupValue { value, since, by, expiries }),
        SlotForm::Searches(forms) => DecodedRecord::Searches(forms.into_iter().map(read_search).collect()),
    })
}

fn read_search(SearchForm { ignores_order, is_except, names, id, first }: SearchForm<'_>) -> Search {
    let mut names: Vec<String> = names.into_iter().map(str::to_owned).collect();
    // They are searched in order, and a forged record may have another one.
    names.sort_unstable();
    let first = first.map(|(key_text, at)| FirstOfSearch { key_text: key_text.into(), at });
    Search { value: NoVarySearch { ignores_order, is_except, names }, id, first }
}

fn read_parts((id, retain_until, runs): ([u8; 16], Timestamp, Vec<RunForm>), len: u64) -> Option<Parts> {
    let run = |(from, to, id, chunk_len, len, start)| Run {
        range: from..to,
        extent: Extent { id, chunk_len, len, start },
    };
    Parts::from_runs(id, len, retain_until, runs.into_iter().map(run).collect())
}

fn read_variant(
    form: VariantForm<'_>,
    expiry: &ExpiryForm,
    description: &Bytes,
    body: Bytes,
) -> Option<Variant> {
    // The values are slices of the record, which spares an allocation for each.
    let fields = |fields: Fields<'_>| -> Option<HeaderMap> {
        if fields.len() > MAX_STORED_FIELDS {
            return None;
        }
        let mut map = HeaderMap::with_capacity(fields.len());
        for (name, value) in fields {
            let value = HeaderValue::from_maybe_shared(description.slice_ref(value)).ok()?;
            map.try_append(name.parse::<HeaderName>().ok()?, value).ok()?;
        }
        Some(map)
    };
    let body = match form.chunked {
        _ if form.parts.is_some() => StoredBody::Parts(Arc::new(read_parts(form.parts?, form.body_len)?)),
        None if body.len() as u64 == form.body_len => StoredBody::Inline(body),
        None | Some((_, 0, _)) => return None,
        // A part of a key has 32 bits, so this record cannot have been written by this crate.
        Some((_, chunk_len, _)) if form.body_len.div_ceil(u64::from(chunk_len)) > u64::from(u32::MAX) => {
            return None;
        }
        Some((id, chunk_len, retain_until)) => {
            StoredBody::Chunked { id, chunk_len, len: form.body_len, retain_until }
        }
    };
    let trailers = match form.trailers {
        Some(trailers) => Some(fields(trailers)?),
        None => None,
    };
    let response = StoredResponse {
        status: StatusCode::from_u16(form.status).ok().filter(|status| !status.is_informational())?,
        headers: fields(form.headers)?,
        initial_age_ms: form.initial_age_ms,
        request_time: form.request_time,
        response_time: form.response_time,
        given: form.given.map(|(millis, overrides)| {
            let lifetime = if millis == u64::MAX { Duration::MAX } else { Duration::from_millis(millis) };
            RuleTtl { lifetime, overrides }
        }),
        expired_at: None,
        groups: form
            .groups
            .into_iter()
            .map(|(name, is_tag, entry, value)| Membership {
                name: name.into(),
                is_tag,
                key: Key::group(entry),
                value,
                expiry: [0; 16],
                retain_until: Timestamp::EPOCH,
            })
            .collect(),
        content: OnceLock::from(StoredContent::new(body, trailers).with_made_tag(form.made_tag.map(MadeTag))),
        freshness: OnceLock::new(),
    };
    let VariantForm { until, selection, is_personal, has_hidden_selector, .. } = form;
    let mut variant =
        Variant { until, selection, is_personal, has_hidden_selector, expiry: [0; 16], response };
    expiry.apply(&mut variant)?;
    Some(variant)
}
