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
    let Delete { urls, soft, conditions, confirmation } = options;
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
        print_changed(found, soft, None, json, output)?;
        return Ok(Exit::Negative);
    }
    let texts = if soft { ("make stale in", "expired") } else { ("delete from", "deleted") };
    let deleted = match confirm::confirmed(&confirmation, texts, &target.address)? {
        true if soft => Some(expire(target, filter, found).await?),
        true => Some(delete(target, filter, found).await?),
        false => None,
    };
    print_changed(found, soft, deleted, json, output)?;
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
    let deleted = if !confirm::confirmed(&confirmation, ("delete from", "deleted"), &target.address)? {
        None
    } else if target.is_own {
        // `clear` would also delete what other caches keep in the storage.
        Some(delete(target, everything, found).await?)
    } else {
        let _progress = Progress::begin("deleting", None);
        Some(target.handle.clear().await.map_err(target.failed("clear"))?)
    };
    print_changed(found, false, deleted, json, output)?;
    Ok(Exit::Done)
}

async fn delete(target: &Target, filter: EntryFilter, found: Found) -> Result<u64, Failure> {
    let progress = Progress::begin("deleting", Some(found.responses));
    let filter = counted(filter, &progress);
    target.handle.delete_matching(&filter).await.map_err(target.failed("delete from"))
}

async fn expire(target: &Target, filter: EntryFilter, found: Found) -> Result<u64, Failure> {
    let progress = Progress::begin("expiring", Some(found.responses));
    let filter = counted(filter, &progress);
    target.handle.expire_matching(&filter).await.map_err(target.failed("change"))
}

/// Returns the filter, which moves the bar at each response.
fn counted(filter: EntryFilter, progress: &Progress) -> EntryFilter {
    let bar = progress.bar();
    filter.matching(move |_| {
        bar.inc(1);
        true
    })
}

/// Prints how many responses were deleted or made stale, or nothing if none were to be.
fn print_changed(
    found: Found,
    soft: bool,
    changed: Option<u64>,
    json: bool,
    output: &mut Output,
) -> Result<(), Failure> {
    let done = if soft { "expired" } else { "deleted" };
    if json {
        output.json(&serde_json::json!({
            "responses": found.responses,
            "stored_bytes": found.stored_bytes,
            done: changed.unwrap_or(0),
        }))?;
    } else if let Some(changed) = changed {
        output.line(format_args!("{done} {}", text::count(changed, "response", "responses")))?;
    }
    Ok(())
}
