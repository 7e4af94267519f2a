//! The methods PURGE and BAN, as clients of other caches send them.
//!
//! # Invariants
//! - A request that asks for more than is done here changes nothing.

use std::collections::BTreeSet;

use axum::response::Response;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode};

use super::problem::Problem;
use super::{Shared, json, purge};
use crate::handle::EntryFilter;
use crate::storage::Storage;

const METHODS: [&str; 4] = ["PURGE", "BAN", "PURGEKEYS", "PURGETAGS"];
/// The fields with tags whose responses are invalidated.
const TAGS: [&str; 6] = ["surrogate-key", "cache-tag", "cache-tags", "x-cache-tags", "xkey", "xkey-purge"];
/// The field with tags whose responses are made stale.
const SOFT_TAGS: &str = "xkey-softpurge";
/// Fields of other caches that are not supported. If they were ignored, a request would remove something else.
const UNKNOWN: [&str; 3] = ["x-magento-tags-pattern", "x-ban-expression", "x-purge-regex"];
/// The beginning of the paths of Souin's API.
const SOUIN: &str = "/souin-api/souin";
/// The most tags of a request.
const MAX_TAGS: usize = 1000;

pub(super) fn is_one(method: &Method) -> bool {
    METHODS.contains(&method.as_str())
}

pub(super) async fn respond<S: Storage>(shared: &Shared<S>, parts: &Parts) -> Result<Response, Problem> {
    if let Some(name) = UNKNOWN.iter().find(|name| parts.headers.contains_key(**name)) {
        let detail = format!("the field {name} is not supported, and nothing was removed");
        return Err(Problem::new(StatusCode::NOT_IMPLEMENTED, detail));
    }
    let method = parts.method.as_str();
    // By FOSHttpCache a ban has the regular expression of tags in the field in which a purge has tags.
    if method == "BAN" {
        return ban(shared, parts).await;
    }
    let (tags, soft_tags) = (tags(parts, &TAGS)?, tags(parts, &[SOFT_TAGS])?);
    let soft = is_set(parts, "fastly-soft-purge")?;
    if !tags.is_empty() || !soft_tags.is_empty() {
        for tag in tags {
            if soft {
                shared.handle.expire_tag(tag).await?
            } else {
                shared.handle.invalidate_tag(tag).await?
            }
        }
        for tag in soft_tags {
            shared.handle.expire_tag(tag).await?;
        }
        return Ok(json(&serde_json::json!({ "soft": soft, "count": null })));
    }
    if method != "PURGE" {
        let detail = format!("{method} needs tags, in xkey-purge, xkey-softpurge or X-Cache-Tags");
        return Err(Problem::bad(detail));
    }
    if is_set(parts, "clear-cache")? {
        return Ok(json(&purge::everything(shared, soft).await?));
    }
    if let Some(rest) = parts.uri.path().strip_prefix(SOUIN) {
        return match rest {
            "/flush" => Ok(json(&purge::everything(shared, soft).await?)),
            _ => Err(Problem::new(
                StatusCode::NOT_IMPLEMENTED,
                "this cache has other keys than Souin: send PURGE for the URL, or Surrogate-Key",
            )),
        };
    }
    match value(parts, "x-purge-method")? {
        None | Some("exact" | "default") => {}
        Some("regex") => return ban(shared, parts).await,
        Some(_) => return Err(Problem::bad("X-Purge-Method has to be exact, default or regex")),
    }
    if parts.headers.contains_key("x-invalidate-pattern") {
        return ban(shared, parts).await;
    }
    url(shared, parts, soft).await
}

/// Removes the responses of the URL of the request itself.
async fn url<S: Storage>(shared: &Shared<S>, parts: &Parts, soft: bool) -> Result<Response, Problem> {
    let mut request = Request::new(());
    *request.uri_mut() = parts.uri.clone();
    *request.headers_mut() = parts.headers.clone();
    *request.extensions_mut() = parts.extensions.clone();
    if parts.uri.authority().is_none() && !parts.headers.contains_key(http::header::HOST) {
        return Err(Problem::bad("the request has no Host, so that no URL is named"));
    }
    let handle = &shared.handle;
    let count = if soft { handle.expire(&request).await? } else { handle.delete(&request).await? };
    Ok(json(&serde_json::json!({ "soft": soft, "count": count })))
}

/// Returns the tags in some fields, each once.
fn tags<'p>(parts: &'p Parts, names: &[&str]) -> Result<BTreeSet<&'p str>, Problem> {
    let mut tags = BTreeSet::new();
    for name in names {
        let mut is_there = false;
        for line in parts.headers.get_all(*name) {
            is_there = true;
            let line = str::from_utf8(line.as_bytes())
                .map_err(|_| Problem::bad(format!("the field {name} is not UTF-8")))?;
            tags.extend(line.split([',', ' ', '\t']).filter(|tag| !tag.is_empty()));
        }
        if is_there && tags.is_empty() {
            return Err(Problem::bad(format!("the field {name} names no tag, and nothing was removed")));
        }
    }
    if tags.len() > MAX_TAGS {
        return Err(Problem::bad(format!("the request names more than {MAX_TAGS} tags")));
    }
    Ok(tags)
}

