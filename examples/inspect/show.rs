//! `show`

use std::borrow::Cow;
use std::pin::pin;
use std::time::SystemTime;

use futures_util::TryStreamExt;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body_util::BodyExt;
use serde::Serialize;
use tower_response_cache::{EntryFilter, StoredEntry, Timestamp};

use crate::arguments::Show;
use crate::conditions::with_urls;
use crate::exit::{Exit, Failure, print_error};
use crate::json::Array;
use crate::output::Output;
use crate::row::Row;
use crate::target::Target;
use crate::text;

/// Fields whose values are credentials or cookies.
const SECRET: [&str; 5] = ["set-cookie", "set-cookie2", "cookie", "authorization", "proxy-authorization"];
/// Words in the names of other fields that usually hold credentials.
const SECRET_WORDS: [&str; 7] = ["auth", "token", "secret", "password", "api-key", "apikey", "session"];

pub async fn run(target: &Target, options: Show, json: bool, output: &mut Output) -> Result<Exit, Failure> {
    let filter = with_urls(EntryFilter::new(), std::slice::from_ref(&options.url));
    let entries = pin!(target.handle.entries(&filter));
    let mut variants: Vec<StoredEntry> = entries.try_collect().await.map_err(target.failed("read"))?;
    // A storage lists in any order; sorted, a variant has the same number in every run.
    variants.sort_by_key(|entry| entry.key().to_string());
    let all = variants.len();
    let chosen: Vec<(usize, StoredEntry)> = (1..)
        .zip(variants)
        .filter(|(number, _)| options.variant.is_none_or(|wanted| wanted == *number))
        .collect();
    if json && options.body {
        return Err(Failure::Refused("a body is written as it is: leave out --json".to_owned()));
    }
    if chosen.is_empty() {
        if json {
            output.line("[]")?;
        }
        print_error(match all {
            0 => "nothing is stored for this URL",
            _ => "the URL has no variant of this number",
        });
        return Ok(Exit::Negative);
    }
    if json {
        let mut array = Array::begin(output)?;
        for (number, entry) in &chosen {
            array.push(&Shown::of(*number, entry, options.headers), output)?;
        }
        array.end(output)?;
        return Ok(Exit::Done);
    }
    if options.body {
        let [(_, entry)] = chosen.as_slice() else {
            let line = format!("the URL has {all} variants: choose one with --variant, from 1 to {all}");
            return Err(Failure::Refused(line));
        };
        if options.headers {
            output.line(entry.status())?;
            print_headers("", entry.headers(), output)?;
            output.line("")?;
        }
        return print_body(target, entry, output).await;
    }
    for (number, entry) in &chosen {
        if *number > 1 && options.variant.is_none() {
            output.line("")?;
        }
        let title = if all > 1 { format!("  (variant {number} of {all})") } else { String::new() };
        output.line(format_args!("{}{title}", text::escaped(entry.url())))?;
        print_facts(entry, output)?;
        if options.headers {
            output.line("  headers")?;
            print_headers("    ", entry.headers(), output)?;
        }
    }
    Ok(Exit::Done)
}

