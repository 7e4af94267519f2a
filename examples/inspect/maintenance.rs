//! `expire`, `prune` and `verify`

use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::progress::Progress;
use crate::target::Target;
use crate::text;

pub async fn expire(target: &Target, output: &mut Output) -> Result<Exit, Failure> {
    let _progress = Progress::begin("deleting", None);
    let deleted = target.handle.delete_expired().await.map_err(target.failed("delete from"))?;
    output.line(format_args!("deleted {}", text::count(deleted, "expired record", "expired records")))?;
    Ok(Exit::Done)
}

pub async fn prune(target: &Target, output: &mut Output) -> Result<Exit, Failure> {
    let _progress = Progress::begin("pruning", None);
    let pruned = target.handle.prune().await.map_err(target.failed("prune"))?;
    output.line(format_args!("pruned {}", text::count(pruned, "orphaned record", "orphaned records")))?;
    if pruned > 0 {
        output.line("they expire in an hour")?;
    }
    Ok(Exit::Done)
}

pub async fn verify(target: &Target, output: &mut Output) -> Result<Exit, Failure> {
    let progress = Progress::begin("verifying", None);
    let bar = progress.bar();
    let verified = target.handle.verify(move |verified| bar.set_position(verified.responses));
    let verified = verified.await.map_err(target.failed("read"))?;
    drop(progress);
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
        return Ok(Exit::Done);
    }
    Ok(Exit::Negative)
}
