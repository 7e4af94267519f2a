//! The architecture of the cache: how a request is handled.
//!
//! This is the page to read first.
//!
//! # Where to start
//!
//! Follow a `GET` for which nothing is stored. It passes through eight files, in this order:
//!
//! | file | what happens there |
//! |---|---|
//! | `cache.rs` | [`Cache::call`](tower_service::Service::call) routes the request, and answers a hit that needs no waiting |
//! | `request/exchange.rs` | the loop: look in the storage, decide, and join a flight or fetch |
//! | `records/lookup.rs` | finds what is stored for the request, with the writes in flight taken into account |
//! | `coalesce/flight.rs` | lets the request lead a flight, so that other requests can follow its fetch |
//! | `origin/mod.rs` | sends the request, by `fetcher.rs` |
//! | `origin/response.rs` | decides whether the response may be stored |
//! | `body/download.rs` | passes the body to its readers, and stores it in chunks |
//! | `records/writer.rs` | announces the response, and then writes it |
//!
//! Whether a response is fresh, may be stored, or answers a request is decided by [`policy`](crate::policy), which is
//! pure. This module calls it, and does the input and output.
//!
//! # The loop
//!
//! ```text
//! Request ── route ──┬─ bypass ───────▶ origin
//!                    ├─ unsafe ───────▶ origin, then invalidate
//!                    └─ cacheable ─┬─ plain hit: fresh, small, after at most one read
//!                                  ▼
//!          ┌──────────────▶ lookup ─▶ decide ─┬─ serve (fresh, or stale with a refresh in the background)
//!          │                                  ├─ refuse (504: only-if-cached)
//!          │                                  ▼
//!          │                    a need: fetch, validate, complete, or select among variants
//!          │                                  ▼
//!          │ look again               join a flight ─┬─ independent ─▶ origin::exchange ─▶ answer
//!          │                                         ├─ lead ────────▶ origin::exchange ─▶ publish the outcome, answer
//!          └───────────────────────────── follow ◀───┘
//!                                            └─ the outcome answers this request, too
//! ```
//!
//! Every function that the loop calls returns an outcome to it, and never calls the next step. A request takes at most eight
//! rounds, and waits for other requests at most twice as long as `coalesce_timeout`.
//!
//! # Folders, and which may call which
//!
//! | folder or file | what it contains |
//! |---|---|
//! | `request` | the routes, the loop, the decision on a stored response, followers, background refreshes |
//! | `origin` | sending a request, conditional requests, and whether a response may be stored |
//! | `respond` | responses from records and from downloads, and the cache's own |
//! | `shared` | the fields that all services of a layer share, without behaviour |
//! | `coalesce` | flights, which know nothing of HTTP, and the type of their outcome |
//! | `body` | downloads with their readers, and readers of stored bodies |
//! | `records` | lookups, writes in flight, writers, invalidations, expiries, groups, leases; the storage with its deadlines |
//! | `directives`, `config`, `contents`, `telemetry`, `tasks` | what all of the above may use |
//!
//! Each calls only those below it in this table. `policy`, `entry`, `key`, `storage` and `wakers` are below all of them. Only `entry`
//! turns a response into a record and back.
//!
//! # The life of an entry
//!
//! An entry is all that is stored for one effective URI. The record at the key of its head tells which state it is in:
//!
//! ```text
//!                     ┌──────────────────────────── expired or evicted ─────────────────────────────┐
//!                     ▼                                                                             │
//!                  absent ── small body: write_if(seen nothing) ───────────────────────────▶ ┌──────┴──────┐
//!                     │                                                                      │    head     │◀─┐
//!                     └─ long body / reserved: placeholder ── chunks ── write_if(placeholder)│ fresh/stale │  │ replaced or
//!                                    ▲                                          │          ▶ └──────┬──────┘──┘ freshened:
//!                                    │                                          │                   │           write_if(head)
//!                                    └── long body: write_if(tombstone) ─┐      │                   │
//!                                                                        │      │                   │
//!                                     tombstone (10 minutes) ◀───────────┴──────┴── invalidated ────┘
//!                                        ▲          └── small body: write_if(tombstone) ──▶ head
//!                                        └── invalidated, in any state
//! ```
//!
//! A head contains the names of the fields that select a variant (`Vary`), a random *generation*, and the first variant
//! itself. Each further variant is a record of its own. Its key consists of the generation and the request's values of those
//! fields. A body longer than a chunk is stored in chunk records, which its head or variant names by a random id.
//!
//! Of a body that is stored in parts, the head or variant has a list of ranges, each with the random id of its chunks. A part is
//! added by the usual comparison with what its lookup saw. If that fails, it is added to the list that is there by then, as long
//! as that is one of the same representation, and its head has the same fence: then no invalidation came between.
//!
//! # The protocol between processes
//!
//! Processes that share a storage coordinate by comparing stamps. Every record has a random [`Stamp`](crate::storage::Stamp),
//! and [`write_if`](crate::storage::Storage::write_if) replaces a record only if it still has the stamp that was seen.
//!
//! - **A lookup remembers the stamp** that it saw, and the write of the fetched response is compared with it. A seen stamp is
//!   never refreshed afterwards. If the comparison fails, another process has written since, and the response is not stored:
//!   there is no second lookup and no retry. Of two overlapping fetches, one response is stored, and stored whole.
//! - **A tombstone** is what an invalidation writes at the head's key, always and without comparing. It makes the comparison
//!   of every fetch fail that began before. It stays for ten minutes. This time is its **fence**: a head or placeholder that
//!   replaces it carries the fence on, so that the key does not become empty before late writes have failed. If a lookup saw
//!   no record at all, its response is not stored after nine minutes, since a tombstone may have come and gone meanwhile.
//!   With `reserve_on_miss` this limit is not needed, because the key is reserved before the request is sent.
//! - **A placeholder** is written at an empty key before the first chunk of a body, so that two writers do not both write
//!   chunks for it, and so that the final write has a stamp to be compared with.
//! - **A generation** is random and never derived. A new one begins with each new set of names, and the variants of an old
//!   one can no longer be found.
//! - **The grace** is the hour by which chunks outlive the record that names them, so that a slow reader of a replaced body
//!   can finish. A reader that finds a chunk missing ends with an error, never short, and puts the record out of use.
//! - **A write that timed out may still succeed.** So its chunks stay until they expire, while those of a failed comparison
//!   are deleted.
//! - **A lease** is only an optimization: one process at a time fetches an entry. A process that cannot acquire it in time
//!   fetches anyway, and `write_if` decides what is stored.
//! - **A group or tag** is a record with a random value, which its members remember. Invalidating it writes another value.
//! - **An expiry** makes responses stale by hand. An entry and a group list their last expiries, and a response remembers the
//!   last one before its fetch: one write reaches all variants or members.
//! - **A list** of a path has the last values of No-Vary-Search, each with a random id. The id is part of the keys of the
//!   responses that answer several queries. Lookups and invalidations find these keys by the same list, and a value that comes
//!   back gets another id.
//!
//! # Writes in flight
//!
//! The storage may be slow, and the next request must not find less than its caller has seen. So every write of a head,
//! variant or placeholder is announced in `records/in_flight.rs` before the caller has the last byte. The announced writes to
//! a key are an ordered chain, in which each write is compared with the one before. A lookup that finds the chain's base or
//! any of its elements in the storage answers with the last element, because the storage will hold that. Any other stamp was
//! written by another process. It wins, and ends the chain. A write that fails takes its successors with it. So does the end
//! of its runtime, since the announcement is a guard that the task owns.
//!
//! # Glossary
//!
//! - **origin**, **inner service**: the service that the layer wraps. **storage**: where records are kept.
//! - **entry**: all that is stored for one effective URI. **head record**, **variant record**, **chunk record**: its parts.
//! - **lookup**: reading what is stored for a request. **snapshot**: the stamps that a lookup saw, with which later writes are
//!   compared. **candidate**: the stored response that the request selects.
//! - **hit**: a request that is answered with a fresh stored response. **miss**: a request for which no stored response can be
//!   used. **stale**: no longer fresh.
//! - **need**: the reason for which a request goes to the origin. **fetch context**: for which requests the origin is asked.
//! - **flight**: one fetch that several requests share. Its **leader** holds the **ticket**. Its **followers** wait for the
//!   **outcome**.
//! - **uncoalescable**: an entry whose responses are only for one caller each, so that requests do not wait for each other.
//! - **download**: a body that is arriving from the origin. **reader**: reads a download, or a stored body, for one caller.
//! - **break off**: to end early, with an error or without, said of a body. **continue**: to read the rest of such a body
//!   from a further response. **attempt**: one request for the rest.
//! - **validate**: to ask the origin whether a stored response is still current. **freshen**: to update a stored response by
//!   a 304. **refresh**: to validate in the background.
//! - **put out of use**: to replace a record that must not be served by a placeholder.
//! - **tombstone**: the record that an invalidation leaves. **placeholder**: the record that reserves a key. **fence**: the
//!   time until which a key must not become empty. **generation**: the random id under which the variants of a head are found.
//! - **part**: a contiguous range of a body that is stored. **slice**: an aligned range by which long bodies are fetched.
//!   **piece**: a contiguous part of a response, from the storage or from the origin.
//! - **use**: a request that finds the candidate. **idle**: not used for so long that it is dropped.
//! - **pending invalidation**: one that the storage has not acknowledged yet, until which the entry is a miss for this process.
//!   **settled**: acknowledged.
//! - **in-flight write**: decided, and not acknowledged by the storage yet. **announced**: visible to the lookups of this
//!   process. **committed**: acknowledged.
//! - **backlog**: the records that wait for the storage. **permit**: the right to add one.
//! - **lease**: the right of one process to fetch for all. **prefetch**: a request that is made only to store its response.

mod age;
mod body;
mod cache;
mod coalesce;
mod config;
#[cfg(feature = "content-keys")]
mod contents;
mod directives;
mod origin;
mod records;
mod request;
mod respond;
mod shared;
mod tasks;
mod telemetry;
#[cfg(test)]
mod tests;

pub use self::cache::{Cache, CacheFuture};
pub(crate) use self::config::Config;
#[cfg(feature = "content-keys")]
pub use self::contents::ReplayedContent;
#[cfg(feature = "reqwest")]
pub(crate) use self::origin::{Fetcher, Unstorable, forward_unsafe};
#[cfg(feature = "reqwest")]
pub(crate) use self::records::HiddenFields;
pub(crate) use self::records::{
    CLOCK_SKEW, EXPIRY_ATTEMPTS, Found, GroupState, Snapshot, Warming, contended, origin, variant_in, within,
};
#[cfg(feature = "reqwest")]
pub(crate) use self::request::{Content, Route, bypass, route, run};
pub(crate) use self::respond::{RequestView, from_record};
pub(crate) use self::shared::Shared;
pub(crate) use self::telemetry::invalidated;
