//! The examples, started from a command line, and nginx as an origin.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::future_not_send)]

#[cfg(feature = "sqlite")]
#[allow(dead_code)] // only `admin` clicks and types
#[path = "../support/browser.rs"]
mod browser;
#[cfg(any(feature = "sqlite", feature = "metrics"))]
mod built;
#[cfg(any(feature = "sqlite", feature = "metrics"))]
mod examples;
#[cfg(feature = "sqlite")]
#[path = "../servers/mod.rs"]
mod servers;
#[path = "../support/mod.rs"]
mod support;

// The proxy's files name one another from the root of their crate, so the root of this one has them too.
#[cfg(feature = "sqlite")]
#[path = "../../examples/reverse_proxy/accept.rs"]
mod accept;
#[cfg(feature = "sqlite")]
#[allow(dead_code)] // the program uses the rest
#[path = "../../examples/reverse_proxy/access_log.rs"]
mod access_log;
#[cfg(feature = "sqlite")]
#[path = "../../examples/reverse_proxy/activity.rs"]
mod activity;
#[cfg(feature = "sqlite")]
#[path = "../../examples/reverse_proxy/answer.rs"]
mod answer;
#[cfg(feature = "sqlite")]
#[path = "../../examples/reverse_proxy/backlog.rs"]
mod backlog;
#[cfg(feature = "sqlite")]
#[path = "../../examples/reverse_proxy/connect.rs"]
mod connect;
#[cfg(feature = "sqlite")]
#[path = "../../examples/reverse_proxy/download.rs"]
mod download;
#[cfg(feature = "sqlite")]
#[path = "../../examples/reverse_proxy/exchange.rs"]
mod exchange;
#[cfg(feature = "sqlite")]
#[path = "../../examples/reverse_proxy/fields.rs"]
mod fields;
#[cfg(feature = "sqlite")]
#[path = "../../examples/reverse_proxy/front.rs"]
mod front;
#[cfg(feature = "sqlite")]
#[path = "../../examples/reverse_proxy/host.rs"]
mod host;
#[cfg(feature = "sqlite")]
#[path = "../../examples/reverse_proxy/interim.rs"]
mod interim;
#[cfg(feature = "sqlite")]
#[path = "../../examples/reverse_proxy/limits.rs"]
mod limits;
#[cfg(feature = "sqlite")]
#[allow(dead_code)] // the program uses the rest
#[path = "../../examples/reverse_proxy/meter.rs"]
mod meter;
#[cfg(feature = "sqlite")]
#[path = "../../examples/reverse_proxy/multiplex.rs"]
mod multiplex;
#[cfg(feature = "sqlite")]
#[path = "../../examples/reverse_proxy/origin.rs"]
mod origin;
#[cfg(feature = "sqlite")]
#[path = "../../examples/reverse_proxy/pace.rs"]
mod pace;
#[cfg(feature = "sqlite")]
#[allow(dead_code)] // the program uses the rest
#[path = "../../examples/reverse_proxy/report.rs"]
mod report;
#[cfg(feature = "sqlite")]
#[path = "../../examples/reverse_proxy/server.rs"]
mod server;
#[cfg(feature = "sqlite")]
#[allow(dead_code)] // the program uses the rest
#[path = "../../examples/reverse_proxy/tls.rs"]
mod tls;
#[cfg(feature = "sqlite")]
#[path = "../../examples/reverse_proxy/upload.rs"]
mod upload;
#[cfg(feature = "sqlite")]
#[path = "../../examples/reverse_proxy/wire.rs"]
mod wire;

#[cfg(feature = "sqlite")]
mod inspect;
#[cfg(feature = "sqlite")]
mod nginx;
#[cfg(all(feature = "metrics", feature = "memory"))]
mod prometheus;
#[cfg(feature = "sqlite")]
mod proxy;
