//! Responses in a table of AWS DynamoDB, which many processes on many machines may share, without a server to run.
//!
//! # What it promises
//! - A hit of up to 3 KiB is one request, and one of up to 128 KiB two (of a further variant one more), strongly consistent
//!   by default.
//! - [`write_if`](super::Storage::write_if) compares in DynamoDB, so it is atomic among all who use the table.
//! - DynamoDB drops a record by itself some time after its time is over (within days, says AWS), and never before. What
//!   is over and still there is not served; [`delete_expired`](super::Storage::delete_expired) is exact, and the store
//!   works without the expiry too.
//! - Listings and clearing read the table in pages of 1 MB; only `values` loads any, and no body's.
//! - Nothing waits for ever: a request has [`response_timeout`](DynamoDbStorageBuilder::response_timeout), retries
//!   included. Throttled requests are tried again within it, and the unprocessed part of batches, later each time.
//! - What takes longer than an operation may (to get credentials, to make a table, to move the times of a long body's
//!   chunks) goes on without who began it, and serves those who come later.
//! - Neither errors nor events hold addresses, tables, credentials or DynamoDB's own texts. Why no credentials are found is
//!   told as the driver tells it: it may name a profile or a file.
//!
//! # What to know
//! - **Price.** DynamoDB bills by length: 4 KB for a unit of reading (half of one where
//!   [`eventually_consistent`](DynamoDbStorageBuilder::eventually_consistent)), 1 KB for one of writing. Moving a
//!   record's time costs as much as writing it. A response that the origin confirms is one unit of writing, as far as
//!   its fields fit in 1 KB: a body of more than 3 KiB is not in the record that is written again, and the times of
//!   its chunks are moved about once in two days (by default: a quarter of how long it is kept). Listings, `size`,
//!   `clear` and `delete_expired` are billed for the whole table.
//! - **Speed.** The records of a URL share a partition, from which AWS gives 12 MB in a second (24 where eventually
//!   consistent) and to which it takes 1 MB in a second, or more once it has split it. A body that comes faster than it
//!   can be stored is not stored.
//! - **Parts.** A body's chunks outlive what names them, so they are taken to be there and not looked for, which would
//!   cost as much as reading them. Where some are missing all the same (deleted by hand, or their times were not moved
//!   because the process ended) the body ends in an error, never short, and is fetched anew the next time.
//! - **Bounds.** The store has none of its own, and DynamoDB evicts nothing: what has no end stays until it is deleted.
//! - **One record** is at most 390 KiB long, since an item may be 400 KB; longer bodies are kept in chunks.
//! - **The table** is one cache's. It is made by
//!   [`create_if_missing`](DynamoDbStorageBuilder::create_if_missing), or is there already: with two keys of type string
//!   and, for the expiry, time to live on the attribute below. Items of others in it are left alone by all operations.
//! - **Global tables** compare in each region alone: an invalidation in one is seen late in another.
//! - **Environment.** Where the program gives no settings, the driver looks for them: variables, profiles (with keys, SSO or
//!   a `credential_process`), the role of a container or a machine. Requests go through the proxies of `HTTP_PROXY` and
//!   `HTTPS_PROXY`, but for the hosts in `NO_PROXY`. On a machine that has a role, 169.254.169.254 belongs there.
//! - **Rights** that a user needs on the table: `dynamodb:GetItem`, `PutItem`, `UpdateItem`, `DeleteItem`, and for
//!   listings and clearing `Scan` and `BatchWriteItem`. To make it: `CreateTable`, `DescribeTable`, `UpdateTimeToLive`
//!   and `DescribeTimeToLive`. Who may only read is served hits.
//!
//! # The table
//! | attribute | type | |
//! |---|---|---|
//! | `entry` (partition key) | S | the URL's hash, 32 hexadecimal digits |
//! | `record` (sort key) | S | which of the entry's records: see below |
//! | `stamp` | B | 16 random bytes, new with each write: what `write_if` compares |
//! | `until` | N | until when it is kept, in milliseconds since the epoch; 18446744073709551615 is never |
//! | `expires` (time to live) | N | the same in seconds, rounded up; absent for never, and after the year 9999 |
//! | `value` | B | [`Record::to_bytes`](super::Record::to_bytes) |
//!
//! | `record` | a record for | dropped by DynamoDB after |
//! |---|---|---|
//! | `head` | a URL: its first variant with a small body, or the mark of an invalidation | neither it, nor a variant, nor an invalidation needs it |
//! | `variant:<slot>` | a further variant | it can be neither served nor validated any more |
//! | `chunk:<slot>:<part>` | 128 KiB of a larger body; ten digits | an hour or more after the record that names it |
//! | `index:<slot>` | the entity tags of further variants | as these |
//! | `lease`, `group` | a lease between processes, the value of a group | as they say |
//!
//! The names of the keys and of the time to live may be others
//! ([`key_names`](DynamoDbStorageBuilder::key_names), [`expiry_name`](DynamoDbStorageBuilder::expiry_name)).
//!
//! ```text
//! aws dynamodb scan --table-name app --select COUNT --filter-expression '#r = :h' \
//!   --expression-attribute-names '{"#r":"record"}' --expression-attribute-values '{":h":{"S":"head"}}'
//! ```
//!
//! The driver's crates are re-exported as [`aws_sdk_dynamodb`] and [`aws_config`], so that their types always fit.

mod builder;
mod credentials;
mod failure;
mod item;
mod listing;
mod naming;
mod pauses;
mod source;
mod store;
mod table;
mod underway;

pub use aws_config;
pub use aws_sdk_dynamodb;

pub use self::builder::DynamoDbStorageBuilder;
pub use self::source::DynamoDbSource;
pub use self::store::DynamoDbStorage;
