//! Compares this crate with other caches and with the raw drivers, in one run.
//!
//! `cargo bench --bench peers` in the repository's root runs it: see `benches/peers.rs`.
//!
//! A time is that of one request, from the request's creation to the end of its body. With 64 tasks it is the time of the
//! whole run divided by the number of requests. What is compared takes turns, five times, and the median counts. Behind
//! each time, its ratio to the first row's. Only the ratios can be compared between machines.

mod allocations;
mod chart;
mod growth;
mod herd;
mod in_memory;
mod load;
mod on_redis;
mod on_sqlite;

use std::fmt::Write;
use std::path::PathBuf;
use std::time::Instant;

use clap::{Args, Parser, Subcommand, ValueEnum};
use peers::report::{self, Table};
use tokio::runtime::Runtime;

/// Compares tower-response-cache with other caches and with raw drivers.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    other: Option<Other>,
    /// Which parts of the comparison to run [default: all].
    #[arg(value_enum)]
    parts: Vec<Part>,
    #[command(flatten)]
    common: Common,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Part {
    Memory,
    Allocations,
    Herd,
    Sqlite,
    Redis,
}

#[derive(Args)]
struct Common {
    /// Runs everything once and briefly. The figures mean nothing.
    #[arg(long)]
    quick: bool,
    /// Writes the tables in Markdown to this file too.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Other {
    /// Measures latency against load.
    Load {
        #[command(flatten)]
        common: Common,
        /// Draws load-hits.svg and load-misses.svg in this folder.
        #[arg(long, value_name = "FOLDER")]
        pictures: Option<PathBuf>,
    },
    /// Measures how the cost grows with the number of entries.
    Growth {
        /// Which storages to measure [default: all]. In a process of its own, a large one shares the memory with nothing that
        /// another has left.
        #[arg(value_enum)]
        storages: Vec<Grown>,
        #[command(flatten)]
        common: Common,
        /// The most entries. Ten million take 8 GB in the temporary directory.
        #[arg(long, default_value_t = 10_000_000)]
        most: usize,
        /// The most entries in memory. Ten million take 18 GB.
        #[arg(long, default_value_t = 10_000_000)]
        most_in_memory: usize,
        /// Waits for a line of input before each measurement, so that the machine can be made quiet after filling.
        #[arg(long)]
        wait: bool,
    },
}

/// Names a storage whose growth is measured.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Grown {
    Memory,
    Sqlite,
    Redis,
}

fn main() {
    let Arguments { other, parts, common } = Arguments::parse();
    let began = Instant::now();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    println!("{}\n{}\n", report::machine(), report::versions());
    let (tables, markdown) = match other {
        None => (compare(&runtime, &parts, common.quick), common.markdown),
        Some(Other::Load { common, pictures }) => {
            (load::tables(common.quick, pictures.as_deref()), common.markdown)
        }
        Some(Other::Growth { storages, common, most, most_in_memory, wait }) => {
            let tables = growth::tables(&storages, common.quick, most, most_in_memory, wait);
            (runtime.block_on(tables), common.markdown)
        }
    };
    for table in &tables {
        println!("{}", table.text());
    }
    if let Some(path) = markdown {
        let mut text = format!("Measured on {}, with {}.\n", report::machine(), report::versions());
        for table in &tables {
            let _ = write!(text, "\n{}", table.markdown());
        }
        std::fs::write(path, text).unwrap();
    }
    println!("in {} s", began.elapsed().as_secs());
}

fn compare(runtime: &Runtime, parts: &[Part], is_quick: bool) -> Vec<Table> {
    let wanted = |part| parts.is_empty() || parts.contains(&part);
    let mut tables = Vec::new();
    if wanted(Part::Memory) {
        tables.extend(runtime.block_on(in_memory::tables(is_quick)));
    }
    if wanted(Part::Allocations) {
        tables.extend(allocations::tables());
    }
    if wanted(Part::Herd) {
        tables.extend(runtime.block_on(herd::tables(is_quick)));
    }
    if wanted(Part::Sqlite) {
        tables.extend(runtime.block_on(on_sqlite::tables(is_quick)));
    }
    if wanted(Part::Redis) {
        match runtime.block_on(on_redis::tables(is_quick)) {
            Ok(new) => tables.extend(new),
            Err(reason) => println!("Redis is not measured: {reason}\n"),
        }
    }
    tables
}

/// Returns the columns of a table of times, in the order in which they are measured.
fn columns() -> Vec<String> {
    let all =
        peers::SIZES.iter().flat_map(|(_, size)| [format!("{size}, 1 task"), format!("{size}, 64 tasks")]);
    all.collect()
}

/// The number of tasks that send requests at the same time.
const TASKS: [usize; 2] = [1, 64];
