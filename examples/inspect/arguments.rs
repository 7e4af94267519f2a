//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use tower_response_cache::UrlPattern;

use crate::exit::{Exit, print_error};
use crate::{address, text};

const AFTER_HELP: &str = "\
Storages: sqlite://PATH (or a plain path), directory://PATH, redis://HOST/0?cache_name=NAME, mongodb://HOST/NAME, \
dynamodb://TABLE: any address that storage::connect takes, if the program was built with the storage's feature. It may also \
stand directly after the command.

Exit codes:
  0  done
  1  nothing was found (list, show, delete), damage was found (verify), or a response was not copied (copy)
  2  wrong usage, or not confirmed: answered with no, or no terminal to ask on and no --yes
  3  the storage or the output failed

If the standard output is no terminal, list writes a line per response, without a heading. Its values are separated by \
tabs: URL, status, media type, bytes of the body, when it was stored, until when it is fresh, and fresh or stale.";

/// Shows and changes what a storage holds.
#[derive(Parser)]
#[command(name = "inspect", after_help = AFTER_HELP)]
pub struct Arguments {
    /// The storage's address, or the path of a SQLite file
    #[arg(value_name = "STORAGE")]
    pub storage: String,
    #[command(subcommand)]
    pub command: Command,
    /// Writes JSON, without values of header fields that may be secret
    #[arg(long, global = true)]
    pub json: bool,
    #[command(flatten)]
    pub identity: CacheIdentity,
}

/// Which of the caches that share the storage the command acts as.
#[derive(Args)]
#[command(next_help_heading = "Which cache (default: all that share the storage)")]
pub struct CacheIdentity {
    /// Only the responses of the cache with this partition
    #[arg(long, global = true, value_name = "NAME")]
    pub partition: Option<String>,
    /// Only the responses of the cache with this key secret: the bytes of a file, unchanged
    #[arg(long, global = true, value_name = "PATH")]
    pub key_secret_file: Option<PathBuf>,
}

#[derive(Subcommand)]
pub enum Command {
    /// Lists the stored responses
    List(List),
    /// Shows all that is known about the responses of one URL
    Show(Show),
    /// Counts responses and bytes, by status, media type and host
    Stats,
    /// Deletes the responses of URLs, or those that match the conditions
    Delete(Delete),
    /// Deletes everything
    Purge(Confirmation),
    /// Deletes expired records, body chunks included
    Expire,
    /// Lets orphaned records expire, such as the chunks of an interrupted write
    Prune,
    /// Returns the free space of a SQLite file to the disk
    Vacuum,
    /// Reads every response to its end, and reports damage
    Verify,
    /// Copies responses to another storage, without overwriting newer ones
    Copy(Copy),
}

impl Command {
    /// Returns whether the command changes nothing in the storage that it opens.
    pub fn is_read_only(&self) -> bool {
        match self {
            Self::List(_) | Self::Show(_) | Self::Stats | Self::Verify | Self::Copy(_) => true,
            Self::Delete(Delete { confirmation, .. }) | Self::Purge(confirmation) => confirmation.dry_run,
            Self::Expire | Self::Prune | Self::Vacuum => false,
        }
    }
}

/// Which responses the command is about.
#[derive(Args)]
#[command(next_help_heading = "Conditions (a response must meet all of them)")]
pub struct Conditions {
    /// With a URL of this pattern, such as 'example.com/**/*.png'
    #[arg(long, value_name = "GLOB")]
    pub url: Option<UrlPattern>,
    /// With this status: 200, 4xx or 200-299
    #[arg(long, value_name = "STATUS", value_parser = parse_statuses)]
    pub status: Option<(u16, u16)>,
    /// Stored more than this time ago, such as 2h or 90s
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub older_than: Option<Duration>,
    /// Stored less than this time ago
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub younger_than: Option<Duration>,
    /// Fresh: the cache may serve it without asking the origin
    #[arg(long, conflicts_with = "stale")]
    pub fresh: bool,
    /// Stale, or validated before each use (no-cache)
    #[arg(long)]
    pub stale: bool,
    /// With a body larger than this, such as 1MiB
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub larger_than: Option<u64>,
    /// Stored with this tag
    #[arg(long, value_name = "NAME")]
    pub tag: Option<String>,
}

