//! The relay as the node holds it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tidegate_protocol::{ChannelName, ClientInfo, Control, Epoch, Event, Position, Publication};

use crate::memory::MemoryRelay;
use crate::redis::RedisParts;
use crate::rules::Rules;
use crate::settings::RelaySettings;
use crate::sink::{Report, Sink, Ticket, WorkerId};

/// The relay of a node. Cloning shares it; when the last clone is dropped, its threads end.
#[derive(Clone)]
pub struct Relay {
    kind: Arc<Kind>,
}

enum Kind {
    Memory(MemoryRelay),
    Redis(RedisParts),
}

/// The relay's queue is full: try again later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the relay's queue is full")]
pub struct Busy;

/// What can go wrong.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RelayError {
    /// Redis cannot be reached now, or a node did not answer. The text says whether Redis may have taken what was sent.
    #[error("the relay is away: {0}")]
    Away(String),
    /// Redis refused the command, for instance by its ACL, or a limit of the relay did.
    #[error("refused: {0}")]
    Refused(String),
    /// The relay's queue is full.
    #[error("the relay's queue is full")]
    Busy,
    /// The channel has no history, or no presence.
    #[error("not available for this channel")]
    Unavailable,
    /// The asked position is not of the channel's history.
    #[error("the position is of another epoch: the history it belongs to is gone")]
    Unrecoverable,
    /// The settings make no sense.
    #[error("{0}")]
    Settings(String),
}

/// Whether the relay can carry publications now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// Whether it can.
    pub up: bool,
    /// For how long it has been so.
    pub since: Duration,
}

/// A node as the registry knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// The node's id, new with each start.
    pub id: String,
    /// The node's name: the host's, unless set.
    pub name: String,
    /// The node's version.
    pub version: String,
    /// Seconds since it started.
    pub uptime: u64,
    /// Open connections.
    pub connections: u64,
    /// Subscriptions of all sessions.
    pub subscriptions: u64,
    /// Channels with a local subscriber.
    pub channels: u64,
}

/// A publication of a backend, and how it is to be published.
#[derive(Debug, Clone, PartialEq)]
pub struct Outgoing {
    /// What is published; its offset is given by the relay.
    pub publication: Publication,
    /// While it is remembered, a second publication with the same key in the channel is not made: it is answered with the
    /// first one's position. Empty: none. Without history it has no effect.
    pub idempotency_key: String,
    /// Whether it is not to be kept though its channel has history: it is delivered at most once and has no offset.
    pub skip_history: bool,
}

/// The publication as its namespace says.
impl From<Publication> for Outgoing {
    fn from(publication: Publication) -> Self {
        Self { publication, idempotency_key: String::new(), skip_history: false }
    }
}

/// Asks for what a session missed of a channel.
#[derive(Debug, Clone, PartialEq)]
pub struct Recover {
    /// Which channel.
    pub channel: ChannelName,
    /// The last that the session has seen.
    pub since: Position,
    /// Whom the answer is for.
    pub ticket: Ticket,
}

/// Which part of a channel's history is asked for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HistoryQuery {
    /// At most so many publications; `None`: all; 0: only the position.
    pub limit: Option<usize>,
    /// From behind this one on; in reverse, from before it.
    pub since: Option<Since>,
    /// The newest first.
    pub reverse: bool,
}

/// Where a part of a history begins.
#[derive(Debug, Clone, PartialEq)]
pub struct Since {
    /// The offset that is not in it.
    pub offset: u64,
    /// If given, the history must be of this epoch: else `RelayError::Unrecoverable`.
    pub epoch: Option<Epoch>,
}

/// A part of a channel's history.
#[derive(Debug, Clone, PartialEq)]
pub struct History {
    /// In the order that was asked for.
    pub publications: Vec<Publication>,
    /// The newest of the channel, whatever was asked for.
    pub position: Position,
}

/// How many are present in a channel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PresenceStats {
    /// Sessions.
    pub clients: u64,
    /// Users; all anonymous sessions are one.
    pub users: u64,
}

/// Who this node is, in the registry and to other nodes.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) started: Instant,
}

