//! The certificate and key a node serves, and the rest of what every TLS connection shares.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use rustls::server::{NoServerSessionStorage, ProducesTickets};
use rustls::{CipherSuite, ServerConfig};

use super::tickets::Tickets;
use crate::settings::{RecordLayer, Tls};

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
    let mut provider = rustls::crypto::ring::default_provider();
    // Whatever the client puts first: a key schedule of SHA-256 instead of SHA-384 is a tenth of a handshake's work, and
    // AES-128 is a little less for each record. A client that has only others gets one of them.
    provider.cipher_suites.sort_by_key(|suite| !is_aes_128(suite.suite()));
    let provider = Arc::new(provider);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.ignore_client_order = true;
    config.enable_secret_extraction = tls.record_layer == RecordLayer::Compact;
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

const fn is_aes_128(suite: CipherSuite) -> bool {
    matches!(
        suite,
        CipherSuite::TLS13_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
    )
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rustls::crypto::{CryptoProvider, ring};
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConnection};

    use super::*;

    /// Writes a certificate and its key; returns the certificate for clients to trust.
    fn write_pair(dir: &Path) -> CertificateDer<'static> {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        std::fs::write(dir.join("crt"), made.cert.pem()).expect("the directory takes files");
        std::fs::write(dir.join("key"), made.signing_key.serialize_pem()).expect("the directory takes files");
        made.cert.der().clone()
    }

    /// What a client with these suites, in its order, agrees on with the node.
    fn agreed(material: &Material, root: &CertificateDer<'static>, suites: &[CipherSuite]) -> CipherSuite {
        let all = ring::ALL_CIPHER_SUITES;
        let of =
            |wanted: &CipherSuite| *all.iter().find(|suite| suite.suite() == *wanted).expect("a known suite");
        let provider =
            CryptoProvider { cipher_suites: suites.iter().map(of).collect(), ..ring::default_provider() };
        let mut roots = RootCertStore::empty();
        roots.add(root.clone()).expect("a root");
        let config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").expect("a name");
        let mut client = ClientConnection::new(Arc::new(config), name).expect("a client");
        let mut server = ServerConnection::new(Arc::clone(&material.config)).expect("a server");
        while client.is_handshaking() || server.is_handshaking() {
            let mut wire = Vec::new();
            client.write_tls(&mut wire).expect("a vector takes everything");
            server.read_tls(&mut wire.as_slice()).expect("a slice gives everything");
            server.process_new_packets().expect("good records");
            let mut wire = Vec::new();
            server.write_tls(&mut wire).expect("a vector takes everything");
            client.read_tls(&mut wire.as_slice()).expect("a slice gives everything");
            client.process_new_packets().expect("good records");
        }
        client.negotiated_cipher_suite().expect("a suite").suite()
    }

    #[test]
    fn the_cheapest_suite_that_the_client_has_is_taken() {
        use CipherSuite as S;
        let dir = tempfile::tempdir().expect("a directory");
        let root = write_pair(dir.path());
        let tls = Tls {
            cert: dir.path().join("crt"),
            key: dir.path().join("key"),
            ticket_keys: None,
            record_layer: RecordLayer::Rustls,
        };
        let material = load(&tls).expect("a good pair");
        for (client, taken) in [
            (&[S::TLS13_AES_256_GCM_SHA384, S::TLS13_AES_128_GCM_SHA256][..], S::TLS13_AES_128_GCM_SHA256),
            (&[S::TLS13_CHACHA20_POLY1305_SHA256], S::TLS13_CHACHA20_POLY1305_SHA256),
            (&[S::TLS13_AES_256_GCM_SHA384], S::TLS13_AES_256_GCM_SHA384),
            (
                &[S::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, S::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256],
                S::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            ),
        ] {
            assert_eq!(agreed(&material, &root, client), taken, "{client:?}");
        }
    }
}
