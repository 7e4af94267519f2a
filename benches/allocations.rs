//! How many allocations a hit makes: apart from the times, which counting distorts.
//!
//! `cargo bench --bench allocations`
#![allow(missing_docs)]

mod origin;

use futures_util::FutureExt;
use tower::Layer;
use tower_response_cache::CacheLayer;
use tower_response_cache::storage::MemoryStorage;

use origin::{Bare, LowerBound, read};

#[global_allocator]
static ALLOCATOR: divan::AllocProfiler = divan::AllocProfiler::system();

const URI: &str = "http://example.com/a/usual/path?with=a&query=1";
const SIZES: [usize; 3] = [1024, 64 * 1024, 1024 * 1024];

fn main() {
    divan::main();
}

#[divan::bench(args = SIZES)]
fn bare(bencher: divan::Bencher<'_, '_>, len: usize) {
    let mut service = Bare::new(len);
    bencher.bench_local(|| read(&mut service, URI).now_or_never());
}

#[divan::bench(args = SIZES)]
fn lower_bound(bencher: divan::Bencher<'_, '_>, len: usize) {
    let mut service = LowerBound::new(URI, len);
    bencher.bench_local(|| read(&mut service, URI).now_or_never());
}

#[divan::bench(args = SIZES)]
fn memory(bencher: divan::Bencher<'_, '_>, len: usize) {
    hit(bencher, len, true);
}

#[divan::bench(args = SIZES)]
fn memory_no_extensions(bencher: divan::Bencher<'_, '_>, len: usize) {
    hit(bencher, len, false);
}

fn hit(bencher: divan::Bencher<'_, '_>, len: usize, extensions: bool) {
    let builder = CacheLayer::builder(MemoryStorage::new()).chunk_bytes(2 * 1024 * 1024);
    let mut service = builder.status_in_extensions(extensions).build().layer(Bare::new(len));
    assert_eq!(read(&mut service, URI).now_or_never(), Some(len));
    bencher.bench_local(|| read(&mut service, URI).now_or_never());
}
