//! Servers that a test starts, hurts and starts again, and a link to them that can be hurt too.
//!
//! For test binaries that include it by `#[path = "../servers/mod.rs"] mod servers;`.
#![allow(dead_code, unreachable_pub)] // each test binary uses its part

pub mod child;
#[cfg(feature = "dynamodb")]
pub mod dynamodb;
pub mod link;
#[cfg(feature = "mongodb")]
pub mod mongodb;
pub mod redis;

use std::path::PathBuf;

/// A setting of Java for servers that live for seconds: the second compiler takes longer than it saves in that time.
pub const SHORT_LIVED_JVM: &str = "-XX:TieredStopAtLevel=1";

/// Where a program is, or why the tests that need it cannot run.
pub fn find(program: &str) -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file());
    found.ok_or_else(|| format!("{program} is not installed"))
}

/// Whether a missing server is a failure, not a reason to leave tests out.
pub fn must_be_there() -> bool {
    std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false")
}
