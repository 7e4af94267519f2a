//! What is stored for one request, or for one URL.

use std::future::Future;

use bytes::Bytes;
use http::{Method, Request, Response, Uri, request};
use http_body_util::Empty;

use super::CacheHandle;
use super::entry::StoredEntry;
use crate::body::CacheBody;
use crate::control::{CacheStatus, Outcome, Stored};
use crate::entry::{Slot, Variant, decode};
use crate::error::{Error, ErrorKind, Result};
use crate::key::EffectiveUri;
use crate::service::{Found, RequestView, Snapshot, from_record, invalidated};
use crate::storage::{Key, Record, Storage};

impl<S: Storage> CacheHandle<S> {
    /// Whether a response is stored that answers this request, be it fresh or stale.
    ///
    /// The request's URI, fields and [`CacheOptions`](crate::CacheOptions) say which, as when it goes through the cache; its
    /// conditions and Cache-Control do not count. HEAD asks for what is stored for GET. For other methods the answer is no:
    /// their requests are told apart by their content, which is not looked into here.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable): the store could not be asked within the
    /// [operation timeout](crate::CacheLayerBuilder::operation_timeout).
    pub fn has<'h, B>(
        &'h self,
        request: &Request<B>,
    ) -> impl Future<Output = Result<bool>> + Send + use<'h, S, B> {
        let parts = parts_of(request);
        async move { Ok(self.candidate(parts).await?.is_some()) }
    }

    /// What is stored for this request, as with [`has`](Self::has).
    ///
    /// # Errors
    /// As with [`has`](Self::has).
    pub fn get<'h, B>(
        &'h self,
        request: &Request<B>,
    ) -> impl Future<Output = Result<Option<StoredEntry>>> + Send + use<'h, S, B> {
        self.candidate(parts_of(request))
    }

    /// The stored response to this request with its body, however stale it is: no origin is asked. Which one it is, is as with
    /// [`has`](Self::has). `None`: there is none, or a part of its body is gone.
    ///
    /// # Errors
    /// As with [`has`](Self::has). The body may fail later, where the store does.
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

    /// The response of an entry that was found before, with its body: as it was then. `None`: its body is gone.
    ///
    /// # Errors
    /// None at present; the body may fail, where the store does.
    pub async fn read_entry(&self, entry: &StoredEntry) -> Result<Option<Response<CacheBody<Empty<Bytes>>>>> {
        let (parts, ()) = Request::new(()).into_parts();
        // The cache's own doing, which is counted as no request's.
        let mut status = CacheStatus::new(Outcome::Hit, Stored::Unchanged);
        (status.is_background, status.age, status.ttl) = (true, Some(entry.age()), Some(entry.ttl()));
        Ok(from_record(&self.shared, RequestView::of(&parts), entry.key, &entry.record, status).await)
    }

    /// Deletes what is stored for a request's URI: all responses, whatever fields select them, and whatever the request's
    /// method. Once it has returned, no response whose fetch began before is served, by any process that shares the store.
    /// How many entries were there to be deleted: one, or none.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable): the store has not taken it yet. This process already treats it as done, and
    /// tries again by itself.
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

    /// Whether something is stored for this URL: a GET of it, whatever fields it might have. What
    /// [`urls`](Self::urls) gives is taken as well, names of the user's too.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config): the text is no absolute URL. Or as with [`has`](Self::has).
    pub async fn has_url(&self, url: &str) -> Result<bool> {
        Ok(self.get_url(url).await?.is_some())
    }

    /// What is stored for this URL, as with [`has_url`](Self::has_url); where fields tell several responses apart, the first
    /// of them.
    ///
    /// # Errors
    /// As with [`has_url`](Self::has_url).
    pub async fn get_url(&self, url: &str) -> Result<Option<StoredEntry>> {
        let parts = parts_of_url(url)?;
        let uri = self.uri_of(url, &parts)?;
        let head = self.shared.records.keyer.head(&uri);
        let (place, found) = self.shared.records.lookup(head, &uri, &parts, None).await;
        match found {
            Found::Failed => Err(unavailable()),
            Found::Candidate(key, record) if key == head => self.entry_at(&place, key, record).await,
            _ => match place.usable.clone() {
                Some(record) => self.entry_at(&place, head, record).await,
                None => Ok(None),
            },
        }
    }

    /// Deletes what is stored for this URL, as [`delete`](Self::delete) does for a GET of it.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config): the text is no absolute URL. Or as with [`delete`](Self::delete).
    pub async fn delete_url(&self, url: &str) -> Result<u64> {
        let parts = parts_of_url(url)?;
        self.delete_entry(&self.uri_of(url, &parts)?).await
    }

    async fn delete_entry(&self, uri: &EffectiveUri<'_>) -> Result<u64> {
        let head = self.shared.records.keyer.head(uri);
        let there = self.shared.records.store.read(head).await.ok().flatten();
        let now = self.shared.config.clock.now();
        let is_there = there.is_some_and(|record| match decode(&record) {
            Some(Slot::Head(of)) => {
                record.retain_until() > now
                    && self.shared.records.is_not_invalidated(head, &of.key_text, &of.inline)
            }
            _ => false,
        });
        invalidated(&self.shared.observer, "hand", Some(uri));
        self.shared.records.invalidate(head, Some(&uri.to_text())).await.into_result()?;
        Ok(u64::from(is_there))
    }

    async fn candidate(&self, parts: request::Parts) -> Result<Option<StoredEntry>> {
        if !matches!(parts.method, Method::GET | Method::HEAD) {
            return Ok(None);
        }
        let Some(uri) = self.shared.config.identify(&parts) else { return Ok(None) };
        let head = self.shared.records.keyer.head(&uri);
        match self.shared.records.lookup(head, &uri, &parts, None).await {
            (_, Found::Failed) => Err(unavailable()),
            (_, Found::Nothing(_)) => Ok(None),
            (place, Found::Candidate(key, record)) => self.entry_at(&place, key, record).await,
        }
    }

    /// A response of the entry that a lookup found.
    async fn entry_at(&self, place: &Snapshot, key: Key, record: Record) -> Result<Option<StoredEntry>> {
        let names = match place.usable.as_ref().and_then(decode) {
            Some(Slot::Head(head)) => &*head.names,
            _ => &[],
        };
        let (text, variant): (&str, &Variant) = match decode(&record) {
            Some(Slot::Head(head)) => (&head.key_text, &head.inline),
            Some(Slot::Variant { key_text, variant, .. }) => (key_text, variant),
            _ => return Ok(None),
        };
        self.entry((key, record.clone()), text, names, variant).await
    }

    /// The URI that a text names: one of the user's names, or a URL as the cache would know it.
    fn uri_of<'a>(&'a self, text: &'a str, parts: &'a request::Parts) -> Result<EffectiveUri<'a>> {
        if let Some(named) = EffectiveUri::of_text(text).filter(EffectiveUri::is_named) {
            return Ok(named);
        }
        self.shared.config.identify(parts).ok_or_else(no_url)
    }
}

/// A request's head, of which nothing but the body is left out.
fn parts_of<B>(request: &Request<B>) -> request::Parts {
    let (mut parts, ()) = Request::new(()).into_parts();
    parts.method = request.method().clone();
    parts.uri = request.uri().clone();
    parts.headers = request.headers().clone();
    parts.extensions = request.extensions().clone();
    parts
}

fn parts_of_url(text: &str) -> Result<request::Parts> {
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
    Error::new(ErrorKind::Unavailable, "the store could not be asked")
}
