//! The entity tags of an entry's variants, so that the origin can be asked which of them answers a request that selects
//! none (RFC 9111 §4.1, §4.3.1).
//!
//! # Invariants
//!
//! - A 304 is answered by a response only if that is still stored under the very tag that the 304 names.
//! - The list of tags is bounded. An incomplete or lost list costs a whole response from the origin, and nothing else.
//! - A response that was selected by credentials, or by anything else that the origin does not know of, is not listed.

use http::{HeaderMap, HeaderValue, header, request};

use super::Records;
use super::lookup::{Snapshot, variant_in};
use crate::entry::{self, Slot, Tagged, decode, with_slack};
use crate::policy;
use crate::storage::{Key, Kind, Record, Retain, Storage};
use crate::time::Timestamp;

/// The newest variants are asked about, this many at once: tags are sent with each such request.
const MOST: usize = 16;

/// An entity tag, and the place of the response that has it.
pub(crate) struct Known {
    pub(crate) tag: HeaderValue,
    at: Key,
}

impl<S: Storage> Records<S> {
    /// Returns the entity tags of the entry's responses that may be the answer to a request.
    pub(crate) async fn known_tags(&self, snapshot: &Snapshot, request: &request::Parts) -> Vec<Known> {
        let Some(Slot::Head(head)) = snapshot.usable.as_ref().and_then(decode) else { return Vec::new() };
        let mut known = Vec::new();
        // Origins are known to give one tag to the responses for several users.
        if self.config.stands_apart(&head.names, request) {
            return known;
        }
        let suits = |coding: &[u8]| policy::suits_coding(&head.names, coding, &request.headers);
        let inline = &head.inline.response.headers;
        if let Some(tag) = policy::entity_tag_of(inline)
            && suits(coding(inline))
            && !head.inline.apart
            && self.belongs(&head.inline.response.groups).await.unwrap_or(false)
        {
            known.push(Known { tag: tag.clone(), at: snapshot.head });
        }
        let index = self.store.read(snapshot.head.sibling(Kind::Index, head.generation, 0)).await;
        if let Ok(Some(record)) = index
            && let Some(Slot::Index(tags)) = decode(&record)
        {
            known.extend(tags.iter().filter(|of| suits(&of.coding)).map(|of| {
                let at = self.keyer.variant(snapshot.head, head.generation, of.selection);
                Known { tag: of.tag.clone(), at }
            }));
        }
        known
    }

    /// Finds the record of the response that a 304 names, if that is still there.
    pub(crate) async fn named_by(
        &self,
        known: &[Known],
        key_text: &str,
        not_modified: &HeaderMap,
    ) -> Option<Record> {
        let tag = policy::entity_tag_of(not_modified)?;
        let now = self.config.clock.now();
        for known in known {
            if !policy::tag_selects(tag.as_bytes(), known.tag.as_bytes()) {
                continue;
            }
            if let Ok(Some(record)) = self.read_slot(known.at, None).await
                && let Some(variant) = variant_in(&record)
                && variant.until > now
                && self.is_believed(known.at, key_text, variant)
                && policy::selects_304(&variant.response.headers, not_modified)
                && self.belongs(&variant.response.groups).await.unwrap_or(false)
            {
                return Some(record);
            }
        }
        tracing::debug!("a 304 names a response that is not stored any more");
        None
    }

    /// Lists the entity tag of a variant that was just stored. A lost listing costs a longer response from the origin.
    pub(super) async fn list_tag(&self, head: &Record, place: Key, variant: &Record, until: Timestamp) {
        let (Some(Slot::Head(head)), Some(variant)) = (decode(head), variant_in(variant)) else { return };
        if variant.apart {
            return;
        }
        let Some(tag) = policy::entity_tag_of(&variant.response.headers) else { return };
        let key = place.sibling(Kind::Index, head.generation, 0);
        let Ok(there) = self.store.read(key).await else { return };
        let mut tags = match there.as_ref().and_then(decode) {
            Some(Slot::Index(tags)) => tags.clone(),
            _ => Vec::new(),
        };
        let coding = coding(&variant.response.headers).into();
        let tagged = Tagged { selection: variant.selection, tag: tag.clone(), coding };
        let now = self.config.clock.now();
        if let Some(there) = &there
            && tags.contains(&tagged)
        {
            if there.retain_until() < until {
                let _ = self.store.retain(&[key], Retain::AtLeast(with_slack(until, now))).await;
            }
            return;
        }
        tags.retain(|of| of.selection != variant.selection);
        tags.push(tagged);
        let over = tags.len().saturating_sub(MOST);
        tags.drain(..over);
        let until = there.as_ref().map_or(until, |there| there.retain_until().max(until));
        let seen = there.as_ref().map(Record::stamp);
        let _ = self.store.write_if(key, seen, entry::record(Slot::Index(tags), until)).await;
    }
}

fn coding(headers: &HeaderMap) -> &[u8] {
    headers.get(header::CONTENT_ENCODING).map_or(b"", HeaderValue::as_bytes)
}
