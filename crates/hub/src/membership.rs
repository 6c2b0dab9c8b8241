//! Sessions entering and leaving channels: both sides of a subscription change together here.
//!
//! Not here: how who comes back is given what they missed (`recovery`).

use std::sync::Arc;

use bytes::Bytes;
use tidegate_protocol::reply::SubscribeResult;
use tidegate_protocol::{
    ChannelName, ClientInfo, ErrorCode, Position, Publication, Push, Reply, UnsubscribeCode,
};
use uuid::Uuid;

use crate::channels::{Entered, Lost, Waiter};
use crate::effect::Effect;
use crate::session::Subscription;
use crate::shard::Shard;
use crate::tally::{FAILED, RECOVERED, SENT_PUSH, SENT_REPLY, UNRECOVERED};

/// Where a subscription stands that was asked for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Standing {
    /// It stands; publications may come from now on.
    Now(Told),
    /// It waits for the relay.
    Later,
}

/// What a client is told of a subscription that stands.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Told {
    position: Option<Position>,
    recoverable: bool,
    was_recovering: bool,
    recovered: bool,
    /// A backend's payload, or empty.
    data: Bytes,
}

impl Told {
    /// The same for the codecs, with what was missed.
    pub(crate) fn result<'a>(&'a self, publications: &'a [Arc<Publication>]) -> SubscribeResult<'a> {
        SubscribeResult {
            position: self.position.as_ref(),
            recoverable: self.recoverable,
            was_recovering: self.was_recovering,
            recovered: self.recovered,
            publications,
            data: &self.data,
            ..SubscribeResult::default()
        }
    }
}

impl Shard {
    /// Whether the session has the subscription, standing or waiting.
    pub(crate) fn is_subscribed(&self, index: u32, channel: &str) -> bool {
        self.place(index, channel).is_some() || self.grants.asks(index, channel)
    }

    /// Whether the session's subscription stands.
    pub(crate) fn is_member(&self, index: u32, channel: &str) -> bool {
        self.place(index, channel).is_some_and(|subscription| self.stands(subscription))
    }

    fn stands(&self, subscription: Subscription) -> bool {
        subscription.place.recovers().is_none() && self.channels.is_active(subscription.channel)
    }

    /// The session's subscription to a channel.
    pub(crate) fn place(&self, index: u32, channel: &str) -> Option<Subscription> {
        let channel = self.channels.find(channel)?;
        let place = self.sessions.connected_at(index)?.subscriptions.place(channel)?;
        Some(Subscription { channel, place })
    }

    /// Who a session is, as others in a channel see it.
    pub(crate) fn info(&self, index: u32, channel: &str) -> Option<ClientInfo> {
        let connected = self.sessions.connected_at(index)?;
        let (conn_info, chan_info) = self.grants.infos(index, channel);
        let (user, client) = (connected.user.to_string(), connected.client.to_string());
        Some(ClientInfo { user, client, conn_info, chan_info })
    }

    /// Makes a subscription of a session that does not have it.
    pub(crate) fn enter(&mut self, waiter: Waiter, name: ChannelName) -> Option<Standing> {
        let index = waiter.session;
        self.sessions.connected_at(index)?;
        let channel = match self.channels.find(name.as_str()) {
            Some(channel) => channel,
            None => {
                self.effects.push(Effect::Join(name.clone()));
                let namespace = self.policy.namespace(&name);
                self.channels.begin(name.clone(), namespace.as_ref())
            }
        };
        let entered = self.channels.enter(channel, waiter.clone())?;
        let place = match entered {
            Entered::Member(place) | Entered::Waiter(place) | Entered::Recovering(place) => place,
        };
        self.sessions.connected_at_mut(index)?.subscriptions.add(Subscription { channel, place });
        Some(match entered {
            Entered::Member(_) => {
                self.present(index, channel, &name);
                Standing::Now(self.told(index, channel, &name, waiter.since.as_deref()))
            }
            Entered::Waiter(_) => Standing::Later,
            Entered::Recovering(_) => {
                self.ask_recovery(waiter, name);
                Standing::Later
            }
        })
    }

    /// What a client is told whose subscription stands from now on, with nothing missed that the relay had to say.
    fn told(&mut self, index: u32, channel: u32, name: &ChannelName, since: Option<&Position>) -> Told {
        let data = self.grants.take_data(index, name.as_str());
        let nature = self.channels.nature(channel);
        let position = nature.and_then(|nature| nature.position.clone());
        let recoverable = nature.is_some_and(|nature| nature.recovers());
        let recovered = recoverable && since.is_some() && since == position.as_ref();
        if since.is_some() {
            self.tally.recoveries[if recovered { RECOVERED } else { UNRECOVERED }] += 1;
        }
        Told { position, recoverable, was_recovering: since.is_some(), recovered, data }
    }

