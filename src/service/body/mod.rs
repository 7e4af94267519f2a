//! Bodies: on their way in from the origin, and out of the storage.
//!
//! A [`Download`] is one body from the origin with its recorder; any number of [`Reader`]s read it while it comes. A
//! [`ChunkReader`] reads a stored body in chunks. Both are sources of a [`CacheBody`](crate::CacheBody).
//!
//! # Invariants
//!
//! - A body ends with its last byte or with an error, never short.
//! - What a reader has read to its end is found by the next lookup.
//! - A reader that is slow, stops, or is dropped holds up no other for longer than the patience of one window.
//! - Beside what the storage is just taking, at most one chunk of a body that is being stored is in memory.
//!
//! # Neighbours
//!
//! Calls `records`. It knows no flights: a reader only keeps a token, which tells the flight that somebody reads.

mod chunks;
mod download;
mod frame_buffer;
mod reader;

pub(super) use self::chunks::{ChunkReader, Chunked, Named};
pub(super) use self::download::Download;
pub(super) use self::reader::{Reader, Token};
