//! `CacheHandle` on a memory storage and on a SQLite file.
//!
//! The tests cover what it lists, finds, changes and copies.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::future_not_send)]

mod changing;
mod copying;
mod destinations;
mod expiring;
mod finding;
mod late;
mod listing;
#[path = "../support/mod.rs"]
mod support;
mod surveying;
mod upkeep;

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use http::{Request, header};
use http_body_util::BodyExt;
use http_body_util::channel::{Channel, Sender};
use support::{Answer, Fixture, Origin, ReqBody, get_with, has_tag, not_modified, response};
use tower::{Layer, ServiceExt};
use tower_response_cache::storage::{BoxStorage, MemoryStorage, SqliteStorage};
use tower_response_cache::{CacheHandle, CacheLayerBuilder, EntryFilter, StoredEntry};

const A: &str = "http://example.com/a";
const SECOND: Duration = Duration::from_secs(1);

/// Returns a memory storage, and a SQLite storage with its temporary folder.
async fn stores() -> Vec<(BoxStorage, Option<tempfile::TempDir>)> {
    vec![(BoxStorage::new(MemoryStorage::new()), None), in_a_file().await]
}

async fn in_a_file() -> (BoxStorage, Option<tempfile::TempDir>) {
    let folder = tempfile::tempdir().unwrap();
    let file = SqliteStorage::open(folder.path().join("cache.sqlite")).await.unwrap();
    (BoxStorage::new(file), Some(folder))
}

/// Returns an origin whose response depends on the query of the URI.
///
/// - `status` sets the status code, 200 by default.
/// - `len` sets the length of the body, 4 by default.
/// - `age` sets `max-age`, 60 by default. `control` sets the whole Cache-Control field instead.
/// - `vary` sets Vary. The entity tag is the value of the request's field with that name.
/// - `type` sets Content-Type, and `groups` sets the group in Cache-Groups.
/// - `loose` omits the entity tag.
fn origin() -> Origin {
    Origin::new(|request| {
        let said = |name: &str| {
            let pairs = request.uri().query().unwrap_or_default().split('&');
            pairs
                .filter_map(|pair| pair.split_once('='))
                .find(|(of, _)| *of == name)
                .map(|(_, value)| value.to_owned())
        };
        let number = |name, usual| said(name).map_or(usual, |value| value.parse::<usize>().unwrap());
        let age = number("age", 60);
        let control = said("control").unwrap_or_else(|| format!("max-age={age}"));
        let vary = said("vary").unwrap_or_default();
        let field = request.headers().get(vary.as_str()).map_or("", |value| value.to_str().unwrap());
        let tag = format!("\"{field}\"");
        let mut fields = vec![("cache-control", control.as_str())];
        if said("loose").is_none() {
            fields.push(("etag", &tag));
        }
        if !vary.is_empty() {
            fields.push(("vary", &vary));
        }
        let (kind, groups) = (said("type"), said("groups").map(|name| format!("\"{name}\"")));
        fields.extend(kind.as_deref().map(|kind| ("content-type", kind)));
        fields.extend(groups.as_deref().map(|groups| ("cache-groups", groups)));
        if said("loose").is_none() && has_tag(request, &tag) {
            return not_modified(&fields);
        }
        let mut response = response(&fields, "b".repeat(number("len", 4)));
        *response.status_mut() = http::StatusCode::from_u16(number("status", 200) as u16).unwrap();
        response
    })
}

type World = Fixture;

fn world(storage: &BoxStorage) -> World {
    world_with(storage, |builder| builder)
}

fn world_with(
    storage: &BoxStorage,
    settings: impl FnOnce(CacheLayerBuilder<BoxStorage>) -> CacheLayerBuilder<BoxStorage>,
) -> World {
    Fixture::with(origin(), storage.clone(), settings)
}

fn in_language(uri: &str, language: &str) -> Request<ReqBody> {
    get_with(uri, &[(header::ACCEPT_LANGUAGE.as_str(), language)])
}

impl World {
    /// Fetches a response and reads the first frame of its body.
    ///
    /// The returned sender ends the body when it is dropped. The returned future reads the body to its end.
    async fn begun(&self, uri: &str) -> (Sender<Bytes>, impl Future<Output = ()> + Send + use<>) {
        let (mut piece, body) = Channel::<Bytes, Infallible>::new(4);
        let body = std::sync::Arc::new(std::sync::Mutex::new(Some(body)));
        let client = tower::service_fn(move |_: Request<ReqBody>| {
            let response = http::Response::builder().header("cache-control", "max-age=60");
            let response = response.body(body.lock().unwrap().take().unwrap()).unwrap();
            async move { Ok::<_, Infallible>(response) }
        });
        let response = self.layer.layer(client).oneshot(support::get(uri)).await.unwrap();
        piece.send_data("b".into()).await.unwrap();
        let mut body = Box::pin(response.into_body());
        body.frame().await.unwrap().unwrap();
        (piece, async move { drop(body.collect().await.unwrap()) })
    }

    /// Sends a GET for each URI, and waits until each response is stored.
    async fn fill(&self, uris: &[&str]) {
        for uri in uris {
            self.settled(support::get(uri)).await;
        }
    }

    async fn settled(&self, request: Request<ReqBody>) -> Answer {
        let answer = self.ask(request).await;
        self.layer.idle().await;
        answer
    }

    fn handle(&self) -> CacheHandle<BoxStorage> {
        self.layer.handle()
    }

    /// Returns the URLs of the listed entries without `http://example.com`, sorted.
    async fn listed(&self, filter: &EntryFilter) -> Vec<String> {
        listed(&self.handle(), filter).await
    }
}

async fn listed(handle: &CacheHandle<BoxStorage>, filter: &EntryFilter) -> Vec<String> {
    let entries: Vec<StoredEntry> = handle.entries(filter).try_collect().await.unwrap();
    let mut paths: Vec<_> =
        entries.iter().map(|entry| entry.url().replace("http://example.com", "")).collect();
    paths.sort();
    paths
}
