//! How a request goes through the cache: the page to read first.
//!
//! # Where to start
//!
//! Follow a `GET` that finds nothing stored. It passes eight files, in this order:
//!
//! | file | what happens there |
//! |---|---|
//! | `cache.rs` | [`Cache::call`](tower_service::Service::call): which way the request takes, and the hit that needs no waiting |
//! | `request/exchange.rs` | the loop: look, decide, and get what is needed, alone or with others |
//! | `records/lookup.rs` | what is stored for the request, seen through the writes in flight |
//! | `coalesce/flight.rs` | the request leads a flight, so that others can follow its fetch |
//! | `origin/mod.rs` | the request is sent, by `fetcher.rs` |
//! | `origin/response.rs` | whether the response may be stored |
//! | `body/download.rs` | the body goes to its readers, and into the storage in chunks |
//! | `records/writer.rs` | the response is announced, and then written |
//!
//! Whether a response is fresh, may be stored, or answers a request is decided by [`policy`](crate::policy), which is
//! pure. This module asks it, and does the input and output.
//!
//! # The loop
//!
//! ```text
//! Request ── route ──┬─ bypass ───────▶ origin
//!                    ├─ unsafe ───────▶ origin, then invalidate
//!                    └─ cacheable ─┬─ answer_now: a fresh small hit, without waiting
//!                                  ▼
//!          ┌──────────────▶ lookup ─▶ decide ─┬─ serve (fresh, or stale with a refresh in the background)
//!          │                                  ├─ refuse (504: only-if-cached)
//!          │                                  ▼
//!          │                    a need: fetch, validate, or select among variants
//!          │                                  ▼
//!          │ look again               join a flight ─┬─ alone ──▶ origin::exchange ─▶ answer
//!          │                                         ├─ lead ───▶ origin::exchange ─▶ publish the outcome, answer
//!          └───────────────────────────── follow ◀───┘
//!                                            └─ the outcome answers this request, too
//! ```
//!
//! Every function that the loop calls returns an outcome to it and never calls the next step. A request looks at most eight
//! times, and waits for other requests at most twice the time that `coalesce_timeout` sets.
//!
//! # Rooms, and which may call which
//!
//! | room | what it holds |
//! |---|---|
//! | `request` | the routes, the loop, the decision on a stored response, following, refreshing |
//! | `origin` | sending a request, conditional requests, and whether a response may be stored |
//! | `respond` | responses from records, from downloads, and of the cache's own |
//! | `shared` | the fields that all services of a layer share; no behaviour |
//! | `coalesce` | flights, which know nothing of HTTP, and the type of their outcome |
//! | `body` | downloads with their readers, and readers of stored bodies |
//! | `records` | lookups, writes in flight, writers, invalidations, groups, leases; the storage behind deadlines |
//! | `directives`, `config`, `contents`, `telemetry`, `tasks`, `wakers` | what every room may use |
//!
//! A room calls only rooms below it in this table. `policy`, `entry`, `key` and `storage` are below all of them; `entry`
//! alone turns a response into a record and back.
//!
//! # The life of an entry
//!
//! An entry is all that is stored for one effective URI. What stands at the key of its head says what state it is in:
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
//!                                        └── invalidated, whatever stood there
//! ```
//!
//! A head holds the names of the fields that select a variant (`Vary`), a random *generation*, and the first variant
//! itself. Each further variant is a record of its own, at a key made of the generation and the request's values of those
//! fields. A body longer than a chunk is in chunk records, which its head or variant names by a random id.
//!
//! # The protocol between processes
//!
//! Processes that share a storage agree by comparing: every record carries a random [`Stamp`](crate::storage::Stamp), and
//! [`write_if`](crate::storage::Storage::write_if) replaces a record only if the one that is there is the one that was
//! seen.
//!
//! - **A lookup remembers the stamp** that it saw, and the write of the fetched response is compared with that. What was
//!   seen is never refreshed afterwards. A failed comparison means that another process has written since, so the response
//!   is given up for the storage: no second look, no retry. Of two overlapping fetches one is stored whole.
//! - **A tombstone** is what an invalidation writes at the head's key, always and without comparing. It makes every fetch
//!   that began before lose its comparison. It stays for ten minutes, its **fence**: a head or placeholder that replaces it
//!   carries the fence on, so that the key does not become empty before a late write has lost. Where a lookup saw nothing
//!   at all, a fetch gives up after nine minutes, since a tombstone may have come and gone unseen; `reserve_on_miss` removes that
//!   assumption by reserving the key before the request goes out.
//! - **A placeholder** is written at an empty key before the first chunk of a body, so that two writers do not both write
//!   chunks for it, and so that the final write has a stamp to compare with.
//! - **A generation** is random and never derived, and a new one begins with each new set of names. Variants of an old one
//!   cannot be found any more.
//! - **The grace**: chunks outlive the record that names them by an hour, so that a slow reader of a replaced body finishes.
//!   A reader that finds a chunk missing ends with an error, never short, and puts the record out of use.
//! - **A write that timed out may still land.** So its chunks are left to their time, while those of a lost comparison are
//!   removed.
//! - **A lease** is only an optimization: one process at a time fetches an entry; a process that cannot acquire it in time
//!   fetches anyway, and `write_if` decides what is stored.
//! - **A group or tag** is a record with a random value, which its members remember. Invalidating it writes another value.
//!
//! # Writes in flight
//!
//! The storage may take its time, and the next request must not find less than its caller has seen. So every write of a
//! head, variant or placeholder is announced in `records/in_flight.rs` before the caller has the last byte. Per key the
//! announced writes are an ordered chain, each compared with the one before. A lookup that finds in the storage the chain's
//! base or any of its elements answers with the last element, because the storage is about to hold that. Any other stamp was
//! put there by another process, wins, and ends the chain. A write that fails takes its successors with it; so does the end
//! of its runtime, since the announcement is a guard that its task holds.
//!
//! # Glossary
//!
//! - **origin**, **inner service**: the service that the layer wraps. **storage**: the place where records are kept.
//! - **entry**: all that is stored for one effective URI. **head record**, **variant record**, **chunk record**: its parts.
//! - **snapshot**: the stamps that a lookup saw, with which later writes are compared. **candidate**: the stored response that it
//!   selected for the request.
//! - **need**: the reason why a request goes to the origin. **context**: the terms on which it is sent.
//! - **flight**: one fetch that several requests share. Its **leader** holds the **ticket**; a **follower** waits for the
//!   **outcome**.
//! - **settled**: of an invalidation, that the storage has taken its tombstone. **announced**: of a write, that lookups of
//!   this process see it. **backlog**: the records that were handed to the storage and not taken yet.
//! - **download**: a body on its way from the origin. **reader**: one of those who get it.
//! - **in-flight write**: decided, and not acknowledged by the storage yet.
//! - **pending invalidation**: made, and not taken by the storage yet; until then the entry is a miss for this process.
//! - **freshen**: to update a stored response by a 304. **put out of use**: to replace a record that must not be served by a
//!   placeholder.
//! - **uncoalescable**: an entry whose responses are for one caller each, so that requests do not wait for each other.

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
mod wakers;

pub use self::cache::{Cache, CacheFuture};
pub(crate) use self::config::Config;
#[cfg(feature = "content-keys")]
pub use self::contents::ReplayedContent;
#[cfg(feature = "reqwest")]
pub(crate) use self::origin::{Fetcher, Unstorable, forward_unsafe};
#[cfg(feature = "reqwest")]
pub(crate) use self::records::HiddenFields;
pub(crate) use self::records::{CLOCK_SKEW, Found, Snapshot, Warming, origin, variant_in, within};
#[cfg(feature = "reqwest")]
pub(crate) use self::request::{Content, Route, bypass, route, run};
pub(crate) use self::respond::{RequestView, from_record};
pub(crate) use self::shared::Shared;
pub(crate) use self::telemetry::invalidated;
