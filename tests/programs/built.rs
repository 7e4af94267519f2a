//! The examples as cargo builds them for tests and benches.

use std::path::PathBuf;
use std::process::Command;

/// The features that these tests were built with.
const FEATURES: [(&str, bool); 16] = [
    ("default", cfg!(feature = "default")),
    ("memory", cfg!(feature = "memory")),
    ("sqlite", cfg!(feature = "sqlite")),
    ("directory", cfg!(feature = "directory")),
    ("redis", cfg!(feature = "redis")),
    ("redis-tls", cfg!(feature = "redis-tls")),
    ("mongodb", cfg!(feature = "mongodb")),
    ("dynamodb", cfg!(feature = "dynamodb")),
    ("reqwest", cfg!(feature = "reqwest")),
    ("axum", cfg!(feature = "axum")),
    ("admin", cfg!(feature = "admin")),
    ("follow-redirect", cfg!(feature = "follow-redirect")),
    ("regex", cfg!(feature = "regex")),
    ("content-keys", cfg!(feature = "content-keys")),
    ("testing", cfg!(feature = "testing")),
    ("metrics", cfg!(feature = "metrics")),
];

/// Builds an example and returns its path.
///
/// `cargo test --test programs` builds no examples, so cargo is called here. It gets the features of the tests, because
/// other features would build every dependency once more. If `EXAMPLES_ARE_BUILT` is set, cargo is not called, because
/// it would wait for every build that runs at the same time.
pub fn example(name: &str) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let folder = tests.parent().unwrap().parent().unwrap();
    let program = folder.join("examples").join(name);
    if std::env::var_os("EXAMPLES_ARE_BUILT").is_some() {
        return program;
    }
    let features: Vec<&str> = FEATURES.iter().filter(|(_, is_on)| *is_on).map(|(name, _)| *name).collect();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--example", name, "--no-default-features", "--features"]);
    cargo.arg(features.join(",")).arg("--target-dir").arg(folder.parent().unwrap());
    if folder.ends_with("release") {
        cargo.arg("--release");
    }
    // cargo sets these variables for its tests. The build script of ring runs again when they differ, and then
    // everything that depends on ring is built again, here and by the next cargo.
    for (variable, _) in std::env::vars_os() {
        let is_of_package =
            |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
        if variable.to_str().is_some_and(is_of_package) {
            cargo.env_remove(variable);
        }
    }
    assert!(cargo.status().unwrap().success(), "the example {name} was not built");
    program
}