impl Identity {
    pub(crate) fn describe(&self, report: Report, channels: usize) -> NodeInfo {
        NodeInfo {
            id: self.id.clone(),
            name: self.name.clone(),
            version: self.version.clone(),
            uptime: self.started.elapsed().as_secs(),
            connections: report.connections,
            subscriptions: report.subscriptions,
            channels: channels as u64,
        }
    }
}

impl std::fmt::Debug for Relay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match &*self.kind {
            Kind::Memory(_) => "memory",
            Kind::Redis(_) => "redis",
        };
        f.debug_struct("Relay").field("kind", &kind).finish_non_exhaustive()
    }
}

impl Relay {
    /// Starts the relay's threads. Does not wait for Redis: a node starts without it and serves when it comes.
    ///
    /// `id`, `name` and `version` go into the registry; `id` also names a channel, so it is 1 to 64 ASCII letters,
    /// digits, `-` or `_`. Errors: only settings that cannot work.
    pub fn start<S: Sink>(
        settings: RelaySettings,
        rules: Arc<Rules>,
        id: &str,
        name: &str,
        version: &str,
        sink: Arc<S>,
    ) -> Result<Self, RelayError> {
        let fit = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        if !(1..=64).contains(&id.len()) || !id.bytes().all(fit) {
            return Err(RelayError::Settings(format!(
                "the node id {id:?} must be 1 to 64 ASCII letters, digits, '-' or '_'"
            )));
        }
        let identity = Identity {
            id: id.to_owned(),
            name: name.to_owned(),
            version: version.to_owned(),
            started: Instant::now(),
        };
        let kind = match settings {
            RelaySettings::Memory(settings) => {
                Kind::Memory(MemoryRelay::start(settings, identity, rules, sink)?)
            }
            RelaySettings::Redis(settings) => {
                Kind::Redis(RedisParts::start(settings, &rules, &identity, sink)?)
            }
        };
        Ok(Self { kind: Arc::new(kind) })
    }

    /// The worker must hear the channel from now on; answered by `Sink::joined`. After an error there the worker has
    /// no interest in the channel.
    pub fn join(&self, worker: WorkerId, channel: ChannelName) -> Result<(), Busy> {
        match &*self.kind {
            Kind::Memory(relay) => relay.join(worker, channel),
            Kind::Redis(relay) => relay.join(worker, channel),
        }
    }

    /// The worker need not hear the channel any more.
    pub fn leave(&self, worker: WorkerId, channel: ChannelName) -> Result<(), Busy> {
        match &*self.kind {
            Kind::Memory(relay) => relay.leave(worker, channel),
            Kind::Redis(relay) => relay.leave(worker, channel),
        }
    }

    /// Publishes for a client; answered by `Sink::published`. Publications of one channel keep their order.
    pub fn submit(&self, outgoing: impl Into<Outgoing>, ticket: Ticket) -> Result<(), Busy> {
        let outgoing = outgoing.into();
        match &*self.kind {
            Kind::Memory(relay) => relay.submit(outgoing, ticket),
            Kind::Redis(relay) => relay.of(&outgoing.publication.channel).submit(outgoing, ticket),
        }
    }

    /// Publishes for the API, in the same order as `submit`. Answers with the publication's position where its channel
    /// has history and it was kept.
    pub async fn publish(&self, outgoing: impl Into<Outgoing>) -> Result<Option<Position>, RelayError> {
        let outgoing = outgoing.into();
        match &*self.kind {
            Kind::Memory(relay) => relay.publish(outgoing).await,
            Kind::Redis(relay) => relay.of(&outgoing.publication.channel).publish(outgoing).await,
        }
    }

    /// Asks for what a session missed of a channel that its worker has joined, or is joining; answered by
    /// `Sink::recovered`.
    pub fn recover(&self, recover: Recover) -> Result<(), Busy> {
        match &*self.kind {
            Kind::Memory(relay) => relay.recover(recover),
            Kind::Redis(relay) => relay.of(&recover.channel).recover(recover),
        }
    }