/// Returns the value of a field that may be there once.
fn value<'p>(parts: &'p Parts, name: &str) -> Result<Option<&'p str>, Problem> {
    let mut lines = parts.headers.get_all(name).iter();
    match (lines.next().map(HeaderValue::to_str), lines.next()) {
        (None, _) => Ok(None),
        (Some(Ok(value)), None) => Ok(Some(value.trim())),
        _ => Err(Problem::bad(format!("the field {name} is there twice, or is not text"))),
    }
}

fn is_set(parts: &Parts, name: &str) -> Result<bool, Problem> {
    match value(parts, name)? {
        None | Some("0" | "false") => Ok(false),
        Some("1" | "true") => Ok(true),
        Some(_) => Err(Problem::bad(format!("the field {name} has to be 1 or true"))),
    }
}

/// The fields of a ban, with what they are matched against. Those of FOSHttpCache come last.
const BAN_FIELDS: [(&str, Part); 7] = [
    ("x-ban-url", Part::Path),
    ("x-ban-host", Part::Host),
    ("x-invalidate-pattern", Part::Path),
    ("x-url", Part::Path),
    ("x-host", Part::Host),
    ("x-content-type", Part::ContentType),
    ("x-cache-tags", Part::Tags),
];

/// A part of a stored response that a regular expression is matched against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "regex"), allow(dead_code))]
enum Part {
    /// With the query.
    Path,
    /// With the port, if it is not the usual one.
    Host,
    ContentType,
    /// All tags, joined by commas.
    Tags,
}

async fn ban<S: Storage>(shared: &Shared<S>, parts: &Parts) -> Result<Response, Problem> {
    let mut patterns = Vec::new();
    for (name, part) in BAN_FIELDS {
        if let Some(pattern) = value(parts, name)? {
            patterns.push((part, pattern));
        }
    }
    let others = TAGS.iter().chain([&SOFT_TAGS]).filter(|name| **name != "x-cache-tags");
    if let Some(name) =
        others.into_iter().find(|name| parts.headers.contains_key(HeaderName::from_static(name)))
    {
        let detail = format!("BAN takes no {name}, and nothing was removed: send PURGE with it");
        return Err(Problem::bad(detail));
    }
    let of_path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    if parts.headers.contains_key("x-purge-method") {
        patterns.push((Part::Path, of_path));
    }
    if patterns.is_empty() {
        return url(shared, parts, false).await;
    }
    // A pattern of paths alone is for the host of the request, except by FOSHttpCache, which names all hosts as `.*`.
    let is_of_host = !patterns.iter().any(|(part, _)| *part == Part::Host);
    let host = match parts.uri.authority() {
        Some(authority) => Some(authority.as_str()),
        None => value(parts, "host")?,
    };
    let host = match (is_of_host, host) {
        (false, _) => None,
        (true, Some(host)) => {
            let usual = host.strip_suffix(":80").or_else(|| host.strip_suffix(":443"));
            Some(usual.unwrap_or(host).to_ascii_lowercase())
        }
        (true, None) => return Err(Problem::bad("the request has no Host, whose URLs are to be removed")),
    };
    let filter = matching(&patterns, host)?;
    Ok(json(&purge::chosen(shared, &filter, false).await?))
}

#[cfg(not(feature = "regex"))]
fn matching(_: &[(Part, &str)], _: Option<String>) -> Result<EntryFilter, Problem> {
    let detail =
        "regular expressions need the feature regex of tower-response-cache: use purge/matching with a glob";
    Err(Problem::new(StatusCode::NOT_IMPLEMENTED, detail))
}

/// Returns the filter of a ban: all patterns have to match.
#[cfg(feature = "regex")]
fn matching(patterns: &[(Part, &str)], host: Option<String>) -> Result<EntryFilter, Problem> {
    let mut filter = EntryFilter::new();
    if let Some(host) = host {
        filter = filter.matching(move |entry| host_and_path(entry.url()).is_some_and(|(of, _)| *of == *host));
    }
    for (part, pattern) in patterns.iter().filter(|(_, pattern)| *pattern != ".*") {
        let part = *part;
        // Large repetitions take much memory. The default bound is ten times as high.
        let regex = regex::RegexBuilder::new(pattern).size_limit(1024 * 1024).build();
        let regex = regex.map_err(|_| {
            Problem::bad("a pattern is no regular expression of the crate regex: it has no look-around and no back-references")
        })?;
        filter = filter.matching(move |entry| match part {
            Part::Path => host_and_path(entry.url()).is_some_and(|(_, path)| regex.is_match(path)),
            Part::Host => host_and_path(entry.url()).is_some_and(|(host, _)| regex.is_match(host)),
            Part::ContentType => regex.is_match(entry.content_type().unwrap_or_default()),
            Part::Tags => regex.is_match(&entry.tags().collect::<Vec<_>>().join(",")),
        });
    }
    Ok(filter)
}

/// Returns the authority of a URL, and its path with the query.
#[cfg(feature = "regex")]
fn host_and_path(url: &str) -> Option<(&str, &str)> {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"))?;
    Some(rest.split_at(rest.find('/')?))
}
