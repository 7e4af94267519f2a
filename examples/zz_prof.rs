//! x
#[path = "../benches/origin/mod.rs"]
mod origin;
use futures_util::FutureExt;
use origin::*;
use tower::Layer;
use tower_response_cache::{CacheLayer, storage::MemoryStorage};
const URI: &str = "http://example.com/a/usual/path?with=a&query=1";
fn main() {
    let which = std::env::args().nth(1).unwrap();
    let n: usize = std::env::args().nth(2).unwrap().parse().unwrap();
    let mut bare = Bare::new(1024);
    let mut service = CacheLayer::new(MemoryStorage::new()).layer(Bare::new(1024));
    let mut bound = LowerBound::new(URI, 1024);
    read(&mut service, URI).now_or_never();
    let t = std::time::Instant::now();
    for _ in 0..n {
        match which.as_str() {
            "bare" => {
                read(&mut bare, URI).now_or_never();
            }
            "bound" => {
                read(&mut bound, URI).now_or_never();
            }
            _ => {
                read(&mut service, URI).now_or_never();
            }
        }
    }
    println!("{which} {:.1} ns", t.elapsed().as_nanos() as f64 / n as f64);
}
