//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand, ValueEnum};
use tower_response_cache::UrlPattern;

use crate::end::{End, say};
use crate::{store, text};

const STORES: &str = "\
Stores: sqlite://PATH (or a plain path), directory://PATH, redis://HOST/0?cache_name=NAME, mongodb://HOST/NAME,
dynamodb://TABLE: whatever storage::connect takes and the program was built with.

Exit codes:
  0  done
  1  nothing was found (list, show, delete), damage was found (verify), or something was left out (copy)
  2  wrong usage, or refused: without --yes where nobody can be asked, or answered with no
  3  the store, or the output, failed

Where the standard output is no terminal, list writes a line an entry and no heading: URL, status, media type, bytes of
the body, when it was stored and until when it is fresh, with tabs between them.";

/// Looks into the store of a cache, and keeps it.
#[derive(Parser)]
#[command(name = "inspect", after_help = STORES)]
pub struct Arguments {
    /// The store's address, or the path of a SQLite file
    #[arg(value_name = "STORE")]
    pub store: String,
    #[command(subcommand)]
    pub command: Command,
    #[command(flatten)]
    pub sight: Sight,
}

/// As which cache the program looks. By default across all partitions and secrets.
#[derive(Args)]
#[command(next_help_heading = "As which cache (default: as all)")]
pub struct Sight {
    /// See only what the cache of this partition sees
    #[arg(long, global = true, value_name = "NAME")]
    pub partition: Option<String>,
    /// See only what the cache with this secret sees: the file's bytes, as they are
    #[arg(long, global = true, value_name = "PATH")]
    pub secret_file: Option<PathBuf>,
}

#[derive(Subcommand)]
pub enum Command {
    /// What is stored
    List(List),
    /// All that is known about a URL, each variant
    Show(Show),
    /// Counts and bytes: by status, by media type, by host
    Stats(Stats),
    /// Removes what is stored for URLs, or what the conditions match
    Delete(Delete),
    /// Removes everything
    Purge(Consent),
    /// Removes what is past its time
    Expire,
    /// Gives what nothing names any more an end
    Prune,
    /// Reads all that is stored, and says what cannot be used
    Verify,
    /// Copies to another store, where nothing newer is overwritten
    Copy(Copy),
}

impl Command {
    pub fn only_looks(&self) -> bool {
        match self {
            Self::List(_) | Self::Show(_) | Self::Stats(_) | Self::Verify | Self::Copy(_) => true,
            Self::Delete(Delete { consent, .. }) | Self::Purge(consent) => consent.dry_run,
            Self::Expire | Self::Prune => false,
        }
    }
}

/// Which entries. All that are given must hold.
#[derive(Args)]
#[command(next_help_heading = "Conditions (all that are given must hold)")]
pub struct Conditions {
    /// URLs, such as 'example.com/**/*.png'
    #[arg(long, value_name = "GLOB")]
    pub url: Option<UrlPattern>,
    /// A status or some: 200, 4xx, 200-299
    #[arg(long, value_name = "STATUS", value_parser = statuses)]
    pub status: Option<(u16, u16)>,
    /// Received at least so long ago, such as 2h or 90s
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub older_than: Option<Duration>,
    /// Received at most so long ago
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub younger_than: Option<Duration>,
    /// Fresh now
    #[arg(long, conflicts_with = "stale")]
    pub fresh: bool,
    /// Stale now
    #[arg(long)]
    pub stale: bool,
    /// With a body longer than so much, such as 1MiB
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    pub larger_than: Option<u64>,
    /// Stored with this tag
    #[arg(long, value_name = "NAME")]
    pub tag: Option<String>,
}

#[derive(Args)]
pub struct List {
    /// One JSON array, without header values
    #[arg(long)]
    pub json: bool,
    /// At most so many
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// In this order; the largest, the oldest and what expires soonest come first
    #[arg(long, value_enum, value_name = "BY")]
    pub sort: Option<Order>,
    /// The table in so many columns, also where the output is no terminal
    #[arg(long, value_name = "COLUMNS", conflicts_with = "json")]
    pub width: Option<usize>,
    #[command(flatten)]
    pub conditions: Conditions,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Order {
    Url,
    Size,
    Age,
    Expires,
}

#[derive(Args)]
pub struct Show {
    /// The URL, or the name that the cache gave its key
    pub url: String,
    /// Its header fields; secret values are withheld
    #[arg(long)]
    pub headers: bool,
    /// The body, as it is, and nothing else but --headers
    #[arg(long)]
    pub body: bool,
    /// Only the variant with this number
    #[arg(long, value_name = "N")]
    pub variant: Option<usize>,
}

#[derive(Args)]
pub struct Stats {
    /// One JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct Delete {
    /// These, with all their variants
    #[arg(value_name = "URL")]
    pub urls: Vec<String>,
    #[command(flatten)]
    pub consent: Consent,
    #[command(flatten)]
    pub conditions: Conditions,
}

#[derive(Args)]
pub struct Consent {
    /// Do not ask
    #[arg(long, short)]
    pub yes: bool,
    /// Only say what would be removed
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Args)]
pub struct Copy {
    /// The other store's address; a file or directory is made if it is not there
    #[arg(value_name = "TO")]
    pub to: String,
    #[command(flatten)]
    pub conditions: Conditions,
}

impl Arguments {
    pub fn read() -> Result<Self, End> {
        Self::try_parse().map_err(|error| match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => match error.print() {
                Ok(()) => End::Done,
                Err(error) => crate::Failure::Output(error).told(),
            },
            ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                say("a store and a command are needed; see --help");
                End::Refused
            }
            _ => {
                say(&one_line(&error.render().to_string()));
                End::Refused
            }
        })
    }
}

/// The first paragraph of a message. Where a store's address stands in a wrong place, its password must not be said.
fn one_line(message: &str) -> String {
    let paragraph = message.trim().split("\n\n").next().unwrap_or_default();
    let paragraph = paragraph.strip_prefix("error:").unwrap_or(paragraph);
    let words = paragraph.split_whitespace().map(|word| match word.split_once("://") {
        Some(_) => store::shown(word.trim_matches('\'')),
        None => text::plain(word).into_owned(),
    });
    format!("{}; see --help", words.collect::<Vec<_>>().join(" "))
}

fn statuses(text: &str) -> Result<(u16, u16), String> {
    let wrong = || "a status is 200, 4xx or 200-299".to_owned();
    let number = |text: &str| text.parse().ok().filter(|code| (100..=999).contains(code)).ok_or_else(wrong);
    if let Some(class) = text.strip_suffix("xx").or_else(|| text.strip_suffix("XX")) {
        let first = class.parse::<u16>().ok().filter(|class| (1..=9).contains(class)).ok_or_else(wrong)?;
        return Ok((first * 100, first * 100 + 99));
    }
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(text)?, number(text)?),
    };
    if first <= last { Ok((first, last)) } else { Err(wrong()) }
}

fn bytes(text: &str) -> Result<u64, String> {
    let parsed = text.parse::<bytesize::ByteSize>();
    parsed.map(|size| size.as_u64()).map_err(|_| "a size is 500, 10KB or 1MiB".to_owned())
}
