//! What a client asks of a channel beside its own subscription: what was said, and who is there.
//!
//! Not here: finding the answer, which the gateway does (`Effect::Ask`).

use tidegate_protocol::command::History;
use tidegate_protocol::{Epoch, ErrorCode, Reply};

use crate::commands::Answer;
use crate::effect::{Effect, Found, Question};
use crate::policy::{self, Namespace, Presence};
use crate::recovery::Fit;
use crate::shard::{SessionKey, Shard};

impl Shard {
    pub(crate) fn ask_history(&mut self, session: SessionKey, id: u32, asked: &History<'_>) -> Answer {
        let (channel, namespace) = self.channel(&asked.channel)?;
        if namespace.history == policy::History::None {
            return Err(ErrorCode::NotAvailable);
        }
        if !self
            .may(session.index, namespace.read_history, || self.is_member(session.index, channel.as_str()))
        {
            return Err(ErrorCode::PermissionDenied);
        }
        let since = asked.since.as_ref().map(|(offset, epoch)| {
            (*offset, Some(epoch).filter(|epoch| !epoch.is_empty()).map(|epoch| Epoch::new(epoch)))
        });
        // Below zero: all.
        let limit = usize::try_from(asked.limit).ok();
        let question = Question::History { channel, limit, since, reverse: asked.reverse };
        self.effects.push(Effect::Ask { session, id, question });
        Ok(None)
    }

    pub(crate) fn ask_presence(&mut self, session: SessionKey, id: u32, channel: &str) -> Answer {
        let (channel, namespace) = self.channel(channel)?;
        self.may_see(session, &namespace, channel.as_str())?;
        self.effects.push(Effect::Ask { session, id, question: Question::Presence(channel) });
        Ok(None)
    }

    pub(crate) fn ask_presence_stats(&mut self, session: SessionKey, id: u32, channel: &str) -> Answer {
        let (channel, namespace) = self.channel(channel)?;
        self.may_see(session, &namespace, channel.as_str())?;
        self.effects.push(Effect::Ask { session, id, question: Question::PresenceStats(channel) });
        Ok(None)
    }

    fn may_see(&self, session: SessionKey, namespace: &Namespace, channel: &str) -> Result<(), ErrorCode> {
        if namespace.presence == Presence::None {
            return Err(ErrorCode::NotAvailable);
        }
        let index = session.index;
        if self.may(index, namespace.read_presence, || self.is_member(index, channel)) {
            Ok(())
        } else {
            Err(ErrorCode::PermissionDenied)
        }
    }

    pub(crate) fn tell(&mut self, session: SessionKey, id: u32, result: Result<Found, ErrorCode>) {
        if self.sessions.get(session).is_none() {
            return;
        }
        let reply = match &result {
            Ok(Found::History { publications, position }) => Reply::History { publications, position },
            Ok(Found::Presence(clients)) => Reply::Presence(clients),
            Ok(Found::PresenceStats { clients, users }) => {
                Reply::PresenceStats { clients: *clients, users: *users }
            }
            Err(code) => Reply::Error(*code),
        };
        // Whoever asks for more than an outbox holds must ask for less, not be ended as slow.
        match self.send_if_it_fits(session.index, id, &reply) {
            Fit::Now => {}
            Fit::Later => self.send_reply(session.index, id, &Reply::Error(ErrorCode::Internal)),
            Fit::Never => self.send_reply(session.index, id, &Reply::Error(ErrorCode::LimitExceeded)),
        }
    }
}
