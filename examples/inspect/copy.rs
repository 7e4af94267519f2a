//! `copy`

use tower_response_cache::storage::Storage;

use crate::arguments::{CacheIdentity, Copy};
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::progress::Progress;
use crate::target::{Access, Target};
use crate::text;

pub async fn run(
    target: &Target,
    options: Copy,
    identity: &CacheIdentity,
    json: bool,
    output: &mut Output,
) -> Result<Exit, Failure> {
    // Boxed, here and below: with all storages compiled in, the nested futures exceed the compiler's recursion limit.
    let to = Box::pin(Target::open(&options.to, Access::Create, identity)).await?;
    let filter = options.conditions.filter();
    let progress = match options.conditions.are_empty() {
        true => Progress::over_all("copying", target).await,
        false => Progress::begin("copying", None),
    };
    let bar = progress.bar();
    let copied = Box::pin(target.handle.copy_to(&to.storage, &filter, move |copied| {
        bar.set_position(copied.responses + copied.unchanged + copied.skipped + copied.failed);
    }));
    let action = format!("copy to {} from", to.address);
    let copied = copied.await.map_err(target.failed(&action))?;
    drop(progress);
    to.storage.close().await.map_err(to.failed("close"))?;
    if json {
        output.json(&serde_json::json!({
            "copied": copied.responses,
            "body_bytes": copied.bytes,
            "unchanged": copied.unchanged,
            "skipped": copied.skipped,
            "not_copied": copied.failed,
        }))?;
        return Ok(if copied.failed == 0 { Exit::Done } else { Exit::Negative });
    }
    let responses = text::count(copied.responses, "response", "responses");
    output.line(format_args!("copied {responses}, {} of bodies", text::size(copied.bytes)))?;
    let others = [
        ("unchanged", copied.unchanged, "already in the other storage"),
        ("skipped", copied.skipped, "newer in the other storage, or invalidated there"),
        ("not copied", copied.failed, "incomplete here, or too large for the other storage"),
    ];
    for (name, count, explanation) in others {
        if count > 0 {
            output.line(format_args!("{name}: {} ({explanation})", text::grouped(count)))?;
        }
    }
    Ok(if copied.failed > 0 { Exit::Negative } else { Exit::Done })
}
