//! Events: what clients did, as a node tells backends.
//!
//! Not here: when something happens (`tidegate-hub`), how it travels (`tidegate-relay`).

use bytes::Bytes;

use crate::channel::ChannelName;

/// What a client did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum EventKind {
    /// It connected and has an id now.
    Connect,
    /// It is gone, whoever ended it.
    Disconnect,
    /// It has a subscription now.
    Subscribe,
    /// It has the subscription no more.
    Unsubscribe,
    /// It published, and was allowed to.
    Publish,
    /// It sent a message that has no reply.
    Send,
    /// It called a method.
    Rpc,
}

impl EventKind {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::Connect,
        Self::Disconnect,
        Self::Subscribe,
        Self::Unsubscribe,
        Self::Publish,
        Self::Send,
        Self::Rpc,
    ];

    /// Its name in settings and in the events themselves.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Disconnect => "disconnect",
            Self::Subscribe => "subscribe",
            Self::Unsubscribe => "unsubscribe",
            Self::Publish => "publish",
            Self::Send => "send",
            Self::Rpc => "rpc",
        }
    }
}

/// A set of kinds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EventKinds(u8);

impl EventKinds {
    /// Whether the kind is in it.
    pub const fn has(self, kind: EventKind) -> bool {
        self.0 & (1 << kind as u8) != 0
    }

    /// Whether no kind is in it.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl FromIterator<EventKind> for EventKinds {
    fn from_iter<I: IntoIterator<Item = EventKind>>(kinds: I) -> Self {
        Self(kinds.into_iter().fold(0, |set, kind| set | 1 << kind as u8))
    }
}

/// Something that a client did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What it did.
    pub kind: EventKind,
    /// The session's id.
    pub client: String,
    /// Its user; empty for anonymous.
    pub user: String,
    /// Where: of `Subscribe`, `Unsubscribe` and `Publish`.
    pub channel: Option<ChannelName>,
    /// The code of `Disconnect` and `Unsubscribe`.
    pub code: Option<u16>,
    /// The method of `Rpc`; empty otherwise.
    pub method: String,
    /// The payload, where it is told.
    pub data: Option<Bytes>,
}

impl Event {
    /// An event with nothing but whose it is.
    pub const fn new(kind: EventKind, client: String, user: String) -> Self {
        Self { kind, client, user, channel: None, code: None, method: String::new(), data: None }
    }

    /// How many bytes it carries, about.
    pub fn len(&self) -> usize {
        let channel = self.channel.as_ref().map_or(0, |channel| channel.as_str().len());
        let data = self.data.as_ref().map_or(0, Bytes::len);
        self.client.len() + self.user.len() + channel + self.method.len() + data
    }

    /// Whether it carries nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_what_was_put_in_and_nothing_else() {
        for kind in EventKind::ALL {
            let alone: EventKinds = [kind].into_iter().collect();
            for other in EventKind::ALL {
                assert_eq!(alone.has(other), kind == other, "{} in {}", other.label(), kind.label());
            }
        }
        assert!(EventKinds::default().is_empty());
        assert!(EventKind::ALL.into_iter().all(|kind| EventKinds::from_iter(EventKind::ALL).has(kind)));
    }
}
