//! `delete` and `purge`

use tower_response_cache::EntryFilter;

use crate::arguments::{Confirmation, Delete};
use crate::conditions::with_urls;
use crate::confirm::{self, Found};
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::progress::Progress;
use crate::target::Target;
use crate::text;

pub async fn matching(
    target: &Target,
    options: Delete,
    json: bool,
    output: &mut Output,
) -> Result<Exit, Failure> {
    let Delete { urls, conditions, confirmation } = options;
    if urls.is_empty() && conditions.are_empty() {
        let line = "delete needs a URL or a condition; to delete everything, use purge";
        return Err(Failure::Refused(line.to_owned()));
    }
    // Before the preview, which may take long, is in vain.
    confirm::require_terminal(&confirmation, json)?;
    let filter = conditions.filter();
    let filter = if urls.is_empty() { filter } else { with_urls(filter, &urls) };
    let found = confirm::preview(target, &filter, json, output).await?;
    if found.responses == 0 {
        print_deleted(found, None, json, output)?;
        return Ok(Exit::Negative);
    }
    let deleted = match confirm::confirmed(&confirmation, &target.address)? {
        true => Some(delete(target, filter, found).await?),
        false => None,
    };
    print_deleted(found, deleted, json, output)?;
    Ok(Exit::Done)
}

pub async fn purge(
    target: &Target,
    confirmation: Confirmation,
    json: bool,
    output: &mut Output,
) -> Result<Exit, Failure> {
    confirm::require_terminal(&confirmation, json)?;
    let everything = EntryFilter::new();
    let found = confirm::preview(target, &everything, json, output).await?;
    let deleted = if !confirm::confirmed(&confirmation, &target.address)? {
        None
    } else if target.is_own {
        // `clear` would also delete what other caches keep in the storage.
        Some(delete(target, everything, found).await?)
    } else {
        let _progress = Progress::begin("deleting", None);
        Some(target.handle.clear().await.map_err(target.failed("clear"))?)
    };
    print_deleted(found, deleted, json, output)?;
    Ok(Exit::Done)
}

async fn delete(target: &Target, filter: EntryFilter, found: Found) -> Result<u64, Failure> {
    let progress = Progress::begin("deleting", Some(found.responses));
    let bar = progress.bar();
    let filter = filter.matching(move |_| {
        bar.inc(1);
        true
    });
    target.handle.delete_matching(&filter).await.map_err(target.failed("delete from"))
}

/// Prints how many responses were deleted, or nothing if none were to be.
fn print_deleted(found: Found, deleted: Option<u64>, json: bool, output: &mut Output) -> Result<(), Failure> {
    if json {
        output.json(&serde_json::json!({
            "responses": found.responses,
            "stored_bytes": found.stored_bytes,
            "deleted": deleted.unwrap_or(0),
        }))?;
    } else if let Some(deleted) = deleted {
        output.line(format_args!("deleted {}", text::count(deleted, "response", "responses")))?;
    }
    Ok(())
}
