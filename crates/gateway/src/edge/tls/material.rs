//! The certificate and key a node serves.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::settings::Tls;

/// Why the TLS settings cannot work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// A file cannot be read as PEM.
    #[error("{key}: {path} cannot be read: {reason}; give a PEM file")]
    File { key: &'static str, path: PathBuf, reason: String },
    /// The certificate file has no certificate.
    #[error("tls.cert: {0} has no certificate; give a PEM file with the chain, the node's own first")]
    Empty(PathBuf),
    /// Certificate and key do not fit, or rustls does not take them.
    #[error("tls.cert, tls.key: {0}")]
    Pair(#[from] rustls::Error),
}

/// Reads certificate and key and makes rustls' configuration of them: TLS 1.2 and 1.3, ALPN `http/1.1`.
pub(crate) fn load(tls: &Tls) -> Result<Arc<ServerConfig>, TlsError> {
    let unreadable = |key, path: &Path, reason: rustls::pki_types::pem::Error| TlsError::File {
        key,
        path: path.to_owned(),
        reason: reason.to_string(),
    };
    let chain = CertificateDer::pem_file_iter(&tls.cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|reason| unreadable("tls.cert", &tls.cert, reason))?;
    if chain.is_empty() {
        return Err(TlsError::Empty(tls.cert.clone()));
    }
    let key =
        PrivateKeyDer::from_pem_file(&tls.key).map_err(|reason| unreadable("tls.key", &tls.key, reason))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    // WebSocket's opening handshake is HTTP/1.1; no other protocol is spoken here.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
