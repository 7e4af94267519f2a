//! The program of `examples/inspect`, as it is started from a command line, on stores that a cache filled.

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
