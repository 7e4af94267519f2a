//! The paths of the service.
//!
//! # Invariants
//! - Each path is in [`ROUTES`], and those of the API are in `openapi.json` too.

use axum::body::to_bytes;
use axum::extract::{OriginalUri, Request};
use axum::response::Response;
use http::header::{self, HeaderValue};
use http::request::Parts;
use http::{Method, StatusCode};
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::problem::Problem;
use super::{
    Shared, access, entry, json, pages, purge, purge_methods, response_of, statistics, verify, warm,
};
use crate::storage::Storage;

/// The longest content of a request, in bytes.
const MAX_CONTENT: usize = 64 * 1024;
/// The longest list of URLs to warm, in bytes.
const MAX_URLS: usize = 1024 * 1024;

#[derive(Clone, Copy, Debug)]
enum Route {
    Page,
    Style,
    Script,
    Icon,
    OpenApi,
    Entries,
    EntryAt,
    EntryOf,
    Tags,
    Statistics,
    Storage,
    PurgeUrl,
    PurgeMatching,
    PurgeTag,
    PurgeGroup,
    PurgeAll,
    Warm,
    Verify,
    Verification,
}

/// All methods and paths. `{key}` stands for one segment.
const ROUTES: [(Method, &str, Route); 19] = [
    (Method::GET, "/", Route::Page),
    (Method::GET, "/page.css", Route::Style),
    (Method::GET, "/page.js", Route::Script),
    (Method::GET, "/icon.svg", Route::Icon),
    (Method::GET, "/api/v1/openapi.json", Route::OpenApi),
    (Method::GET, "/api/v1/entries", Route::Entries),
    (Method::GET, "/api/v1/entries/{key}", Route::EntryAt),
    (Method::GET, "/api/v1/entry", Route::EntryOf),
    (Method::GET, "/api/v1/tags", Route::Tags),
    (Method::GET, "/api/v1/statistics", Route::Statistics),
    (Method::GET, "/api/v1/storage", Route::Storage),
    (Method::POST, "/api/v1/purge/url", Route::PurgeUrl),
    (Method::POST, "/api/v1/purge/matching", Route::PurgeMatching),
    (Method::POST, "/api/v1/purge/tag", Route::PurgeTag),
    (Method::POST, "/api/v1/purge/group", Route::PurgeGroup),
    (Method::POST, "/api/v1/purge/all", Route::PurgeAll),
    (Method::POST, "/api/v1/warm", Route::Warm),
    (Method::POST, "/api/v1/verify", Route::Verify),
    (Method::GET, "/api/v1/verify", Route::Verification),
];

/// Answers a request.
pub(super) async fn respond<S: Storage>(shared: &Shared<S>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    // First of all, so that a request that is not permitted learns not even which paths there are.
    if !(shared.authorise)(&parts) {
        return access::refusal();
    }
    let is_page = matches!(find(&parts), Ok((Route::Page | Route::Style | Route::Script | Route::Icon, _)));
    let answer = match access::check_site(&parts, !is_page) {
        Err(problem) => Err(problem),
        // Before the paths, since these methods are for paths of the cache's own.
        Ok(()) if purge_methods::is_one(&parts.method) => purge_methods::respond(shared, &parts).await,
        Ok(()) => answer(shared, &parts, body).await,
    };
    answer.unwrap_or_else(Problem::into_response)
}

async fn answer<S: Storage>(
    shared: &Shared<S>,
    parts: &Parts,
    body: axum::body::Body,
) -> Result<Response, Problem> {
    let (route, key) = match find(parts) {
        Ok(found) => found,
        Err(Missing::Path) => {
            return Err(Problem::new(StatusCode::NOT_FOUND, "there is nothing at this path"));
        }
        Err(Missing::Method(allowed)) => {
            let detail = format!("this path knows only {allowed}");
            let mut response = Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail).into_response();
            if let Ok(allowed) = HeaderValue::from_str(&allowed) {
                response.headers_mut().insert(header::ALLOW, allowed);
            }
            return Ok(response);
        }
    };
    let takes_query = matches!(route, Route::Entries | Route::EntryOf | Route::Tags);
    let query = query(if takes_query { parts.uri.query().unwrap_or_default() } else { "" })?;
    let content = async |limit| {
        let is_json = parts.headers.get(header::CONTENT_TYPE).is_some_and(|value| {
            let essence = value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
            essence.trim_ascii().eq_ignore_ascii_case(b"application/json")
        });
        if !is_json {
            let detail = "the content has to be JSON, with Content-Type: application/json";
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
        }
        // Its error is that of the connection, or that there is more.
        to_bytes(body, limit).await.map_err(|_| {
            let detail = format!("the content cannot be read, or is longer than {limit} bytes");
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
        })
    };
    Ok(match route {
        Route::Page => page(parts),
        Route::Style => response_of("text/css; charset=utf-8", include_str!("page/page.css")),
        Route::Script => response_of("text/javascript; charset=utf-8", include_str!("page/page.js")),
        Route::Icon => response_of("image/svg+xml", include_str!("page/icon.svg")),
        Route::OpenApi => response_of("application/json", include_str!("openapi.json")),
        Route::Entries => json(&pages::entries(shared, query).await?),
        Route::EntryAt => json(&entry::at(shared, &key).await?),
        Route::EntryOf => json(&entry::of(shared, query).await?),
        Route::Tags => json(&pages::tags(shared, query).await?),
        Route::Statistics => json(&statistics::statistics(shared)),
        Route::Storage => json(&statistics::storage(shared).await),
        Route::PurgeUrl => json(&purge::url(shared, read(&content(MAX_CONTENT).await?)?).await?),
        Route::PurgeMatching => json(&purge::matching(shared, read(&content(MAX_CONTENT).await?)?).await?),
        Route::PurgeTag => json(&purge::tag(shared, read(&content(MAX_CONTENT).await?)?).await?),
        Route::PurgeGroup => json(&purge::group(shared, read(&content(MAX_CONTENT).await?)?).await?),
        Route::PurgeAll => json(&purge::all(shared, read(&content(MAX_CONTENT).await?)?).await?),
        Route::Warm => json(&warm::warm(shared, read(&content(MAX_URLS).await?)?).await?),
        Route::Verify => {
            let mut response = json(&verify::begin(shared)?);
            *response.status_mut() = StatusCode::ACCEPTED;
            response
        }
        Route::Verification => json(&verify::state(shared)),
    })
}

