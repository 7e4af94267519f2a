//! The reverse proxy of `examples/reverse_proxy`, end to end: raw clients and raw origins over sockets, so that what is
//! on the wire is what is looked at.

mod caching;
mod connections;
mod failures;
mod forwarding;
mod interims;
mod peer;
mod program;
mod world;
mod writes;
