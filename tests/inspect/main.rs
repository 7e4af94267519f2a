//! The program of `examples/inspect`, as it is started from a command line, on stores that a cache filled.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::future_not_send)]

#[path = "../servers/mod.rs"]
mod servers;
#[path = "../support/mod.rs"]
mod support;
#[path = "../../examples/inspect/text.rs"]
mod text;

mod changing;
mod endings;
mod listing;
mod program;
mod showing;
#[cfg(any(feature = "redis", feature = "directory"))]
mod stores;
mod terminal;
mod texts;
mod world;
