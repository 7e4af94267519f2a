//! Guides on how the cache works, how to use it, and what it promises.
//!
//! | page | content |
//! |---|---|
//! | [`how_it_works`] | pictures of the stack, of a request's way and of an entry's life |
//! | [`questions`] | what users ask, and each reason why a response is not cached |
//! | [`attacks`] | attacks that were tried, defences, and your part |
//! | [`conformance`] | each demand of RFC 9111, with its function and test |
//! | [`performance`] | speed next to other caches and raw drivers, growth, and costs at scale |
//! | [`migrating`] | guides from other HTTP caches |
//! | [`counterparts`] | settings of two Python libraries and of shared caches, and their counterparts |
//!
//! The modules below this one hold documentation only.

pub mod how_it_works;
pub mod migrating;
pub mod performance;

#[doc = include_str!("attacks.md")]
pub mod attacks {}

#[doc = include_str!("conformance.md")]
pub mod conformance {}

#[doc = include_str!("counterparts.md")]
pub mod counterparts {}

#[doc = include_str!("questions.md")]
pub mod questions {}
