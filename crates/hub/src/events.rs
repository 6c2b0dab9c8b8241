//! Telling what clients did, where somebody wants to know.
//!
//! An event is made only if the policy asks for its kind: otherwise this costs one look at a byte. Not here: where
//! events go.

use bytes::Bytes;
use tidegate_protocol::codec::json;
use tidegate_protocol::{ChannelName, Event, EventKind, UnsubscribeCode};

use crate::effect::Effect;
use crate::session::Connected;
use crate::shard::Shard;

impl Shard {
    /// A connected session did something; `fill` adds what is known besides whose event it is.
    pub(crate) fn happened(&mut self, index: u32, kind: EventKind, fill: impl FnOnce(&mut Event)) {
        if self.policy.events.has(kind)
            && let Some(connected) = self.sessions.connected_at(index)
        {
            let event = made(kind, connected, fill);
            self.effects.push(event);
        }
    }

    /// A session's subscription stands from now on.
    pub(crate) fn subscribed(&mut self, index: u32, channel: &ChannelName) {
        self.happened(index, EventKind::Subscribe, |event| event.channel = Some(channel.clone()));
    }

    /// A session's subscription stood and does not any more: by the client's own wish, or for this reason.
    pub(crate) fn unsubscribed(&mut self, index: u32, channel: &ChannelName, code: Option<UnsubscribeCode>) {
        self.happened(index, EventKind::Unsubscribe, |event| {
            event.channel = Some(channel.clone());
            event.code = code.map(UnsubscribeCode::code);
        });
    }

    /// A session is about to leave a channel, which it may be subscribed to.
    pub(crate) fn leaves(&mut self, index: u32, channel: &str, code: Option<UnsubscribeCode>) {
        if self.policy.events.has(EventKind::Unsubscribe)
            && self.is_member(index, channel)
            && let Ok(channel) = ChannelName::parse(channel)
        {
            self.unsubscribed(index, &channel, code);
        }
    }

    /// A session publishes, and may.
    pub(crate) fn publishes(&mut self, index: u32, channel: &ChannelName, data: &Bytes) {
        if !self.policy.events.has(EventKind::Publish) {
            return;
        }
        let open = self.policy.namespace(channel).is_some_and(|namespace| namespace.events_data);
        self.happened(index, EventKind::Publish, |event| {
            event.channel = Some(channel.clone());
            event.data = open.then(|| data.clone());
        });
    }

    /// A session sends a message that has no reply: it is for whoever reads events, and for nobody where no such events
    /// are written. One that is not JSON is for nobody either.
    pub(crate) fn sends(&mut self, index: u32, data: &[u8]) {
        if self.policy.events.has(EventKind::Send)
            && let Ok(data) = json::payload(data)
        {
            self.happened(index, EventKind::Send, |event| event.data = Some(data));
        }
    }

    /// The same as `happened` for a session whose state was taken from it already.
    pub(crate) fn happened_to(
        &mut self,
        connected: &Connected,
        kind: EventKind,
        fill: impl FnOnce(&mut Event),
    ) {
        if self.policy.events.has(kind) {
            self.effects.push(made(kind, connected, fill));
        }
    }
}

fn made(kind: EventKind, connected: &Connected, fill: impl FnOnce(&mut Event)) -> Effect {
    let mut event = Event::new(kind, connected.client.to_string(), connected.user.to_string());
    fill(&mut event);
    Effect::Happened(Box::new(event))
}
