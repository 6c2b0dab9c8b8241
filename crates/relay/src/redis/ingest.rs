//! Durable ingest: what backends put into the stream `tg:ingest` is published, whichever node is alive.
//!
//! ```text
//!   XREADGROUP --> order --> lane --> Redis acknowledged all --> XACK, XDEL
//!                    |         |
//!                    |         +--> not now: again for a moment, then claimed after a while, by any node
//!                    +--> never: set aside with the reason, then XACK, XDEL
//! ```
//!
//! Every node is a consumer of one group, so each entry is one node's at a time. It is acknowledged only after Redis has
//! taken every publication it asks for: a node that dies before leaves it to the others, who claim what was not
//! acknowledged for `relay.redis.ingest.claim_after`. So an entry is published at least once; in channels with history
//! once, by its idempotency key.
//!
//! One batch at a time, in the order of the stream. What fails for now holds up the batches behind it for [`PATIENCE`]
//! at most. Nothing is kept here that Redis does not know: what this node has is pending in the group, and read again
//! when the connection was lost.
//!
//! Not here: what an entry may ask for (`entry`), the commands (`stream`).

mod entry;
mod stream;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate_protocol::{ChannelName, Publication};
use tokio::sync::{oneshot, watch};

use self::entry::{Bounds, Entry, Order, Post};
use self::stream::{Brought, Place, Stream};
use super::backoff::Backoff;
use super::lane::{Answer, LaneSender, Outcome};
use super::lanes::Lanes;
use super::pool::Pool;
use super::stopped;
use crate::names::Names;
use crate::relay::{Busy, Outgoing, RelayError};
use crate::rules::Rules;
use crate::settings::{IngestSettings, RedisSettings};
use crate::sink::{Ingested, Observation, Sink};
use crate::sparse::{Sparse, shortened};

/// How long a read waits for entries at most: what a stop may take.
const WAIT: Duration = Duration::from_millis(500);
/// How many entries the first read asks for: nobody knows yet how large they are.
const FIRST_BATCH: usize = 16;
/// At how many bytes of one read the next asks for fewer entries.
const BATCH_BYTES: usize = 8 * 1024 * 1024;
/// How many publications are on their way to Redis at once.
const FLYING: usize = 1024;
/// How long a batch is tried again before the next one is read.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often an entry is given to nodes before it is set aside.
const MOST_DELIVERIES: u64 = 16;
/// How often the stream's standing is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How often nodes that are gone are taken out of the group, and how long they must have been.
const FORGET_EVERY: Duration = Duration::from_secs(600);

/// What makes a consumer.
pub(super) struct Parts<'a> {
    pub(super) settings: &'a RedisSettings,
    pub(super) ingest: IngestSettings,
    pub(super) node: &'a str,
    pub(super) names: &'a Arc<Names>,
    pub(super) pool: &'a Pool,
    pub(super) rules: &'a Arc<Rules>,
    pub(super) sink: &'a Arc<dyn Sink>,
}

/// The node's consumer of the ingest stream, run by the saying thread.
pub(super) struct Ingest {
    settings: IngestSettings,
    place: Place,
    lane: LaneSender,
    lanes: Lanes,
    rules: Arc<Rules>,
    max_publication_bytes: usize,
    /// How many entries are asked for at once: up to the settings' batch, fewer while they are large.
    batch: usize,
    /// How long a read waits.
    wait: Duration,
    sink: Arc<dyn Sink>,
    stop: watch::Receiver<bool>,
    /// Entries that are done and not acknowledged: their acknowledgement was lost with the connection.
    done: Vec<String>,
    complaint: Sparse,
    poisoned: Sparse,
}

/// An entry that is being done.
struct Open {
    entry: Entry,
    order: Order,
    /// Why it was not done the last time.
    error: Option<RelayError>,
}

/// Publications whose answers are awaited, in the order they were sent.
type Flying = VecDeque<(usize, ChannelName, oneshot::Receiver<Outcome>)>;

/// What is due when.
struct Rounds {
    claim: Instant,
    look: Instant,
    forget: Instant,
    /// Where the next claim goes on.
    cursor: String,
}

impl Ingest {
    pub(super) fn new(
        parts: &Parts<'_>,
        lane: LaneSender,
        lanes: Lanes,
        stop: watch::Receiver<bool>,
    ) -> Self {
        let Parts { settings, ingest, node, names, pool, rules, sink } = *parts;
        Self {
            settings: ingest,
            place: Place {
                names: Arc::clone(names),
                pool: pool.of(names.ingest()),
                poison: pool.of(names.poison()),
                consumer: node.to_owned(),
            },
            lane,
            lanes,
            rules: Arc::clone(rules),
            max_publication_bytes: settings.max_publication_bytes,
            batch: FIRST_BATCH.min(ingest.batch),
            // Well before the connection gives the command up.
            wait: WAIT.min(settings.command_timeout / 2),
            sink: Arc::clone(sink),
            stop,
            done: Vec::new(),
            complaint: Sparse::new(Duration::from_secs(10)),
            poisoned: Sparse::new(Duration::from_secs(1)),
        }
    }

