//! Removing responses, or making them stale.
//!
//! # Invariants
//! - Everything is removed only by a request that says so by `confirm`.

use serde::{Deserialize, Serialize};

use super::Shared;
use super::conditions::Conditions;
use super::problem::Problem;
use crate::handle::EntryFilter;
use crate::storage::Storage;

/// The result of a purge.
#[derive(Debug, Serialize)]
pub(super) struct Purged {
    /// The responses were kept, and are stale.
    soft: bool,
    /// How many responses there were, or entries if a URL was named. `None` for tags and groups, which are not counted.
    count: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Url {
    url: String,
    #[serde(default)]
    soft: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Matching {
    matching: Conditions,
    #[serde(default)]
    soft: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tag {
    tag: String,
    #[serde(default)]
    soft: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Group {
    origin: String,
    name: String,
    #[serde(default)]
    soft: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct All {
    #[serde(default)]
    confirm: bool,
    #[serde(default)]
    soft: bool,
}

pub(super) async fn url<S: Storage>(shared: &Shared<S>, Url { url, soft }: Url) -> Result<Purged, Problem> {
    let handle = &shared.handle;
    let count = if soft { handle.expire_url(&url).await? } else { handle.delete_url(&url).await? };
    Ok(Purged { soft, count: Some(count) })
}

pub(super) async fn matching<S: Storage>(
    shared: &Shared<S>,
    Matching { matching, soft }: Matching,
) -> Result<Purged, Problem> {
    if matching.is_empty() {
        return Err(Problem::bad("matching has no condition: use purge/all to remove everything"));
    }
    chosen(shared, &matching.filter()?, soft).await
}

/// Removes the responses that a filter chooses, or makes them stale.
pub(super) async fn chosen<S: Storage>(
    shared: &Shared<S>,
    filter: &EntryFilter,
    soft: bool,
) -> Result<Purged, Problem> {
    let _turn = shared.scans.acquire().await; // never closed
    let handle = &shared.handle;
    let count =
        if soft { handle.expire_matching(filter).await? } else { handle.delete_matching(filter).await? };
    Ok(Purged { soft, count: Some(count) })
}

pub(super) async fn tag<S: Storage>(shared: &Shared<S>, Tag { tag, soft }: Tag) -> Result<Purged, Problem> {
    if tag.is_empty() {
        return Err(Problem::bad("the tag is empty"));
    }
    let handle = &shared.handle;
    if soft {
        handle.expire_tag(&tag).await?
    } else {
        handle.invalidate_tag(&tag).await?
    }
    Ok(Purged { soft, count: None })
}

pub(super) async fn group<S: Storage>(
    shared: &Shared<S>,
    Group { origin, name, soft }: Group,
) -> Result<Purged, Problem> {
    let handle = &shared.handle;
    if soft {
        handle.expire_group(&origin, &name).await?;
    } else {
        handle.invalidate_group(&origin, &name).await?;
    }
    Ok(Purged { soft, count: None })
}

pub(super) async fn all<S: Storage>(
    shared: &Shared<S>,
    All { confirm, soft }: All,
) -> Result<Purged, Problem> {
    if !confirm {
        return Err(Problem::bad("this is about all responses: say so with \"confirm\": true"));
    }
    everything(shared, soft).await
}

/// Removes all responses, or makes them stale.
pub(super) async fn everything<S: Storage>(shared: &Shared<S>, soft: bool) -> Result<Purged, Problem> {
    if soft {
        return chosen(shared, &EntryFilter::new(), true).await;
    }
    let _turn = shared.scans.acquire().await; // never closed
    Ok(Purged { soft, count: Some(shared.handle.clear().await?) })
}
