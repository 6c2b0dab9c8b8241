//! Commands that a backend decides: what waits for it, and what its decision leads to.
//!
//! ```text
//!  Opening --connect--> Connecting --granted--> Connected      (else: back to Opening)
//! ```
//!
//! While a session is connecting, what it says is kept as it came and run afterwards: SDKs send connect and their
//! subscribes in one message. A subscribe that waits counts as a subscription. A session that ended meanwhile is not
//! answered.
//!
//! Not here: the words (`backend`), what is kept of a decision (`grants`), and one question after the other where their
//! order counts, which is the gateway's.

use std::sync::Arc;

use bytes::Bytes;
use tidegate_protocol::command::{Connect, Subscribe};
use tidegate_protocol::{BackendClose, ChannelName, Disconnect, ErrorCode, Position, Reply};
use uuid::Uuid;

use crate::backend::{Asker, Decision, Grant, Matter};
use crate::channels::Waiter;
use crate::effect::Effect;
use crate::grants::Asked;
use crate::membership::Standing;
use crate::policy::Authenticator;
use crate::recovery::Fit;
use crate::session::{State, opcode};
use crate::shard::{SessionKey, Shard};
use crate::tally::SENT_REPLY;
use crate::tick::Tick;

/// How many bytes a session may say behind a connect that is not decided, but for the message that passes it; the next
/// ends it with 3013.
const MAX_HELD: usize = 64 * 1024;

/// What a session has whose connect a backend decides.
#[derive(Debug)]
pub(crate) struct Connecting {
    /// The session's id to be.
    client: Uuid,
    /// The id of the connect command.
    id: u32,
    /// What the client said behind it: messages, each with how many of its commands were run already.
    held: Vec<(Box<[u8]>, usize)>,
    /// The bytes of all these.
    bytes: usize,
}

impl Shard {
    /// What came of an `Effect::Consult`; everything but `decision` is as it was asked.
    pub fn decided(
        &mut self,
        session: SessionKey,
        id: u32,
        matter: Matter,
        decision: Decision,
        authenticator: &dyn Authenticator,
        now: Tick,
    ) {
        let Some(found) = self.sessions.get(session) else { return };
        match &found.state {
            State::Connecting(connecting) if connecting.id == id => {
                self.connect_decided(session, decision, authenticator, now);
            }
            State::Connected(_) => self.command_decided(session, id, matter, decision),
            State::Opening | State::Connecting(_) | State::Ended => {}
        }
    }

    /// Asks whether a session may come in.
    pub(crate) fn consult_connect(&mut self, session: SessionKey, id: u32, connect: &Connect<'_>) {
        let client = Uuid::new_v4();
        let Some(found) = self.sessions.get_mut(session) else { return };
        found.state = State::Connecting(Box::new(Connecting { client, id, held: Vec::new(), bytes: 0 }));
        let asker = Asker { client: client.to_string(), user: String::new(), codec: found.codec };
        let matter = Matter::Connect {
            token: connect.token.to_string(),
            name: connect.name.to_string(),
            version: connect.version.to_string(),
            data: Bytes::copy_from_slice(connect.data),
        };
        self.effects.push(Effect::Consult { session, id, asker, matter });
    }

    /// Asks about a command of a connected session.
    pub(crate) fn consult(&mut self, session: SessionKey, id: u32, matter: Matter) -> Result<(), ErrorCode> {
        let found = self.sessions.get(session).ok_or(ErrorCode::Internal)?;
        let connected = found.connected().ok_or(ErrorCode::Internal)?;
        let (client, user) = (connected.client.to_string(), connected.user.to_string());
        let asker = Asker { client, user, codec: found.codec };
        self.effects.push(Effect::Consult { session, id, asker, matter });
        Ok(())
    }

    /// Asks whether a session may hear a channel; until then the subscribe waits.
    pub(crate) fn consult_subscribe(
        &mut self,
        session: SessionKey,
        id: u32,
        channel: ChannelName,
        subscribe: &Subscribe<'_>,
        since: Option<Box<Position>>,
    ) -> Result<(), ErrorCode> {
        let (token, data) = (subscribe.token.to_string(), Bytes::copy_from_slice(subscribe.data));
        self.consult(session, id, Matter::Subscribe { channel: channel.clone(), token, data })?;
        self.grants.ask(session.index, Asked { id, channel, since });
        Ok(())
    }

    /// Keeps a message of a connecting session, of which so many commands were run.
    pub(crate) fn hold(&mut self, session: SessionKey, message: &[u8], run: usize) {
        let Some(found) = self.sessions.get_mut(session) else { return };
        let State::Connecting(connecting) = &mut found.state else { return };
        if connecting.bytes > MAX_HELD {
            self.end(session, Disconnect::TooManyRequests);
            return;
        }
        connecting.bytes += message.len();
        connecting.held.push((message.into(), run));
    }

