//! The publishing lane: one bounded queue, one connection, one batch in flight.
//!
//! One batch at a time keeps the order of every channel; a batch takes whatever has gathered meanwhile, so the lane's
//! throughput grows with its load. The connection is taken from the pool once and kept: a checkout costs a round trip.
//!
//! A publication that was sent and not answered is never sent again: Redis may have taken it. What was surely not taken,
//! for Redis did not know the script, is sent again in its place. While Redis cannot be reached, publications are answered
//! at once instead of being kept; attempts to reach it go on regardless.
//!
//! Not here: what a batch says and how its answers are read (`batch`), the commands (`publish`, `script`).

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use deadpool_redis::Connection;
use tidegate_protocol::Position;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::backoff::Backoff;
use super::batch::{self, Wait};
use super::cluster::Cluster;
use super::ground::Ground;
use super::health::Health;
use super::library::Library;
use super::pool::Pool;
use super::{server, stopped};
use crate::budget::{Budget, Claim};
use crate::names::Names;
use crate::relay::{Busy, Outgoing, RelayError};
use crate::rules::Rules;
use crate::settings::RedisSettings;
use crate::sink::{Sink, Ticket};
use crate::sparse::Sparse;

/// How many messages may wait.
const QUEUE_ITEMS: usize = 16 * 1024;
/// How many bytes may wait.
const QUEUE_BYTES: usize = 32 * 1024 * 1024;
/// How many messages one batch takes.
const BATCH_ITEMS: usize = 512;

/// What became of a publication: where it stands in its channel's history, if it has one.
pub(super) type Outcome = Result<Option<Position>, RelayError>;

/// Where the answer goes.
pub(super) enum Answer {
    /// To the client that asked.
    Ticket(Ticket),
    /// To a caller that waits.
    Reply(oneshot::Sender<Outcome>),
    /// Into the number of the last probe that Redis took.
    Probe(u64),
}

pub(super) enum What {
    Publication(Outgoing),
    Raw {
        channel: String,
        payload: Bytes,
    },
    /// To be heard by this node itself. It leaves a trace in a key too: who is no master any more cannot do that.
    Probe {
        channel: String,
        number: u64,
    },
}

pub(super) struct Item {
    pub(super) what: What,
    pub(super) answer: Answer,
    pub(super) deadline: Instant,
    _claim: Claim,
}

/// The way into the lane.
#[derive(Clone)]
pub(super) struct LaneSender {
    queue: mpsc::Sender<Item>,
    budget: Arc<Budget>,
    timeout: Duration,
    probed: Arc<AtomicU64>,
    renewal: Arc<Renewal>,
    health: Arc<Health>,
}

/// Asks the lane for a new connection. An idle connection does not know that it is dead; whoever sees the other
/// connection end does.
#[derive(Default)]
pub(super) struct Renewal {
    asked: AtomicU64,
    /// How often Redis turned out to be no master. The other way round: whoever hears it should look elsewhere too.
    pub(super) demotions: AtomicU64,
    wake: Notify,
}

impl LaneSender {
    /// The connection to hear was made anew: what the lane has may be of a Redis that is gone. The relay does not speak
    /// until the lane has a connection that was checked after this.
    pub(super) fn renew(&self) {
        self.renewal.asked.fetch_add(1, Ordering::SeqCst);
        self.health.speaks(false);
        self.renewal.wake.notify_one();
    }

    /// Queues a publication.
    pub(super) fn publish(&self, outgoing: Outgoing, answer: Answer) -> Result<(), Busy> {
        self.push(outgoing.publication.data.len(), What::Publication(outgoing), answer)
    }

    /// Publishes a message of our own and waits for the answer.
    pub(super) async fn say(&self, channel: String, payload: Bytes) -> Result<(), RelayError> {
        let (reply, answer) = oneshot::channel();
        self.push(payload.len(), What::Raw { channel, payload }, Answer::Reply(reply))
            .map_err(|Busy| RelayError::Busy)?;
        self.answered(answer).await.map(drop)
    }

