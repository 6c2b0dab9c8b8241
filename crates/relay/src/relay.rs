//! The relay as the node holds it.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidegate_protocol::{ChannelName, Control, Publication};

use crate::settings::RelaySettings;
use crate::sink::{Sink, Ticket, WorkerId};

/// The relay of a node. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Relay {
    _inner: (),
}

/// The relay's queue is full: try again later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the relay's queue is full")]
pub struct Busy;

/// What can go wrong.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RelayError {
    /// Redis cannot be reached now; it may or may not have taken what was sent last.
    #[error("redis is away: {0}")]
    Away(String),
    /// Redis refused the command, for instance by its ACL.
    #[error("redis refused: {0}")]
    Refused(String),
    /// The relay's queue is full.
    #[error("the relay's queue is full")]
    Busy,
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

impl Relay {
    /// Starts the relay's threads. Does not wait for Redis: a node starts without it and serves when it comes.
    ///
    /// `id`, `name` and `version` go into the registry. Errors: only settings that cannot work.
    pub fn start<S: Sink>(
        _settings: RelaySettings,
        _id: &str,
        _name: &str,
        _version: &str,
        _sink: Arc<S>,
    ) -> Result<Self, RelayError> {
        todo!()
    }

    /// The worker must hear the channel from now on; answered by `Sink::joined`.
    pub fn join(&self, _worker: WorkerId, _channel: ChannelName) -> Result<(), Busy> {
        todo!()
    }

    /// The worker need not hear the channel any more.
    pub fn leave(&self, _worker: WorkerId, _channel: ChannelName) -> Result<(), Busy> {
        todo!()
    }

    /// Publishes for a client; answered by `Sink::published`. Publications of one channel keep their order.
    pub fn submit(&self, _publication: Publication, _ticket: Ticket) -> Result<(), Busy> {
        todo!()
    }

    /// Publishes for the API, in the same order as `submit`.
    pub async fn publish(&self, _publication: Publication) -> Result<(), RelayError> {
        todo!()
    }

    /// Sends a control message to every node.
    pub async fn control(&self, _control: Control) -> Result<(), RelayError> {
        todo!()
    }

    /// The nodes of the registry that are alive.
    pub async fn nodes(&self) -> Result<Vec<NodeInfo>, RelayError> {
        todo!()
    }

    /// The channels with subscribers on any node, with how many; sorted by name. Asks every live node and fails if one
    /// does not answer in time.
    pub async fn channels(&self) -> Result<Vec<(String, u64)>, RelayError> {
        todo!()
    }

    /// Whether publications can be carried now.
    pub fn status(&self) -> Status {
        todo!()
    }

    /// Takes the node out of the registry and ends the threads.
    pub async fn stop(&self) {
        todo!()
    }
}
