//! Chooses among an entry's stored responses by their entity tags, where a request's fields choose none of them
//! (RFC 9111 §4.1, §4.3.1, §4.3.4).
//!
//! Promises: what a 304 names is served only if it is still there under that very tag; a list that is incomplete or gone
//! costs a whole answer from the origin and nothing else; its length is bounded; what was selected by credentials, or by
//! anything else that the origin does not know of, is never offered to others.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header, request};

use super::core::Core;
use super::fetcher::Fetcher;
use super::flights::Lead;
use super::flow::Answered;
use super::keep::Exchange;
use super::lookup::{Place, variant_in};
use crate::control::{MissReason, Outcome};
use crate::entry::{self, Slot, Tagged, decode, with_slack};
use crate::policy::{self, ValidateReason};
use crate::storage::{Key, Kind, Record, Retain, Storage};
use crate::time::Timestamp;

/// So many variants are asked about at once, the newest.
const MOST: usize = 16;

/// An entity tag, and where the response is that has it.
struct Known {
    tag: HeaderValue,
    at: Key,
}

impl<S: Storage> Core<S> {
    /// Whether the origin may be asked which stored response answers this request: not where the request has
    /// conditions of its own, which are for its caller's copies.
    pub(crate) fn may_select(&self, request: &request::Parts) -> bool {
        let has = |name| request.headers.contains_key(name);
        request.method == Method::GET
            && !has(header::IF_NONE_MATCH)
            && !has(header::IF_MODIFIED_SINCE)
            && !has(header::RANGE)
    }

    /// Fetches for a request that none of the stored responses was selected by, and asks whether one of them is the
    /// answer nevertheless.
    pub(crate) async fn select<F: Fetcher>(
        self: Arc<Self>,
        mut fetcher: F,
        parts: request::Parts,
        body: F::RequestBody,
        place: Place,
        mut lead: Option<Lead<S>>,
    ) -> Answered<F> {
        let known = self.known(&place, &parts).await;
        if known.is_empty() {
            return self.fetch(fetcher, parts, body, Some(place), MissReason::Vary, lead).await;
        }
        let asked = parts.clone();
        let mut parts = parts;
        let tags: Vec<_> = known.iter().map(|known| known.tag.clone()).collect();
        policy::add_entity_tags(&mut parts.headers, &tags);
        let requested = self.config.clock.now();
        let response = self.ask(&mut fetcher, Request::from_parts(parts, body), &mut lead).await?;
        let times = Exchange { requested, responded: self.config.clock.now() };
        if response.status() != StatusCode::NOT_MODIFIED {
            let outcome = Outcome::Miss(MissReason::Vary);
            let response = self.admit(&asked, Some(&place), requested, response).await;
            return Ok(self.keep::<F>(&asked, Some(place), response, times, outcome, lead));
        }
        let head = response.into_parts().0;
        if self.is_about(&place, &head)
            && let Some(record) = self.named(&known, &place.key_text, &head.headers).await
            && let Some(variant) = variant_in(&record)
            && let Some(answer) =
                self.freshen(&asked, &place, variant, &head, times, ValidateReason::Vary, &mut lead).await
        {
            return Ok(answer);
        }
        {
            let again = fetcher.again();
            self.fetch(fetcher, asked, again, Some(place), MissReason::Vary, lead).await
        }
    }

    /// The entity tags of what is stored for the entry and may be what the request is answered by.
    async fn known(&self, place: &Place, request: &request::Parts) -> Vec<Known> {
        let Some(Slot::Head(head)) = place.usable.as_ref().and_then(decode) else { return Vec::new() };
        let mut known = Vec::new();
        // Origins are known to give one tag to what they send to several users.
        if self.stands_apart(&head.names, request) {
            return known;
        }
        let suits = |coding: &[u8]| policy::suits_coding(&head.names, coding, &request.headers);
        let inline = &head.inline.response.headers;
        if let Some(tag) = policy::entity_tag_of(inline)
            && suits(coding(inline))
            && !head.inline.apart
            && self.belongs(&head.inline.response.groups).await.unwrap_or(false)
        {
            known.push(Known { tag: tag.clone(), at: place.head });
        }
        let index = self.store.read(place.head.sibling(Kind::Index, head.generation, 0)).await;
        if let Ok(Some(record)) = index
            && let Some(Slot::Index(tags)) = decode(&record)
        {
            known.extend(tags.iter().filter(|of| suits(&of.coding)).map(|of| {
                let at = self.keyer.variant(place.head, head.generation, of.selection);
                Known { tag: of.tag.clone(), at }
            }));
        }
        known
    }

    /// The record of the response that a 304 names, if that is still there.
    async fn named(&self, known: &[Known], key_text: &str, not_modified: &HeaderMap) -> Option<Record> {
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

    /// Notes the entity tag of a variant that was just stored. Losing this costs nothing but a longer answer.
    pub(crate) async fn note_variant(&self, head: &Record, place: Key, variant: &Record, until: Timestamp) {
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
