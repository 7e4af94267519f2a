//! Compares this crate with other caches and with the raw drivers.
//!
//! - `cargo bench --bench peers [-- PART …]` prints a table of times and ratios for each part.
//! - `cargo bench --bench peers -- load` measures latency against load, and draws it.
//! - `cargo bench --bench peers -- growth [STORAGE …]` measures how the cost grows with the number of entries.
//! - `cargo bench --bench peers -- --help` names the parts and options. `--quick` runs everything once and briefly.
//!
//! The programs are a crate of their own in `benches/peers`, because the other caches need some hundred crates that this
//! one does not. This bench builds it with the release profile, and runs it.
#![allow(missing_docs, clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let mut arguments: Vec<_> = std::env::args_os().skip(1).collect();
    // `cargo test` runs each bench once, and building this crate's peers for that would take minutes. tests/release.sh
    // runs it.
    let Some(bench) = arguments.iter().position(|word| word == "--bench") else { return ExitCode::SUCCESS };
    arguments.remove(bench);
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers/Cargo.toml");
    if !manifest.exists() {
        eprintln!(
            "there is no {}: the published package lacks it, the repository has it",
            manifest.display()
        );
        return ExitCode::FAILURE;
    }
    // This program is target/release/deps/peers-…
    let own = std::env::current_exe().unwrap();
    let target = own.ancestors().nth(3).unwrap();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--release", "--locked", "--bins", "--manifest-path"]).arg(manifest);
    cargo.arg("--target-dir").arg(target);
    // cargo sets these variables for its benches. The build scripts that read them would run again.
    for (variable, _) in std::env::vars_os() {
        let is_of_package =
            |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
        if variable.to_str().is_some_and(is_of_package) {
            cargo.env_remove(variable);
        }
    }
    if !cargo.status().unwrap().success() {
        return ExitCode::FAILURE;
    }
    let status = Command::new(target.join("release/peers")).args(arguments).status().unwrap();
    if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
