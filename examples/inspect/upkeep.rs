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
pub async fn verify(_: &Target, _: &mut Output) -> Result<End, Failure> {
    todo!()
}
