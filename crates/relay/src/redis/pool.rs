//! Pooled connections for commands, to wherever the server is now.
//!
//! A pool of deadpool-redis for each place the server was found at; the last one counts. When the server has moved,
//! the old pool is dropped with the connections that lie in it, and those in use fail at their next command.

use std::sync::{Arc, Mutex, PoisonError};

use ::redis::{ConnectionAddr, ConnectionInfo, ErrorKind, RedisError};
use deadpool_redis::{Connection, Hook, HookError, Manager, PoolError, Runtime};

use super::server::{self, Server};
use crate::relay::RelayError;

/// Hands out connections; cloning shares them.
#[derive(Clone)]
pub(super) struct Pool {
    server: Arc<Server>,
    current: Arc<Mutex<Option<(ConnectionAddr, deadpool_redis::Pool)>>>,
}

impl Pool {
    pub(super) fn new(server: Arc<Server>) -> Self {
        Self { server, current: Arc::default() }
    }

    /// A connection that was just seen to work. Takes no longer than four times the command timeout.
    pub(super) async fn get(&self) -> Result<Connection, PoolError> {
        let known = self.server.known();
        let Some(known) = known else { return self.at(&self.find().await?)?.get().await };
        let error = match self.at(&known)?.get().await {
            Ok(connection) => return Ok(connection),
            Err(error) if !self.server.moves() => return Err(error),
            Err(error) => error,
        };
        let found = self.find().await?;
        if found.addr() == known.addr() { Err(error) } else { self.at(&found)?.get().await }
    }

    async fn find(&self) -> Result<ConnectionInfo, PoolError> {
        self.server.find().await.map_err(|error| failed(&error))
    }

    /// The pool of this place.
    fn at(&self, info: &ConnectionInfo) -> Result<deadpool_redis::Pool, PoolError> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((address, pool)) = &*current
            && address == info.addr()
        {
            return Ok(pool.clone());
        }
        let pool = self.make(info.clone()).map_err(|error| failed(&error))?;
        *current = Some((info.addr().clone(), pool.clone()));
        Ok(pool)
    }

    fn make(&self, info: ConnectionInfo) -> Result<deadpool_redis::Pool, RelayError> {
        let fail = |error: &dyn std::fmt::Display| RelayError::Settings(format!("relay.redis: {error}"));
        let manager = Manager::new_with_config(info, self.server.timeouts()).map_err(|e| fail(&e))?;
        let timeout = Some(self.server.command_timeout());
        let mut builder = deadpool_redis::Pool::builder(manager)
            .max_size(self.server.pool_size())
            .wait_timeout(timeout)
            .create_timeout(timeout)
            .recycle_timeout(timeout)
            .runtime(Runtime::Tokio1);
        if self.server.moves() {
            builder = builder.post_create(Hook::async_fn(|connection, _| {
                Box::pin(async {
                    server::is_master(connection).await.map_err(|error| HookError::message(error.to_string()))
                })
            }));
        }
        builder.build().map_err(|e| fail(&e))
    }
}

fn failed(error: &RelayError) -> PoolError {
    PoolError::Backend(RedisError::from((ErrorKind::Io, "no server", error.to_string())))
}
