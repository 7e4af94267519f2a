//! Counts the allocations of a hit and of a miss.
//!
//! `cargo bench --bench allocations`
//!
//! They include those of the request and of reading the body. The bench fails if a hit allocates more than it should,
//! or more for a longer body. Times are measured in `hit_path`, because counting distorts them.
#![allow(missing_docs)]

mod origin;

use allocation_counter::{AllocationInfo, measure};
use futures_util::FutureExt;
use http::Response;
use http_body::Body;
use tower::{Layer, Service};
use tower_response_cache::CacheLayer;
use tower_response_cache::storage::MemoryStorage;

use origin::{Ask, Bare, LowerBound, URI, read};

const SIZES: [usize; 4] = [1024, 64 * 1024, 1024 * 1024, 4 * 1024 * 1024];

/// A chunk that is longer than any body, so that each body is one record.
const WHOLE: usize = 8 * 1024 * 1024;

/// The number of allocations for the status in the response's extensions.
///
/// These are the map, its table and the value.
const EXTENSIONS: u64 = 3;

/// The number of allocations for a body in chunks, however long it is.
///
/// These are its reader and, if the body is longer than a mebibyte, the guard of its hold and the list of the entry's holds.
const HOLD: u64 = 3;

/// Counts the allocations of one hit.
fn hit<S, B>(service: &mut S, len: usize) -> AllocationInfo
where
    S: Service<Ask, Response = Response<B>, Error: std::fmt::Debug>,
    B: Body<Data = bytes::Bytes, Error: std::fmt::Debug> + Unpin,
{
    // Neither the miss nor the first hit is counted. They allocate things that later hits share.
    assert_eq!(read(service, URI).now_or_never(), Some(len));
    assert_eq!(read(service, URI).now_or_never(), Some(len));
    measure(|| {
        read(service, URI).now_or_never();
    })
}

/// Counts the allocations of one miss that is stored.
///
/// It runs within a runtime, so that other requests could follow it.
fn miss(len: usize) -> AllocationInfo {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let _within = runtime.enter();
    let layer = CacheLayer::builder(MemoryStorage::new()).chunk_bytes(WHOLE).build().expect("settings");
    let mut service = layer.layer(Bare::new(len));
    let uris = [0, 1].map(|number| format!("{URI}&miss={number}"));
    // The first miss is not counted. It allocates things that later ones share.
    assert_eq!(read(&mut service, &uris[0]).now_or_never(), Some(len));
    measure(|| {
        read(&mut service, &uris[1]).now_or_never();
    })
}

fn main() {
    println!("{:24} {:>8} {:>12} {:>8}", "", "body", "allocations", "bytes");
    let mut rows = Vec::new();
    for len in SIZES {
        let memory = |extensions: bool, chunk_bytes: usize| {
            let builder = CacheLayer::builder(MemoryStorage::new()).chunk_bytes(chunk_bytes);
            let layer = builder.status_in_extensions(extensions).build().expect("settings");
            hit(&mut layer.layer(Bare::new(len)), len)
        };
        let row = [
            ("bare", hit(&mut Bare::new(len), len)),
            ("lower bound", hit(&mut LowerBound::new(URI, len), len)),
            ("memory, no extensions", memory(false, WHOLE)),
            ("memory", memory(true, WHOLE)),
            ("memory, in chunks", memory(true, 128 * 1024)),
        ];
        for (name, info) in &row {
            println!("{name:24} {len:>8} {:>12} {:>8}", info.count_total, info.bytes_total);
        }
        let info = miss(len);
        println!("{:24} {len:>8} {:>12} {:>8}", "memory, miss", info.count_total, info.bytes_total);
        rows.push(row.map(|(_, info)| (info.count_total, info.bytes_total)));
    }
    for [bare, _, no_extensions, with_extensions, in_chunks] in &rows {
        assert!(no_extensions.0 <= bare.0, "a hit allocates more often than the bare service");
        assert!(
            with_extensions.0 <= bare.0 + EXTENSIONS,
            "the status in the extensions needs more than {EXTENSIONS} allocations"
        );
        assert!(
            in_chunks.0 <= with_extensions.0 + HOLD,
            "a body in chunks needs more than {HOLD} allocations, or more for a longer body"
        );
    }
    assert!(rows.iter().all(|row| row[2..4] == rows[0][2..4]), "the allocations of a hit grow with its body");
}
