//! What backends have given sessions, and what sessions wait for from them: beside the sessions, for most have nothing of
//! either.

use std::collections::HashMap;

use ahash::RandomState;
use bytes::Bytes;
use tidegate_protocol::{ChannelName, Position};

/// By the session's index.
#[derive(Debug, Default)]
pub(crate) struct Grants(HashMap<u32, Granted, RandomState>);

/// What one session has.
#[derive(Debug, Default)]
struct Granted {
    /// JSON that other clients see beside the user, or empty.
    conn_info: Bytes,
    /// Subscriptions with something of their own.
    channels: Vec<Channel>,
    /// Subscribes that a backend decides.
    asked: Vec<Asked>,
}

/// A subscribe that a backend decides.
#[derive(Debug)]
pub(crate) struct Asked {
    /// The command's id.
    pub(crate) id: u32,
    pub(crate) channel: ChannelName,
    /// The position it asked to go on from.
    pub(crate) since: Option<Box<Position>>,
}

#[derive(Debug)]
struct Channel {
    name: ChannelName,
    /// JSON that other clients see beside the user in this channel, or empty.
    info: Bytes,
    /// The payload for the reply to the subscribe, until it is sent; or empty.
    data: Bytes,
}

impl Grants {
    /// A session came in.
    pub(crate) fn connected(&mut self, index: u32, conn_info: Bytes) {
        if !conn_info.is_empty() {
            self.0.entry(index).or_default().conn_info = conn_info;
        }
    }

    /// A session may hear a channel.
    pub(crate) fn subscribed(&mut self, index: u32, name: &ChannelName, info: Bytes, data: Bytes) {
        if !info.is_empty() || !data.is_empty() {
            let channels = &mut self.0.entry(index).or_default().channels;
            channels.push(Channel { name: name.clone(), info, data });
        }
    }

    /// A session waits for a decision on a subscribe.
    pub(crate) fn ask(&mut self, index: u32, asked: Asked) {
        self.0.entry(index).or_default().asked.push(asked);
    }

    /// Whether a session waits for a decision about a channel.
    pub(crate) fn asks(&self, index: u32, name: &str) -> bool {
        self.of(index).is_some_and(|granted| granted.asked.iter().any(|asked| asked.channel.as_str() == name))
    }

    /// How many such decisions a session waits for.
    pub(crate) fn asked(&self, index: u32) -> usize {
        self.of(index).map_or(0, |granted| granted.asked.len())
    }

    /// The decision has come; `None` if the session does not wait for it any more.
    pub(crate) fn take_asked(&mut self, index: u32, id: u32, name: &str) -> Option<Asked> {
        self.take(index, |asked| asked.id == id && asked.channel.as_str() == name)
    }

    /// The session does not want the channel any more: gives back the id of the subscribe that waits for a decision.
    pub(crate) fn withdraw(&mut self, index: u32, name: &str) -> Option<u32> {
        self.take(index, |asked| asked.channel.as_str() == name).map(|asked| asked.id)
    }

    fn take(&mut self, index: u32, is: impl Fn(&Asked) -> bool) -> Option<Asked> {
        let granted = self.0.get_mut(&index)?;
        let at = granted.asked.iter().position(is)?;
        let asked = granted.asked.swap_remove(at);
        self.tidy(index);
        Some(asked)
    }

    /// What other clients see of a session: everywhere, and in one channel.
    pub(crate) fn infos(&self, index: u32, name: &str) -> (Bytes, Bytes) {
        let Some(granted) = self.of(index) else { return Default::default() };
        let channel = granted.channels.iter().find(|channel| channel.name.as_str() == name);
        (granted.conn_info.clone(), channel.map(|channel| channel.info.clone()).unwrap_or_default())
    }

    /// The payload for the reply to a subscribe, once.
    pub(crate) fn take_data(&mut self, index: u32, name: &str) -> Bytes {
        if self.0.is_empty() {
            return Bytes::new();
        }
        let Some(granted) = self.0.get_mut(&index) else { return Bytes::new() };
        let channel = granted.channels.iter_mut().find(|channel| channel.name.as_str() == name);
        channel.map(|channel| std::mem::take(&mut channel.data)).unwrap_or_default()
    }

    /// A session left a channel.
    pub(crate) fn left(&mut self, index: u32, name: &str) {
        if self.0.is_empty() {
            return;
        }
        if let Some(granted) = self.0.get_mut(&index) {
            granted.channels.retain(|channel| channel.name.as_str() != name);
            self.tidy(index);
        }
    }

    /// A session has ended.
    pub(crate) fn ended(&mut self, index: u32) {
        if !self.0.is_empty() {
            self.0.remove(&index);
        }
    }

    fn of(&self, index: u32) -> Option<&Granted> {
        if self.0.is_empty() { None } else { self.0.get(&index) }
    }

    /// Forgets a session that has nothing any more.
    fn tidy(&mut self, index: u32) {
        if self.0.get(&index).is_some_and(|granted| {
            granted.conn_info.is_empty() && granted.channels.is_empty() && granted.asked.is_empty()
        }) {
            self.0.remove(&index);
        }
    }
}
