//! Shows and changes what a storage holds.
//!
//! It lists, shows, counts, deletes, copies and verifies stored responses, in any storage that has an address.
//!
//! `cargo run --release --example inspect --features sqlite -- STORAGE COMMAND`
//!
//! # Invariants
//! - A storage that does not exist is not created, except the target of `copy`.
//! - Opening a storage evicts nothing from it, whatever bound it has.
//! - Commands that change nothing open a SQLite file read-only, unless its address has options.
//! - Memory does not grow with the storage, except for `list --sort`, and by about forty bytes per response for `verify`
//!   and `prune`.
//! - No credentials of an address and no secret header value is printed.
//! - Control characters in what is stored do not reach the terminal.

#![allow(unreachable_pub)] // the modules of a program have no other crate to be public for

#[path = "../storage/address.rs"]
mod address;
mod arguments;
mod conditions;
mod confirm;
mod copy;
mod delete;
mod exit;
mod json;
mod list;
mod maintenance;
mod output;
mod progress;
mod row;
mod show;
mod stats;
mod table;
mod target;
mod text;

use std::process::ExitCode;

use crate::arguments::{Arguments, Command};
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::target::{Access, Target};

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = match Arguments::read() {
        Ok(arguments) => arguments,
        Err(exit) => return exit.code(),
    };
    let mut output = Output::new();
    let done = run(arguments, &mut output).await;
    // A command that failed may have printed something before.
    let flushed = output.flush();
    done.and_then(|exit| flushed.map(|()| exit)).unwrap_or_else(Failure::report).code()
}

async fn run(arguments: Arguments, output: &mut Output) -> Result<Exit, Failure> {
    let Arguments { storage, command, json, identity } = arguments;
    if let Command::Vacuum = command {
        return maintenance::vacuum(&storage, &identity, json, output).await;
    }
    let access = if command.is_read_only() { Access::Read } else { Access::Write };
    let target = Target::open(&storage, access, &identity).await?;
    let done = match command {
        Command::List(options) => list::run(&target, options, json, output).await,
        Command::Show(options) => show::run(&target, options, json, output).await,
        Command::Stats => stats::run(&target, json, output).await,
        Command::Delete(options) => delete::matching(&target, options, json, output).await,
        Command::Purge(confirmation) => delete::purge(&target, confirmation, json, output).await,
        Command::Expire => maintenance::expire(&target, json, output).await,
        Command::Prune => maintenance::prune(&target, json, output).await,
        Command::Vacuum => Ok(Exit::Done), // above
        Command::Verify => maintenance::verify(&target, json, output).await,
        Command::Copy(options) => copy::run(&target, options, &identity, json, output).await,
    }?;
    if access == Access::Write {
        // Leaves a SQLite file without its log of changes.
        target.handle.close().await.map_err(target.failed("close"))?;
    }
    Ok(done)
}
