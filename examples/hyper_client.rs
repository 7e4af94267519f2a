//! A cached hyper client, over http and https.
//!
//! `cargo run --example hyper_client`
//!
//! It sends requests to two local servers of its own, one with a self-signed certificate, and prints where each response
//! came from.
//!
//! In a crate of your own it needs:
//!
//! ```toml
//! [dependencies]
//! bytes = "1"
//! http = "1"
//! http-body-util = "0.1"
//! hyper = { version = "1", features = ["http1", "server"] }
//! hyper-rustls = { version = "0.27", default-features = false, features = ["http1", "ring"] }
//! hyper-util = { version = "0.1", features = ["client-legacy", "http1", "tokio"] }
//! rcgen = { version = "0.14", default-features = false, features = ["crypto", "pem", "ring"] }
//! rustls = { version = "0.23", default-features = false, features = ["ring", "std"] }
//! tokio = { version = "1", features = ["full"] }
//! tokio-rustls = { version = "0.26", default-features = false, features = ["ring"] }
//! tower = { version = "0.5", features = ["util"] }
//! tower-response-cache = "0.1"
//! ```

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

/// Any error of this example.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
#[allow(dead_code)] // tests/adapters/hyper_client.rs includes this file, for its servers and client
async fn main() -> Result<(), BoxError> {
    let servers = Servers::start().await?;
    let layer = CacheLayer::new(MemoryStorage::new());
    let service = layer.layer(servers.client()?);
    for uri in [&servers.http, &servers.https] {
        for _ in 0..2 {
            let request = Request::get(uri.clone()).body(Empty::<Bytes>::new())?;
            let response = service.clone().oneshot(request).await?;
            let status = response.body().status().copied();
            let body = response.into_body().collect().await?.to_bytes();
            let outcome = status.map_or("-", |status| status.word());
            println!("{:5}  {outcome:4}  {} bytes", uri.scheme_str().unwrap_or("-"), body.len());
        }
    }
    layer.idle().await;
    Ok(())
}

/// Two local servers, one over http and one over https.
#[derive(Debug)]
pub struct Servers {
    /// The URL of the first.
    pub http: Uri,
    /// The URL of the second.
    pub https: Uri,
    roots: rustls::RootCertStore,
}

impl Servers {
    /// Starts both servers on free ports.
    pub async fn start() -> Result<Self, BoxError> {
        let generated = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(generated.signing_key.serialize_der()));
        let certificate = generated.cert.der().clone();
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

    /// Builds a client that trusts the certificate.
    pub fn client(&self) -> Result<Client<HttpsConnector<HttpConnector>, Empty<Bytes>>, BoxError> {
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
    // An error means that the client has gone.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}
