//! `expire`, `prune` and `verify`

use crate::end::{End, Failure};
use crate::output::Output;
use crate::progress::{Progress, Shown};
use crate::target::Target;
use crate::text;

pub async fn expire(target: &Target, output: &mut Output) -> Result<End, Failure> {
    let _shown = Shown(Progress::begin("removing", None));
    let removed = target.handle.delete_expired().await.map_err(target.failed("delete from"))?;
    output.line(format_args!("removed {}", text::count(removed, "record", "records")))?;
    Ok(End::Done)
}

pub async fn prune(target: &Target, output: &mut Output) -> Result<End, Failure> {
    let _shown = Shown(Progress::begin("pruning", None));
    let pruned = target.handle.prune().await.map_err(target.failed("prune"))?;
    output.line(format_args!("pruned {}", text::count(pruned, "record", "records")))?;
    Ok(End::Done)
}

pub async fn verify(target: &Target, output: &mut Output) -> Result<End, Failure> {
    let shown = Shown(Progress::begin("verifying", None));
    let progress = shown.0.clone();
    let verified = target.handle.verify(move |verified| progress.at(verified.responses));
    let verified = verified.await.map_err(target.failed("read"))?;
    drop(shown);
    let responses = text::count(verified.responses, "response", "responses");
    output.line(format_args!("read {responses}, {} in bodies", text::size(verified.bytes)))?;
    let damage = [
        (verified.undecodable, "damaged: no record of this crate's"),
        (verified.incomplete, "damaged: parts of the body are missing or of a wrong length"),
        (verified.orphans, "named by nothing: prune gives them an end"),
    ];
    for (count, what) in damage {
        if count > 0 {
            output.line(format_args!("{} {what}", text::grouped(count)))?;
        }
    }
    if verified.undecodable + verified.incomplete == 0 {
        output.line("no damage")?;
        return Ok(End::Done);
    }
    Ok(End::Found)
}
