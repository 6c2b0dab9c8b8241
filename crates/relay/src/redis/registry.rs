//! The registry of nodes: who is alive, as Redis sees it.
//!
//! `tg:nodes` is a sorted set of node ids by the time of their last heartbeat, in seconds of Redis' own clock, so that
//! nodes whose clocks differ do not forget each other. `tg:node:<id>` is the node's description with a time to live of
//! three heartbeats: a node is alive while that key is there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ::redis::{Pipeline, RedisResult};
use deadpool_redis::Connection;
use futures_util::{StreamExt, TryStreamExt};
use tokio::sync::Notify;

use super::counts::Counts;
use super::pool::Pool;
use super::server;
use crate::names::Names;
use crate::relay::{Identity, NodeInfo, RelayError};
use crate::sink::{Observation, Sink};
use crate::sparse::Sparse;

/// How soon a failed heartbeat is tried again, at most.
const RETRY: Duration = Duration::from_secs(1);
/// A member of the sorted set older than so many seconds is taken out by whoever sees it.
const FORGOTTEN_AFTER: i64 = 600;
/// How many nodes are read at most.
const MOST_NODES: isize = 10_000;
/// How many of them are read at once where each is on a server of its own.
const READ_AT_ONCE: usize = 8;

pub(super) struct Registry {
    pool: Pool,
    names: Arc<Names>,
    identity: Identity,
    heartbeat: Duration,
    timeout: Duration,
    sink: Arc<dyn Sink>,
    /// How many channels the node's workers want.
    wanted: Counts,
    hurry: Notify,
    complaint: Sparse,
}

impl Registry {
    pub(super) fn new(
        pool: Pool,
        names: Arc<Names>,
        identity: Identity,
        heartbeat: Duration,
        timeout: Duration,
        sink: Arc<dyn Sink>,
        wanted: Counts,
    ) -> Self {
        let complaint = Sparse::new(Duration::from_secs(10));
        Self { pool, names, identity, heartbeat, timeout, sink, wanted, hurry: Notify::new(), complaint }
    }

    /// Writes the node at once: Redis came back and may have forgotten it.
    pub(super) fn hurry(&self) {
        self.hurry.notify_one();
    }

    /// Heartbeats for ever.
    pub(super) async fn run(&self) {
        loop {
            let wait = match self.beat().await {
                Ok(()) => self.heartbeat,
                Err(error) => {
                    if let Some(held_back) = self.complaint.speak(Instant::now()) {
                        tracing::warn!(%error, held_back, "heartbeat not written");
                    }
                    self.heartbeat.min(RETRY)
                }
            };
            let _ = tokio::time::timeout(wait, self.hurry.notified()).await;
        }
    }

    fn describe(&self) -> NodeInfo {
        self.identity.describe(self.sink.report(), self.wanted.sum())
    }

    async fn beat(&self) -> Result<(), RelayError> {
        let started = Instant::now();
        let mut connection = self.connection(self.names.nodes()).await?;
        let now = time(&mut connection).await?;
        let about = serde_json::to_string(&self.describe())
            .map_err(|error| RelayError::Refused(error.to_string()))?;
        let life = u64::try_from((self.heartbeat * 3).as_millis()).unwrap_or(u64::MAX).max(1);
        let id = &self.identity.id;
        let own = self.names.node(id);
        let mut set = ::redis::cmd("SET");
        set.arg(&own).arg(about).arg("PX").arg(life);
        let mut pipeline = Pipeline::new();
        if self.is_spread() {
            let mut elsewhere = self.connection(&own).await?;
            checked(set.query_async::<()>(&mut *elsewhere).await)?;
        } else {
            pipeline.add_command(set);
        }
        pipeline.cmd("ZADD").arg(self.names.nodes()).arg(now).arg(id);
        pipeline.cmd("ZREMRANGEBYSCORE").arg(self.names.nodes()).arg("-inf").arg(now - FORGOTTEN_AFTER);
        run(&pipeline, &mut connection).await?;
        self.sink.observe(Observation::Command("heartbeat", started.elapsed()));
        Ok(())
    }

    /// The nodes that are alive, this one always among them.
    pub(super) async fn nodes(&self) -> Result<Vec<NodeInfo>, RelayError> {
        let mut connection = self.connection(self.names.nodes()).await?;
        let now = time(&mut connection).await?;
        let mut range = ::redis::cmd("ZRANGEBYSCORE");
        range
            .arg(self.names.nodes())
            .arg(now - FORGOTTEN_AFTER)
            .arg("+inf")
            .arg("LIMIT")
            .arg(0)
            .arg(MOST_NODES);
        let ids: Vec<String> = checked(range.query_async(&mut *connection).await)?;
        let mut nodes = vec![self.describe()];
        if ids.is_empty() {
            return Ok(nodes);
        }
        let keys: Vec<String> = ids.iter().map(|id| self.names.node(id)).collect();
        let found: Vec<Option<String>> = if self.is_spread() {
            drop(connection);
            let each = futures_util::stream::iter(keys).map(async |key| {
                let mut connection = self.connection(&key).await?;
                checked(::redis::cmd("GET").arg(key).query_async(&mut *connection).await)
            });
            each.buffered(READ_AT_ONCE).try_collect().await?
        } else {
            checked(::redis::cmd("MGET").arg(keys).query_async(&mut *connection).await)?
        };
        let others =
            found.into_iter().flatten().filter_map(|json| serde_json::from_str::<NodeInfo>(&json).ok());
        nodes.extend(others.filter(|node| node.id != self.identity.id));
        nodes.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        Ok(nodes)
    }

    /// Takes this node out.
    pub(super) async fn remove(&self) -> Result<(), RelayError> {
        let work = async {
            let id = &self.identity.id;
            let own = self.names.node(id);
            let mut connection = self.connection(self.names.nodes()).await?;
            checked(
                ::redis::cmd("ZREM")
                    .arg(self.names.nodes())
                    .arg(id)
                    .query_async::<()>(&mut *connection)
                    .await,
            )?;
            if self.is_spread() {
                connection = self.connection(&own).await?;
            }
            checked(::redis::cmd("DEL").arg(own).query_async::<()>(&mut *connection).await)
        };
        let late = |_| RelayError::Away("no answer in time".into());
        tokio::time::timeout(self.timeout, work).await.map_err(late)?
    }

    /// Whether keys are on several servers.
    const fn is_spread(&self) -> bool {
        self.pool.is_of_cluster()
    }

    /// A connection for commands about this key.
    async fn connection(&self, key: &str) -> Result<Connection, RelayError> {
        self.pool.of(key).get().await.map_err(|error| server::no_connection(&error))
    }
}

/// Seconds of Redis' clock.
async fn time(connection: &mut Connection) -> Result<i64, RelayError> {
    let (seconds, _micros): (i64, i64) = checked(::redis::cmd("TIME").query_async(&mut **connection).await)?;
    Ok(seconds)
}

async fn run(pipeline: &Pipeline, connection: &mut Connection) -> Result<(), RelayError> {
    let values = checked(connection.send_packed_commands(pipeline, 0, pipeline.len()).await)?;
    values.iter().try_for_each(server::answer)
}

fn checked<T>(result: RedisResult<T>) -> Result<T, RelayError> {
    result.map_err(|error| server::away(&error))
}
