//! `expire`, `prune`, `vacuum` and `verify`

use serde_json::json;

use crate::arguments::CacheIdentity;
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::progress::Progress;
use crate::target::{self, Access, Target};
use crate::text;

pub async fn expire(target: &Target, json: bool, output: &mut Output) -> Result<Exit, Failure> {
    let _progress = Progress::begin("deleting", None);
    let deleted = target.handle.delete_expired().await.map_err(target.failed("delete from"))?;
    if json {
        output.json(&json!({ "deleted": deleted }))?;
        return Ok(Exit::Done);
    }
    output.line(format_args!("deleted {}", text::count(deleted, "expired record", "expired records")))?;
    Ok(Exit::Done)
}

pub async fn prune(target: &Target, json: bool, output: &mut Output) -> Result<Exit, Failure> {
    let _progress = Progress::begin("pruning", None);
    let pruned = target.handle.prune().await.map_err(target.failed("prune"))?;
    if json {
        output.json(&json!({ "pruned": pruned }))?;
        return Ok(Exit::Done);
    }
    output.line(format_args!("pruned {}", text::count(pruned, "orphaned record", "orphaned records")))?;
    if pruned > 0 {
        output.line("they expire in an hour")?;
    }
    Ok(Exit::Done)
}

/// Opens the storage itself: only the type of a SQLite storage can return space.
pub async fn vacuum(
    address: &str,
    identity: &CacheIdentity,
    json: bool,
    output: &mut Output,
) -> Result<Exit, Failure> {
    let opened = target::open_sqlite(address).await?;
    let Some((storage, address)) = opened else {
        // Also where there is nothing to do, a storage that does not exist is an error.
        Box::pin(Target::open(address, Access::Read, identity)).await?;
        match json {
            true => output.json(&json!({ "freed_bytes": 0 }))?,
            false => output.line("nothing to do: only a SQLite file keeps the space of what was deleted")?,
        }
        return Ok(Exit::Done);
    };
    let progress = Progress::begin("returning space", None);
    let failed = |error| Failure::storage("shrink", &address, &error);
    let freed = storage.vacuum().await.map_err(failed)?;
    // The file itself becomes shorter when the log of changes is written into it.
    storage.close().await.map_err(failed)?;
    drop(progress);
    match json {
        true => output.json(&json!({ "freed_bytes": freed }))?,
        false => output.line(format_args!("returned {} to the disk", text::size(freed)))?,
    }
    Ok(Exit::Done)
}

pub async fn verify(target: &Target, json: bool, output: &mut Output) -> Result<Exit, Failure> {
    let progress = Progress::over_all("verifying", target).await;
    let bar = progress.bar();
    let verified = target.handle.verify(move |verified| bar.set_position(verified.responses));
    let verified = verified.await.map_err(target.failed("read"))?;
    drop(progress);
    let exit = if verified.is_sound() { Exit::Done } else { Exit::Negative };
    if json {
        output.json(&json!({
            "responses": verified.responses,
            "body_bytes": verified.bytes,
            "damaged_records": verified.undecodable,
            "damaged_bodies": verified.incomplete,
            "orphaned_records": verified.orphans,
            "sound": verified.is_sound(),
        }))?;
        return Ok(exit);
    }
    let responses = text::count(verified.responses, "response", "responses");
    output.line(format_args!("read {responses}, {} of bodies", text::size(verified.bytes)))?;
    let findings = [
        (
            "damaged records",
            verified.undecodable,
            "damaged, foreign or of another version; the cache ignores them",
        ),
        (
            "damaged bodies",
            verified.incomplete,
            "chunks missing or of a wrong length; the cache fetches them again",
        ),
        ("orphaned records", verified.orphans, "never read again; prune lets them expire"),
    ];
    for (name, count, explanation) in findings {
        if count > 0 {
            output.line(format_args!("{name}: {} ({explanation})", text::grouped(count)))?;
        }
    }
    if verified.is_sound() {
        output.line("no damage")?;
    }
    Ok(exit)
}
