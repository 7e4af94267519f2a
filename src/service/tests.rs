//! What the service promises about itself.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{Empty, Full};
use tower_service::Service;

use super::config::Config;
use super::core::Core;
use super::fetcher::ServiceFetcher;
use crate::storage::MemoryStorage;

#[derive(Clone)]
struct Origin;

impl Service<Request<Empty<Bytes>>> for Origin {
    type Response = Response<Full<Bytes>>;
    type Error = std::io::Error;
    type Future = std::future::Ready<std::io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Empty<Bytes>>) -> Self::Future {
        std::future::ready(Ok(Response::default()))
    }
}

#[test]
fn the_box_of_a_lookup_is_small() {
    let core = Core::new(MemoryStorage::new(), Config::default());
    let parts = Request::get("http://example.com/").body(()).unwrap().into_parts().0;
    let fetcher = ServiceFetcher::<_, Empty<Bytes>>::new(Origin);
    let future = core.run(fetcher, parts, Empty::new(), None, 0);
    let size = size_of_val(&future);
    assert!(size <= 3072, "{size} bytes");
}
