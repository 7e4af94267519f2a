//! An axum server with tower-sessions.
//!
//! A page that depends on the session must say `private` or `no-store`, and then a shared cache does not store it. The
//! cache stands below the session layer: pages that are for everyone are served from it, and the session's cookie is added to
//! the response after it left the cache, so that no user gets the cookie of another.
//!
//! ```toml
//! [dependencies]
//! axum = "0.8"
//! tower-response-cache = { version = "0.1", features = ["axum"] }
//! tower-sessions = "0.15"
//! ```

use axum::Router;
use axum::http::header;
use axum::routing::get;
use tower_response_cache::storage::Storage;
use tower_response_cache::{CacheLayer, Error};
use tower_sessions::{MemoryStore, Session, SessionManagerLayer};

/// Returns a server with a page for everyone and a page for each user.
pub fn app<S: Storage>(storage: S) -> Result<Router, Error> {
    let layer = CacheLayer::builder(storage).shared(true).status_field("app").build()?;
    // Layers that are added later are further outside.
    Ok(Router::new()
        .route("/news", get(async || ([(header::CACHE_CONTROL, "public, max-age=60")], "news")))
        .route("/me", get(me))
        .layer(layer)
        .layer(SessionManagerLayer::new(MemoryStore::default()).with_secure(false)))
}

async fn me(session: Session) -> ([(header::HeaderName, &'static str); 1], String) {
    let visits = session.get::<usize>("visits").await.ok().flatten().unwrap_or_default() + 1;
    let visited = session.insert("visits", visits).await.is_ok();
    ([(header::CACHE_CONTROL, "private, no-store")], format!("visit {visits}, remembered: {visited}"))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use http_body_util::BodyExt;
    use tower::ServiceExt;
    use tower_response_cache::storage::MemoryStorage;

    use super::*;

    /// Returns the Cache-Status field, the cookie that is set, and the body.
    async fn visit(app: &Router, path: &str, cookie: &str) -> (String, Option<String>, String) {
        let request = Request::get(path).header("host", "example.com").header("cookie", cookie);
        let response = app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let field = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        let (status, cookie) = (field("cache-status").unwrap(), field("set-cookie"));
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, cookie, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn page_for_everyone_is_cached_and_sessions_are_kept_apart() {
        let app = app(MemoryStorage::new()).unwrap();
        let (_, first, body) = visit(&app, "/me", "").await;
        assert_eq!(body, "visit 1, remembered: true");
        let first = first.unwrap();
        let (_, second, body) = visit(&app, "/me", "").await;
        assert_eq!(body, "visit 1, remembered: true");
        assert_ne!(second.unwrap(), first);
        assert_eq!(visit(&app, "/me", &first).await.2, "visit 2, remembered: true");
        visit(&app, "/news", &first).await;
        let (status, cookie, _) = visit(&app, "/news", "").await;
        assert!(status.contains("hit") && cookie.is_none(), "{status} {cookie:?}");
    }
}