fn print_facts(entry: &StoredEntry, output: &mut Output) -> Result<(), Failure> {
    let now = Timestamp::from(SystemTime::now());
    let mut fact =
        |name: &str, value: &str| output.line(format_args!("  {}{value}", text::align_left(name, 14)));
    fact("status", &entry.status().to_string())?;
    fact("type", &text::escaped(entry.content_type().unwrap_or("-")))?;
    let chunks = if entry.is_chunked() { ", in chunks" } else { "" };
    let bytes = |bytes| format!("{} bytes ({})", text::grouped(bytes), text::size(bytes));
    fact("body", &format!("{}{chunks}", bytes(entry.body_len())))?;
    if let Some(partial) = entry.partial() {
        fact("of it stored", &partial.to_string())?;
    }
    fact("in storage", &bytes(entry.stored_len()))?;
    fact("requested", &text::timestamp(entry.requested_at(), now))?;
    fact("stored", &text::timestamp(entry.stored_at(), now))?;
    fact("age", &text::short_duration(entry.age()))?;
    let is_validated = !entry.is_fresh() && entry.expires_at() > now;
    let note = if is_validated { ", but validated before each use (no-cache)" } else { "" };
    fact("fresh until", &format!("{}{note}", text::timestamp(entry.expires_at(), now)))?;
    fact("kept until", &text::timestamp(entry.retain_until(), now))?;
    if let Some(tag) = made_etag(entry) {
        fact("etag", &format!("{tag}, made by the cache"))?;
    }
    let names: Vec<_> = entry.vary().iter().map(HeaderName::as_str).collect();
    let vary = if names.is_empty() { "-".to_owned() } else { names.join(", ") };
    fact("vary", &vary)?;
    let tags: Vec<_> = entry.tags().map(text::escaped).collect();
    let groups: Vec<_> = entry.groups().map(text::escaped).collect();
    for (name, names) in [("tags", tags), ("groups", groups)] {
        if !names.is_empty() {
            fact(name, &names.join(", "))?;
        }
    }
    fact("personal", if entry.is_personal() { "yes" } else { "no" })?;
    Ok(fact("key", &entry.key().to_string())?)
}

/// A response in JSON: its row, and its fields if they are asked for.
#[derive(Serialize)]
struct Shown {
    variant: usize,
    #[serde(flatten)]
    row: Row,
    groups: Vec<String>,
    /// The entity tag that the cache made, which is not among the headers.
    #[serde(skip_serializing_if = "Option::is_none")]
    made_etag: Option<String>,
    /// Pairs, since a name may occur several times.
    #[serde(skip_serializing_if = "Option::is_none")]
    headers: Option<Vec<(String, String)>>,
}

impl Shown {
    fn of(variant: usize, entry: &StoredEntry, with_headers: bool) -> Self {
        let pair = |(name, value): (&HeaderName, &HeaderValue)| {
            (name.to_string(), shown_value(name, value).into_owned())
        };
        let headers = with_headers.then(|| entry.headers().iter().map(pair).collect());
        let groups = entry.groups().map(str::to_owned).collect();
        Self { variant, row: Row::of(entry), groups, made_etag: made_etag(entry), headers }
    }
}

/// Returns the entity tag that the cache made for a response.
fn made_etag(entry: &StoredEntry) -> Option<String> {
    Some(String::from_utf8_lossy(entry.made_etag()?.as_bytes()).into_owned())
}

/// Returns the value of a field, unless it may be secret.
fn shown_value<'a>(name: &HeaderName, value: &'a HeaderValue) -> Cow<'a, str> {
    if is_secret(name, value) { "(withheld)".into() } else { String::from_utf8_lossy(value.as_bytes()) }
}

fn print_headers(indent: &str, headers: &HeaderMap, output: &mut Output) -> Result<(), Failure> {
    for (name, value) in headers {
        output.line(format_args!("{indent}{name}: {}", text::escaped(&shown_value(name, value))))?;
    }
    Ok(())
}

fn is_secret(name: &HeaderName, value: &HeaderValue) -> bool {
    let name = name.as_str();
    let is_named = SECRET.contains(&name) || SECRET_WORDS.iter().any(|word| name.contains(word));
    // Challenges of a server contain "auth" in their name, but are no secret.
    value.is_sensitive() || (is_named && !matches!(name, "www-authenticate" | "proxy-authenticate"))
}

async fn print_body(target: &Target, entry: &StoredEntry, output: &mut Output) -> Result<Exit, Failure> {
    let response = target.handle.read_entry(entry).await.map_err(target.failed("read"))?;
    let Some(response) = response else { return Ok(Exit::Negative) };
    let mut body = pin!(response.into_body());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| {
            Failure::Storage(format!("the body in the storage {} is damaged: it ends early", target.address))
        })?;
        if let Some(bytes) = frame.data_ref() {
            output.bytes(bytes)?;
        }
    }
    Ok(Exit::Done)
}
