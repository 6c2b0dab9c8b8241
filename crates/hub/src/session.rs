//! The protocol state of one connection.
//!
//! Kept small: an idle session is this struct, four bytes in its channel and eight in the tables beside it.
//! Deadlines are not here but in a table of their own, which the sweep scans.

use std::sync::Arc;

use smallvec::SmallVec;
use tidegate_protocol::Codec;
use tidegate_protocol::frame::Opcode;
use uuid::Uuid;

use crate::consulting::Connecting;
use crate::outbox::Outbox;
use crate::shard::Opening;

/// How many subscriptions a session holds without heap.
const INLINE_SUBSCRIPTIONS: usize = 2;

/// One session.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) outbox: Outbox,
    pub(crate) state: State,
    pub(crate) codec: Codec,
    /// Whether pings are WebSocket frames rather than empty replies.
    pub(crate) native_ping: bool,
    /// Whether the session's place is in the table's list of dirty ones.
    pub(crate) dirty: bool,
}

/// Where a session is in its life. It only ever goes downwards, but for a `connect` that a backend refuses.
#[derive(Debug)]
pub(crate) enum State {
    /// Waits for `connect`; the deadline is in the table.
    Opening,
    /// A backend decides about its `connect`; the deadline is still that of `Opening`.
    Connecting(Box<Connecting>),
    /// Has an identity; may subscribe and publish.
    Connected(Connected),
    /// Is in no channel; its Close frame, if any, is the last thing in the outbox.
    Ended,
}

/// What a session has once it connected.
#[derive(Debug)]
pub(crate) struct Connected {
    /// The session's id, formatted where it is needed.
    pub(crate) client: Uuid,
    /// The user's id; all anonymous sessions share one empty text.
    pub(crate) user: Arc<str>,
    pub(crate) subscriptions: Subscriptions,
    pub(crate) heart: Heart,
}

/// What the session's due tick means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heart {
    /// The next ping is sent then.
    Resting,
    /// A ping is out; the pong must be there by then.
    Awaiting,
}

/// A session's interest in a channel, which stands or waits for the relay, as the channel's state and the place say.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subscription {
    /// The channel's slot.
    pub(crate) channel: u32,
    /// Where the session is in the channel's lists.
    pub(crate) place: Place,
}

/// A place in one of a channel's two lists: its members, or waiters until the relay hears it; those who wait for what
/// they missed. Four bytes, for every subscription has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place(u32);

impl Place {
    /// Marks places in the list of those who wait for what they missed. Lists are bounded by the number of sessions, far
    /// below 2^31.
    const RECOVERING: u32 = 1 << 31;

    /// A place among the members or waiters.
    pub(crate) fn new(at: usize) -> Self {
        Self(u32::try_from(at).unwrap_or(u32::MAX) & !Self::RECOVERING)
    }

    /// A place among those who wait for what they missed.
    pub(crate) fn recovering(at: usize) -> Self {
        Self(Self::new(at).0 | Self::RECOVERING)
    }

    /// Where in its list it is.
    pub(crate) const fn at(self) -> usize {
        (self.0 & !Self::RECOVERING) as usize
    }

    /// Where in the list of those who wait for what they missed, if it is in that.
    pub(crate) fn recovers(self) -> Option<usize> {
        (self.0 & Self::RECOVERING != 0).then(|| self.at())
    }
}

/// The subscriptions of a session, in no order.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions(SmallVec<[Subscription; INLINE_SUBSCRIPTIONS]>);

impl Session {
    pub(crate) fn new(opening: Opening) -> Self {
        Self {
            outbox: Outbox::default(),
            state: State::Opening,
            codec: opening.codec,
            native_ping: opening.native_ping,
            dirty: false,
        }
    }

    pub(crate) const fn is_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    pub(crate) const fn connected(&self) -> Option<&Connected> {
        match &self.state {
            State::Connected(connected) => Some(connected),
            State::Opening | State::Connecting(_) | State::Ended => None,
        }
    }

    pub(crate) const fn connected_mut(&mut self) -> Option<&mut Connected> {
        match &mut self.state {
            State::Connected(connected) => Some(connected),
            State::Opening | State::Connecting(_) | State::Ended => None,
        }
    }
}

impl Subscriptions {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The place in a channel's lists, if the session is in one.
    pub(crate) fn place(&self, channel: u32) -> Option<Place> {
        self.0.iter().find(|subscription| subscription.channel == channel).map(|found| found.place)
    }

    pub(crate) fn add(&mut self, subscription: Subscription) {
        self.0.push(subscription);
    }

    /// Notes that the session has another place in a channel's lists now.
    pub(crate) fn moved(&mut self, channel: u32, place: Place) {
        if let Some(found) = self.0.iter_mut().find(|subscription| subscription.channel == channel) {
            found.place = place;
        }
    }

    /// Forgets a channel.
    pub(crate) fn remove(&mut self, channel: u32) -> Option<Subscription> {
        let at = self.0.iter().position(|subscription| subscription.channel == channel)?;
        let removed = self.0.swap_remove(at);
        if self.0.spilled() && self.0.len() <= INLINE_SUBSCRIPTIONS {
            self.0.shrink_to_fit();
        }
        Some(removed)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Subscription> {
        self.0.iter().copied()
    }
}

/// The frame type a codec's messages travel in.
pub(crate) const fn opcode(codec: Codec) -> Opcode {
    match codec {
        Codec::Json => Opcode::Text,
        Codec::Protobuf => Opcode::Binary,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_stays_small() {
        assert!(size_of::<Session>() <= 80, "{}", size_of::<Session>());
    }

    #[test]
    fn subscriptions_give_their_heap_back() {
        let mut subscriptions = Subscriptions::default();
        for channel in 0..10 {
            subscriptions.add(Subscription { channel, place: Place::new(0) });
        }
        assert!(subscriptions.0.spilled());
        for channel in 0..8 {
            assert!(subscriptions.remove(channel).is_some());
        }
        assert!(!subscriptions.0.spilled());
        assert_eq!(subscriptions.len(), 2);
    }
}
