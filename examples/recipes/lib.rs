//! The cache in the stacks of other crates.
//!
//! Each recipe is a file to copy, with the lines for your `Cargo.toml` at its head, and a test that runs it against a server
//! on this machine.
//!
//! | recipe | what it saves |
//! |---|---|
//! | [`github`] | GitHub's API by octocrab: an answer 304 does not count against the rate limit |
//! | [`kubernetes`] | discovery and OpenAPI of a cluster by kube |
//! | [`grpc`] | unary calls by tonic |
//! | [`jwks`] | the keys of an identity provider |
//! | [`openid`] | the discovery document of an identity provider |
//! | [`reqwest_stack`] | reqwest with reqwest-tracing above the cache and reqwest-retry below |
//! | [`sessions`] | an axum server with tower-sessions |
//! | [`compression`] | tower-http's compression above the cache or below |

pub mod compression;
pub mod github;
pub mod grpc;
pub mod jwks;
pub mod kubernetes;
pub mod openid;
pub mod reqwest_stack;
pub mod sessions;

#[cfg(test)]
mod server;
