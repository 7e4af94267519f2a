//! How many allocations a hit and a miss make, request and reading the body included: apart from the times, which counting
//! distorts. Fails if those of a hit are more than they should be, or if they grow with the body.
//!
//! `cargo bench --bench allocations`
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

const SIZES: [usize; 3] = [1024, 64 * 1024, 1024 * 1024];

/// What the status in the response's extensions costs.
const EXTENSIONS: u64 = 3;

fn once<S, B>(service: &mut S, len: usize) -> AllocationInfo
where
    S: Service<Ask, Response = Response<B>, Error: std::fmt::Debug>,
    B: Body<Data = bytes::Bytes, Error: std::fmt::Debug> + Unpin,
{
    // Once before: what is made once is not a hit's.
    assert_eq!(read(service, URI).now_or_never(), Some(len));
    assert_eq!(read(service, URI).now_or_never(), Some(len));
    measure(|| {
        read(service, URI).now_or_never();
    })
}

/// A miss that is stored, in a runtime, so that others could follow it.
fn miss(len: usize) -> AllocationInfo {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let _within = runtime.enter();
    let layer =
        CacheLayer::builder(MemoryStorage::new()).chunk_bytes(2 * 1024 * 1024).build().expect("settings");
    let mut service = layer.layer(Bare::new(len));
    let uris = [0, 1].map(|number| format!("{URI}&miss={number}"));
    // Once before: the first request makes things that later ones share.
    assert_eq!(read(&mut service, &uris[0]).now_or_never(), Some(len));
    measure(|| {
        read(&mut service, &uris[1]).now_or_never();
    })
}

fn main() {
    println!("{:24} {:>8} {:>12} {:>8}", "", "body", "allocations", "bytes");
    let mut rows = Vec::new();
    for len in SIZES {
        let hit = |extensions: bool| {
            let builder = CacheLayer::builder(MemoryStorage::new()).chunk_bytes(2 * 1024 * 1024);
            once(
                &mut builder
                    .status_in_extensions(extensions)
                    .build()
                    .expect("settings")
                    .layer(Bare::new(len)),
                len,
            )
        };
        let row = [
            ("bare", once(&mut Bare::new(len), len)),
            ("lower bound", once(&mut LowerBound::new(URI, len), len)),
            ("memory, no extensions", hit(false)),
            ("memory", hit(true)),
        ];
        for (name, info) in &row {
            println!("{name:24} {len:>8} {:>12} {:>8}", info.count_total, info.bytes_total);
        }
        let info = miss(len);
        println!("{:24} {len:>8} {:>12} {:>8}", "memory, miss", info.count_total, info.bytes_total);
        rows.push(row.map(|(_, info)| (info.count_total, info.bytes_total)));
    }
    for [bare, _, plain, full] in &rows {
        assert!(plain.0 <= bare.0, "a hit makes more allocations than the bare service");
        assert!(full.0 <= bare.0 + EXTENSIONS, "the status in the extensions makes more than it should");
    }
    assert!(rows.iter().all(|row| row[2..] == rows[0][2..]), "what a hit allocates grows with its body");
}
