//! Pooled connections for commands, to wherever the server is now.
//!
//! A pool of deadpool-redis for each place the server was found at; the last one counts. When the server has moved,
//! the old pool is dropped with the connections that lie in it, and those in use fail at their next command. In a cluster
//! the place is that of the master which has a key.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ::redis::{AsyncConnectionConfig, ConnectionAddr, ConnectionInfo, ErrorKind, RedisError};
use deadpool_redis::{Connection, Hook, HookError, Manager, PoolError, Runtime};

use super::cluster::Cluster;
use super::server::{self, Server};
use crate::relay::RelayError;

/// The pool of the place where a server was found last.
type Current = Mutex<Option<(ConnectionAddr, deadpool_redis::Pool)>>;

/// Hands out connections; cloning shares them.
#[derive(Clone)]
pub(super) enum Pool {
    /// To one server.
    Server { server: Arc<Server>, current: Arc<Current> },
    /// To whichever master of a cluster has the key.
    Key { cluster: Arc<Cluster>, key: Arc<str> },
}

impl Pool {
    pub(super) fn to(server: Arc<Server>) -> Self {
        Self::Server { server, current: Arc::default() }
    }

    /// The same for commands about another key.
    pub(super) fn of(&self, key: &str) -> Self {
        match self {
            Self::Server { .. } => self.clone(),
            Self::Key { cluster, .. } => Self::Key { cluster: Arc::clone(cluster), key: key.into() },
        }
    }

    /// Whether other keys are elsewhere.
    pub(super) const fn is_of_cluster(&self) -> bool {
        matches!(self, Self::Key { .. })
    }

    /// A connection that was just seen to work. Takes no longer than four times the command timeout.
    pub(super) async fn get(&self) -> Result<Connection, PoolError> {
        let (server, current) = match self {
            Self::Server { server, current } => (server, current),
            Self::Key { cluster, key } => return cluster.connection(key).await,
        };
        let find = async || server.find().await.map_err(|error| failed(&error));
        let Some(known) = server.known() else { return at(server, current, &find().await?)?.get().await };
        let error = match at(server, current, &known)?.get().await {
            Ok(connection) => return Ok(connection),
            Err(error) if !server.moves() => return Err(error),
            Err(error) => error,
        };
        let found = find().await?;
        if found.addr() == known.addr() { Err(error) } else { at(server, current, &found)?.get().await }
    }
}

/// The pool of this place.
fn at(server: &Server, current: &Current, info: &ConnectionInfo) -> Result<deadpool_redis::Pool, PoolError> {
    let mut current = current.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((address, pool)) = &*current
        && address == info.addr()
    {
        return Ok(pool.clone());
    }
    let pool = make(info.clone(), server.command_timeout(), server.pool_size(), server.moves())
        .map_err(|error| failed(&error))?;
    *current = Some((info.addr().clone(), pool.clone()));
    Ok(pool)
}

/// A pool for one place. `checked`: the server there must say that it is a master.
pub(super) fn make(
    info: ConnectionInfo,
    timeout: Duration,
    size: usize,
    checked: bool,
) -> Result<deadpool_redis::Pool, RelayError> {
    let fail = |error: &dyn std::fmt::Display| RelayError::Settings(format!("relay.redis: {error}"));
    let manager = Manager::new_with_config(info, timeouts(timeout)).map_err(|e| fail(&e))?;
    let mut builder = deadpool_redis::Pool::builder(manager)
        .max_size(size)
        .wait_timeout(Some(timeout))
        .create_timeout(Some(timeout))
        .recycle_timeout(Some(timeout))
        .runtime(Runtime::Tokio1);
    if checked {
        builder = builder.post_create(Hook::async_fn(|connection, _| {
            Box::pin(async {
                server::is_master(connection).await.map_err(|error| HookError::message(error.to_string()))
            })
        }));
    }
    builder.build().map_err(|e| fail(&e))
}

/// How long connecting and each command may take.
pub(super) fn timeouts(timeout: Duration) -> AsyncConnectionConfig {
    AsyncConnectionConfig::new().set_connection_timeout(Some(timeout)).set_response_timeout(Some(timeout))
}

/// No connection, for a reason of our own.
pub(super) fn failed(error: &RelayError) -> PoolError {
    PoolError::Backend(RedisError::from((ErrorKind::Io, "no server", error.to_string())))
}
