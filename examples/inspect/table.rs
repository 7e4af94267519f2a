//! The listing as a table in the terminal's width, or as lines for a script.

use std::borrow::Cow;
use std::io;

use tower_response_cache::Timestamp;

use crate::output::Output;
use crate::row::{Row, essence};
use crate::text::{self, align_left, align_right};

/// The spaces between two columns.
const GAP: usize = 2;
// Each column fits its heading, and the longest value that is usual below it.
const STATUS: usize = 6;
const SIZE: usize = 7;
const AGE: usize = 5;
const EXPIRES: usize = 8;
/// A narrower URL would be unreadable, so a narrower terminal has to wrap the lines.
const MIN_URL: usize = 16;

pub struct Table {
    url: usize,
    media: usize,
    now: Timestamp,
}

impl Table {
    pub fn begin(columns: usize, now: Timestamp, output: &mut Output) -> io::Result<Self> {
        // 24 columns hold most media types whole; a narrow terminal leaves them to the URL.
        let media = if columns < 100 { 11 } else { 24 };
        let others = STATUS + media + SIZE + AGE + EXPIRES + 5 * GAP;
        let url = columns.saturating_sub(others).max(MIN_URL);
        let table = Self { url, media, now };
        table.line(["URL", "STATUS", "TYPE", "SIZE", "AGE", "EXPIRES"].map(Cow::Borrowed), output)?;
        Ok(table)
    }

    pub fn row(&self, row: &Row, output: &mut Output) -> io::Result<()> {
        let url = text::escaped(&row.url);
        let media = text::escaped(row.content_type.as_deref().map_or("-", essence));
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
            text::short_duration(row.age).into(),
            text::relative(row.expires_at, self.now).into(),
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
            align_left(&url, self.url),
            align_right(&status, STATUS),
            align_left(&media, self.media),
            align_right(&size, SIZE),
            align_right(&age, AGE),
            align_right(&expires, EXPIRES),
        ))
    }
}

/// Writes a row for a script: tabs between the values, nothing shortened or rounded.
pub fn tab_separated(row: &Row, output: &mut Output) -> io::Result<()> {
    let media = row.content_type.as_deref().map_or("-", essence);
    output.line(format_args!(
        "{}\t{}\t{}\t{}\t{}\t{}",
        text::escaped(&row.url),
        row.status,
        text::escaped(media),
        row.body_bytes,
        text::rfc3339(row.stored_at).as_deref().unwrap_or("never"),
        text::rfc3339(row.expires_at).as_deref().unwrap_or("never"),
    ))
}