#[derive(Args)]
pub struct List {
    /// Lists at most N responses
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// Sorts the list; the largest, the oldest or the first to expire come first
    #[arg(long, value_enum, value_name = "BY")]
    pub sort: Option<Order>,
    /// Writes the table in this width, even if the output is no terminal
    #[arg(long, value_name = "COLUMNS")]
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
    /// The URL, or the cache-key:/// name that list shows in its place
    pub url: String,
    /// Shows the header fields too; secret values are withheld
    #[arg(long)]
    pub headers: bool,
    /// Writes the body unchanged, instead of the facts
    #[arg(long)]
    pub body: bool,
    /// Shows only the variant with this number
    #[arg(long, value_name = "N")]
    pub variant: Option<usize>,
}

#[derive(Args)]
pub struct Delete {
    /// The URLs whose responses to delete, with all their variants
    #[arg(value_name = "URL")]
    pub urls: Vec<String>,
    /// Makes the responses stale instead of deleting them, so that they are validated before their next use
    #[arg(long)]
    pub soft: bool,
    #[command(flatten)]
    pub confirmation: Confirmation,
    #[command(flatten)]
    pub conditions: Conditions,
}

#[derive(Args)]
pub struct Confirmation {
    /// Deletes without asking
    #[arg(long, short)]
    pub yes: bool,
    /// Shows what would be deleted, and deletes nothing
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Args)]
pub struct Copy {
    /// The address of the other storage; a file or directory is created if it does not exist
    #[arg(value_name = "TO")]
    pub to: String,
    #[command(flatten)]
    pub conditions: Conditions,
}

impl Arguments {
    /// Parses the command line. What ends the program instead is already printed.
    pub fn read() -> Result<Self, Exit> {
        Self::try_parse_from(storage_first(std::env::args_os())).map_err(|error| match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => match error.print() {
                Ok(()) => Exit::Done,
                Err(error) => crate::Failure::Output(error).report(),
            },
            ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                print_error("a storage and a command are needed; see --help");
                Exit::Refused
            }
            _ => {
                print_error(&one_line(&error.render().to_string()));
                Exit::Refused
            }
        })
    }
}

/// Puts the storage before the command, if it stands directly after it.
fn storage_first(words: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut words: Vec<OsString> = words.collect();
    let is_command = |word: &OsString| {
        let command = Arguments::command();
        word.to_str().is_some_and(|word| command.get_subcommands().any(|one| one.get_name() == word))
    };
    if let [_, first, second, ..] = &mut *words {
        // clap takes the first word for the storage, unless it is a command. A file of such a name needs `./` before it.
        if is_command(first) && !second.as_encoded_bytes().starts_with(b"-") {
            std::mem::swap(first, second);
        }
    }
    words
}

/// Reduces clap's message to its first paragraph, without colours, tips and usage.
///
/// An address in a wrong position is quoted by clap, so its password has to be removed here.
fn one_line(message: &str) -> String {
    let paragraph = message.trim().split("\n\n").next().unwrap_or_default();
    let paragraph = paragraph.strip_prefix("error:").unwrap_or(paragraph);
    let words = paragraph.split_whitespace().map(|word| match word.split_once("://") {
        Some(_) => address::redacted(word.trim_matches('\'')),
        None => text::escaped(word).into_owned(),
    });
    format!("{}; see --help", words.collect::<Vec<_>>().join(" "))
}

fn parse_statuses(text: &str) -> Result<(u16, u16), String> {
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

fn parse_size(text: &str) -> Result<u64, String> {
    let parsed = text.parse::<bytesize::ByteSize>();
    parsed.map(|size| size.as_u64()).map_err(|_| "a size is 500, 10KB or 1MiB".to_owned())
}
