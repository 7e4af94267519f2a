//! Downloads of bodies from the origin, and readers of stored bodies.
//!
//! A [`Download`] is one body from the origin, together with the recorder that stores it. Any number of [`Reader`]s read it
//! while it is downloaded. A [`ChunkReader`] reads a stored body in chunks. A [`Stitched`] body joins stored pieces with those
//! that the origin is asked for. A [`Multipart`] sends several ranges of a body, each from a source of its own. All of them are
//! sources of a [`CacheBody`](crate::CacheBody).
//!
//! # Invariants
//!
//! - A body ends with its last byte or with an error, never short.
//! - A body that a reader has read to its end is found by the next lookup, if it is stored.
//! - A reader that is slow, stops, or is dropped holds up the others for no longer than `body_timeout`.
//! - Of a body that is being stored, at most one chunk and one frame are in memory, besides the chunk that the storage is
//!   writing.
//!
//! # Neighbours
//!
//! Calls `records`. It knows no flights: a reader only keeps a token, by which the flight knows that its body is being
//! read.

mod chunks;
mod download;
mod frame_buffer;
mod multipart;
mod reader;
mod stitched;
mod stored_parts;

pub(super) use self::chunks::{ChunkReader, ChunkedBody, RecordRef};
pub(super) use self::download::Download;
pub(super) use self::multipart::{Layout, Multipart, Part, content_range};
pub(super) use self::reader::{Reader, Token};
pub(super) use self::stitched::{Piece, Pieces, Stitched, StoredPieces};
pub(super) use self::stored_parts::StoredParts;
