//! The Redis server as settings describe it: address, TLS, credentials, and the two kinds of connection we make.
//!
//! Not here: what is said on the connections.

use std::sync::Arc;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::io::tcp::TcpSettings;
use ::redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion,
    RedisError, ServerErrorKind, TlsCertificates, Value,
};
use deadpool_redis::{Manager, Pool, PoolError, Runtime};
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::task::AbortHandle;

use super::router::{Ear, Line, Router};
use super::sieve::Sieve;
use super::stream;
use crate::relay::RelayError;
use crate::settings::RedisSettings;

/// How to connect.
pub(super) struct Server {
    info: ConnectionInfo,
    /// Host and port, without credentials: for logs.
    pub(super) address: String,
    /// For the pub/sub connection, where the URL asks for TLS.
    tls: Option<Arc<ClientConfig>>,
    command_timeout: Duration,
    pool_size: usize,
}

impl Server {
    pub(super) fn new(settings: &RedisSettings) -> Result<Self, RelayError> {
        let refuse = |what: String| RelayError::Settings(format!("relay.redis.{what}"));
        // The crate's parse errors do not repeat the URL, which may hold a password.
        let parsed = settings.url.as_str().into_connection_info().map_err(|error| {
            refuse(format!("url: {error}; write redis://host:port/db, or rediss:// for TLS"))
        })?;
        let address = parsed.addr().to_string();
        let tls = match parsed.addr() {
            ConnectionAddr::TcpTls { insecure: true, .. } => {
                return Err(refuse(
                    "url: #insecure is not supported; name the server's authority in relay.redis.ca".into(),
                ));
            }
            ConnectionAddr::TcpTls { .. } => true,
            _ => false,
        };
        // CLIENT SETINFO would be one more right for the ACL, and older servers do not know it.
        let mut redis = parsed.redis_settings().clone().set_skip_set_lib_name();
        if let Some(username) = &settings.username {
            redis = redis.set_username(username);
        }
        if let Some(password) = &settings.password {
            redis = redis.set_password(password.expose());
        }
        let info =
            parsed.set_redis_settings(redis).set_tcp_settings(TcpSettings::default().set_nodelay(true));

        if tls && rustls::crypto::CryptoProvider::get_default().is_none() {
            // The process installs one first thing; without any, rustls would panic on the first connection.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let mut authorities = None;
        let client = match &settings.ca {
            Some(path) if !tls => {
                return Err(refuse(format!("ca: {} needs a rediss:// url", path.display())));
            }
            Some(path) => {
                let pem = std::fs::read(path)
                    .map_err(|error| refuse(format!("ca: cannot read {}: {error}", path.display())))?;
                let found = CertificateDer::pem_slice_iter(&pem).filter(Result::is_ok).count();
                if found == 0 {
                    return Err(refuse(format!("ca: {} holds no certificate in PEM form", path.display())));
                }
                authorities = Some(pem.clone());
                Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert: Some(pem) })
                    .map_err(|error| refuse(format!("ca: {}: {error}", path.display())))?
            }
            None => Client::open(info).map_err(|error| refuse(format!("url: {error}")))?,
        };
        Ok(Self {
            info: client.get_connection_info().clone(),
            address,
            tls: tls.then(|| stream::tls(authorities.as_deref())),
            command_timeout: settings.command_timeout,
            pool_size: settings.pool_size,
        })
    }

    /// Connections for commands.
    pub(super) fn pool(&self) -> Result<Pool, RelayError> {
        let fail = |error: &dyn std::fmt::Display| RelayError::Settings(format!("relay.redis: {error}"));
        let manager = Manager::new_with_config(self.info.clone(), self.timeouts()).map_err(|e| fail(&e))?;
        let timeout = Some(self.command_timeout);
        Pool::builder(manager)
            .max_size(self.pool_size)
            .wait_timeout(timeout)
            .create_timeout(timeout)
            .recycle_timeout(timeout)
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|e| fail(&e))
    }

    /// A connection for pub/sub, whose messages go to `ear` until `line` is cut.
    ///
    /// Its commands have no timeout of their own: the thread may be held back by a slow worker for longer than any, and
    /// the supervisor's probes bound them all, since Redis answers in order.
    pub(super) async fn listen(&self, ear: Arc<Ear>, line: Arc<Line>) -> Result<Listening, RelayError> {
        let connecting = async {
            let stream = stream::connect(self.info.addr(), self.tls.as_ref())
                .await
                .map_err(|error| RelayError::Away(error.to_string()))?;
            let router = Router::new(ear, line);
            let sieve = Sieve::new(stream, router.clone());
            let redis = self.info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
            let config = self.timeouts().set_response_timeout(None).set_push_sender(router);
            let (connection, driver) = MultiplexedConnection::new_with_config(&redis, sieve, config)
                .await
                .map_err(|error| away(&error))?;
            Ok(Listening { connection, driver: tokio::spawn(driver).abort_handle() })
        };
        match tokio::time::timeout(self.command_timeout, connecting).await {
            Ok(listening) => listening,
            Err(_) => Err(RelayError::Away(format!("no connection within {:?}", self.command_timeout))),
        }
    }

    fn timeouts(&self) -> AsyncConnectionConfig {
        AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.command_timeout))
            .set_response_timeout(Some(self.command_timeout))
    }
}

/// A pub/sub connection; its driver ends with it.
pub(super) struct Listening {
    pub(super) connection: MultiplexedConnection,
    driver: AbortHandle,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

/// What a failed command means: refusals are final, the rest is worth another attempt.
pub(super) fn away(error: &RedisError) -> RelayError {
    match error.kind() {
        ::redis::ErrorKind::Server(kind) if !is_temporary(kind) => RelayError::Refused(error.to_string()),
        _ => RelayError::Away(error.to_string()),
    }
}

/// The same for a connection that could not be had from the pool.
pub(super) fn no_connection(error: &PoolError) -> RelayError {
    match error {
        PoolError::Backend(error) => RelayError::Away(error.to_string()),
        PoolError::Timeout(_) => RelayError::Away("no connection in time".into()),
        other => RelayError::Away(other.to_string()),
    }
}

/// The answer to one command of a pipeline.
pub(super) fn answer(value: &Value) -> Result<(), RelayError> {
    let Value::ServerError(error) = value else { return Ok(()) };
    let text = format!("{} {}", error.code(), error.details().unwrap_or_default());
    match error.kind() {
        Some(kind) if is_temporary(kind) => Err(RelayError::Away(text)),
        _ => Err(RelayError::Refused(text)),
    }
}

const fn is_temporary(kind: ServerErrorKind) -> bool {
    matches!(
        kind,
        ServerErrorKind::BusyLoading
            | ServerErrorKind::TryAgain
            | ServerErrorKind::ClusterDown
            | ServerErrorKind::MasterDown
            | ServerErrorKind::ReadOnly
    )
}
