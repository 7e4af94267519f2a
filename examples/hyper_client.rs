//! A cached hyper client, over http and https.
//!
//! `cargo run --example hyper_client`
//!
//! It asks two servers of its own, one of them with a certificate that it has just made, and prints where each response
//! came from.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tower::{Layer, ServiceExt};
use tower_response_cache::CacheLayer;
use tower_response_cache::storage::MemoryStorage;

/// What can go wrong here.
pub type Problem = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
#[allow(dead_code)] // the tests use the servers and the client
async fn main() -> Result<(), Problem> {
    let servers = Servers::start().await?;
    let layer = CacheLayer::new(MemoryStorage::new());
    let service = layer.layer(servers.client()?);
    for uri in [&servers.http, &servers.https] {
        for _ in 0..2 {
            let request = Request::get(uri.clone()).body(Empty::<Bytes>::new())?;
            let response = service.clone().oneshot(request).await?;
            let status = response.body().status().copied();
            let body = response.into_body().collect().await?.to_bytes();
            let word = status.map_or("-", |status| status.word());
            println!("{:5}  {word:4}  {} bytes", uri.scheme_str().unwrap_or("-"), body.len());
        }
    }
    layer.idle().await;
    Ok(())
}

/// A server over http and one over https, on this machine.
#[derive(Debug)]
pub struct Servers {
    /// Where the first one is.
    pub http: Uri,
    /// Where the second one is.
    pub https: Uri,
    roots: rustls::RootCertStore,
}

impl Servers {
    /// Starts both.
    pub async fn start() -> Result<Self, Problem> {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let certificate = made.cert.der().clone();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate.clone())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)?;
        let acceptor = TlsAcceptor::from(Arc::new(config));

        let (plain, secured) = (listen().await?, listen().await?);
        let http = format!("http://localhost:{}/", plain.local_addr()?.port()).parse()?;
        let https = format!("https://localhost:{}/", secured.local_addr()?.port()).parse()?;
        tokio::spawn(async move {
            while let Ok((stream, _)) = plain.accept().await {
                tokio::spawn(serve(stream));
            }
        });
        tokio::spawn(async move {
            while let Ok((stream, _)) = secured.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        serve(stream).await;
                    }
                });
            }
        });
        Ok(Self { http, https, roots })
    }

    /// A client that trusts the certificate.
    pub fn client(&self) -> Result<Client<HttpsConnector<HttpConnector>, Empty<Bytes>>, Problem> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(config).https_or_http().enable_http1().build();
        Ok(Client::builder(TokioExecutor::new()).build(connector))
    }
}

async fn listen() -> std::io::Result<TcpListener> {
    TcpListener::bind(("127.0.0.1", 0)).await
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin) {
    let service = service_fn(|_: Request<Incoming>| async {
        let mut response = Response::new(Full::new(Bytes::from("hello")));
        response.headers_mut().insert("cache-control", http::HeaderValue::from_static("max-age=60"));
        Ok::<_, Infallible>(response)
    });
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await; // the client has gone
}
