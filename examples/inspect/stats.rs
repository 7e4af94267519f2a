//! `stats`

use std::collections::{BTreeMap, HashMap};
use std::pin::pin;
use std::time::SystemTime;

use futures_util::TryStreamExt;
use http::Uri;
use serde::{Serialize, Serializer};
use tower_response_cache::{EntryFilter, StoredEntry, Timestamp};

use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::progress::Progress;
use crate::row::essence;
use crate::target::Target;
use crate::text::{self, align_left, align_right};

/// How many hosts are named: more would not fit a screen.
const TOP: usize = 10;
/// How many different names are counted one by one: some megabytes. Further ones are counted together, so that memory is
/// bounded whatever the origins have sent.
const MAX_NAMES: usize = 50_000;
const OTHERS: &str = "(others)";

#[derive(Default, Serialize)]
struct Stats {
    #[serde(flatten)]
    all: Count,
    fresh: u64,
    stale: u64,
    #[serde(serialize_with = "rfc3339")]
    oldest: Option<Timestamp>,
    #[serde(serialize_with = "rfc3339")]
    newest: Option<Timestamp>,
    by_status: BTreeMap<u16, Count>,
    by_type: Vec<Named>,
    by_host: Vec<Named>,
}

#[derive(Clone, Copy, Default, Serialize)]
struct Count {
    responses: u64,
    body_bytes: u64,
    stored_bytes: u64,
}

#[derive(Serialize)]
struct Named {
    name: Box<str>,
    #[serde(flatten)]
    count: Count,
}

impl Count {
    fn add(&mut self, entry: &StoredEntry) {
        self.responses += 1;
        self.body_bytes += entry.body_len();
        self.stored_bytes += entry.stored_len();
    }
}

pub async fn run(target: &Target, json: bool, output: &mut Output) -> Result<Exit, Failure> {
    let mut stats = Stats::default();
    let (mut types, mut hosts) = (Names::default(), Names::default());
    let everything = EntryFilter::new();
    let progress = Progress::over_all("counting", target).await;
    let mut entries = pin!(target.handle.entries(&everything));
    while let Some(entry) = entries.try_next().await.map_err(target.failed("list"))? {
        stats.add(&entry);
        types.count_of(entry.content_type().map_or("(none)", essence)).add(&entry);
        let uri = entry.url().parse::<Uri>().ok();
        let host = uri.as_ref().and_then(|uri| uri.authority()).map_or("(none)", |host| host.as_str());
        hosts.count_of(host).add(&entry);
        progress.step();
    }
    drop(progress);
    (stats.by_type, stats.by_host) = (types.sorted(), hosts.sorted());
    stats.by_host.truncate(TOP);
    if json {
        output.json(&stats)?;
    } else {
        stats.print(output)?;
    }
    Ok(Exit::Done)
}

impl Stats {
    fn add(&mut self, entry: &StoredEntry) {
        self.all.add(entry);
        *(if entry.is_fresh() { &mut self.fresh } else { &mut self.stale }) += 1;
        let stored = entry.stored_at();
        self.oldest = Some(self.oldest.map_or(stored, |oldest| oldest.min(stored)));
        self.newest = Some(self.newest.map_or(stored, |newest| newest.max(stored)));
        self.by_status.entry(entry.status().as_u16()).or_default().add(entry);
    }

    fn print(&self, output: &mut Output) -> std::io::Result<()> {
        let now = Timestamp::from(SystemTime::now());
        let responses = text::count(self.all.responses, "response", "responses");
        output.line(format_args!(
            "{responses}: {} fresh, {} stale",
            text::grouped(self.fresh),
            text::grouped(self.stale)
        ))?;
        let (bodies, stored) = (text::size(self.all.body_bytes), text::size(self.all.stored_bytes));
        output.line(format_args!("{bodies} of bodies, {stored} in storage"))?;
        if let (Some(oldest), Some(newest)) = (self.oldest, self.newest) {
            output.line(format_args!("oldest: {}", text::timestamp(oldest, now)))?;
            output.line(format_args!("newest: {}", text::timestamp(newest, now)))?;
        }
        let by_status: Vec<_> =
            self.by_status.iter().map(|(code, count)| (code.to_string(), *count)).collect();
        let named = |all: &[Named]| {
            all.iter().map(|one| (text::escaped(&one.name).into_owned(), one.count)).collect()
        };
        print_section("by status", by_status, output)?;
        print_section("by type", named(&self.by_type[..self.by_type.len().min(2 * TOP)]), output)?;
        print_section("by host", named(&self.by_host), output)
    }
}

fn print_section(title: &str, lines: Vec<(String, Count)>, output: &mut Output) -> std::io::Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    output.line(format_args!(
        "\n{}  {}  {}",
        align_left(title, 40),
        align_right("RESPONSES", 10),
        align_right("BODIES", 11)
    ))?;
    for (name, count) in lines {
        let name = text::shortened(&name, 38);
        let (responses, size) = (text::grouped(count.responses), text::size(count.body_bytes));
        output.line(format_args!(
            "  {}  {}  {}",
            align_left(&name, 38),
            align_right(&responses, 10),
            align_right(&size, 11)
        ))?;
    }
    Ok(())
}

/// The counts of each name.
#[derive(Default)]
struct Names(HashMap<Box<str>, Count>);

impl Names {
    fn count_of(&mut self, name: &str) -> &mut Count {
        let name = if self.0.contains_key(name) || self.0.len() < MAX_NAMES { name } else { OTHERS };
        self.0.entry(name.into()).or_default()
    }

    /// Returns the counts, those with the most responses first.
    fn sorted(self) -> Vec<Named> {
        let mut all: Vec<_> = self.0.into_iter().map(|(name, count)| Named { name, count }).collect();
        all.sort_by(|a, b| b.count.responses.cmp(&a.count.responses).then_with(|| a.name.cmp(&b.name)));
        all
    }
}

fn rfc3339<S: Serializer>(time: &Option<Timestamp>, to: S) -> Result<S::Ok, S::Error> {
    time.and_then(text::rfc3339).serialize(to)
}
