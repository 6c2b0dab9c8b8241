//! Sessions entering and leaving channels: both sides of a subscription change together here.

use tidegate_protocol::{ChannelName, ErrorCode, Push, Reply, UnsubscribeCode};

use crate::channels::{Entered, Waiter};
use crate::effect::Effect;
use crate::policy::Delivery;
use crate::session::Subscription;
use crate::shard::Shard;
use crate::tally::{SENT_PUSH, SENT_REPLY};

/// Where a subscription stands that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It stands; publications may come from now on.
    Now,
    /// It waits for the relay.
    Later,
}

impl Shard {
    /// Whether the session has the subscription, standing or waiting.
    pub(crate) fn is_subscribed(&self, index: u32, channel: &str) -> bool {
        self.place(index, channel).is_some()
    }

    /// Whether the session's subscription stands.
    pub(crate) fn is_member(&self, index: u32, channel: &str) -> bool {
        self.place(index, channel).is_some_and(|subscription| self.channels.is_active(subscription.channel))
    }

    fn place(&self, index: u32, channel: &str) -> Option<Subscription> {
        let channel = self.channels.find(channel)?;
        let place = self.sessions.connected_at(index)?.subscriptions.place(channel)?;
        Some(Subscription { channel, place })
    }

    /// Makes a subscription of a session that does not have it, with the id of the command that asks or none.
    pub(crate) fn enter(&mut self, index: u32, id: Option<u32>, name: ChannelName) -> Option<Standing> {
        let connected = self.sessions.connected_at_mut(index)?;
        let channel = match self.channels.find(name.as_str()) {
            Some(channel) => channel,
            None => {
                self.effects.push(Effect::Join(name.clone()));
                let namespace = self.policy.namespace(&name);
                let latest = namespace.is_some_and(|found| found.delivery == Delivery::Latest);
                self.channels.begin(name, latest)
            }
        };
        let entered = self.channels.enter(channel, Waiter { session: index, id })?;
        let (place, standing) = match entered {
            Entered::Member(place) => (place, Standing::Now),
            Entered::Waiter(place) => (place, Standing::Later),
        };
        connected.subscriptions.add(Subscription { channel, place });
        Some(standing)
    }

    /// Ends a subscription. Gives the waiter back if the subscription did not stand yet and a command waits for its
    /// answer. `None` if there was no such subscription.
    pub(crate) fn leave(&mut self, index: u32, channel: &str) -> Option<Option<Waiter>> {
        let channel = self.channels.find(channel)?;
        let subscription = self.sessions.connected_at_mut(index)?.subscriptions.remove(channel)?;
        self.sessions.forget_latest(index, channel);
        Some(self.take(subscription))
    }

    /// Takes a subscription that its session has forgotten already out of the channel.
    pub(crate) fn take(&mut self, subscription: Subscription) -> Option<Waiter> {
        let Subscription { channel, place } = subscription;
        let taken = self.channels.take(channel, place)?;
        if let Some(moved) = taken.moved
            && let Some(connected) = self.sessions.connected_at_mut(moved)
        {
            connected.subscriptions.moved(channel, place);
        }
        if let Some(name) = taken.left {
            self.effects.push(Effect::Leave(name));
        }
        taken.waiter
    }

    /// The relay hears the channel now, or cannot: answers everybody who waits for it.
    pub(crate) fn settle(&mut self, name: &ChannelName, result: Result<(), ErrorCode>) {
        let Some(channel) = self.channels.find(name.as_str()) else { return };
        match result {
            Ok(()) => {
                let Some(waiters) = self.channels.confirm(channel) else { return };
                if waiters.is_empty() {
                    self.channels.forget(channel);
                    self.effects.push(Effect::Leave(name.clone()));
                }
                // A session that ends over its answer leaves the channel as its member; the others' places may
                // change, but not who waits.
                for waiter in waiters {
                    self.answer_standing(waiter, name);
                }
            }
            Err(code) => {
                let Some(waiters) = self.channels.refuse(channel) else { return };
                // Everybody forgets the channel's slot before anything else can take it.
                for waiter in &waiters {
                    if let Some(connected) = self.sessions.connected_at_mut(waiter.session) {
                        connected.subscriptions.remove(channel);
                    }
                }
                for waiter in waiters {
                    if let Some(id) = waiter.id {
                        self.send_reply(waiter.session, id, &Reply::Error(code));
                    }
                }
            }
        }
    }

    /// The relay does not hear the channel any more: takes everybody out of it and tells them.
    pub(crate) fn lose(&mut self, name: &ChannelName) {
        let Some(channel) = self.channels.find(name.as_str()) else { return };
        let Some(members) = self.channels.lose(channel) else { return };
        // Everybody forgets the channel's slot before anything else can take it.
        for &index in &members {
            if let Some(connected) = self.sessions.connected_at_mut(index) {
                connected.subscriptions.remove(channel);
            }
            self.sessions.forget_latest(index, channel);
        }
        for index in members {
            self.send_push(index, &Push::Unsubscribe(name.as_str(), UnsubscribeCode::InsufficientState));
        }
    }

    fn answer_standing(&mut self, waiter: Waiter, name: &ChannelName) {
        match waiter.id {
            Some(id) => self.send_reply(waiter.session, id, &Reply::Subscribe(Default::default())),
            None => self.send_push(waiter.session, &Push::Subscribe(name.as_str(), Default::default())),
        }
    }

    /// Sends one reply as a frame of its own.
    pub(crate) fn send_reply(&mut self, index: u32, id: u32, reply: &Reply<'_>) {
        self.send(index, SENT_REPLY, |codec, out| codec.reply(id, reply, out));
    }

    /// Sends one push as a frame of its own.
    pub(crate) fn send_push(&mut self, index: u32, push: &Push<'_>) {
        self.send(index, SENT_PUSH, |codec, out| codec.push(push, out));
    }
}
