//! Before something is removed: what it is, and whether that is wanted.

use std::io::{self, BufRead, IsTerminal, Write};
use std::pin::pin;

use futures_util::TryStreamExt;
use tower_response_cache::EntryFilter;

use crate::arguments::Consent;
use crate::end::Failure;
use crate::output::Output;
use crate::progress::{Progress, Shown};
use crate::target::Target;
use crate::text;

/// URLs that are named.
const NAMED: usize = 5;

/// Refuses where nobody can be asked.
pub fn can_be_asked(consent: &Consent) -> Result<(), Failure> {
    if consent.yes || consent.dry_run || (io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return Ok(());
    }
    Err(Failure::Refused("there is no terminal to ask on: say --yes, or look with --dry-run".to_owned()))
}

/// Says what a filter matches; how many that are.
pub async fn preview(target: &Target, filter: &EntryFilter, output: &mut Output) -> Result<u64, Failure> {
    let shown = Shown(Progress::begin("looking", None));
    let (mut responses, mut bytes, mut named) = (0, 0, Vec::new());
    let mut entries = pin!(target.handle.entries(filter));
    while let Some(entry) = entries.try_next().await.map_err(target.failed("list"))? {
        responses += 1;
        bytes += entry.stored_len();
        if named.len() < NAMED {
            named.push(text::plain(entry.url()).into_owned());
        }
        shown.0.step();
    }
    drop(shown);
    let end = if named.is_empty() { "" } else { ":" };
    let count = text::count(responses, "response", "responses");
    output.line(format_args!("{count}, {} in the store{end}", text::size(bytes)))?;
    let columns = output.columns().map_or(usize::MAX, |columns| columns.saturating_sub(2).max(16));
    for url in &named {
        output.line(format_args!("  {}", text::shortened(url, columns)))?;
    }
    let others = responses - named.len() as u64;
    if others > 0 {
        output.line(format_args!("  … and {}", text::count(others, "other", "others")))?;
    }
    output.flush()?;
    Ok(responses)
}

/// Whether to go on: nothing is removed without a yes.
pub fn agreed(consent: &Consent, place: &str) -> Result<bool, Failure> {
    if consent.dry_run {
        return Ok(false);
    }
    if consent.yes {
        return Ok(true);
    }
    let mut terminal = io::stderr();
    let mut answer = String::new();
    write!(terminal, "remove this from {}? [y/N] ", text::plain(place))?;
    terminal.flush()?;
    io::stdin().lock().read_line(&mut answer)?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(true),
        _ => Err(Failure::Refused("nothing was removed".to_owned())),
    }
}
