//! `copy`

use crate::arguments::{Copy, Sight};
use crate::end::{End, Failure};
use crate::output::Output;
use crate::progress::{Progress, Shown};
use crate::target::{Access, Target};
use crate::text;

pub async fn run(target: &Target, options: Copy, sight: &Sight, output: &mut Output) -> Result<End, Failure> {
    let to = Box::pin(Target::open(&options.to, Access::Make, sight)).await?;
    let filter = options.conditions.filter();
    let shown = Shown(Progress::begin("copying", None));
    let progress = shown.0.clone();
    let wanted = format!("copy to {} from", to.place);
    // Boxed: with all storages the compiler's depth would not do for it.
    let copied = Box::pin(target.handle.copy_to(&to.storage, &filter, move |copied| {
        progress.at(copied.responses + copied.unchanged + copied.skipped + copied.failed);
    }));
    let copied = copied.await.map_err(target.failed(&wanted))?;
    drop(shown);
    let responses = text::count(copied.responses, "response", "responses");
    output.line(format_args!("copied {responses}, {}", text::size(copied.bytes)))?;
    if copied.unchanged > 0 {
        output.line(format_args!("already there: {}", text::grouped(copied.unchanged)))?;
    }
    if copied.skipped > 0 {
        output
            .line(format_args!("skipped {}: newer, or invalidated, there", text::grouped(copied.skipped)))?;
    }
    if copied.failed > 0 {
        let failed = text::grouped(copied.failed);
        output.line(format_args!("left out {failed}: incomplete here, or too large there"))?;
    }
    Ok(if copied.failed > 0 { End::Found } else { End::Done })
}
