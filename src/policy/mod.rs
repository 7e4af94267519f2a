//! What RFC 9111 and its neighbours say, as pure functions: what may be stored, for how long it is fresh, whether it
//! answers a request, what a 304 changes, and what an unsafe request makes doubtful.
//!
//! Promises: no I/O, no clock, no state; nothing panics, whatever bytes the fields hold; where a field is malformed or
//! contradicts itself, the answer is less caching, never more. What is not known is not stored.

mod conditions;
mod dates;
mod decide;
mod directives;
mod freshness;
mod groups;
mod interest;
mod invalidate;
mod list;
mod not_stored;
mod options;
mod range;
mod store;
mod targeted;
mod terms;
mod validate;
mod vary;

#[cfg(test)]
mod tests;

pub(crate) use self::conditions::{Answer, answer, not_modified_headers};
pub use self::decide::{StaleReason, ValidateReason};
pub(crate) use self::decide::{Verdict, decide, is_error_status, stale_on_error};
pub(crate) use self::directives::RequestDirectives;
pub(crate) use self::freshness::{Freshness, Given};
pub(crate) use self::groups::{MOST_GROUPS, NamedGroups, groups, invalidated_groups};
pub(crate) use self::interest::Interest;
pub(crate) use self::invalidate::{answers_get, invalidated, invalidates, is_safe};
pub use self::not_stored::NotStored;
pub(crate) use self::options::Options;
pub(crate) use self::store::{
    Exchanged, MOST_FIELDS, Withheld, ensure_date, is_reading, storable, stored_headers,
};
pub use self::terms::Ttl;
pub(crate) use self::terms::{Despite, Terms};
pub(crate) use self::validate::{
    add_entity_tags, add_validators, entity_tag_of, freshen, head_confirms, selects_304, strip_conditions,
    tag_selects,
};
#[cfg(feature = "reqwest")]
pub(crate) use self::vary::is_public;
pub(crate) use self::vary::{
    ALL_FIELDS, CONTENT, LeftOut, Selecting, is_personal, lines, selecting_names, selecting_value,
    suits_coding,
};
