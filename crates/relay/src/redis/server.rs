//! A Redis server as settings describe it: where it is, and the two kinds of connection we make to it.
//!
//! With Sentinel it is looked for each time a connection is made, and what was found must say that it is the master.
//!
//! Not here: what is said on the connections.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{ConnectionInfo, ProtocolVersion, RedisError, ServerErrorKind, Value};
use deadpool_redis::PoolError;
use rustls::ClientConfig;
use tokio::task::AbortHandle;

use super::access::{self, Access, Credentials};
use super::cluster::Cluster;
use super::pool::{self, Pool};
use super::router::{Ear, Line, Router};
use super::sentinel::Sentinels;
use super::sieve::Sieve;
use super::slots::Place;
use super::stream;
use crate::relay::RelayError;
use crate::settings::{RedisSettings, Topology};

/// How often it is looked at whether a name is still the same master's.
const OWNER_EVERY: Duration = Duration::from_millis(250);

/// How to connect.
pub(super) struct Server {
    location: Location,
    /// Host and port, or the master's name; without credentials: for logs.
    pub(super) address: String,
    /// For the pub/sub connection, where the URL asks for TLS.
    tls: Option<Arc<ClientConfig>>,
    command_timeout: Duration,
    pool_size: usize,
}

/// Where it is.
enum Location {
    /// Where settings say.
    Fixed(Box<ConnectionInfo>),
    /// Where the sentinels say.
    Elected {
        sentinels: Arc<Sentinels>,
        /// All but the place.
        like: Box<ConnectionInfo>,
        /// As it was found last.
        known: Mutex<Option<Box<ConnectionInfo>>>,
    },
    /// Where a cluster has the slot of this name.
    Owner { cluster: Arc<Cluster>, name: String },
}

impl Server {
    pub(super) fn new(settings: &RedisSettings) -> Result<Self, RelayError> {
        let access = Access::new(settings)?;
        let timeout = settings.command_timeout;
        let credentials =
            Credentials { username: settings.username.as_ref(), password: settings.password.as_ref() };
        let (location, address) = match &settings.topology {
            Topology::Server(url) => {
                let info = Box::new(access.to("url", url, credentials)?);
                let address = info.addr().to_string();
                (Location::Fixed(info), address)
            }
            Topology::Sentinel(sentinel) => {
                let sentinels = Arc::new(Sentinels::new(sentinel, &access, timeout)?);
                let first = sentinel.nodes.first().map_or("", String::as_str);
                let like = Box::new(access.to("sentinel.nodes", first, credentials)?);
                let address = format!("{} by sentinel", sentinels.name());
                (Location::Elected { sentinels, like, known: Mutex::default() }, address)
            }
            Topology::Shards(_) | Topology::Cluster(_) => {
                return Err(RelayError::Settings("relay.redis: several servers where one is meant".into()));
            }
        };
        let tls = match &location {
            Location::Fixed(like) | Location::Elected { like, .. } => access::is_tls(like.addr()),
            Location::Owner { .. } => false,
        };
        Ok(Self {
            tls: tls.then(|| stream::tls(access.authorities())),
            location,
            address,
            command_timeout: timeout,
            pool_size: settings.pool_size,
        })
    }

    /// A master of a cluster.
    pub(super) fn of_cluster(cluster: &Arc<Cluster>, place: &Place, settings: &RedisSettings) -> Self {
        Self::in_cluster(cluster, Location::Fixed(Box::new(cluster.at(place))), place.to_string(), settings)
    }

    /// Whichever master of a cluster has the slot of this name.
    pub(super) fn owner(cluster: &Arc<Cluster>, name: &str, settings: &RedisSettings) -> Self {
        let location = Location::Owner { cluster: Arc::clone(cluster), name: name.to_owned() };
        Self::in_cluster(cluster, location, format!("the master of {name}"), settings)
    }

    fn in_cluster(cluster: &Cluster, location: Location, address: String, settings: &RedisSettings) -> Self {
        Self {
            location,
            address,
            tls: cluster.tls(),
            command_timeout: settings.command_timeout,
            pool_size: settings.pool_size,
        }
    }

    /// Connections for commands.
    pub(super) fn pool(self: &Arc<Self>) -> Pool {
        Pool::to(Arc::clone(self))
    }

    /// Whether it may be elsewhere tomorrow.
    pub(super) const fn moves(&self) -> bool {
        !matches!(self.location, Location::Fixed(_))
    }

    /// Where it was found last.
    pub(super) fn known(&self) -> Option<ConnectionInfo> {
        match &self.location {
            Location::Fixed(info) => Some(ConnectionInfo::clone(info)),
            Location::Owner { cluster, name } => cluster.owner(name.as_bytes()),
            Location::Elected { known, .. } => {
                known.lock().unwrap_or_else(PoisonError::into_inner).as_deref().cloned()
            }
        }
    }