    /// Ends a subscription. Gives the waiter back if the subscription did not stand yet and a command waits for its
    /// answer. `None` if there was no such subscription.
    pub(crate) fn leave(&mut self, index: u32, name: &str) -> Option<Option<Waiter>> {
        let channel = self.channels.find(name)?;
        let connected = self.sessions.connected_at_mut(index)?;
        let client = connected.client;
        let subscription = connected.subscriptions.remove(channel)?;
        self.sessions.forget_latest(index, channel);
        self.grants.left(index, name);
        Some(self.take(subscription, client))
    }

    /// Takes a subscription that its session has forgotten already out of the channel.
    pub(crate) fn take(&mut self, subscription: Subscription, client: Uuid) -> Option<Waiter> {
        let channel = subscription.channel;
        if self.channels.nature(channel).is_some_and(|nature| nature.presence)
            && self.stands(subscription)
            && let Some(name) = self.channels.name(channel)
        {
            self.effects.push(Effect::Exit { channel: name.clone(), client: client.to_string() });
        }
        self.vacate(subscription)
    }

    /// Frees a place in one of a channel's lists.
    pub(crate) fn vacate(&mut self, subscription: Subscription) -> Option<Waiter> {
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

    /// A subscription stands from now on: where it is known who is there, so is this session.
    pub(crate) fn present(&mut self, index: u32, channel: u32, name: &ChannelName) {
        self.subscribed(index, name);
        if self.channels.nature(channel).is_some_and(|nature| nature.presence)
            && let Some(info) = self.info(index, name.as_str())
        {
            self.effects.push(Effect::Enter { channel: name.clone(), info });
        }
    }

    /// The relay hears the channel now, from behind this position if it has history, or cannot: answers everybody who
    /// waits for it.
    pub(crate) fn settle(&mut self, name: &ChannelName, result: Result<Option<Position>, ErrorCode>) {
        let Some(channel) = self.channels.find(name.as_str()) else { return };
        match result {
            Ok(position) => {
                let Some(waiters) = self.channels.confirm(channel, position) else { return };
                if waiters.is_empty() {
                    self.channels.forget(channel);
                    self.effects.push(Effect::Leave(name.clone()));
                }
                // A session that ends over its answer leaves the channel as its member; the others' places may
                // change, but not who waits.
                for waiter in waiters {
                    if self.channels.must_recover(channel, &waiter) {
                        self.postpone(channel, waiter, name);
                    } else {
                        self.present(waiter.session, channel, name);
                        self.answer_standing(&waiter, channel, name);
                    }
                }
            }
            Err(code) => {
                let Some(waiters) = self.channels.refuse(channel) else { return };
                self.fail(channel, name, waiters, code);
            }
        }
    }

    /// Fails subscriptions that did not stand, to a channel that is gone.
    fn fail(&mut self, channel: u32, name: &ChannelName, waiters: Vec<Waiter>, code: ErrorCode) {
        // Everybody forgets the channel's slot before anything else can take it.
        for waiter in &waiters {
            if let Some(connected) = self.sessions.connected_at_mut(waiter.session) {
                connected.subscriptions.remove(channel);
            }
        }
        for waiter in waiters {
            self.grants.left(waiter.session, name.as_str());
            if let Some(id) = waiter.id {
                self.send_reply(waiter.session, id, &Reply::Error(code));
            }
        }
    }

    /// The relay does not hear the channel any more: takes everybody out of it and tells them. Says whether anybody may
    /// have been in it.
    pub(crate) fn lose(&mut self, name: &ChannelName) -> bool {
        let Some(channel) = self.channels.find(name.as_str()) else { return false };
        let Some(Lost { members, recovering, presence }) = self.channels.lose(channel) else { return false };
        // Everybody forgets the channel's slot before anything else can take it.
        for &index in &members {
            if let Some(connected) = self.sessions.connected_at_mut(index) {
                connected.subscriptions.remove(channel);
                if presence {
                    let client = connected.client.to_string();
                    self.effects.push(Effect::Exit { channel: name.clone(), client });
                }
            }
            self.sessions.forget_latest(index, channel);
            self.grants.left(index, name.as_str());
        }
        self.tally.recoveries[FAILED] += recovering.len() as u64;
        self.fail(channel, name, recovering, ErrorCode::Internal);
        for index in members {
            self.unsubscribed(index, name, Some(UnsubscribeCode::InsufficientState));
            self.send_push(index, &Push::Unsubscribe(name.as_str(), UnsubscribeCode::InsufficientState));
        }
        true
    }

    /// Publications may have got lost on the way from the relay, nobody knows of which channels: every channel that
    /// promises to miss none is lost.
    pub(crate) fn lose_positioned(&mut self) {
        for name in self.channels.positioned() {
            if self.lose(&name) {
                // The relay knows nothing of it.
                self.effects.push(Effect::Leave(name));
            }
        }
    }

    fn answer_standing(&mut self, waiter: &Waiter, channel: u32, name: &ChannelName) {
        let told = self.told(waiter.session, channel, name, waiter.since.as_deref());
        let result = told.result(&[]);
        match waiter.id {
            Some(id) => self.send_reply(waiter.session, id, &Reply::Subscribe(result)),
            None => self.send_push(waiter.session, &Push::Subscribe(name.as_str(), result)),
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
