//! The administration service: its access control, its API, PURGE and BAN, and its page in a browser.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::future_not_send)]

mod access;
mod api;
#[path = "../support/browser.rs"]
mod browser;
mod methods;
mod page;
#[path = "../support/mod.rs"]
mod support;
mod world;