    /// Runs until the relay stops; what was read then is still published.
    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::new();
        while !*self.stop.borrow() {
            let Err(error) = self.consume(&mut backoff).await else { break };
            if let Some(held_back) = self.complaint.speak(Instant::now()) {
                tracing::warn!(%error, held_back, "the ingest stream cannot be read; trying again");
            }
            let mut stop = self.stop.clone();
            let _ = tokio::time::timeout(backoff.wait(), stopped(&mut stop)).await;
        }
    }

    /// Consumes until the relay stops. An error means that the connection is not to be used again.
    async fn consume(&mut self, backoff: &mut Backoff) -> Result<(), RelayError> {
        let mut stream = Stream::open(&self.place).await?;
        self.acknowledge(&mut stream).await?;
        self.resume(&mut stream).await?;
        backoff.reset();
        let now = Instant::now();
        let mut rounds = Rounds { claim: now, look: now, forget: now + FORGET_EVERY, cursor: "0-0".into() };
        while !*self.stop.borrow() {
            self.round(&mut stream, &mut rounds).await?;
            let brought = stream.read(self.batch, self.wait).await?;
            self.work(&mut stream, brought).await?;
        }
        stream.leave().await
    }

    /// What this node was given before the connection was lost.
    async fn resume(&mut self, stream: &mut Stream) -> Result<(), RelayError> {
        let mut after = "0".to_owned();
        while !*self.stop.borrow() {
            let brought = stream.own(&after, self.batch).await?;
            let ids = brought.entries.iter().map(|entry| &entry.id).chain(&brought.deleted);
            let Some(last) = ids.max_by_key(|id| position(id)).cloned() else { break };
            self.work(stream, brought).await?;
            after = last;
        }
        Ok(())
    }

    /// What is due besides reading.
    async fn round(&mut self, stream: &mut Stream, rounds: &mut Rounds) -> Result<(), RelayError> {
        let now = Instant::now();
        if now >= rounds.claim {
            let (next, brought) = stream.claim(&rounds.cursor, self.settings.claim_after, self.batch).await?;
            self.count(Ingested::Claimed, brought.entries.len());
            self.work(stream, brought).await?;
            // Not at its end yet: there is more to claim.
            let all = next == "0-0";
            rounds.cursor = next;
            let every = self.settings.claim_after / 2;
            rounds.claim = if all { now + every.mul_f64(0.75 + fastrand::f64() / 4.0) } else { now };
        }
        if now >= rounds.look {
            let standing = stream.standing().await?;
            self.sink.observe(Observation::IngestStands {
                pending: standing.pending,
                waiting: standing.waiting,
                oldest: standing.oldest,
            });
            rounds.look = now + LOOK_EVERY;
        }
        if now >= rounds.forget {
            stream.forget_others(FORGET_EVERY).await?;
            rounds.forget = now + FORGET_EVERY;
        }
        Ok(())
    }

    /// Does what entries ask for, acknowledges what is done and leaves the rest to be claimed.
    async fn work(&mut self, stream: &mut Stream, brought: Brought) -> Result<(), RelayError> {
        let bytes: usize = brought.entries.iter().map(Entry::len).sum();
        let batch = if bytes > BATCH_BYTES { self.batch / 2 } else { self.batch * 2 };
        self.batch = batch.clamp(1, self.settings.batch);
        if !brought.deleted.is_empty() {
            tracing::warn!(
                entries = brought.deleted.len(),
                "entries were taken out of the ingest stream before they were published"
            );
            self.count(Ingested::Deleted, brought.deleted.len());
            self.done.extend(brought.deleted);
        }
        let mut open = Vec::with_capacity(brought.entries.len());
        for entry in brought.entries {
            if entry.deliveries > 2 * MOST_DELIVERIES {
                let reason =
                    format!("given to nodes {} times, and none has acknowledged it", entry.deliveries);
                self.set_aside(stream, entry, &reason).await?;
                continue;
            }
            let bounds = Bounds { rules: &self.rules, max_publication_bytes: self.max_publication_bytes };
            match entry.order(&bounds) {
                Ok(order) => open.push(Open { entry, order, error: None }),
                Err(reason) => self.set_aside(stream, entry, &reason).await?,
            }
        }
        self.acknowledge(stream).await?;
        let began = Instant::now();
        let patience = PATIENCE.min(self.settings.claim_after / 2);
        let mut backoff = Backoff::new();
        while !open.is_empty() {
            self.attempt(&mut open).await;
            open = self.keep_undone(open);
            self.acknowledge(stream).await?;
            let soon = open.iter().any(|open| !matches!(open.error, Some(RelayError::Refused(_))));
            if !soon || began.elapsed() > patience || *self.stop.borrow() {
                break;
            }
            let _ = tokio::time::timeout(backoff.wait(), stopped(&mut self.stop)).await;
        }
        for Open { entry, error, .. } in open {
            let error = error.map(|error| error.to_string()).unwrap_or_default();
            if entry.deliveries >= MOST_DELIVERIES {
                let reason =
                    format!("given to nodes {} times, and never published: {error}", entry.deliveries);
                self.set_aside(stream, entry, &reason).await?;
                continue;
            }
            self.count(Ingested::Deferred, 1);
            if let Some(held_back) = self.complaint.speak(Instant::now()) {
                tracing::warn!(entry = entry.id, error, held_back, "an entry of the ingest stream waits");
            }
        }
        self.acknowledge(stream).await
    }

    /// Takes those out that are done, to be acknowledged.
    fn keep_undone(&mut self, all: Vec<Open>) -> Vec<Open> {
        let (mut published, mut controls) = (0, 0);
        let mut undone = Vec::new();
        for open in all {
            match (&open.error, &open.order) {
                (Some(_), _) => {
                    undone.push(open);
                    continue;
                }
                (None, Order::Publish(_)) => published += 1,
                (None, Order::Control(_)) => controls += 1,
            }
            self.done.push(open.entry.id);
        }
        self.count(Ingested::Published, published);
        self.count(Ingested::Control, controls);
        undone
    }

    async fn acknowledge(&mut self, stream: &mut Stream) -> Result<(), RelayError> {
        stream.finish(&self.done).await?;
        self.done.clear();
        Ok(())
    }

    async fn set_aside(&mut self, stream: &mut Stream, entry: Entry, reason: &str) -> Result<(), RelayError> {
        stream.set_aside(&entry, reason).await?;
        self.count(Ingested::Poison, 1);
        if let Some(held_back) = self.poisoned.speak(Instant::now()) {
            let reason = shortened(reason);
            tracing::warn!(
                entry = entry.id,
                reason,
                held_back,
                "an entry of the ingest stream was set aside"
            );
        }
        self.done.push(entry.id);
        Ok(())
    }

    fn count(&self, what: Ingested, count: usize) {
        if count > 0 {
            self.sink.observe(Observation::Ingested(what, count as u64));
        }
    }

    /// Tries everything that is open once, in order.
    async fn attempt(&self, open: &mut [Open]) {
        let mut flying = Flying::new();
        for at in 0..open.len() {
            open[at].error = None;
            match &mut open[at].order {
                Order::Publish(post) => {
                    let channels = std::mem::take(&mut post.channels);
                    for channel in channels {
                        self.publish(at, channel, open, &mut flying).await;
                    }
                }
                Order::Control(json) => {
                    let json = json.clone();
                    // What was published before is acknowledged before.
                    while self.land(open, &mut flying).await {}
                    let said = self.lane.say(self.place.names.control().to_owned(), json).await;
                    open[at].error = said.err();
                }
            }
        }
        while self.land(open, &mut flying).await {}
    }

    /// Sends one publication on its way; makes room for it first.
    async fn publish(&self, at: usize, channel: ChannelName, open: &mut [Open], flying: &mut Flying) {
        let Order::Publish(Post { data, tags, key, .. }) = &open[at].order else { return };
        let outgoing = Outgoing {
            publication: Publication {
                channel: channel.clone(),
                data: data.clone(),
                info: None,
                tags: tags.clone(),
                offset: 0,
            },
            idempotency_key: key.clone(),
            skip_history: false,
        };
        loop {
            while flying.len() >= FLYING && self.land(open, flying).await {}
            let (reply, answer) = oneshot::channel();
            match self.lanes.publish(outgoing.clone(), Answer::Reply(reply)) {
                Ok(()) => return flying.push_back((at, channel, answer)),
                Err(Busy) if self.land(open, flying).await => {}
                Err(Busy) => return fail(open, at, channel, RelayError::Busy),
            }
        }
    }

    /// Waits for the answer to the publication that was sent first; false when there is none.
    async fn land(&self, open: &mut [Open], flying: &mut Flying) -> bool {
        let Some((at, channel, answer)) = flying.pop_front() else { return false };
        if let Err(error) = self.lane.answered(answer).await {
            fail(open, at, channel, error);
        }
        true
    }
}

/// The channel has to be tried again.
fn fail(open: &mut [Open], at: usize, channel: ChannelName, error: RelayError) {
    if let Order::Publish(post) = &mut open[at].order {
        post.channels.push(channel);
    }
    open[at].error = Some(error);
}

/// An entry's place in its stream.
fn position(id: &str) -> (u64, u64) {
    let (time, number) = id.split_once('-').unwrap_or((id, "0"));
    (time.parse().unwrap_or(0), number.parse().unwrap_or(0))
}
