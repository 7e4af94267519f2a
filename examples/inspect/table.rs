//! The listing as a table in the terminal's width, or as lines for a script.

use std::borrow::Cow;
use std::io;

use console::Style;
use tower_response_cache::Timestamp;

use crate::output::{Output, styled};
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
    is_coloured: bool,
}

impl Table {
    pub fn begin(columns: usize, now: Timestamp, output: &mut Output) -> io::Result<Self> {
        // 24 columns hold most media types whole; a narrow terminal leaves them to the URL.
        let media = if columns < 100 { 11 } else { 24 };
        let others = STATUS + media + SIZE + AGE + EXPIRES + 5 * GAP;
        let url = columns.saturating_sub(others).max(MIN_URL);
        let table = Self { url, media, now, is_coloured: output.is_coloured() };
        let bold = Style::new().bold();
        let names = ["URL", "STATUS", "TYPE", "SIZE", "AGE", "EXPIRES"].map(Cow::Borrowed);
        table.line(names, [&bold, &bold, &bold], output)?;
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
            expiry(row, self.now).into(),
        ];
        let plain = Style::new();
        let status = if row.status >= 400 { plain.clone().red() } else { plain.clone() };
        let expires = if row.fresh { plain.clone() } else { plain.clone().yellow() };
        self.line(cells, [&plain, &status, &expires], output)
    }

    fn line(
        &self,
        [url, status, media, size, age, expires]: [Cow<'_, str>; 6],
        [style, status_style, expires_style]: [&Style; 3],
        output: &mut Output,
    ) -> io::Result<()> {
        output.line(format_args!(
            "{}  {}  {}  {}  {}  {}",
            styled(align_left(&url, self.url), style, self.is_coloured),
            styled(align_right(&status, STATUS), status_style, self.is_coloured),
            styled(align_left(&media, self.media), style, self.is_coloured),
            styled(align_right(&size, SIZE), style, self.is_coloured),
            styled(align_right(&age, AGE), style, self.is_coloured),
            styled(align_right(&expires, EXPIRES), expires_style, self.is_coloured),
        ))
    }
}

/// Returns until when a response is fresh, or `no-cache` if it is validated before each use.
fn expiry(row: &Row, now: Timestamp) -> String {
    let is_validated = !row.fresh && row.expires_at > now;
    if is_validated { "no-cache".to_owned() } else { text::relative(row.expires_at, now) }
}

/// Writes a row for a script: tabs between the values, nothing shortened or rounded.
pub fn tab_separated(row: &Row, output: &mut Output) -> io::Result<()> {
    let media = row.content_type.as_deref().map_or("-", essence);
    output.line(format_args!(
        "{}\t{}\t{}\t{}\t{}\t{}\t{}",
        text::escaped(&row.url),
        row.status,
        text::escaped(media),
        row.body_bytes,
        text::rfc3339(row.stored_at).as_deref().unwrap_or("never"),
        text::rfc3339(row.expires_at).as_deref().unwrap_or("never"),
        if row.fresh { "fresh" } else { "stale" },
    ))
}