    /// What is kept of a channel.
    pub async fn history(&self, channel: ChannelName, query: HistoryQuery) -> Result<History, RelayError> {
        match &*self.kind {
            Kind::Memory(relay) => relay.history(channel, query).await,
            Kind::Redis(relay) => relay.of(&channel).history(channel, query).await,
        }
    }

    /// Forgets what is kept of a channel. Offsets go on; the epoch stays.
    pub async fn history_remove(&self, channel: ChannelName) -> Result<(), RelayError> {
        match &*self.kind {
            Kind::Memory(relay) => relay.history_remove(channel).await,
            Kind::Redis(relay) => relay.of(&channel).history_remove(channel).await,
        }
    }

    /// A session is present in the channel from now on, until `exit` or its node's end.
    pub fn enter(&self, channel: ChannelName, client: ClientInfo) -> Result<(), Busy> {
        match &*self.kind {
            Kind::Memory(relay) => relay.enter(channel, client),
            Kind::Redis(relay) => relay.of(&channel).enter(channel, client),
        }
    }

    /// The session is not present any more.
    pub fn exit(&self, channel: ChannelName, client: String) -> Result<(), Busy> {
        match &*self.kind {
            Kind::Memory(relay) => relay.exit(channel, client),
            Kind::Redis(relay) => relay.of(&channel).exit(channel, client),
        }
    }

    /// Who is present in a channel, on all nodes.
    pub async fn presence(&self, channel: ChannelName) -> Result<Vec<ClientInfo>, RelayError> {
        match &*self.kind {
            Kind::Memory(relay) => relay.presence(channel).await,
            Kind::Redis(relay) => relay.of(&channel).presence(channel).await,
        }
    }

    /// How many are present in a channel, on all nodes, without reading everyone.
    pub async fn presence_stats(&self, channel: ChannelName) -> Result<PresenceStats, RelayError> {
        match &*self.kind {
            Kind::Memory(relay) => relay.presence_stats(channel).await,
            Kind::Redis(relay) => relay.of(&channel).presence_stats(channel).await,
        }
    }

    /// Sends a control message to every node.
    pub async fn control(&self, control: Control) -> Result<(), RelayError> {
        match &*self.kind {
            Kind::Memory(relay) => relay.control(control).await,
            Kind::Redis(relay) => relay.control(&control).await,
        }
    }

    /// Tells backends what a client did: puts it into the stream of events where settings ask for one, else does nothing.
    /// Never waits; when Redis takes them slower than they are made, the oldest are dropped and counted.
    pub fn happened(&self, event: Event) {
        match &*self.kind {
            Kind::Memory(_) => {}
            Kind::Redis(relay) => relay.happened(event),
        }
    }

    /// How many channels the node's workers hear or wait to hear, each counted once.
    pub fn channel_count(&self) -> usize {
        match &*self.kind {
            Kind::Memory(relay) => relay.channel_count(),
            Kind::Redis(relay) => relay.channel_count(),
        }
    }

    /// The nodes of the registry that are alive.
    pub async fn nodes(&self) -> Result<Vec<NodeInfo>, RelayError> {
        match &*self.kind {
            Kind::Memory(relay) => Ok(relay.nodes()),
            Kind::Redis(relay) => relay.nodes().await,
        }
    }

    /// The channels with subscribers on any node, with how many; sorted by name. Asks every live node and fails if one
    /// does not answer in time.
    pub async fn channels(&self) -> Result<Vec<(String, u64)>, RelayError> {
        match &*self.kind {
            Kind::Memory(relay) => relay.channels().await,
            Kind::Redis(relay) => relay.channels().await,
        }
    }

    /// Whether publications can be carried now.
    pub fn status(&self) -> Status {
        match &*self.kind {
            Kind::Memory(relay) => relay.status(),
            Kind::Redis(relay) => relay.status(),
        }
    }

    /// Takes the node out of the registry and ends the threads.
    pub async fn stop(&self) {
        match &*self.kind {
            Kind::Memory(relay) => relay.stop().await,
            Kind::Redis(relay) => relay.stop().await,
        }
    }
}
