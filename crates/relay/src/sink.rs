//! What the relay tells the node.

use std::time::{Duration, Instant};

use tidegate_protocol::{ChannelName, Control, Publication};

use crate::relay::RelayError;

/// A worker of the node: 0 up to 63.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct WorkerId(pub u8);

/// A set of workers, one bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WorkerSet(pub u64);

impl WorkerSet {
    /// Adds a worker.
    pub const fn insert(&mut self, worker: WorkerId) {
        self.0 |= 1 << worker.0;
    }

    /// Takes a worker out.
    pub const fn remove(&mut self, worker: WorkerId) {
        self.0 &= !(1 << worker.0);
    }

    /// Whether no worker is in it.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether the worker is in it.
    pub const fn contains(self, worker: WorkerId) -> bool {
        self.0 & (1 << worker.0) != 0
    }

    /// The workers in it.
    pub fn iter(self) -> impl Iterator<Item = WorkerId> {
        (0..64).map(WorkerId).filter(move |worker| self.contains(*worker))
    }
}

/// A publication and the workers that joined its channel.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    /// Who is to have it.
    pub workers: WorkerSet,
    /// What arrived.
    pub publication: Publication,
}

/// Names a client's publish command, so that its answer finds the way back. Opaque to the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    /// The worker that asked.
    pub worker: WorkerId,
    /// The session that asked.
    pub session: u64,
    /// The command's id.
    pub id: u32,
}

/// What the node says of itself in the registry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Open connections.
    pub connections: u64,
    /// Subscriptions of all sessions.
    pub subscriptions: u64,
}

/// Something worth a metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Observation {
    /// The relay can carry publications now.
    Up,
    /// It cannot; `channels` were subscribed, and may have missed something.
    Down {
        /// How many channels the interruption concerns: 0 while all are still heard and only sending fails.
        channels: usize,
    },
    /// Channels may have missed something without the relay's going down by it: it was down already, or Redis does
    /// not let the node hear them any more.
    Missed {
        /// How many.
        channels: usize,
    },
    /// A connection to Redis was made again.
    Reconnected,
    /// A payload on the pub/sub channel was refused: `not_json`, `envelope`, `too_large`, `channel_name`, `control`.
    Refused(&'static str),
    /// Publications dropped because a worker did not take them in time.
    Dropped(u64),
    /// A Redis command took this long.
    Command(&'static str, Duration),
}

/// What the relay calls. Every method is called on a relay thread and must be quick, but `deliver` may block it for
/// as long as a worker's inbox is full, within a bound of its own: TCP then holds Redis back.
pub trait Sink: Send + Sync + 'static {
    /// Publications arrived together, in the order of the relay: what one read from Redis brought, so that a worker
    /// need be woken but once for it. Empties the list, whose memory the caller keeps.
    fn deliver(&self, batch: &mut Vec<Delivery>, received: Instant);

    /// The worker's interest in the channel is confirmed by Redis, or could not be.
    fn joined(&self, worker: WorkerId, channel: &ChannelName, result: Result<(), RelayError>);

    /// The worker heard the channel, and Redis refuses it now. The worker's interest is forgotten: it need not leave,
    /// and may join again.
    fn lost(&self, worker: WorkerId, channel: &ChannelName);

    /// The answer to `Relay::submit`.
    fn published(&self, ticket: Ticket, result: Result<(), RelayError>);

    /// A control message arrived for every node, this one included.
    fn control(&self, control: Control);

    /// What to write into the registry.
    fn report(&self) -> Report;

    /// The channels with local subscribers and how many each has; answered through `reply` when all workers have.
    fn channels(&self, reply: tokio::sync::oneshot::Sender<Vec<(ChannelName, u64)>>);

    /// Something worth a metric happened.
    fn observe(&self, observation: Observation);
}
