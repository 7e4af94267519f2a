//! The client below the cache: hyper's, for http and https.

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::Empty;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::TokioExecutor;
use tower::Service;

use crate::origin;

pub fn client(local_port: Option<u16>) -> Client<HttpsConnector<HttpConnector<Resolver>>, Empty<Bytes>> {
    let mut http = HttpConnector::new_with_resolver(Resolver { local_port });
    http.enforce_http(false); // the TLS connector passes its https URLs to this one
    let https =
        HttpsConnectorBuilder::new().with_webpki_roots().https_or_http().enable_http1().wrap_connector(http);
    Client::builder(TokioExecutor::new()).build(https)
}

/// Resolves the local server's name to its address and port.
///
/// The server listens on a free port, another one in each run. Its URLs must not name that port, or a later run would
/// find nothing stored for them.
#[derive(Clone, Copy)]
pub struct Resolver {
    local_port: Option<u16>,
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let local_port = self.local_port.filter(|_| name.as_str() == origin::NAME);
        Box::pin(async move {
            if let Some(port) = local_port {
                return Ok(vec![SocketAddr::from((Ipv4Addr::LOCALHOST, port))].into_iter());
            }
            // The system's resolver blocks its thread. Port 0 leaves the port of the URL in place.
            let found = tokio::task::spawn_blocking(move || (name.as_str(), 0).to_socket_addrs());
            found.await.map_err(io::Error::other)?
        })
    }
}
