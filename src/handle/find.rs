//! Methods of the handle for one request or URL.

use std::future::Future;

use bytes::Bytes;
use http::{Method, Request, Response, Uri, request};
use http_body_util::Empty;

use super::CacheHandle;
use super::entry::StoredEntry;
use crate::body::CacheBody;
use crate::control::{CacheStatus, Outcome, Stored};
use crate::entry::{DecodedRecord, Variant, decode};
use crate::error::{Error, ErrorKind, Result};
use crate::key::EffectiveUri;
use crate::service::{Found, RequestView, Snapshot, from_record, invalidated};
use crate::storage::{Key, Kind, Record, Storage};

impl<S: Storage> CacheHandle<S> {
    /// Returns whether a stored response, fresh or stale, answers this request.
    ///
    /// The request's URI, fields and [`CacheOptions`](crate::CacheOptions) count as they do in the cache. Its conditions and
    /// Cache-Control do not. HEAD is answered by the response to GET. For other methods the answer is `false`, since their
    /// content is part of the key, and is not read here.
    ///
    /// # Errors
    /// Returns [`Unavailable`](ErrorKind::Unavailable) if the storage did not answer within
    /// [`operation_timeout`](crate::CacheLayerBuilder::operation_timeout).
    pub fn has<'h, B>(
        &'h self,
        request: &Request<B>,
    ) -> impl Future<Output = Result<bool>> + Send + use<'h, S, B> {
        let parts = parts_of(request);
        async move { Ok(self.candidate(parts).await?.is_some()) }
    }

    /// Returns the stored response, fresh or stale, that answers this request.
    ///
    /// The request counts as with [`has`](Self::has).
    ///
    /// # Errors
    /// Returns the errors of [`has`](Self::has).
    pub fn get<'h, B>(
        &'h self,
        request: &Request<B>,
    ) -> impl Future<Output = Result<Option<StoredEntry>>> + Send + use<'h, S, B> {
        self.candidate(parts_of(request))
    }

    /// Returns the stored response to this request with its body, without asking the origin.
    ///
    /// The response may be stale. The request counts as with [`has`](Self::has). It returns `None` if no response is stored,
    /// or if a part of its body is gone.
    ///
    /// # Errors
    /// Returns the errors of [`has`](Self::has). The body ends with an error if the storage fails later.
    pub fn read<'h, B>(
        &'h self,
        request: &Request<B>,
    ) -> impl Future<Output = Result<Option<Response<CacheBody<Empty<Bytes>>>>>> + Send + use<'h, S, B> {
        let parts = parts_of(request);
        async move {
            match self.candidate(parts).await? {
                Some(entry) => self.read_entry(&entry).await,
                None => Ok(None),
            }
        }
    }

    /// Returns the response of an entry with its body, or `None` if its body is gone.
    ///
    /// The response is as it was when the entry was read.
    ///
    /// # Errors
    /// Returns none at present. The body ends with an error if the storage fails.
    pub async fn read_entry(&self, entry: &StoredEntry) -> Result<Option<Response<CacheBody<Empty<Bytes>>>>> {
        let (parts, ()) = Request::new(()).into_parts();
        // Not a request of a client, so that it is not counted as one.
        let mut status = CacheStatus::new(Outcome::Hit, Stored::Unchanged);
        status.is_background = true;
        status.set_age(entry.age());
        status.set_ttl(entry.ttl());
        Ok(from_record(&self.shared, RequestView::of(&parts), entry.key, &entry.record, status).await)
    }

    /// Deletes the entry of a request's URI, with all its variants, and returns 1 if there was one.
    ///
    /// The request's method and fields do not count. After this method has returned, no process on the storage serves a
    /// response for the URI whose fetch began earlier.
    ///
    /// # Errors
    /// Returns [`Unavailable`](ErrorKind::Unavailable) if the storage has not acknowledged the write. This process treats
    /// the entry as deleted all the same, and repeats the write by itself.
    pub fn delete<'h, B>(
        &'h self,
        request: &Request<B>,
    ) -> impl Future<Output = Result<u64>> + Send + use<'h, S, B> {
        let parts = parts_of(request);
        async move {
            match self.shared.config.identify(&parts) {
                Some(uri) => self.delete_entry(&uri).await,
                None => Ok(0),
            }
        }
    }

    /// Returns whether a response to GET is stored for this URL, whatever fields select it.
    ///
    /// Texts that [`urls`](Self::urls) returns are accepted too, including names that the user gave.
    ///
    /// # Errors
    /// Returns [`Config`](ErrorKind::Config) if the text is not an absolute URL, or the errors of [`has`](Self::has).
    pub async fn has_url(&self, url: &str) -> Result<bool> {
        Ok(self.get_url(url).await?.is_some())
    }

    /// Returns the stored response for this URL.
    ///
    /// If there are several variants, it returns the first.
    ///
    /// # Errors
    /// Returns the errors of [`has_url`](Self::has_url).
    pub async fn get_url(&self, url: &str) -> Result<Option<StoredEntry>> {
        let parts = parts_of_url(url)?;
        let uri = self.uri_of(url, &parts)?;
        let head = self.shared.records.keyer.head(&uri);
        let (place, found) = self.shared.records.find(head, &uri, &parts).await;
        match found {
            Found::Failed => Err(unavailable()),
            Found::Candidate(key, record) if key.kind == Kind::Head => {
                self.entry_at(&place, key, record).await
            }
            _ => {
                let place = if place.usable.is_some() { &place } else { place.own() };
                match place.usable.clone() {
                    Some(record) => self.entry_at(place, place.head, record).await,
                    None => Ok(None),
                }
            }
        }
    }

    /// Deletes the entry of this URL, as [`delete`](Self::delete) does.
    ///
    /// # Errors
    /// Returns [`Config`](ErrorKind::Config) if the text is not an absolute URL, or the errors of [`delete`](Self::delete).
    pub async fn delete_url(&self, url: &str) -> Result<u64> {
        let parts = parts_of_url(url)?;
        self.delete_entry(&self.uri_of(url, &parts)?).await
    }

    async fn delete_entry(&self, uri: &EffectiveUri<'_>) -> Result<u64> {
        let records = &self.shared.records;
        // On an error, it is not known whether there is a response, and it is deleted all the same.
        let others = records.equivalents(uri).await.unwrap_or_default();
        let mut is_there = self.has_head(records.keyer.head(uri)).await;
        for (key, _) in others {
            is_there = is_there || self.has_head(key).await;
        }
        invalidated(&self.shared.observer, "manual", Some(uri));
        let (own, others) = records.invalidate_uri(uri).await;
        own.into_result().and(others.into_result())?;
        Ok(u64::from(is_there))
    }

    /// Returns whether there is a response at the key of a head.
    async fn has_head(&self, key: Key) -> bool {
        let there = self.shared.records.storage.read(key).await.ok().flatten();
        let now = self.shared.config.clock.now();
        there.is_some_and(|record| match decode(&record) {
            Some(DecodedRecord::Head(of)) => {
                record.retain_until() > now
                    && self.shared.records.is_not_invalidated(key, &of.key_text, &of.inline)
            }
            _ => false,
        })
    }

    async fn candidate(&self, parts: request::Parts) -> Result<Option<StoredEntry>> {
        if !matches!(parts.method, Method::GET | Method::HEAD) {
            return Ok(None);
        }
        let Some(uri) = self.shared.config.identify(&parts) else { return Ok(None) };
        let head = self.shared.records.keyer.head(&uri);
        match self.shared.records.find(head, &uri, &parts).await {
            (_, Found::Failed) => Err(unavailable()),
            (_, Found::Nothing(_)) => Ok(None),
            (place, Found::Candidate(key, record)) => self.entry_at(&place, key, record).await,
        }
    }

    /// Returns a response of the entry that a lookup found.
    async fn entry_at(&self, place: &Snapshot, key: Key, record: Record) -> Result<Option<StoredEntry>> {
        let names = match place.usable.as_ref().and_then(decode) {
            Some(DecodedRecord::Head(head)) => &*head.names,
            _ => &[],
        };
        let (text, variant): (&str, &Variant) = match decode(&record) {
            Some(DecodedRecord::Head(head)) => (&head.key_text, &head.inline),
            Some(DecodedRecord::Variant { key_text, variant, .. }) => (key_text, variant),
            _ => return Ok(None),
        };
        let by_entry = place.expired_by_entry(variant);
        self.entry((key, record.clone()), text, names, variant, by_entry).await
    }

    /// Returns the URI of a text, which is a name that the user gave, or a URL.
    pub(super) fn uri_of<'a>(&'a self, text: &'a str, parts: &'a request::Parts) -> Result<EffectiveUri<'a>> {
        if let Some(named) = EffectiveUri::of_text(text).filter(EffectiveUri::is_named) {
            return Ok(named);
        }
        self.shared.config.identify(parts).ok_or_else(no_url)
    }
}

/// Returns a copy of a request without its body.
pub(super) fn parts_of<B>(request: &Request<B>) -> request::Parts {
    let (mut parts, ()) = Request::new(()).into_parts();
    parts.method = request.method().clone();
    parts.uri = request.uri().clone();
    parts.headers = request.headers().clone();
    parts.extensions = request.extensions().clone();
    parts
}

pub(super) fn parts_of_url(text: &str) -> Result<request::Parts> {
    let (mut parts, ()) = Request::new(()).into_parts();
    if EffectiveUri::of_text(text).is_some_and(|uri| uri.is_named()) {
        return Ok(parts);
    }
    // A fragment is never part of a request.
    let text = text.split('#').next().unwrap_or_default();
    let uri: Uri = text.parse().map_err(|_| no_url())?;
    if uri.scheme().is_none() || uri.authority().is_none() {
        return Err(no_url());
    }
    parts.uri = uri;
    Ok(parts)
}

fn no_url() -> Error {
    Error::new(ErrorKind::Config, "not an absolute URL: expected a scheme, a host and a path")
}

fn unavailable() -> Error {
    Error::new(ErrorKind::Unavailable, "the storage could not be read in time")
}
