//! `show`

use std::pin::pin;
use std::time::SystemTime;

use futures_util::TryStreamExt;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body_util::BodyExt;
use tower_response_cache::{EntryFilter, StoredEntry, Timestamp};

use crate::arguments::Show;
use crate::conditions::exactly;
use crate::end::{End, Failure};
use crate::output::Output;
use crate::target::Target;
use crate::text;

/// Fields whose values are secrets, and words in the names of such fields.
const SECRET: [&str; 5] = ["set-cookie", "set-cookie2", "cookie", "authorization", "proxy-authorization"];
const SECRET_WORDS: [&str; 7] = ["auth", "token", "secret", "password", "api-key", "apikey", "session"];

pub async fn run(target: &Target, options: Show, output: &mut Output) -> Result<End, Failure> {
    let filter = exactly(EntryFilter::new(), std::slice::from_ref(&options.url));
    let entries = pin!(target.handle.entries(&filter));
    let mut variants: Vec<StoredEntry> = entries.try_collect().await.map_err(target.failed("read"))?;
    // Their numbers are the same in every run.
    variants.sort_by_key(|entry| entry.key().to_string());
    let all = variants.len();
    let chosen: Vec<(usize, StoredEntry)> = (1..)
        .zip(variants)
        .filter(|(number, _)| options.variant.is_none_or(|wanted| wanted == *number))
        .collect();
    if chosen.is_empty() {
        return Ok(End::Found);
    }
    if options.body {
        let [(_, entry)] = chosen.as_slice() else {
            let line = format!("there are {all} variants: choose one by --variant 1 to {all}");
            return Err(Failure::Refused(line));
        };
        if options.headers {
            output.line(entry.status())?;
            headers("", entry.headers(), output)?;
            output.line("")?;
        }
        return body(target, entry, output).await;
    }
    for (number, entry) in &chosen {
        if *number > 1 && options.variant.is_none() {
            output.line("")?;
        }
        let title = if all > 1 { format!("  (variant {number} of {all})") } else { String::new() };
        output.line(format_args!("{}{title}", text::plain(entry.url())))?;
        facts(entry, output)?;
        if options.headers {
            output.line("  headers")?;
            headers("    ", entry.headers(), output)?;
        }
    }
    Ok(End::Done)
}

fn facts(entry: &StoredEntry, output: &mut Output) -> Result<(), Failure> {
    let now = Timestamp::from(SystemTime::now());
    let mut fact = |name: &str, value: &str| output.line(format_args!("  {}{value}", text::left(name, 14)));
    fact("status", &entry.status().to_string())?;
    fact("type", &text::plain(entry.content_type().unwrap_or("-")))?;
    let place = if entry.is_chunked() { ", in chunks" } else { "" };
    let bytes = |bytes| format!("{} bytes ({})", text::grouped(bytes), text::size(bytes));
    fact("body", &format!("{}{place}", bytes(entry.body_len())))?;
    fact("in the store", &bytes(entry.stored_len()))?;
    fact("requested", &text::when(entry.requested_at(), now))?;
    fact("stored", &text::when(entry.stored_at(), now))?;
    fact("age", &text::span(entry.age()))?;
    fact("fresh until", &text::when(entry.expires_at(), now))?;
    fact("kept until", &text::when(entry.kept_until(), now))?;
    let names: Vec<_> = entry.vary().iter().map(HeaderName::as_str).collect();
    let vary = if names.is_empty() { "-".to_owned() } else { names.join(", ") };
    fact("vary", &vary)?;
    let tags: Vec<_> = entry.tags().map(text::plain).collect();
    let groups: Vec<_> = entry.groups().map(text::plain).collect();
    for (name, names) in [("tags", tags), ("groups", groups)] {
        if !names.is_empty() {
            fact(name, &names.join(", "))?;
        }
    }
    fact("personal", if entry.is_personal() { "yes" } else { "no" })?;
    Ok(fact("key", &entry.key().to_string())?)
}

fn headers(indent: &str, headers: &HeaderMap, output: &mut Output) -> Result<(), Failure> {
    for (name, value) in headers {
        let value = if is_secret(name, value) {
            "(withheld)".into()
        } else {
            String::from_utf8_lossy(value.as_bytes())
        };
        output.line(format_args!("{indent}{name}: {}", text::plain(&value)))?;
    }
    Ok(())
}

fn is_secret(name: &HeaderName, value: &HeaderValue) -> bool {
    let name = name.as_str();
    // What a server asks for is no secret.
    let is_named = SECRET.contains(&name) || SECRET_WORDS.iter().any(|word| name.contains(word));
    value.is_sensitive() || (is_named && !matches!(name, "www-authenticate" | "proxy-authenticate"))
}

async fn body(target: &Target, entry: &StoredEntry, output: &mut Output) -> Result<End, Failure> {
    let response = target.handle.read_entry(entry).await.map_err(target.failed("read"))?;
    let Some(response) = response else { return Ok(End::Found) };
    let mut body = pin!(response.into_body());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| {
            Failure::Store(format!("the body is damaged in the store {}: it ends early", target.place))
        })?;
        if let Some(bytes) = frame.data_ref() {
            output.bytes(bytes)?;
        }
    }
    Ok(End::Done)
}