    /// Publishes a probe. Whether Redis took it is told by [`LaneSender::last_probe`].
    pub(super) fn probe(&self, channel: String, number: u64) {
        // A full queue is not silence: the next probe may get through.
        let _ = self.push(channel.len(), What::Probe { channel, number }, Answer::Probe(number));
    }

    /// The number of the last probe that Redis took.
    pub(super) fn last_probe(&self) -> u64 {
        self.probed.load(Ordering::Relaxed)
    }

    /// How often Redis refused to write, for it is no master.
    pub(super) fn demotions(&self) -> u64 {
        self.renewal.demotions.load(Ordering::Relaxed)
    }

    /// Waits for the answer: as long as it may wait in the queue, then in flight, and a little.
    pub(super) async fn answered(&self, answer: oneshot::Receiver<Outcome>) -> Outcome {
        match tokio::time::timeout(self.timeout * 3, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(RelayError::Away("the relay has stopped".into())),
            Err(_) => Err(unanswered(self.timeout * 3)),
        }
    }

    fn push(&self, bytes: usize, what: What, answer: Answer) -> Result<(), Busy> {
        let _claim = self.budget.claim(bytes).ok_or(Busy)?;
        let deadline = Instant::now() + self.timeout;
        self.queue.try_send(Item { what, answer, deadline, _claim }).map_err(|_| Busy)
    }
}

/// The lane itself, run by the saying thread.
pub(super) struct Lane {
    queue: mpsc::Receiver<Item>,
    /// Taken from the queue and not sent yet.
    pub(super) taken: VecDeque<Item>,
    pool: Pool,
    /// The cluster, where channels may go to another server.
    pub(super) cluster: Option<Arc<Cluster>>,
    pub(super) names: Arc<Names>,
    pub(super) sink: Arc<dyn Sink>,
    health: Arc<Health>,
    stop: watch::Receiver<bool>,
    probed: Arc<AtomicU64>,
    pub(super) renewal: Arc<Renewal>,
    pub(super) timeout: Duration,
    pub(super) most: usize,
    pub(super) rules: Arc<Rules>,
    /// Whether any channel has history.
    pub(super) keeps: bool,
    library: Option<Arc<Library>>,
    /// Whether the connection's Redis knows the script.
    pub(super) loaded: bool,
    pub(super) wait: Option<Wait>,
    complaint: Sparse,
}

impl Lane {
    pub(super) fn new(
        settings: &RedisSettings,
        rules: &Arc<Rules>,
        ground: &Ground,
        health: &Arc<Health>,
        sink: &Arc<dyn Sink>,
        stop: watch::Receiver<bool>,
    ) -> (LaneSender, Self) {
        let (names, pool, cluster) = (&ground.names, ground.pool.clone(), ground.cluster.clone());
        let is_home = pool.is_of_cluster();
        let (sender, queue) = mpsc::channel(QUEUE_ITEMS);
        let probed = Arc::new(AtomicU64::new(0));
        let renewal = Arc::new(Renewal::default());
        let timeout = settings.command_timeout;
        let way_in = LaneSender {
            queue: sender,
            budget: Arc::new(Budget::new(QUEUE_BYTES)),
            timeout,
            probed: Arc::clone(&probed),
            renewal: Arc::clone(&renewal),
            health: Arc::clone(health),
        };
        let lane = Self {
            queue,
            taken: VecDeque::new(),
            pool,
            names: Arc::clone(names),
            sink: Arc::clone(sink),
            health: Arc::clone(health),
            stop,
            probed,
            renewal,
            timeout,
            most: settings.max_publication_bytes,
            rules: Arc::clone(rules),
            keeps: rules.keep(),
            // In a cluster each master has it from the part of its channels.
            cluster,
            library: if is_home { None } else { Library::new(rules, names.are_sharded()).map(Arc::new) },
            loaded: false,
            wait: Wait::new(settings),
            complaint: Sparse::new(Duration::from_secs(10)),
        };
        (way_in, lane)
    }

