//! Opens connections to the origin, with TLS for `https`.

use std::path::Path;
use std::sync::Arc;

use hyper_rustls::{ConfigBuilderExt, HttpsConnector};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

pub type Connector = HttpsConnector<HttpConnector>;

pub const HTTP1: &[u8] = b"http/1.1";
pub const HTTP2: &[u8] = b"h2";

/// Creates connectors that trust the certificates of a PEM file, or those of public authorities.
///
/// There is one for each list of protocols that TLS offers the origin (ALPN).
///
/// # Errors
/// Returns a message that names the file, if it cannot be read or has no certificate.
pub fn connectors<const N: usize>(
    authorities: Option<&Path>,
    protocols: [&[&[u8]]; N],
) -> Result<[Connector; N], String> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let config = match authorities {
        None => builder.with_webpki_roots(),
        Some(path) => builder.with_root_certificates(roots(path)?),
    }
    .with_no_client_auth();
    let mut http = HttpConnector::new();
    http.enforce_http(false); // the TLS connector passes its https URLs to this one
    http.set_nodelay(true);
    Ok(protocols.map(|protocols| {
        let mut config = config.clone();
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Connector::from((http.clone(), config))
    }))
}

fn roots(path: &Path) -> Result<RootCertStore, String> {
    let unusable = |error: &dyn std::fmt::Display| format!("cannot use {}: {error}", path.display());
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| unusable(&error))?;
    let certificates = certificates.collect::<Result<Vec<_>, _>>().map_err(|error| unusable(&error))?;
    let mut roots = RootCertStore::empty();
    // A bundle of a system may have certificates that rustls does not understand.
    match roots.add_parsable_certificates(certificates) {
        (0, _) => Err(unusable(&"it has no certificate of an authority")),
        _ => Ok(roots),
    }
}
