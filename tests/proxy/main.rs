//! The reverse proxy of `examples/reverse_proxy`, end to end: raw clients and raw origins over sockets, so that what is
//! on the wire is what is looked at.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::future_not_send)]

#[path = "../../examples/reverse_proxy/answer.rs"]
mod answer;
#[path = "../../examples/reverse_proxy/fields.rs"]
mod fields;
#[path = "../../examples/reverse_proxy/front.rs"]
mod front;
#[path = "../../examples/reverse_proxy/host.rs"]
mod host;
#[path = "../../examples/reverse_proxy/interim.rs"]
mod interim;
#[path = "../../examples/reverse_proxy/origin.rs"]
mod origin;
#[path = "../../examples/reverse_proxy/server.rs"]
mod server;
#[path = "../../examples/reverse_proxy/upload.rs"]
mod upload;
#[path = "../../examples/reverse_proxy/wire.rs"]
mod wire;

mod caching;
mod connections;
mod failures;
mod forwarding;
mod interims;
mod peer;
mod program;
mod world;
mod writes;
