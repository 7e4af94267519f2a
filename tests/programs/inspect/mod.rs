//! The example `inspect`, started from a command line on storages that a cache has filled.

#[path = "../../../examples/inspect/text.rs"]
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
