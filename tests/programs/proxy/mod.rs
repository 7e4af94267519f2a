//! The example `reverse_proxy`, end to end.
//!
//! Clients and origins are raw sockets, so that the tests see the bytes on the wire.

#[cfg(feature = "admin")]
mod administration;
mod caching;
mod clients;
mod connections;
mod failures;
mod forwarding;
mod http2_origin;
mod interims;
mod limits;
mod operating;
mod parts;
mod peer;
mod program;
mod world;
mod writes;
