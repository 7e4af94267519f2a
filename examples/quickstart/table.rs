//! The printed table: a row per request, as soon as it is answered, and totals.

use std::collections::BTreeMap;
use std::time::Duration;

use http::Uri;
use tower_response_cache::CacheStatus;

/// The width of the columns beside the URL, with the gaps.
const OTHERS: usize = 51;
/// A narrower URL would be unreadable.
const MIN_URL: usize = 12;

pub struct Row {
    pub url: String,
    pub code: u16,
    pub bytes: usize,
    pub status: Option<CacheStatus>,
    pub elapsed: Duration,
}

pub struct Table {
    width: usize,
    rows: Vec<Row>,
}

impl Table {
    pub fn begin(urls: &[Uri]) -> Self {
        let width = urls.iter().map(|url| url.to_string().chars().count()).max().unwrap_or(3);
        // Wider lines would be broken by the terminal. A pipe gets the usual width.
        let columns = console::Term::stdout().size_checked().map_or(80, |(_, columns)| usize::from(columns));
        let width = width.min(columns.saturating_sub(OTHERS)).max(MIN_URL);
        println!(
            "\n{:width$}  {:>6}  {:>7}  {:11}  {:>4}  {:>5}  {:>6}",
            "URL", "status", "bytes", "outcome", "age", "ttl", "ms"
        );
        Self { width, rows: Vec::new() }
    }

    pub fn add(&mut self, row: Row) {
        let width = self.width;
        let url = shorten(&row.url, width);
        let age =
            row.status.and_then(|status| status.age()).map_or("-".into(), |age| age.as_secs().to_string());
        let ttl = row.status.and_then(|status| status.ttl()).map_or("-".into(), |ttl| ttl.to_string());
        println!(
            "{url:width$}  {:>6}  {:>7}  {:11}  {age:>4}  {ttl:>5}  {:>6.2}",
            row.code,
            row.bytes,
            row.outcome(),
            row.elapsed.as_secs_f64() * 1000.0
        );
        self.rows.push(row);
    }

    pub fn end(self) {
        let mut totals: BTreeMap<&str, (usize, usize, Duration)> = BTreeMap::new();
        for row in &self.rows {
            let (count, bytes, elapsed) = totals.entry(row.outcome()).or_default();
            (*count, *bytes, *elapsed) = (*count + 1, *bytes + row.bytes, *elapsed + row.elapsed);
        }
        println!("\n{} requests", self.rows.len());
        for (outcome, (count, bytes, elapsed)) in totals {
            let mean = elapsed.as_secs_f64() * 1000.0 / count as f64;
            println!("  {outcome:11}  {count:>4}  {bytes:>9} bytes  {mean:>9.3} ms on average");
        }
    }
}

impl Row {
    /// `hit`, `miss`, `stale`, `revalidated` and so on, or `-` if the cache says nothing.
    fn outcome(&self) -> &'static str {
        self.status.as_ref().map_or("-", CacheStatus::word)
    }
}

/// Cuts the beginning, because URLs of one run differ at their end.
fn shorten(url: &str, width: usize) -> String {
    let len = url.chars().count();
    if len <= width {
        return url.to_owned();
    }
    std::iter::once('…').chain(url.chars().skip(len - width + 1)).collect()
}
