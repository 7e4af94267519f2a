//! The decisions of RFC 9111 and the RFCs around it, as pure functions.
//!
//! They decide whether a response may be stored, how long it is fresh, whether it answers a request, what a 304
//! changes, and what an unsafe request invalidates. They also read preconditions and ranges (RFC 9110 §13 and §14), the
//! windows for stale responses (RFC 5861), `immutable` (RFC 8246), CDN-Cache-Control (RFC 9213), groups (RFC 9875) and
//! No-Vary-Search.
//!
//! The policy calls no other module of the crate but `time`. The modules `rules`, `control`, `entry` and `service` call
//! it, and so do the builder, the handle and the adapters.
//!
//! # Invariants
//! - No function does I/O, reads a clock or keeps state.
//! - No function panics, whatever bytes the fields hold.
//! - A field that is malformed or contradicts itself leads to less caching, never to more.
//! - A response with a status outside 200 to 599 is never stored.
//! - A response to an unknown method, or with an unreadable Vary, is stored only if a setting or a rule permits it.

mod byte_ranges;
mod conditions;
mod content_range;
mod dates;
mod decide;
mod directives;
mod freshness;
mod groups;
mod header_hints;
mod invalidate;
mod links;
mod list;
mod loose_name;
mod made_tag;
mod no_vary_search;
mod not_stored;
mod options;
mod parts;
mod resume;
mod rule_decision;
mod storing;
mod tags;
mod validate;
mod vary;

#[cfg(test)]
mod tests;

pub(crate) use self::conditions::{Answer, answer, not_modified_headers};
pub(crate) use self::content_range::ContentRange;
pub use self::decide::{StaleReason, ValidateReason};
pub(crate) use self::decide::{Verdict, decide, is_error_status, stale_on_error};
#[cfg(feature = "content-keys")]
pub(crate) use self::directives::forbids_transforming;
pub(crate) use self::directives::{RequestDirectives, ResponseDirectives};
pub(crate) use self::freshness::{Freshness, RuleTtl};
pub(crate) use self::groups::{MAX_GROUPS, NamedGroups, groups, invalidated_groups, names_groups};
pub(crate) use self::header_hints::HeaderHints;
pub(crate) use self::invalidate::{answers_get, invalidated, invalidates, is_safe};
#[cfg(feature = "sitemap")]
pub(crate) use self::invalidate::{is_same_origin, resolve};
pub(crate) use self::links::hinted;
pub(crate) use self::loose_name::loose_name;
pub(crate) use self::made_tag::{MadeTag, TagHasher, remove_made_tags};
pub(crate) use self::no_vary_search::{NO_VARY_SEARCH, NoVarySearch};
pub use self::not_stored::NotStored;
pub(crate) use self::options::{KeyCookies, Options};
pub(crate) use self::parts::{
    complete_fields, first_wanted, is_same_representation, partial_range, strong_validator,
};
pub(crate) use self::resume::{is_continued_by, is_resumable, retry_after};
pub use self::rule_decision::Ttl;
pub(crate) use self::rule_decision::{RuleDecision, StoreDespite};
#[cfg(feature = "content-keys")]
pub(crate) use self::storing::is_query;
pub(crate) use self::storing::{
    HttpExchange, MAX_FIELDS, UnstoredFields, ensure_date, is_failed_call, is_reading, storable,
    stored_headers,
};
pub(crate) use self::tags::{check_tag, field_tags, has_tag_field};
pub(crate) use self::validate::{
    add_entity_tags, add_validators, entity_tag_of, freshen, head_confirms, selects_304, strip_conditions,
    tag_selects,
};
#[cfg(feature = "reqwest")]
pub(crate) use self::vary::is_public;
pub(crate) use self::vary::{
    ALL_FIELDS, CONTENT, IgnoredSelectors, SelectingFields, accepts_coding, is_personal, raw_value,
    selecting_names, selecting_value,
};
