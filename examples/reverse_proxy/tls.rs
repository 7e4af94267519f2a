//! TLS to clients, with HTTP/2 or HTTP/1.1 as they choose (ALPN).
//!
//! # Invariants
//! - A certificate that cannot be used never replaces one that can.
//! - Connections that are open keep the certificate that they began with.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

/// The certificate and its key, which are read anew on demand.
pub struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    acceptor: Mutex<TlsAcceptor>,
}

impl Tls {
    /// Reads the files, both in PEM.
    ///
    /// # Errors
    /// Returns a message that names the file, if one cannot be read or they do not belong together.
    pub fn read(certificate: PathBuf, key: PathBuf) -> Result<Arc<Self>, String> {
        let acceptor = Mutex::new(acceptor(&certificate, &key)?);
        Ok(Arc::new(Self { certificate, key, acceptor }))
    }

    /// Returns what accepts the next connection.
    pub fn acceptor(&self) -> TlsAcceptor {
        self.acceptor.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the files anew. If they cannot be used, the log tells why, and the certificate stays.
    pub fn reload(&self) {
        match acceptor(&self.certificate, &self.key) {
            Ok(acceptor) => {
                *self.acceptor.lock().unwrap_or_else(PoisonError::into_inner) = acceptor;
                tracing::info!(target: "reverse_proxy", "the certificate was read anew");
            }
            Err(cause) => {
                tracing::warn!(target: "reverse_proxy", cause, "the certificate stays: the new one cannot be used");
            }
        }
    }
}

/// Reads a certificate with its chain, and its key.
fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor, String> {
    let unusable =
        |path: &Path, error: &dyn std::fmt::Display| format!("cannot use {}: {error}", path.display());
    let chain = CertificateDer::pem_file_iter(certificate).map_err(|error| unusable(certificate, &error))?;
    let chain = chain.collect::<Result<Vec<_>, _>>().map_err(|error| unusable(certificate, &error))?;
    if chain.is_empty() {
        return Err(unusable(certificate, &"it has no certificate in PEM"));
    }
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| match error {
        pem::Error::NoItemsFound => unusable(key, &"it has no private key in PEM"),
        error => unusable(key, &error),
    })?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => unusable(
                key,
                &format_args!("it is not the key of the certificate in {}", certificate.display()),
            ),
            error => unusable(certificate, &error),
        })?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
