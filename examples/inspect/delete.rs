//! `delete` and `purge`

use tower_response_cache::EntryFilter;

use crate::arguments::{Confirmation, Delete};
use crate::conditions::with_urls;
use crate::confirm;
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::progress::Progress;
use crate::target::Target;
use crate::text;

pub async fn matching(target: &Target, options: Delete, output: &mut Output) -> Result<Exit, Failure> {
    let Delete { urls, conditions, confirmation } = options;
    if urls.is_empty() && conditions.are_empty() {
        let line = "delete needs a URL or a condition; to delete everything, use purge";
        return Err(Failure::Refused(line.to_owned()));
    }
    // Before the preview, which may take long, is in vain.
    confirm::require_terminal(&confirmation)?;
    let filter = conditions.filter();
    let filter = if urls.is_empty() { filter } else { with_urls(filter, &urls) };
    let found = confirm::preview(target, &filter, output).await?;
    if found == 0 {
        return Ok(Exit::Negative);
    }
    if confirm::confirmed(&confirmation, &target.address)? {
        delete(target, filter, found, output).await?;
    }
    Ok(Exit::Done)
}

pub async fn purge(
    target: &Target,
    confirmation: Confirmation,
    output: &mut Output,
) -> Result<Exit, Failure> {
    confirm::require_terminal(&confirmation)?;
    let everything = EntryFilter::new();
    let found = confirm::preview(target, &everything, output).await?;
    if !confirm::confirmed(&confirmation, &target.address)? {
        return Ok(Exit::Done);
    }
    if target.is_own {
        // `clear` would also delete what other caches keep in the storage.
        delete(target, everything, found, output).await?;
    } else {
        let _progress = Progress::begin("deleting", None);
        let deleted = target.handle.clear().await.map_err(target.failed("clear"))?;
        print_deleted(deleted, output)?;
    }
    Ok(Exit::Done)
}

async fn delete(
    target: &Target,
    filter: EntryFilter,
    found: u64,
    output: &mut Output,
) -> Result<(), Failure> {
    let progress = Progress::begin("deleting", Some(found));
    let bar = progress.bar();
    let filter = filter.matching(move |_| {
        bar.inc(1);
        true
    });
    let deleted = target.handle.delete_matching(&filter).await.map_err(target.failed("delete from"))?;
    drop(progress);
    print_deleted(deleted, output)
}

fn print_deleted(deleted: u64, output: &mut Output) -> Result<(), Failure> {
    Ok(output.line(format_args!("deleted {}", text::count(deleted, "response", "responses")))?)
}
