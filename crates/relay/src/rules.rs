//! What the relay must know of namespaces: which channels have history, and what becomes of a gap.

use std::collections::HashMap;
use std::time::Duration;

use tidegate_protocol::ChannelName;

/// The rules of a node's channels.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// By namespace.
    pub namespaces: HashMap<String, ChannelRules>,
    /// Of every other namespace; `None` where there are no others.
    pub any: Option<ChannelRules>,
}

/// The rules of one namespace's channels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ChannelRules {
    /// What is kept of a channel; `None`: it has no history, and delivery is at most once.
    pub retention: Option<Retention>,
    /// Whether subscribers are told who joins and leaves.
    pub join_leave: bool,
    /// What becomes of a gap in a channel without history.
    pub on_gap: OnGap,
}

/// How much of a channel is kept, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// The newest so many publications: 1 or more.
    pub size: u32,
    /// Since the last publication.
    pub ttl: Duration,
}

/// What becomes of a gap in a channel without history.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnGap {
    /// It is counted.
    #[default]
    Count,
    /// It is counted, and subscribers are told: `Sink::lost`.
    Notify,
}

impl Rules {
    /// Whether the channel's namespace is one of the node's.
    pub fn knows(&self, channel: &ChannelName) -> bool {
        self.any.is_some() || self.namespaces.contains_key(channel.namespace())
    }

    /// The rules of a channel. Those of an unknown namespace are the defaults: nothing is kept.
    pub fn of(&self, channel: &ChannelName) -> ChannelRules {
        self.namespaces.get(channel.namespace()).copied().or(self.any).unwrap_or_default()
    }

    /// Whether any channel has history.
    pub(crate) fn keep(&self) -> bool {
        self.namespaces.values().chain(&self.any).any(|rules| rules.retention.is_some())
    }
}
