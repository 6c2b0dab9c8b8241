//! What settings say of connections, made into what the crate connects with: URL, credentials, authorities.
//!
//! Not here: connecting (`server`, `sentinel`).

use ::redis::io::tcp::TcpSettings;
use ::redis::{Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, TlsCertificates};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::slots::Place;
use crate::relay::RelayError;
use crate::settings::{RedisSettings, Secret};

/// Who the node is to a server.
#[derive(Debug, Clone, Copy)]
pub(super) struct Credentials<'a> {
    pub(super) username: Option<&'a String>,
    pub(super) password: Option<&'a Secret>,
}

/// What holds for every connection.
#[derive(Debug)]
pub(super) struct Access {
    /// The authorities to trust instead of the system's: the file's name, for messages, and what it holds.
    ca: Option<(String, Vec<u8>)>,
}

impl Access {
    pub(super) fn new(settings: &RedisSettings) -> Result<Self, RelayError> {
        let Some(path) = &settings.ca else { return Ok(Self { ca: None }) };
        let name = path.display().to_string();
        let pem =
            std::fs::read(path).map_err(|error| refuse("ca", format!("cannot read {name}: {error}")))?;
        if CertificateDer::pem_slice_iter(&pem).filter(Result::is_ok).count() == 0 {
            return Err(refuse("ca", format!("{name} holds no certificate in PEM form")));
        }
        Ok(Self { ca: Some((name, pem)) })
    }

    /// The authorities to trust instead of the system's, PEM.
    pub(super) fn authorities(&self) -> Option<&[u8]> {
        self.ca.as_ref().map(|(_, pem)| pem.as_slice())
    }

    /// The server of a URL; `key` is where it was written.
    pub(super) fn to(
        &self,
        key: &str,
        url: &str,
        credentials: Credentials<'_>,
    ) -> Result<ConnectionInfo, RelayError> {
        // The crate's parse errors do not repeat the URL, which may hold a password.
        let parsed = url.into_connection_info().map_err(|error| {
            refuse(key, format!("{error}; write redis://host:port/db, or rediss:// for TLS"))
        })?;
        let tls = match parsed.addr() {
            ConnectionAddr::TcpTls { insecure: true, .. } => {
                let advice = "#insecure is not supported; name the server's authority in relay.redis.ca";
                return Err(refuse(key, advice.to_owned()));
            }
            ConnectionAddr::TcpTls { .. } => true,
            _ => false,
        };
        // CLIENT SETINFO would be one more right for the ACL, and older servers do not know it.
        let mut redis = parsed.redis_settings().clone().set_skip_set_lib_name();
        if let Some(username) = credentials.username {
            redis = redis.set_username(username);
        }
        if let Some(password) = credentials.password {
            redis = redis.set_password(password.expose());
        }
        let info =
            parsed.set_redis_settings(redis).set_tcp_settings(TcpSettings::default().set_nodelay(true));
        if tls && rustls::crypto::CryptoProvider::get_default().is_none() {
            // The process installs one first thing; without any, rustls would panic on the first connection.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let client = match &self.ca {
            Some((name, _)) if !tls => return Err(refuse("ca", format!("{name} needs a rediss:// url"))),
            Some((name, pem)) => {
                let trusted = TlsCertificates { client_tls: None, root_cert: Some(pem.clone()) };
                Client::build_with_tls(info, trusted)
                    .map_err(|error| refuse("ca", format!("{name}: {error}")))?
            }
            None => Client::open(info).map_err(|error| refuse(key, error.to_string()))?,
        };
        Ok(client.get_connection_info().clone())
    }
}

/// The same server elsewhere: another host and port, all else as it is.
pub(super) fn moved(info: &ConnectionInfo, host: String, port: u16) -> ConnectionInfo {
    let address = match info.addr().clone() {
        ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
            ConnectionAddr::TcpTls { host, port, insecure, tls_params }
        }
        _ => ConnectionAddr::Tcp(host, port),
    };
    info.clone().set_addr(address)
}

/// Whether the address is one for TLS.
pub(super) const fn is_tls(address: &ConnectionAddr) -> bool {
    matches!(address, ConnectionAddr::TcpTls { .. })
}

/// Host and port of the address, if it has them.
pub(super) fn place(address: &ConnectionAddr) -> Option<Place> {
    match address {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
            Some(Place { host: host.clone(), port: *port })
        }
        _ => None,
    }
}

/// Settings that cannot work.
pub(super) fn refuse(key: &str, what: String) -> RelayError {
    RelayError::Settings(format!("relay.redis.{key}: {what}"))
}
