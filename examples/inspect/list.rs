//! `list`

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::pin::pin;
use std::time::SystemTime;

use futures_util::TryStreamExt;
use tower_response_cache::Timestamp;

use crate::arguments::{List, Order};
use crate::exit::{Exit, Failure};
use crate::json::Array;
use crate::output::Output;
use crate::row::Row;
use crate::table::{self, Table};
use crate::target::Target;
use crate::text;

pub async fn run(target: &Target, options: List, json: bool, output: &mut Output) -> Result<Exit, Failure> {
    let mut listing = Listing::begin(&options, json, output)?;
    let filter = options.conditions.filter();
    let mut entries = pin!(target.handle.entries(&filter));
    let limit = options.limit.unwrap_or(usize::MAX);
    match options.sort {
        None => {
            let mut left = limit;
            while left > 0 {
                let Some(entry) = entries.try_next().await.map_err(target.failed("list"))? else { break };
                listing.row(&Row::of(&entry), output)?;
                left -= 1;
            }
        }
        Some(order) => {
            // The heap keeps the first `limit` rows in order. Its top is the last of them, which a better row replaces.
            let mut first: BinaryHeap<Sorted> = BinaryHeap::new();
            while let Some(entry) = entries.try_next().await.map_err(target.failed("list"))? {
                first.push(Sorted::new(Row::of(&entry), order));
                if first.len() > limit {
                    first.pop();
                }
            }
            for sorted in first.into_sorted_vec() {
                listing.row(&sorted.row, output)?;
            }
        }
    }
    listing.end(output)
}

/// The output in one of its forms, and the totals for its last line.
struct Listing {
    form: Form,
    rows: u64,
    stale: u64,
    body_bytes: u64,
    stored_bytes: u64,
}

enum Form {
    Json(Array),
    /// For people.
    Table(Table),
    /// For scripts.
    Tabs,
}

impl Listing {
    fn begin(options: &List, json: bool, output: &mut Output) -> Result<Self, Failure> {
        let form = match options.width.or_else(|| output.columns()) {
            _ if json => Form::Json(Array::begin(output)?),
            Some(columns) => Form::Table(Table::begin(columns, Timestamp::from(SystemTime::now()), output)?),
            None => Form::Tabs,
        };
        Ok(Self { form, rows: 0, stale: 0, body_bytes: 0, stored_bytes: 0 })
    }

    fn row(&mut self, row: &Row, output: &mut Output) -> Result<(), Failure> {
        self.rows += 1;
        self.stale += u64::from(!row.fresh);
        self.body_bytes += row.body_bytes;
        self.stored_bytes += row.stored_bytes;
        match &mut self.form {
            Form::Json(array) => array.push(row, output)?,
            Form::Table(table) => table.row(row, output)?,
            Form::Tabs => table::tab_separated(row, output)?,
        }
        Ok(())
    }

    fn end(self, output: &mut Output) -> Result<Exit, Failure> {
        match self.form {
            Form::Json(array) => array.end(output)?,
            Form::Table(_) => output.line(format_args!(
                "{} ({} stale), {} of bodies, {} in storage",
                text::count(self.rows, "response", "responses"),
                text::grouped(self.stale),
                text::size(self.body_bytes),
                text::size(self.stored_bytes)
            ))?,
            Form::Tabs => {}
        }
        Ok(if self.rows == 0 { Exit::Negative } else { Exit::Done })
    }
}

/// A row that compares by the chosen order.
struct Sorted {
    row: Row,
    order: Order,
}

impl Sorted {
    fn new(row: Row, order: Order) -> Self {
        Self { row, order }
    }

    /// The sort key of a row. It ends with the URL, so that equal rows have the same order in every run.
    fn sort_key(&self) -> (Reverse<u64>, u64, &str) {
        let Row { url, body_bytes, stored_at, expires_at, .. } = &self.row;
        match self.order {
            Order::Url => (Reverse(0), 0, url),
            Order::Size => (Reverse(*body_bytes), 0, url),
            Order::Age => (Reverse(0), stored_at.as_millis(), url),
            Order::Expires => (Reverse(0), expires_at.as_millis(), url),
        }
    }
}

impl Ord for Sorted {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.sort_key().cmp(&other.sort_key())
    }
}

impl PartialOrd for Sorted {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Sorted {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Sorted {}
