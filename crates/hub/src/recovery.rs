//! How who comes back is given what they missed.
//!
//! A session that asks to go on from where its channel's members stand has missed nothing, and one whose position is of
//! another epoch cannot be helped: both are answered at once (`membership`). For any other the relay is asked. Until it
//! answers, the session is no member and no push reaches it. The answer comes in order with what is delivered, so it
//! ends where the next publication follows: the reply is written, and the session is a member from then on. Neither a
//! hole nor a duplicate can be between the two, and nothing needs to be kept back meanwhile.
//!
//! Not here: reading what was missed (the relay).

use std::sync::Arc;

use tidegate_protocol::reply::SubscribeResult;
use tidegate_protocol::{ChannelName, ErrorCode, Position, Publication, Reply};

use crate::channels::{Entered, Waiter};
use crate::effect::Effect;
use crate::outbox::Outbox;
use crate::session::{Subscription, opcode};
use crate::shard::{SessionKey, Shard};
use crate::tally::{FAILED, RECOVERED, SENT_REPLY, UNRECOVERED};

/// What the relay says to `Effect::Recover`.
#[derive(Debug, Clone, PartialEq)]
pub struct Recovered {
    /// Where the channel's members stand as this is given to the shard: what is delivered next follows.
    pub position: Position,
    /// Everything after the asked position up to `position`, in order; `None`: it cannot be had any more.
    pub publications: Option<Arc<[Arc<Publication>]>>,
}

/// How an answer fits into an outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fit {
    /// It does.
    Now,
    /// It would, if nothing else were there.
    Later,
    /// It never does.
    Never,
}

impl Shard {
    /// Asks the relay for what a session missed.
    pub(crate) fn ask_recovery(&mut self, waiter: Waiter, channel: ChannelName) {
        if let (Some(id), Some(since)) = (waiter.id, waiter.since) {
            let session = self.sessions.key(waiter.session);
            self.effects.push(Effect::Recover { session, id, channel, since: *since });
        }
    }

    /// A member from its channel's beginning on must be given what it missed before it is one.
    pub(crate) fn postpone(&mut self, channel: u32, waiter: Waiter, name: &ChannelName) {
        let index = waiter.session;
        let Some(connected) = self.sessions.connected_at(index) else { return };
        let member = connected.subscriptions.place(channel);
        // First, so that the channel is not empty meanwhile.
        let place = self.channels.postpone(channel, waiter.clone());
        let (Some(member), Some(place)) = (member, place) else { return };
        if let Some(connected) = self.sessions.connected_at_mut(index) {
            connected.subscriptions.moved(channel, place);
        }
        self.vacate(Subscription { channel, place: member });
        self.ask_recovery(waiter, name.clone());
    }

    pub(crate) fn recover(
        &mut self,
        session: SessionKey,
        id: u32,
        name: &ChannelName,
        result: Result<Recovered, ErrorCode>,
    ) {
        let index = session.index;
        if self.sessions.get(session).is_none() {
            return;
        }
        // Whoever withdrew has had an answer, and does not wait any more; whoever asked again did so with another id.
        let Some(subscription) = self.place(index, name.as_str()) else { return };
        let waiter = self.channels.recovering(subscription.channel, subscription.place);
        let Some(waiter) = waiter.filter(|waiter| waiter.id == Some(id)).cloned() else { return };
        let Some(since) = waiter.since else { return };
        match result.and_then(|recovered| self.accept(subscription.channel, &since, recovered)) {
            Ok(recovered) => self.give(index, id, subscription.channel, name, *since, &recovered),
            Err(code) => self.give_up(index, id, name, code),
        }
    }

    /// Takes over where the relay stands: it may have refused publications since the last that it delivered. An answer
    /// about another life of the channel than its members see is no answer, nor is one from before what the session has
    /// seen already elsewhere.
    fn accept(
        &mut self,
        channel: u32,
        since: &Position,
        recovered: Recovered,
    ) -> Result<Recovered, ErrorCode> {
        let at = self.channels.nature(channel).and_then(|nature| nature.position.as_ref());
        let Recovered { position, publications } = &recovered;
        let fits = at.is_some_and(|at| at.epoch == position.epoch && at.offset <= position.offset);
        if !fits || (publications.is_some() && position.offset < since.offset) {
            return Err(ErrorCode::Internal);
        }
        self.channels.advance(channel, position.offset);
        Ok(recovered)
    }

    /// Answers, and makes the session a member.
    fn give(
        &mut self,
        index: u32,
        id: u32,
        channel: u32,
        name: &ChannelName,
        since: Position,
        recovered: &Recovered,
    ) {
        let data = self.grants.take_data(index, name.as_str());
        #[cfg(feature = "sabotage")]
        if self.withhold((index, id), (channel, name), &since, recovered) {
            return;
        }
        let top = SubscribeResult {
            data: &data,
            position: Some(&recovered.position),
            recoverable: true,
            was_recovering: true,
            ..SubscribeResult::default()
        };
        let mut given = false;
        if let Some(publications) = &recovered.publications {
            let all =
                SubscribeResult { position: Some(&since), recovered: true, publications, ..top.clone() };
            match self.send_if_it_fits(index, id, &Reply::Subscribe(all)) {
                Fit::Now => given = true,
                // The socket will take what is there, and the SDK asks again.
                Fit::Later => return self.give_up(index, id, name, ErrorCode::Internal),
                // It would be the same the next time: better to be told than to be ended with 3008 for ever.
                Fit::Never => {}
            }
        }
        self.tally.recoveries[if given { RECOVERED } else { UNRECOVERED }] += 1;
        if !given {
            self.send_reply(index, id, &Reply::Subscribe(top));
        }
        self.stand(index, channel, name);
    }

    /// The recovery failed: the session has no subscription.
    fn give_up(&mut self, index: u32, id: u32, name: &ChannelName, code: ErrorCode) {
        self.tally.recoveries[FAILED] += 1;
        self.leave(index, name.as_str());
        self.send_reply(index, id, &Reply::Error(code));
    }

    /// The session is a member from now on, unless it has ended over its answer.
    pub(crate) fn stand(&mut self, index: u32, channel: u32, name: &ChannelName) {
        let Some(connected) = self.sessions.connected_at(index) else { return };
        let Some(place) = connected.subscriptions.place(channel) else { return };
        // First, so that the channel is not empty meanwhile.
        let entered = self.channels.enter(channel, Waiter { session: index, id: None, since: None });
        let Some(Entered::Member(member)) = entered else { return };
        if let Some(connected) = self.sessions.connected_at_mut(index) {
            connected.subscriptions.moved(channel, member);
        }
        self.vacate(Subscription { channel, place });
        self.present(index, channel, name);
    }

    /// Sends a reply if the session's outbox has room for it, and says whether it had.
    pub(crate) fn send_if_it_fits(&mut self, index: u32, id: u32, reply: &Reply<'_>) -> Fit {
        let max = self.policy.outbox_max_bytes;
        let Some(session) = self.sessions.at_mut(index).filter(|session| !session.is_ended()) else {
            return Fit::Now;
        };
        let codec = session.codec;
        let mut payload = std::mem::take(&mut self.scratch);
        codec.reply(id, reply, &mut payload);
        let fit = if session.outbox.has_room(payload.len(), max) {
            Fit::Now
        } else if Outbox::default().has_room(payload.len(), max) {
            Fit::Later
        } else {
            Fit::Never
        };
        if fit == Fit::Now {
            self.send_frame(index, SENT_REPLY, opcode(codec), &payload);
        }
        self.reuse(payload);
        fit
    }
}
