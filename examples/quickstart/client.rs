//! hyper's client, for http and https.

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

pub fn client(own_port: Option<u16>) -> Client<HttpsConnector<HttpConnector<Resolver>>, Empty<Bytes>> {
    let mut http = HttpConnector::new_with_resolver(Resolver { own_port });
    http.enforce_http(false);
    let https =
        HttpsConnectorBuilder::new().with_webpki_roots().https_or_http().enable_http1().wrap_connector(http);
    Client::builder(TokioExecutor::new()).build(https)
}

/// Finds the local server under its own name, whatever port it got: so its URLs are the same in every run.
#[derive(Clone, Copy)]
pub struct Resolver {
    own_port: Option<u16>,
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let own_port = self.own_port.filter(|_| name.as_str() == origin::NAME);
        Box::pin(async move {
            if let Some(port) = own_port {
                return Ok(vec![SocketAddr::from((Ipv4Addr::LOCALHOST, port))].into_iter());
            }
            let found = tokio::task::spawn_blocking(move || (name.as_str(), 0).to_socket_addrs());
            found.await.map_err(io::Error::other)?
        })
    }
}
