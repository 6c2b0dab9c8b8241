//! The rules a shard applies: checked and resolved settings, shared by all workers.

use std::collections::HashMap;

use tidegate_protocol::command::Connect;
use tidegate_protocol::{ChannelName, Disconnect, ErrorCode, EventKinds};

use crate::backend::Backends;

/// The rules of a node.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Known namespaces by name; `default` is for channels without one.
    pub namespaces: HashMap<String, Namespace>,
    /// What an unknown namespace gets; `None` refuses with error 102.
    pub any_namespace: Option<Namespace>,
    /// Which commands a backend decides, whatever the channel.
    pub backends: Backends,
    /// The most subscriptions of one session; beyond: error 106.
    pub max_subscriptions: usize,
    /// The most bytes an outbox may hold; beyond: 3008.
    pub outbox_max_bytes: usize,
    /// Ticks from the accept to the connect command; beyond: 3502.
    pub connect_timeout: u32,
    /// Ticks between pings.
    pub ping_interval: u32,
    /// Ticks from a ping to its pong; beyond: 3012.
    pub pong_timeout: u32,
    /// Seconds between pings, as clients are told.
    pub ping_seconds: u32,
    /// What of what clients did is told: `Effect::Happened`.
    pub events: EventKinds,
    /// The node's version, as clients are told.
    pub version: String,
}

impl Policy {
    /// What is allowed in a channel's namespace; `None` if the namespace is not known.
    pub fn namespace(&self, channel: &ChannelName) -> Option<Namespace> {
        self.namespaces.get(channel.namespace()).copied().or(self.any_namespace)
    }
}

/// What is allowed in a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Namespace {
    /// Who may subscribe.
    pub subscribe: Right,
    /// Who may publish.
    pub publish: Right,
    /// Who may ask what was said.
    pub read_history: Right,
    /// Who may ask who is there.
    pub read_presence: Right,
    /// What a subscriber gets that cannot keep up.
    pub delivery: Delivery,
    /// Whether what was said is kept.
    pub history: History,
    /// Whether it is known who is there.
    pub presence: Presence,
    /// Whether the payload of what clients publish is told with the event.
    pub events_data: bool,
}

impl Namespace {
    /// A namespace where these may subscribe and publish. Nothing is kept of what is said in it, nor of who is there.
    pub const fn plain(subscribe: Right, publish: Right) -> Self {
        Self {
            subscribe,
            publish,
            read_history: Right::Nobody,
            read_presence: Right::Nobody,
            delivery: Delivery::Every,
            history: History::None,
            presence: Presence::None,
            events_data: false,
        }
    }
}

/// Whether what is said in a channel is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum History {
    /// It is not.
    #[default]
    None,
    /// It is: the relay gives every publication an offset.
    Kept,
    /// It is, and who comes back is given what they missed.
    Recoverable,
}

/// Whether it is known who is in a channel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Presence {
    /// It is not.
    #[default]
    None,
    /// It is, for those who ask.
    Kept,
    /// It is, and subscribers are told who joins and leaves.
    Told,
}

/// What a subscriber gets that cannot keep up with a channel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Delivery {
    /// Every publication, for as long as its outbox has room; beyond: 3008.
    #[default]
    Every,
    /// The newest publication; those before it are skipped.
    Latest,
}

/// Who may do something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// Every session.
    Anyone,
    /// Sessions with a user.
    Authenticated,
    /// Sessions with a subscription to the channel. As the right to subscribe it is nobody's.
    Subscriber,
    /// Sessions with a subscription token. Until there are such tokens it is nobody's.
    Token,
    /// Sessions that a backend lets, which is asked each time. Only as the right to subscribe and to publish.
    Backend,
    /// No session; only backends of their own accord.
    Nobody,
}

/// Who a session is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// The user's id; empty for anonymous.
    pub user: String,
}

/// Why a connect command was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Answer with an error.
    Error(ErrorCode),
    /// End the connection.
    Disconnect(Disconnect),
}

/// Decides who a connecting client is.
pub trait Authenticator {
    /// Checks the connect command.
    fn authenticate(&self, connect: &Connect<'_>) -> Result<Identity, Refusal>;
}
