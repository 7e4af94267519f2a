//! Servers that tests start, stop and restart, and a link that can fail.
//!
//! Test binaries include it by `#[path = "../servers/mod.rs"] mod servers;`.
#![allow(dead_code, unreachable_pub)] // each test binary uses only some items

pub mod child;
#[cfg(feature = "dynamodb")]
pub mod dynamodb;
pub mod link;
#[cfg(feature = "mongodb")]
pub mod mongodb;
pub mod redis;

use std::path::PathBuf;

/// An option of Java for servers that live for seconds.
///
/// The second compiler takes longer than it saves in that time.
pub const SHORT_LIVED_JVM: &str = "-XX:TieredStopAtLevel=1";

/// Returns the path of a program, or why the tests that need it cannot run.
pub fn find(program: &str) -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file());
    found.ok_or_else(|| format!("{program} is not installed"))
}

/// Returns whether a missing server is a failure, and not a reason to skip tests.
pub fn must_be_there() -> bool {
    std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false")
}
