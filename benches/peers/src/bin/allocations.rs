//! Counts the allocations of hits and misses, for the table of `peers`.
//!
//! It prints a line for each: the name, the number and the bytes, separated by tabs.

use allocation_counter::measure;
use bytes::Bytes;
use http::Response;
use http_body::Body;
use peers::SIZES;
use peers::origin::{Ask, LowerBound, URI, read};
use peers::peers::{Origin, http_cache_moka, http_cache_streaming, ours_in_memory, tower_http_cache};
use peers::sample::Urls;
use tokio::runtime::{Builder, Runtime};
use tower::Service;

fn count<S, B>(runtime: &Runtime, name: &str, service: &mut S, urls: [&str; 3])
where
    S: Service<Ask, Response = Response<B>, Error: std::fmt::Debug>,
    B: Body<Data = Bytes, Error: std::fmt::Debug> + Unpin,
{
    // The first two requests allocate things that later ones share.
    for uri in &urls[..2] {
        runtime.block_on(read(service, uri));
    }
    let info = measure(|| {
        runtime.block_on(read(service, urls[2]));
    });
    println!("{name}\t{}\t{}", info.count_total, info.bytes_total);
}

fn main() {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    for (kind, urls) in [("hit", [0, 0, 0]), ("miss", [1, 2, 3])] {
        let is_hit = kind == "hit";
        let urls = urls.map(|number| if is_hit { URI.to_owned() } else { Urls::cold(number) });
        let urls = urls.each_ref().map(String::as_str);
        for (len, _) in SIZES {
            let origin = || Origin::new(len);
            count(&runtime, "no cache", &mut origin(), urls);
            if is_hit {
                count(&runtime, "lower bound", &mut LowerBound::new(URI, len), urls);
            } else {
                println!("lower bound\t-\t-");
            }
            count(&runtime, "this crate", &mut ours_in_memory(origin()), urls);
            count(&runtime, "tower-http-cache", &mut tower_http_cache(origin(), len), urls);
            count(&runtime, "http-cache-tower, moka", &mut http_cache_moka(origin(), len), urls);
            let place = folder.path().join(format!("{kind}-{len}"));
            let mut streaming = runtime.block_on(http_cache_streaming(origin(), &place));
            count(&runtime, "http-cache-tower, streaming", &mut streaming, urls);
        }
    }
}