    /// Finds it.
    pub(super) async fn find(&self) -> Result<ConnectionInfo, RelayError> {
        let Location::Elected { sentinels, like, known } = &self.location else {
            return self.known().ok_or_else(|| RelayError::Away("no address".into()));
        };
        let place = sentinels.find().await?;
        let found = access::moved(like, place.host, place.port);
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.as_ref().is_none_or(|known| known.addr() != found.addr()) {
            tracing::info!(master = sentinels.name(), redis = %found.addr(), "sentinel names the master");
            *known = Some(Box::new(found.clone()));
        }
        Ok(found)
    }

    pub(super) const fn command_timeout(&self) -> Duration {
        self.command_timeout
    }

    pub(super) const fn pool_size(&self) -> usize {
        self.pool_size
    }

    /// A connection for pub/sub, whose messages go to `ear` until `line` is cut.
    ///
    /// Its commands have no timeout of their own: the thread may be held back by a slow worker for longer than any, and
    /// the supervisor's probes bound them all, since Redis answers in order.
    pub(super) async fn listen(&self, ear: Arc<Ear>, line: Arc<Line>) -> Result<Listening, RelayError> {
        let connecting = async {
            let info = self.find().await?;
            let stream = stream::connect(info.addr(), self.tls.as_ref())
                .await
                .map_err(|error| RelayError::Away(format!("{}: {error}", info.addr())))?;
            let router = Router::new(ear, Arc::clone(&line));
            let sieve = Sieve::new(stream, router.clone());
            let redis = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
            let config =
                pool::timeouts(self.command_timeout).set_response_timeout(None).set_push_sender(router);
            let (connection, driver) = MultiplexedConnection::new_with_config(&redis, sieve, config)
                .await
                .map_err(|error| away(&error))?;
            let mut listening = Listening { connection, tasks: vec![tokio::spawn(driver).abort_handle()] };
            if self.moves() {
                is_master(&mut listening.connection).await?;
            }
            listening.tasks.extend(self.follow(&info, line));
            Ok(listening)
        };
        match tokio::time::timeout(self.command_timeout, connecting).await {
            Ok(listening) => listening,
            Err(_) => Err(RelayError::Away(format!("no connection within {:?}", self.command_timeout))),
        }
    }

    /// Ends the connection when the sentinels, or the cluster, name another master: a demoted one may go on answering.
    fn follow(&self, info: &ConnectionInfo, line: Arc<Line>) -> Option<AbortHandle> {
        let place = access::place(info.addr())?;
        let following = match &self.location {
            Location::Fixed(_) => return None,
            Location::Elected { sentinels, .. } => {
                let sentinels = Arc::clone(sentinels);
                tokio::spawn(async move {
                    sentinels.leave(&place).await;
                    tracing::warn!(master = sentinels.name(), left = %place, "sentinel names another master");
                    line.gone.notify_one();
                })
            }
            Location::Owner { cluster, name } => {
                let (cluster, name) = (Arc::clone(cluster), name.clone());
                tokio::spawn(async move {
                    while cluster.table().owner(name.as_bytes()) == Some(&place) {
                        tokio::time::sleep(OWNER_EVERY).await;
                    }
                    tracing::warn!(left = %place, "the cluster's slots are shared out anew");
                    line.gone.notify_one();
                })
            }
        };
        Some(following.abort_handle())
    }
}

/// A pub/sub connection; its driver, and what watches the master for it, end with it.
pub(super) struct Listening {
    pub(super) connection: MultiplexedConnection,
    tasks: Vec<AbortHandle>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Asks the server for its role; an error where it is not the master.
pub(super) async fn is_master(connection: &mut MultiplexedConnection) -> Result<(), RelayError> {
    let role: Vec<Value> =
        ::redis::cmd("ROLE").query_async(connection).await.map_err(|error| away(&error))?;
    match role.first() {
        Some(Value::BulkString(role)) if role == b"master" => Ok(()),
        _ => Err(RelayError::Away("the server that was named is not a master (yet)".into())),
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
        // Somebody's script has it for itself.
        _ if error.code() == "BUSY" => Err(RelayError::Away(text)),
        _ => Err(RelayError::Refused(text)),
    }
}

/// What kind of failure the answer to one command of a pipeline is, if any.
pub(super) fn failed(value: &Value) -> Option<ServerErrorKind> {
    if let Value::ServerError(error) = value { error.kind() } else { None }
}

/// Whether the answer says that the slot is another server's, or on its way to one.
pub(super) fn is_elsewhere(value: &Value) -> bool {
    use ServerErrorKind::{Ask, Moved, TryAgain};
    matches!(failed(value), Some(Moved | Ask | TryAgain))
}

const fn is_temporary(kind: ServerErrorKind) -> bool {
    matches!(
        kind,
        ServerErrorKind::BusyLoading
            | ServerErrorKind::TryAgain
            | ServerErrorKind::Moved
            | ServerErrorKind::Ask
            | ServerErrorKind::ClusterDown
            | ServerErrorKind::MasterDown
            | ServerErrorKind::ReadOnly
    )
}