    /// Ends a session in a backend's words, behind what its outbox holds.
    pub(crate) fn end_by_backend(&mut self, session: SessionKey, close: &BackendClose) {
        if self.finish(session, close.code()) {
            self.sessions.push_close(session.index, close.code(), close.reason());
            self.effects.push(Effect::Ended { session, reason: Disconnect::Backend });
        }
    }

    fn connect_decided(
        &mut self,
        session: SessionKey,
        decision: Decision,
        authenticator: &dyn Authenticator,
        now: Tick,
    ) {
        let Some(found) = self.sessions.get_mut(session) else { return };
        let codec = found.codec;
        // A client that was refused may try again until its deadline, as if it had said nothing.
        let State::Connecting(connecting) = std::mem::replace(&mut found.state, State::Opening) else {
            return;
        };
        let Connecting { client, id, held, .. } = *connecting;
        match decision {
            Decision::Granted(Grant { user, info, data, channels, .. }) => {
                let user = if user.is_empty() { Arc::clone(&self.nobody) } else { Arc::from(user) };
                let index = session.index;
                self.let_in(index, client, user, now);
                self.grants.connected(index, info);
                let mut payload = std::mem::take(&mut self.scratch);
                let data = data.unwrap_or_default();
                self.welcome(index, client, &data, |reply| codec.reply(id, reply, &mut payload));
                self.send_frame(index, SENT_REPLY, opcode(codec), &payload);
                self.reuse(payload);
                for channel in channels {
                    self.subscribe_unasked(index, channel);
                }
                for (message, run) in held {
                    self.run(session, codec, &message, run, authenticator, now);
                }
            }
            decision => self.refuse(session, id, decision),
        }
    }

    fn command_decided(&mut self, session: SessionKey, id: u32, matter: Matter, decision: Decision) {
        let mut since = None;
        if let Matter::Subscribe { channel, .. } = &matter {
            // One that was withdrawn meanwhile has its answer.
            let Some(asked) = self.grants.take_asked(session.index, id, channel.as_str()) else { return };
            since = asked.since;
        }
        match decision {
            Decision::Granted(grant) => {
                if let Err(code) = self.command_granted(session, id, matter, since, grant) {
                    self.send_reply(session.index, id, &Reply::Error(code));
                }
            }
            decision => self.refuse(session, id, decision),
        }
    }

    fn command_granted(
        &mut self,
        session: SessionKey,
        id: u32,
        matter: Matter,
        since: Option<Box<Position>>,
        grant: Grant,
    ) -> Result<(), ErrorCode> {
        let index = session.index;
        match matter {
            Matter::Subscribe { channel, .. } => {
                // A backend may have subscribed it by itself while it was asked.
                if self.is_subscribed(index, channel.as_str()) {
                    return Err(ErrorCode::AlreadySubscribed);
                }
                self.grants.subscribed(index, &channel, grant.info, grant.data.unwrap_or_default());
                match self.enter(Waiter { session: index, id: Some(id), since }, channel) {
                    Some(Standing::Now(told)) => {
                        self.send_reply(index, id, &Reply::Subscribe(told.result(&[])));
                        Ok(())
                    }
                    Some(Standing::Later) => Ok(()),
                    None => Err(ErrorCode::Internal),
                }
            }
            Matter::Publish { channel, data } => {
                let data = grant.data.unwrap_or(data);
                self.hand_over(session, id, channel, data, grant.skip_history)
            }
            Matter::Rpc { .. } => {
                let data = grant.data.unwrap_or_default();
                match self.send_if_it_fits(index, id, &Reply::Rpc { data: &data }) {
                    Fit::Now => Ok(()),
                    Fit::Later => Err(ErrorCode::Internal),
                    Fit::Never => Err(ErrorCode::LimitExceeded),
                }
            }
            Matter::Connect { .. } => Err(ErrorCode::BadRequest),
        }
    }

    /// Tells a session what a backend decided that did not agree.
    fn refuse(&mut self, session: SessionKey, id: u32, decision: Decision) {
        let index = session.index;
        match decision {
            Decision::Refused { code, message, temporary } => {
                self.send_reply(index, id, &Reply::Refused { code, message: &message, temporary });
            }
            Decision::Failed(code) => self.send_reply(index, id, &Reply::Error(code)),
            Decision::Disconnect(close) => self.end_by_backend(session, &close),
            Decision::Granted(_) => {}
        }
    }
}
