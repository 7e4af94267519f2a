//! The demands of RFC 9111, as tables of cases that run through the real layer.
//!
//! A case names its section of the RFC, and is a sequence of requests. [`table`] explains how cases are written.
#![allow(unreachable_pub, dead_code, clippy::unwrap_used, clippy::future_not_send)]

mod selection;
#[path = "../support/mod.rs"]
mod support;
mod table;

// rustfmt skips the tables, so that each step of a case stays on one line.
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
