//! The list of the entity tags of an entry's variants.
//!
//! With this list, a request that selects none of the stored variants asks the origin which of them is its response (RFC
//! 9111 §4.1, §4.3.1). The list is a record of the kind index, one for each generation.
//!
//! # Invariants
//!
//! - A 304 selects a stored response only if that is stored under the tag that the 304 names.
//! - The list has at most [`MAX_TAGS`] tags. A missing tag only costs a whole response from the origin.
//! - A response is not listed if it was selected by credentials, or by anything else that the origin does not know.

use http::{HeaderMap, HeaderValue, header, request};

use super::Records;
use super::lookup::{Snapshot, variant_in};
use crate::entry::{self, DecodedRecord, Tagged, decode, with_slack};
use crate::policy;
use crate::storage::{Key, Kind, Record, Retain, Storage};
use crate::time::Timestamp;

/// How many variants are listed, of which the newest ones are kept. All tags are sent in one field of a request, and sixteen
/// tags of the usual length are far below the limits of origins.
const MAX_TAGS: usize = 16;

/// An entity tag, with the key of the response that has it.
pub(crate) struct KnownTag {
    pub(crate) tag: HeaderValue,
    at: Key,
}

impl<S: Storage> Records<S> {
    /// Returns the entity tags of the stored responses that may answer a request.
    pub(crate) async fn known_tags(&self, snapshot: &Snapshot, request: &request::Parts) -> Vec<KnownTag> {
        let Some(DecodedRecord::Head(head)) = snapshot.usable.as_ref().and_then(decode) else {
            return Vec::new();
        };
        let mut known = Vec::new();
        // Some origins give the responses for several users the same tag: a 304 would select another user's response.
        if self.config.has_hidden_selector(&head.names, request) {
            return known;
        }
        let suits = |coding: &[u8]| policy::accepts_coding(&head.names, coding, &request.headers);
        let inline = &head.inline.response.headers;
        if let Some(tag) = policy::entity_tag_of(inline)
            && suits(coding(inline))
            && !head.inline.has_hidden_selector
            && self.belongs(&head.inline.response.groups).await.unwrap_or(false)
        {
            known.push(KnownTag { tag: tag.clone(), at: snapshot.head });
        }
        // An error is treated as an empty list: the request then asks for a whole response.
        let index = self.storage.read(snapshot.head.sibling(Kind::Index, head.generation, 0)).await;
        if let Ok(Some(record)) = index
            && let Some(DecodedRecord::Index(tags)) = decode(&record)
        {
            known.extend(tags.iter().filter(|of| suits(&of.coding)).map(|of| {
                let at = self.keyer.variant(snapshot.head, head.generation, of.selection);
                KnownTag { tag: of.tag.clone(), at }
            }));
        }
        known
    }

    /// Returns the record of the response that a 304 names, if it is still stored.
    pub(crate) async fn named_by(
        &self,
        known: &[KnownTag],
        key_text: &str,
        not_modified: &HeaderMap,
    ) -> Option<Record> {
        let tag = policy::entity_tag_of(not_modified)?;
        let now = self.config.clock.now();
        for known in known {
            if !policy::tag_selects(tag.as_bytes(), known.tag.as_bytes()) {
                continue;
            }
            // Read again and checked as in a lookup: the variant may have been replaced or invalidated during the request to
            // the origin.
            if let Ok(Some(record)) = self.read_slot(known.at, None).await
                && let Some(variant) = variant_in(&record)
                && variant.until > now
                && self.is_not_invalidated(known.at, key_text, variant)
                && policy::selects_304(&variant.response.headers, not_modified)
                && self.belongs(&variant.response.groups).await.unwrap_or(false)
            {
                return Some(record);
            }
        }
        tracing::debug!("a 304 names a response that is not stored any more");
        None
    }

    /// Adds the entity tag of a variant that was just stored to the list.
    ///
    /// All errors are ignored, since a missing tag only costs a whole response from the origin.
    pub(super) async fn list_tag(&self, head: &Record, head_key: Key, variant: &Record, until: Timestamp) {
        let (Some(DecodedRecord::Head(head)), Some(variant)) = (decode(head), variant_in(variant)) else {
            return;
        };
        if variant.has_hidden_selector {
            return;
        }
        let Some(tag) = policy::entity_tag_of(&variant.response.headers) else { return };
        let key = head_key.sibling(Kind::Index, head.generation, 0);
        let Ok(existing) = self.storage.read(key).await else { return };
        let mut tags = match existing.as_ref().and_then(decode) {
            Some(DecodedRecord::Index(tags)) => tags.clone(),
            _ => Vec::new(),
        };
        let coding = coding(&variant.response.headers).into();
        let tagged = Tagged { selection: variant.selection, tag: tag.clone(), coding };
        let now = self.config.clock.now();
        if let Some(existing) = &existing
            && tags.contains(&tagged)
        {
            if existing.retain_until() < until {
                let _ = self.storage.retain(&[key], Retain::AtLeast(with_slack(until, now))).await;
            }
            return;
        }
        // The selection has a new response, so that its former tag must not select it any more.
        tags.retain(|of| of.selection != variant.selection);
        tags.push(tagged);
        let over = tags.len().saturating_sub(MAX_TAGS);
        tags.drain(..over);
        let until = existing.as_ref().map_or(until, |existing| existing.retain_until().max(until));
        let seen = existing.as_ref().map(Record::stamp);
        // Compared and not retried: if another process updates the list at the same time, this tag is missing.
        let _ = self.storage.write_if(key, seen, entry::record(DecodedRecord::Index(tags), until)).await;
    }
}

/// Returns the content coding of a response, which its entity tag implies.
fn coding(headers: &HeaderMap) -> &[u8] {
    headers.get(header::CONTENT_ENCODING).map_or(b"", HeaderValue::as_bytes)
}
