//! The certificate and key a node serves, and the rest of what every TLS connection shares.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use rustls::server::{NoServerSessionStorage, ProducesTickets};

use super::tickets::Tickets;
use crate::settings::Tls;

/// TLS 1.3 tickets sent after a handshake. A client that comes back uses one and gets the next; another one would cost
/// its bytes and its encryption for clients that open several connections at once and share their tickets.
const TICKETS: usize = 1;

/// What every TLS connection of the node shares.
pub(crate) struct Material {
    /// rustls' configuration.
    pub(crate) config: Arc<ServerConfig>,
    /// Tickets by the keys of a file, which is to be followed.
    pub(crate) tickets: Option<Arc<Tickets>>,
}

/// Why the TLS settings cannot work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// A file cannot be read as PEM.
    #[error("{key}: {path} cannot be read: {reason}; give a PEM file")]
    File { key: &'static str, path: PathBuf, reason: String },
    /// The certificate file has no certificate.
    #[error("tls.cert: {0} has no certificate; give a PEM file with the chain, the node's own first")]
    Empty(PathBuf),
    /// The file of ticket keys cannot be used.
    #[error("tls.ticket_keys: {path} {reason}")]
    TicketKeys { path: PathBuf, reason: String },
    /// Certificate and key do not fit, or rustls does not take them.
    #[error("tls.cert, tls.key: {0}")]
    Pair(#[from] rustls::Error),
}

/// Reads certificate and key and makes rustls' configuration of them: TLS 1.2 and 1.3, ALPN `http/1.1`, sessions
/// resumed by tickets alone.
pub(crate) fn load(tls: &Tls) -> Result<Material, TlsError> {
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
    // Tickets carry all there is of a session, so none is remembered here: rustls would keep 256 of them behind a lock,
    // of use to this node alone. Early data stays off: it could be replayed.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = TICKETS;
    let tickets = match &tls.ticket_keys {
        None => None,
        Some(path) => {
            let wrong = |reason| TlsError::TicketKeys { path: path.clone(), reason };
            Some(Arc::new(Tickets::read(path.clone()).map_err(wrong)?))
        }
    };
    config.ticketer = match &tickets {
        Some(tickets) => Arc::clone(tickets) as Arc<dyn ProducesTickets>,
        // Keys of this process, replaced every six hours.
        None => rustls::crypto::ring::Ticketer::new()?,
    };
    Ok(Material { config: Arc::new(config), tickets })
}
