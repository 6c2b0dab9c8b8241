//! What the relay tells the node.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate_protocol::{ChannelName, ClientInfo, Control, Position, Publication};

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

/// Something that was said in a channel, and the workers that joined it.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    /// Who is to have it.
    pub workers: WorkerSet,
    /// What arrived.
    pub said: Said,
}

/// What can be said in a channel.
#[derive(Debug, Clone, PartialEq)]
pub enum Said {
    /// A publication. In a channel with history its offset is larger than that of the one before, and what is between
    /// them was refused and will never be delivered to anybody.
    Publication(Publication),
    /// Somebody joined.
    Join(ChannelName, ClientInfo),
    /// Somebody left.
    Leave(ChannelName, ClientInfo),
}

impl Said {
    /// Where.
    pub const fn channel(&self) -> &ChannelName {
        match self {
            Self::Publication(publication) => &publication.channel,
            Self::Join(channel, _) | Self::Leave(channel, _) => channel,
        }
    }

    /// How many bytes of payload it carries, about.
    pub const fn len(&self) -> usize {
        match self {
            Self::Publication(publication) => publication.data.len(),
            Self::Join(..) | Self::Leave(..) => 128,
        }
    }

    /// Whether it carries nothing.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The answer to `Relay::recover`.
#[derive(Debug, Clone, PartialEq)]
pub struct Recovered {
    /// Where the worker stands in the channel as it gets this: what is delivered to it next follows.
    pub position: Position,
    /// Everything after the asked position up to `position`, in order; `None`: it cannot be had any more. Shared by all
    /// who ask for the same.
    pub publications: Option<Arc<[Arc<Publication>]>>,
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
    /// Publications that were missed live were read from their channels' history and delivered.
    Repaired(u64),
    /// A probe came back after this long.
    Probe(Duration),
    /// A payload on the pub/sub channel was refused: `not_json`, `envelope`, `too_large`, `channel_name`, `control`.
    Refused(&'static str),
    /// Publications dropped because a worker did not take them in time.
    Dropped(u64),
    /// A Redis command took this long.
    Command(&'static str, Duration),
    /// Entries of the ingest stream, and what became of them.
    Ingested(Ingested, u64),
    /// How the ingest stream stands, for all nodes together.
    IngestStands {
        /// Entries that a node has and has not acknowledged.
        pending: u64,
        /// Entries that no node has.
        waiting: u64,
        /// The age of the oldest of all of them.
        oldest: Duration,
    },
    /// Events that Redis took.
    EventsWritten(u64),
    /// Events that were dropped, the oldest first: Redis takes them slower than they are made, or not at all.
    EventsDropped(u64),
}

/// What became of an entry of the ingest stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ingested {
    /// Redis has taken every publication it asked for.
    Published,
    /// Redis has taken the control message.
    Control,
    /// It can never be done, and was set aside with the reason.
    Poison,
    /// It could not be done for now: it stays pending, and is claimed after a while.
    Deferred,
    /// It was taken over from another node, or from this one's own deferred ones.
    Claimed,
    /// Somebody took it out of the stream before it was done.
    Deleted,
}

/// What the relay calls. Every method is called on a relay thread and must be quick, but `deliver` may block it for
/// as long as a worker's inbox is full, within a bound of its own: TCP then holds Redis back.
pub trait Sink: Send + Sync + 'static {
    /// Publications arrived together, in the order of the relay: what one read from Redis brought, so that a worker
    /// need be woken but once for it. Empties the list, whose memory the caller keeps.
    fn deliver(&self, batch: &mut Vec<Delivery>, received: Instant);

    /// The worker's interest in the channel is confirmed by Redis, or could not be. In a channel with history, what is
    /// delivered to the worker from then on begins behind the position, without a hole.
    fn joined(&self, worker: WorkerId, channel: &ChannelName, result: Result<Option<Position>, RelayError>);

    /// The worker heard the channel, and may have missed something that cannot be had any more, or will hear nothing
    /// more: Redis refuses the channel, or its history is lost, trimmed too far, or another one. The worker's interest is
    /// forgotten: it need not leave, and may join again. Recoveries of the channel under way for the worker are answered
    /// with an error before.
    fn lost(&self, worker: WorkerId, channel: &ChannelName);

    /// The answer to `Relay::recover`, in order with what is delivered to the ticket's worker.
    fn recovered(&self, ticket: Ticket, channel: &ChannelName, result: Result<Recovered, RelayError>);

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
