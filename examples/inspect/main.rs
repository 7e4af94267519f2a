//! Looks into a store, and keeps it: lists, shows, counts, deletes, copies and checks what is stored, on any store that
//! has an address.
//!
//! `cargo run --release --example inspect --features sqlite -- STORE COMMAND`
//!
//! Promises: a store that is not there is not made; nothing is evicted for its length; commands that only look open a
//! SQLite file for reading only; the memory taken does not grow with the store, but for `list --sort`, and by some forty
//! bytes a response for `verify` and `prune`; no credentials of the store's address and no secret header value is printed;
//! control characters of what is stored reach no terminal.

#![allow(unreachable_pub)] // modules of a program: pub says what the others use

mod arguments;
mod ask;
mod conditions;
mod copy;
mod delete;
mod end;
mod json;
mod list;
mod output;
mod progress;
mod row;
mod show;
mod stats;
#[path = "../store/address.rs"]
mod store;
mod table;
mod target;
mod text;
mod upkeep;

use std::process::ExitCode;

use crate::arguments::{Arguments, Command};
use crate::end::{End, Failure};
use crate::output::Output;
use crate::target::{Access, Target};

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = match Arguments::read() {
        Ok(arguments) => arguments,
        Err(end) => return end.code(),
    };
    let mut output = Output::new();
    let done = run(arguments, &mut output).await;
    let flushed = output.flush();
    done.and_then(|end| flushed.map(|()| end)).unwrap_or_else(Failure::told).code()
}

async fn run(arguments: Arguments, output: &mut Output) -> Result<End, Failure> {
    let Arguments { store, command, sight } = arguments;
    let access = if command.only_looks() { Access::Look } else { Access::Change };
    let target = Target::open(&store, access, &sight).await?;
    match command {
        Command::List(options) => list::run(&target, options, output).await,
        Command::Show(options) => show::run(&target, options, output).await,
        Command::Stats(options) => stats::run(&target, options, output).await,
        Command::Delete(options) => delete::matching(&target, options, output).await,
        Command::Purge(consent) => delete::purge(&target, consent, output).await,
        Command::Expire => upkeep::expire(&target, output).await,
        Command::Prune => upkeep::prune(&target, output).await,
        Command::Verify => upkeep::verify(&target, output).await,
        Command::Copy(options) => copy::run(&target, options, &sight, output).await,
    }
}
