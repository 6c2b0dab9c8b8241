//! The registry of nodes: who is alive, as Redis sees it.
//!
//! `tg:nodes` is a sorted set of node ids by the time of their last heartbeat, in seconds of Redis' own clock, so that
//! nodes whose clocks differ do not forget each other. `tg:node:<id>` is the node's description with a time to live of
//! three heartbeats: a node is alive while that key is there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ::redis::{Pipeline, RedisResult};
use deadpool_redis::Connection;
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
        let mut connection = self.connection().await?;
        let now = time(&mut connection).await?;
        let about = serde_json::to_string(&self.describe())
            .map_err(|error| RelayError::Refused(error.to_string()))?;
        let life = u64::try_from((self.heartbeat * 3).as_millis()).unwrap_or(u64::MAX).max(1);
        let id = &self.identity.id;
        let mut pipeline = Pipeline::new();
        pipeline.cmd("SET").arg(self.names.node(id)).arg(about).arg("PX").arg(life);
        pipeline.cmd("ZADD").arg(self.names.nodes()).arg(now).arg(id);
        pipeline.cmd("ZREMRANGEBYSCORE").arg(self.names.nodes()).arg("-inf").arg(now - FORGOTTEN_AFTER);
        run(&pipeline, &mut connection).await?;
        self.sink.observe(Observation::Command("heartbeat", started.elapsed()));
        Ok(())
    }

    /// The nodes that are alive, this one always among them.
    pub(super) async fn nodes(&self) -> Result<Vec<NodeInfo>, RelayError> {
        let mut connection = self.connection().await?;
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
        let mut get = ::redis::cmd("MGET");
        for id in &ids {
            get.arg(self.names.node(id));
        }
        let found: Vec<Option<String>> = checked(get.query_async(&mut *connection).await)?;
        let others =
            found.into_iter().flatten().filter_map(|json| serde_json::from_str::<NodeInfo>(&json).ok());
        nodes.extend(others.filter(|node| node.id != self.identity.id));
        nodes.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        Ok(nodes)
    }

    /// Takes this node out.
    pub(super) async fn remove(&self) -> Result<(), RelayError> {
        let work = async {
            let mut connection = self.connection().await?;
            let id = &self.identity.id;
            let mut pipeline = Pipeline::new();
            pipeline.cmd("ZREM").arg(self.names.nodes()).arg(id);
            pipeline.cmd("DEL").arg(self.names.node(id));
            run(&pipeline, &mut connection).await
        };
        let late = |_| RelayError::Away("no answer in time".into());
        tokio::time::timeout(self.timeout, work).await.map_err(late)?
    }

    async fn connection(&self) -> Result<Connection, RelayError> {
        self.pool.get().await.map_err(|error| server::no_connection(&error))
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
