//! A listing for people: one line an entry, each written as it comes, in the terminal's width.

use std::borrow::Cow;
use std::io;

use tower_response_cache::Timestamp;

use crate::output::Output;
use crate::row::{Row, essence};
use crate::text::{self, left, right};

const GAP: usize = 2;
const STATUS: usize = 6;
const SIZE: usize = 7;
const AGE: usize = 5;
const EXPIRES: usize = 8;
/// Narrower than that a URL says nothing.
const LEAST_URL: usize = 16;

pub struct Table {
    url: usize,
    media: usize,
    now: Timestamp,
}

impl Table {
    pub fn begin(columns: usize, now: Timestamp, output: &mut Output) -> io::Result<Self> {
        let media = if columns < 100 { 11 } else { 24 };
        let others = STATUS + media + SIZE + AGE + EXPIRES + 5 * GAP;
        let url = columns.saturating_sub(others).max(LEAST_URL);
        let table = Self { url, media, now };
        table.line(["URL", "STATUS", "TYPE", "SIZE", "AGE", "EXPIRES"].map(Cow::Borrowed), output)?;
        Ok(table)
    }

    pub fn row(&self, row: &Row, output: &mut Output) -> io::Result<()> {
        let url = text::plain(&row.url);
        let media = text::plain(row.content_type.as_deref().map_or("-", essence));
        // `json` says more in a narrow column than the beginning of `application/json`.
        let media = match media.split_once('/') {
            Some((_, subtype)) if text::width(&media) > self.media => subtype.to_owned().into(),
            _ => media,
        };
        let cells = [
            text::shortened(&url, self.url),
            row.status.to_string().into(),
            text::shortened(&media, self.media),
            text::short_size(row.body_bytes).into(),
            text::span(row.age).into(),
            text::away(row.expires_at, self.now).into(),
        ];
        self.line(cells, output)
    }

    fn line(
        &self,
        [url, status, media, size, age, expires]: [Cow<'_, str>; 6],
        output: &mut Output,
    ) -> io::Result<()> {
        output.line(format_args!(
            "{}  {}  {}  {}  {}  {}",
            left(&url, self.url),
            right(&status, STATUS),
            left(&media, self.media),
            right(&size, SIZE),
            right(&age, AGE),
            right(&expires, EXPIRES),
        ))
    }
}

/// A line for a script: nothing shortened, nothing rounded.
pub fn plain(row: &Row, output: &mut Output) -> io::Result<()> {
    let media = row.content_type.as_deref().map_or("-", essence);
    output.line(format_args!(
        "{}\t{}\t{}\t{}\t{}\t{}",
        text::plain(&row.url),
        row.status,
        text::plain(media),
        row.body_bytes,
        text::moment(row.stored_at).as_deref().unwrap_or("never"),
        text::moment(row.expires_at).as_deref().unwrap_or("never"),
    ))
}
