//! Previews what is about to be deleted, and asks for confirmation.

use std::io::{self, BufRead, IsTerminal, Write};
use std::pin::pin;

use futures_util::TryStreamExt;
use tower_response_cache::EntryFilter;

use crate::arguments::Confirmation;
use crate::exit::Failure;
use crate::output::Output;
use crate::progress::Progress;
use crate::target::Target;
use crate::text;

/// How many URLs a preview names: enough to notice a wrong pattern, few enough to be read.
const NAMED: usize = 5;

/// Fails if confirmation is needed but there is no terminal to ask on.
pub fn require_terminal(confirmation: &Confirmation, json: bool) -> Result<(), Failure> {
    if json && !confirmation.yes && !confirmation.dry_run {
        // The list that the question is about would stand in the JSON.
        return Err(Failure::Refused("--json needs --yes to delete, or --dry-run to look first".to_owned()));
    }
    if confirmation.yes || confirmation.dry_run || (io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return Ok(());
    }
    let line = "no terminal to ask for confirmation: use --yes to delete, or --dry-run to look first";
    Err(Failure::Refused(line.to_owned()))
}

/// The responses that a filter matches.
#[derive(Clone, Copy)]
pub struct Found {
    pub responses: u64,
    pub stored_bytes: u64,
}

/// Counts what a filter matches, and prints it unless the output is JSON.
pub async fn preview(
    target: &Target,
    filter: &EntryFilter,
    json: bool,
    output: &mut Output,
) -> Result<Found, Failure> {
    let progress = Progress::begin("looking", None);
    let (mut responses, mut bytes, mut named) = (0, 0, Vec::new());
    let mut entries = pin!(target.handle.entries(filter));
    while let Some(entry) = entries.try_next().await.map_err(target.failed("list"))? {
        responses += 1;
        bytes += entry.stored_len();
        if named.len() < NAMED {
            named.push(text::escaped(entry.url()).into_owned());
        }
        progress.step();
    }
    drop(progress);
    let found = Found { responses, stored_bytes: bytes };
    if json {
        return Ok(found);
    }
    let end = if named.is_empty() { "" } else { ":" };
    let count = text::count(responses, "response", "responses");
    output.line(format_args!("{count}, {} in storage{end}", text::size(bytes)))?;
    let columns = output.columns().map_or(usize::MAX, |columns| columns.saturating_sub(2).max(16));
    for url in &named {
        output.line(format_args!("  {}", text::shortened(url, columns)))?;
    }
    let others = responses - named.len() as u64;
    if others > 0 {
        output.line(format_args!("  … and {}", text::count(others, "other", "others")))?;
    }
    // The question goes to the standard error: the list it is about has to be there first.
    output.flush()?;
    Ok(found)
}

/// Returns whether to change the storage: `false` for a dry run. An answer other than yes is a failure.
///
/// `question` and `done` say what the change is: "delete from" and "deleted".
pub fn confirmed(
    confirmation: &Confirmation,
    (question, done): (&str, &str),
    address: &str,
) -> Result<bool, Failure> {
    if confirmation.dry_run {
        return Ok(false);
    }
    if confirmation.yes {
        return Ok(true);
    }
    let mut terminal = io::stderr();
    let mut answer = String::new();
    write!(terminal, "{question} {}? [y/N] ", text::escaped(address))?;
    terminal.flush()?;
    io::stdin().lock().read_line(&mut answer)?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(true),
        _ => Err(Failure::Refused(format!("nothing was {done}"))),
    }
}
