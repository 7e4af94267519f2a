//! Compares the speed of the cache with that of other caches and of raw drivers.
//!
//! [Compared](#compared) · [what the others leave out](#what-the-others-leave-out) · [where it is slower](#where-it-is-slower) ·
//! [build time](#build-time) · [latency against load](#latency-against-load) · [how the cost grows](#how-the-cost-grows) ·
//! [at the scale of the internet](#at-the-scale-of-the-internet) · [measuring again](#measuring-again)
//!
//! # Compared
//!
//! All rows of a table were measured in one run, in turn, and the figure is the median of five. A time is that of one
//! request, from its creation to the end of the response's body. With 64 tasks, it is the time of the whole run divided by
//! the number of requests. The number in brackets is the ratio to the first row. Only ratios can be compared between
//! machines.
//!
//! The origin is a service in the same process. It answers at once with nine header fields and one frame, so that the
//! times are those of the caches alone. *No cache* is that service by itself. *Lower bound* is the least that a cache in
//! memory does: it looks up a map, clones the fields and the body, and sets Age. Each cache has its default settings, except
//! that all caches in memory are bounded to about 64 MiB, and that Redis may take a minute to answer.
//!
#![doc = include_str!("performance/peers.md")]
//!
//! # What the others leave out
//!
//! These caches do different work, and the times above have to be read with that in mind.
//!
//! | | this crate | http-cache-tower | its streaming layer | tower-http-cache |
//! |---|---|---|---|---|
//! | freshness | RFC 9111 | RFC 9111 | RFC 9111 | one time for all, 60 s by default |
//! | validation (ETag, 304) | yes | yes | yes | no |
//! | Vary | all variants | one variant | one variant | ignored |
//! | Age, Date | yes | yes | yes | no |
//! | unsafe methods invalidate | yes | yes | yes | no |
//! | default key | effective URI | method and URI | method and URI | path and query, without the host |
//! | Authorization | told apart | as in a shared cache | as in a shared cache | ignored |
//! | one fetch for many callers | yes | no | no | yes |
//! | a body that is being fetched | streams | is collected | goes to a file first | is collected |
//! | bound in memory | bytes | entries | – | entries |
//! | bound on disk | bytes | none | none | – |
//! | several processes | yes | no | no | on Redis |
//! | a storage that fails | a miss | an error | an error | a miss |
//! | inner errors | unchanged | wrapped | wrapped | boxed |
//!
//! - **tower-http-cache** reads of Cache-Control only `no-store`, `no-cache` and `private`. It replays the stored fields as
//!   they are. Since the method is not part of its key, a stored response to HEAD answers a GET. Bodies above 1 MiB and
//!   media types such as `application/octet-stream` pass through unstored by default. A stored body is the buffer that the
//!   origin gave, so a miss copies nothing here; of a body that comes in several frames it makes one, as this crate does.
//! - **http-cache-tower** encodes and decodes the whole response on every store and hit. Its moka cache holds 42 entries by
//!   default; here it holds as many as fit into 64 MiB.
//! - **The streaming layer** keeps the fields in a redb file, and each body in a file of its own, which it checks while it is
//!   read. It is no cache in memory, but the only variant that does not hold whole bodies there. So it is in both tables.
//! - **The raw drivers** store bytes under a number. They decide nothing, and know neither fields nor expiry.
//!
//! The [guide from http-cache](crate::_documentation::migrating::http_cache#differences) has more differences.
//!
//! # Where it is slower
//!
#![doc = include_str!("performance/slower.md")]
//!
//! # Build time
//!
//! A crate with this one dependency, with its default features, was built from an empty target directory on the same two cores.
//! The crates are those that cargo compiles for it on Linux, each counted once.
//!
//! | | crates | seconds |
//! |---|---:|---:|
//! | this crate | 51 | 19 |
//! | http-cache-reqwest 0.16 (reqwest and cacache) | 129 | 27 |
//! | tower-http-cache 0.6 | 64 | 14 |
//!
//! # Latency against load
//!
//! Here the service is behind a hyper server with one core, and a client with 64 connections has another. Requests are due at
//! random times that do not depend on the answers (an open loop), and a latency counts from when the request was due. So it
//! contains the waiting that a busy server causes. Bodies have 1 KiB. Solid lines are medians, dashed ones 99th percentiles.
//! At low load, a 99th percentile of some milliseconds is the machine's, since the service without a cache has it too.
//!
//! Hits of one URL:
//!
#![doc = include_str!("pictures/load-hits.svg")]
//!
//! Misses, each of a new URL, that are stored:
//!
#![doc = include_str!("pictures/load-misses.svg")]
//!
//! # How the cost grows
//!
//! The same storage with more entries, and random URLs. The bodies have 8 bytes, so that many entries fit into memory. The
//! lower bound is a map of fields and bodies, which are cloned; the map of numbers only looks the URL up. The ratio is that
//! of the last column to the first.
//!
#![doc = include_str!("performance/growth.md")]
//!
//! Finding an entry takes the same steps at any number of entries in memory and on Redis, and a few more pages of a tree in
//! SQLite. What grows is how long the processor waits for memory: a thousand entries fit into its caches, and a million do
//! not. The lower bound and the bare map grow for the same reason. The SQLite file of ten million entries has 4.6 GB. SQLite was
//! measured in a process of its own, so that the system could keep the file in memory. Beside the ten million entries in memory
//! it could not: most hits then read the disk, and took 112 µs, those of the raw driver 126 µs. Here every entry is requested as
//! often as any other. Most programs request a few entries much more often, and their hits are nearer to the first column.
//!
//! # At the scale of the internet
//!
#![doc = include_str!("performance/scale.md")]
//!
//! # Measuring again
//!
//! The benches are in the repository, not in the published package. Redis is measured if `redis-server` is installed.
//!
//! ```text
//! cargo bench --bench peers -- --markdown src/_documentation/performance/peers.md
//! cargo bench --bench peers -- load --pictures src/_documentation/pictures
//! cargo bench --bench peers -- growth --markdown src/_documentation/performance/growth.md
//! ```
//!
//! The first two take about a minute each on two idle cores. The last takes a quarter of an hour or more, 18 GB of memory and
//! 10 GB on the disk; `--most 1000000` takes a tenth of that, and `growth sqlite` measures one storage in its own process.
//! `--quick` tries everything in a few tens of seconds.