    /// Runs until the relay stops; what is queued then is still sent if Redis is there.
    pub(super) async fn run(mut self) {
        loop {
            let asked = self.renewal.asked.load(Ordering::SeqCst);
            let Some(mut connection) = self.reach().await else { break };
            self.loaded = false;
            if let Some(library) = self.library.clone() {
                let pool = self.pool.clone();
                tokio::spawn(async move { library.offer(&pool).await });
            }
            self.health.speaks(true);
            let lost = loop {
                if !self.take().await {
                    return;
                }
                if self.renewal.asked.load(Ordering::SeqCst) != asked {
                    break None;
                }
                if let Err(error) = self.send(&mut connection).await {
                    break Some(error);
                }
            };
            // Not back into the pool: a dead connection would cost the next user a timeout.
            let _ = Connection::take(connection);
            if let Some(lost) = lost {
                tracing::warn!(%lost, "the publishing connection to redis is lost");
            }
        }
        self.queue.close();
        self.refuse_all(&RelayError::Away("the relay is stopping".into()));
    }

    /// Waits for messages unless some are left, or until a renewal is asked for; false when the relay stopped and nothing
    /// is left.
    async fn take(&mut self) -> bool {
        if !self.taken.is_empty() {
            return true;
        }
        let mut batch = Vec::new();
        let count = tokio::select! {
            count = self.queue.recv_many(&mut batch, BATCH_ITEMS) => count,
            () = self.renewal.wake.notified() => return true,
            () = stopped(&mut self.stop) => {
                self.queue.close();
                self.queue.recv_many(&mut batch, BATCH_ITEMS).await
            }
        };
        self.taken.extend(batch);
        count > 0
    }

    /// Gets a connection. The first attempt lets messages wait for its result; after a failure they are answered at
    /// once. `None` when the relay stopped.
    async fn reach(&mut self) -> Option<Connection> {
        let mut patient = true;
        let mut backoff = Backoff::new();
        loop {
            let (pool, key) = (self.pool.clone(), self.names.probe().to_owned());
            let attempt = async move {
                let mut connection = pool.get().await.map_err(|error| server::no_connection(&error))?;
                batch::is_writable(&mut connection, &key).await?;
                Ok(connection)
            };
            let result = if patient {
                tokio::select! {
                    result = attempt => result,
                    () = stopped(&mut self.stop) => return None,
                }
            } else {
                self.meanwhile(attempt).await?
            };
            let error = match result {
                Ok(connection) => return Some(connection),
                Err(error) => error,
            };
            self.health.speaks(false);
            if let Some(held_back) = self.complaint.speak(Instant::now()) {
                tracing::warn!(%error, held_back, "cannot reach redis to publish; trying again");
            }
            patient = false;
            self.refuse_all(&error);
            self.meanwhile(tokio::time::sleep(backoff.wait())).await?;
        }
    }

    /// Waits for `work`, answering messages at once meanwhile. `None` when the relay stopped.
    async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = std::pin::pin!(work);
        let error = RelayError::Away("redis cannot be reached; nothing was sent".into());
        loop {
            let mut batch = Vec::new();
            tokio::select! {
                biased;
                result = &mut work => return Some(result),
                () = stopped(&mut self.stop) => return None,
                count = self.queue.recv_many(&mut batch, BATCH_ITEMS) => if count == 0 { return None },
            }
            for item in batch {
                self.answer(item.answer, Err(error.clone()));
            }
        }
    }

    fn refuse_all(&mut self, error: &RelayError) {
        while let Some(item) = self.taken.pop_front().or_else(|| self.queue.try_recv().ok()) {
            self.answer(item.answer, Err(error.clone()));
        }
    }

    pub(super) fn answer(&self, answer: Answer, result: Outcome) {
        match answer {
            Answer::Ticket(ticket) => self.sink.published(ticket, result.map(drop)),
            Answer::Reply(reply) => drop(reply.send(result)),
            Answer::Probe(number) if result.is_ok() => self.probed.store(number, Ordering::Relaxed),
            Answer::Probe(_) => {}
        }
    }
}

pub(super) const MAYBE: &str = "redis may or may not have taken it";

pub(super) fn unanswered(after: Duration) -> RelayError {
    RelayError::Away(format!("no answer within {after:?}; {MAYBE}"))
}
