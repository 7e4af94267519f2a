//! What RFC 9111 demands, as tables of cases that run through the real layer.
//!
//! A case names its section, and is a story of requests: see [`table`] for the words it is told in.
#![allow(unreachable_pub, dead_code, clippy::unwrap_used, clippy::future_not_send)]

mod selection;
#[path = "../support/mod.rs"]
mod support;
mod table;

// Tables: a line of a case is one step, which rustfmt would tear apart.
#[rustfmt::skip]
mod conditions;
#[rustfmt::skip]
mod credentials;
#[rustfmt::skip]
mod freshness;
#[rustfmt::skip]
mod heads;
#[rustfmt::skip]
mod invalidation;
#[rustfmt::skip]
mod methods;
#[rustfmt::skip]
mod parsing;
#[rustfmt::skip]
mod ranges;
#[rustfmt::skip]
mod request_directives;
#[rustfmt::skip]
mod response_directives;
#[rustfmt::skip]
mod reuse;
#[rustfmt::skip]
mod stale;
#[rustfmt::skip]
mod storing;
#[rustfmt::skip]
mod targeted;
#[rustfmt::skip]
mod updating;
#[rustfmt::skip]
mod validation;
#[rustfmt::skip]
mod vary;
