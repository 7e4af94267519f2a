//! `delete` and `purge`

use tower_response_cache::EntryFilter;

use crate::arguments::{Consent, Delete};
use crate::ask;
use crate::conditions::exactly;
use crate::end::{End, Failure};
use crate::output::Output;
use crate::progress::{Progress, Shown};
use crate::target::Target;
use crate::text;

pub async fn matching(target: &Target, options: Delete, output: &mut Output) -> Result<End, Failure> {
    let Delete { urls, conditions, consent } = options;
    if urls.is_empty() && conditions.are_none() {
        let line = "delete needs a URL or a condition; purge removes everything";
        return Err(Failure::Refused(line.to_owned()));
    }
    ask::can_be_asked(&consent)?;
    let filter = conditions.filter();
    let filter = if urls.is_empty() { filter } else { exactly(filter, &urls) };
    let found = ask::preview(target, &filter, output).await?;
    if found == 0 {
        return Ok(End::Found);
    }
    if ask::agreed(&consent, &target.place)? {
        remove(target, filter, found, output).await?;
    }
    Ok(End::Done)
}

pub async fn purge(target: &Target, consent: Consent, output: &mut Output) -> Result<End, Failure> {
    ask::can_be_asked(&consent)?;
    let everything = EntryFilter::new();
    let found = ask::preview(target, &everything, output).await?;
    if !ask::agreed(&consent, &target.place)? {
        return Ok(End::Done);
    }
    if target.is_own {
        // To clear is to clear what other partitions keep there too.
        remove(target, everything, found, output).await?;
    } else {
        let _shown = Shown(Progress::begin("removing", None));
        let removed = target.handle.clear().await.map_err(target.failed("empty"))?;
        said(removed, output)?;
    }
    Ok(End::Done)
}

async fn remove(
    target: &Target,
    filter: EntryFilter,
    found: u64,
    output: &mut Output,
) -> Result<(), Failure> {
    let shown = Shown(Progress::begin("removing", Some(found)));
    let progress = shown.0.clone();
    let filter = filter.matching(move |_| {
        progress.step();
        true
    });
    let removed = target.handle.delete_matching(&filter).await.map_err(target.failed("delete from"))?;
    drop(shown);
    said(removed, output)
}

fn said(removed: u64, output: &mut Output) -> Result<(), Failure> {
    Ok(output.line(format_args!("removed {}", text::count(removed, "response", "responses")))?)
}
