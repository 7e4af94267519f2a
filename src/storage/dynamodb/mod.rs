//! A storage in a table of AWS DynamoDB, which processes on many machines can share.
//!
//! There is no server to run. Reads and writes are billed by AWS, see [Price](#price).
//!
//! ```no_run
//! use tower_response_cache::CacheLayer;
//! use tower_response_cache::storage::{DynamoDbStorage, dynamodb::DynamoDbSource};
//!
//! # async fn open() -> tower_response_cache::Result<()> {
//! let storage = DynamoDbStorage::builder(DynamoDbSource::default())
//!     .cache_name("app")
//!     .create_if_missing(true)
//!     .connect()
//!     .await?;
//! let layer = CacheLayer::new(storage);
//! # Ok(())
//! # }
//! ```
//!
//! # Guarantees
//! - **Atomic comparison.** [`write_if`](super::Storage::write_if) compares in DynamoDB, so it is atomic
//!   among all processes that use the table.
//! - **Few requests.** A hit with a body of up to 3 KiB is one request, and one with a body of up to 128 KiB
//!   two. A variant other than the first one takes one more. Reads are strongly consistent by default.
//! - **Expiry.** DynamoDB deletes a record some time after its retention time, within a few days according to
//!   AWS, and never before. A record that has expired and is still there is not served.
//!   [`delete_expired`](super::Storage::delete_expired) is exact, and the storage also works if the table has
//!   no time to live.
//! - **Listings in pages.** Listing and clearing read the table in pages of 1 MB. Only `values` transfers
//!   records, and never the chunks of bodies.
//! - **Bounded connections.** At most 128 requests of a storage run at a time, each on a connection of its own.
//!   Others wait.
//! - **Bounded memory.** The storage itself keeps at most 8 MiB: up to 512 heads and variants of at most 16 KiB
//!   that were read most recently. If DynamoDB returns the same bytes again, they are not decoded again.
//! - **Bounded waiting.** A request, including its retries, takes at most the
//!   [`response_timeout`](DynamoDbStorageBuilder::response_timeout). Throttled requests are repeated within
//!   it, with growing delays. The unprocessed items of a batch are requested again, until eight requests in a
//!   row make no progress.
//! - **Long tasks survive their caller.** Getting credentials, creating the table and moving the retention
//!   times of a long body can take longer than an operation may. They continue when the operation that began
//!   them is given up, and later operations use the result.
//! - **Nothing confidential in messages.** Errors and events contain no address, table or credential, and
//!   none of the texts of DynamoDB. If no credentials are found, the reason is the driver's, which may name a
//!   profile or a file.
//!
//! # Settings
//! A storage is built from an address, the environment, the driver's own settings or a ready client (see
//! [`DynamoDbSource`]). A setting of the [builder](DynamoDbStorageBuilder) takes precedence over the option
//! of the same name in an address.
//!
//! | builder | address | default |
//! |---|---|---|
//! | [`cache_name`](DynamoDbStorageBuilder::cache_name), the table | `dynamodb://TABLE`, or `cache_name` | `http-cache` |
//! | [`region`](DynamoDbStorageBuilder::region) | `region` | the environment's |
//! | [`endpoint`](DynamoDbStorageBuilder::endpoint) | `endpoint` | AWS in the region |
//! | [`create_if_missing`](DynamoDbStorageBuilder::create_if_missing) | `create_if_missing` | false |
//! | [`eventually_consistent`](DynamoDbStorageBuilder::eventually_consistent) | `eventually_consistent` | false |
//! | [`key_names`](DynamoDbStorageBuilder::key_names) | | `entry` and `record` |
//! | [`expiry_name`](DynamoDbStorageBuilder::expiry_name) | | `expires` |
//! | [`connect_timeout`](DynamoDbStorageBuilder::connect_timeout) | `connect_timeout`, in seconds | 1 second |
//! | [`response_timeout`](DynamoDbStorageBuilder::response_timeout) | `response_timeout`, in seconds | 10 seconds |
//!
//! What the program does not set, the driver looks up in the environment: variables, profiles (with keys, SSO
//! or a `credential_process`), or the role of a container or a machine. Requests go through the proxies in
//! `HTTP_PROXY` and `HTTPS_PROXY`, except to the hosts in `NO_PROXY`. On a machine that has a role,
//! `NO_PROXY` must contain 169.254.169.254, the address that hands out the credentials of the role.
//!
//! # Permissions
//! | for | actions on the table |
//! |---|---|
//! | reading | `dynamodb:GetItem` |
//! | writing | `dynamodb:PutItem`, `UpdateItem`, `DeleteItem` |
//! | listing and clearing | `dynamodb:Scan`, `BatchWriteItem` |
//! | creating the table | `dynamodb:CreateTable`, `DescribeTable`, `UpdateTimeToLive`, `DescribeTimeToLive` |
//!
//! A user who may only read is served hits; writes then fail as [`ReadOnly`](crate::ErrorKind::ReadOnly).
//!
//! # Price
//! DynamoDB bills by length. A read unit is 4 KB, and costs half as much with
//! [`eventually_consistent`](DynamoDbStorageBuilder::eventually_consistent). A write unit is 1 KB. Moving the
//! retention time of a record costs as much as writing it.
//!
//! A response that the origin confirms by a 304 costs one write unit, as long as its fields fit in 1 KB: a
//! body of more than 3 KiB is not part of the record that is written again. The retention times of its chunks
//! are moved after a quarter of the time for which the body is kept, which is about once in two days by
//! default.
//!
//! Listings, `size`, `clear` and `delete_expired` are billed for the whole table.
//!
//! # Operation
//! - **Throughput.** The records of a URL are in one partition. AWS serves 12 MB a second from a partition
//!   (24 MB with eventually consistent reads) and accepts 1 MB a second, or more once it has split the
//!   partition. A body that arrives faster than it can be stored is not stored.
//! - **Missing chunks.** The chunks of a body outlive the record that names them. A hit does not check that
//!   they are all there, because that would cost as much as reading them. If some are missing all the same
//!   (deleted by hand, or not retained because the process ended), the body ends with an error, never short,
//!   and is fetched again by the next request.
//! - **Size.** The storage has no bound of its own, and DynamoDB evicts nothing. A record without an expiry
//!   stays until it is deleted. One record has at most 390 KiB, because an item may have 400 KB; longer
//!   bodies are split into chunks.
//! - **The table** belongs to one cache. It is created by
//!   [`create_if_missing`](DynamoDbStorageBuilder::create_if_missing), or exists already: with two keys of
//!   type string and, for the expiry, time to live on the attribute `expires`. Operations leave foreign items
//!   in the table alone.
//! - **Global tables** compare within each region alone. An invalidation in one region is seen late in another.
//!
//! # Items
//! | attribute | type | content |
//! |---|---|---|
//! | `entry` (partition key) | S | the hash of the URL, in 32 hexadecimal digits |
//! | `record` (sort key) | S | the name of the record within its entry |
//! | `stamp` | B | 16 random bytes, new with each write, which `write_if` compares |
//! | `until` | N | the retention time, in milliseconds since the Unix epoch |
//! | `expires` (time to live) | N | the retention time in seconds, rounded up |
//! | `value` | B | [`Record::to_bytes`](super::Record::to_bytes) |
//!
//! An `until` of 18446744073709551615 means never. `expires` is absent for records that never expire or
//! expire after the year 9999. [`key_names`](DynamoDbStorageBuilder::key_names) and
//! [`expiry_name`](DynamoDbStorageBuilder::expiry_name) rename the keys and `expires`.
//!
//! | `record` | content | deleted by DynamoDB |
//! |---|---|---|
//! | `head` | a URL: its first variant with a small body, or a tombstone | when neither it, nor a variant, nor an invalidation needs it |
//! | `variant:<slot>` | a further variant | when it can be neither served nor validated any more |
//! | `chunk:<slot>:<part>` | 128 KiB of a long body | an hour or more after the record that names it |
//! | `index:<slot>` | the entity tags of further variants | with these variants |
//! | `lease`, `group` | a lease between processes, or the value of a group | when its own time is over |
//!
//! A slot has 32 hexadecimal digits, a part ten decimal ones.
//!
//! ```text
//! aws dynamodb scan --table-name app --select COUNT --filter-expression '#r = :h' \
//!   --expression-attribute-names '{"#r":"record"}' --expression-attribute-values '{":h":{"S":"head"}}'
//! ```
//!
//! The driver's crates are re-exported as [`aws_sdk_dynamodb`] and [`aws_config`], so that their types always
//! match.

mod backoff;
mod builder;
mod credentials;
mod error;
mod item;
mod naming;
mod scan;
mod shared_task;
mod source;
mod storage;
mod table;

pub use aws_config;
pub use aws_sdk_dynamodb;

pub use self::builder::DynamoDbStorageBuilder;
pub use self::source::DynamoDbSource;
pub use self::storage::DynamoDbStorage;