/// Returns the page. Its files are named relative to the path that the browser has asked for.
fn page(parts: &Parts) -> Response {
    let original = parts.extensions.get::<OriginalUri>().map_or(&parts.uri, |OriginalUri(uri)| uri);
    // Below the path that the router is nested at, a browser would look for them beside it.
    let base = match original.path().rsplit_once('/') {
        Some((_, last)) if !last.is_empty() => format!("./{}/", escaped(last)),
        _ => "./".to_owned(),
    };
    response_of("text/html; charset=utf-8", include_str!("page/page.html").replace("{base}", &base))
}

/// Escapes text for an attribute in HTML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;").replace('>', "&gt;")
}

enum Missing {
    Path,
    /// The methods that the path has.
    Method(String),
}

/// Returns the route of a request, and its key if the path has one.
fn find(parts: &Parts) -> Result<(Route, String), Missing> {
    // A router that this one is nested in may leave nothing.
    let path = if parts.uri.path().is_empty() { "/" } else { parts.uri.path() };
    let method = if parts.method == Method::HEAD { &Method::GET } else { &parts.method };
    let mut allowed = Vec::new();
    for (of, pattern, route) in &ROUTES {
        let key = match pattern.strip_suffix("{key}") {
            Some(start) => path.strip_prefix(start).filter(|key| !key.is_empty() && !key.contains('/')),
            None => (path == *pattern).then_some(""),
        };
        match key {
            Some(key) if of == method => return Ok((*route, key.to_owned())),
            Some(_) => allowed.push(of.as_str()),
            None => {}
        }
    }
    Err(if allowed.is_empty() { Missing::Path } else { Missing::Method(allowed.join(", ")) })
}

/// Reads the parameters of a query, each at most once. Numbers stay text.
fn query(text: &str) -> Result<Map<String, Value>, Problem> {
    let mut parameters = Map::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let decode = |text: &str| {
            let spaced = text.replace('+', " ");
            percent_decode_str(&spaced).decode_utf8().map(|text| text.into_owned())
        };
        let (Ok(name), Ok(value)) = (decode(name), decode(value)) else {
            return Err(Problem::bad("the query is not UTF-8"));
        };
        if parameters.insert(name, Value::String(value)).is_some() {
            return Err(Problem::bad("a parameter of the query is there twice"));
        }
    }
    Ok(parameters)
}

/// Reads the content of a request.
fn read<T: DeserializeOwned>(content: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(content)
        .map_err(|error| Problem::bad(format!("the content is not what is needed here: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn document_has_exactly_the_routes_of_the_api() {
        let document: Value = serde_json::from_str(include_str!("openapi.json")).unwrap();
        let mut described = Vec::new();
        for (path, operations) in document["paths"].as_object().unwrap() {
            for method in operations.as_object().unwrap().keys() {
                described.push(format!("{} {path}", method.to_uppercase()));
            }
        }
        let api = ROUTES.iter().filter(|(_, path, _)| path.starts_with("/api/"));
        let mut there: Vec<_> = api.map(|(method, path, _)| format!("{method} {path}")).collect();
        described.sort();
        there.sort();
        assert_eq!(described, there);
    }

    #[test]
    fn references_of_the_document_exist() {
        fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
            match value {
                Value::Object(members) => {
                    found.extend(members.get("$ref").and_then(Value::as_str));
                    members.values().for_each(|member| references(member, found));
                }
                Value::Array(elements) => elements.iter().for_each(|element| references(element, found)),
                _ => {}
            }
        }
        let document: Value = serde_json::from_str(include_str!("openapi.json")).unwrap();
        assert_eq!(document["openapi"], "3.1.0");
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(!found.is_empty());
        for reference in found {
            assert!(document.pointer(&reference[1..]).is_some(), "{reference}");
        }
    }

    #[test]
    fn path_decides_before_the_method() {
        let find = |method: &str, path: &str| {
            let request = http::Request::builder().method(method).uri(path).body(()).unwrap();
            find(&request.into_parts().0)
        };
        assert!(matches!(find("GET", "/"), Ok((Route::Page, _))));
        assert!(matches!(find("HEAD", "/api/v1/entries"), Ok((Route::Entries, _))));
        assert!(matches!(find("GET", "/api/v1/entries/00"), Ok((Route::EntryAt, key)) if key == "00"));
        assert!(matches!(find("DELETE", "/api/v1/verify"), Err(Missing::Method(of)) if of == "POST, GET"));
        for path in ["/api/v1/entries/", "/api/v1/entries/0/1", "/api", "/api/v1/entries?", "//", "/x"] {
            let is_missing = matches!(find("GET", path), Err(Missing::Path));
            assert_eq!(is_missing, path != "/api/v1/entries?", "{path}");
        }
    }
}
