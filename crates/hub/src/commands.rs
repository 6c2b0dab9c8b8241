//! What a client's commands mean.
//!
//! Not here: what it asks of a channel beside its subscription (`asking`).

use std::sync::Arc;

use tidegate_protocol::codec::json;
use tidegate_protocol::command::{Connect, Subscribe};
use tidegate_protocol::reply::ConnectResult;
use tidegate_protocol::{
    ChannelName, Codec, Command, Disconnect, Epoch, ErrorCode, Position, Reply, Request,
};
use uuid::Uuid;

use crate::channels::Waiter;
use crate::effect::Effect;
use crate::membership::Standing;
use crate::policy::{Authenticator, Namespace, Refusal, Right};
use crate::session::{Connected, Heart, State, Subscriptions, opcode};
use crate::shard::{SessionKey, Shard};
use crate::tally::SENT_REPLY;
use crate::tick::Tick;

/// Whether the rest of a message is run.
enum Next {
    /// It is.
    Go,
    /// It is dropped.
    Drop,
    /// It is dropped, and the session ends.
    End(Disconnect),
}

/// What a command of a connected session leads to: a reply, no reply now, or an error.
pub(crate) type Answer = Result<Option<Reply<'static>>, ErrorCode>;

/// The replies to the commands of one message, encoded one behind the other.
struct Replies {
    codec: Codec,
    payload: Vec<u8>,
}

impl Replies {
    fn add(&mut self, id: u32, reply: &Reply<'_>) {
        if !self.payload.is_empty() {
            self.payload.extend_from_slice(self.codec.joint());
        }
        self.codec.reply(id, reply, &mut self.payload);
    }
}

impl Shard {
    /// Runs the commands of a message of a session that has not ended.
    pub(crate) fn run(
        &mut self,
        session: SessionKey,
        codec: Codec,
        message: &[u8],
        authenticator: &dyn Authenticator,
        now: Tick,
    ) {
        let mut replies = Replies { codec, payload: std::mem::take(&mut self.scratch) };
        let mut end = None;
        let decoded = codec.commands(message, |command| {
            match self.command(session, command, &mut replies, authenticator, now) {
                Next::Go => true,
                Next::Drop => false,
                Next::End(reason) => {
                    end = Some(reason);
                    false
                }
            }
        });
        if end.is_none() && decoded.is_err() {
            end = Some(Disconnect::BadRequest);
        }
        if !replies.payload.is_empty() {
            self.send_frame(session.index, SENT_REPLY, opcode(codec), &replies.payload);
        }
        self.reuse(replies.payload);
        if let Some(reason) = end {
            self.end(session, reason);
        }
    }

    fn command(
        &mut self,
        session: SessionKey,
        command: Command<'_>,
        replies: &mut Replies,
        authenticator: &dyn Authenticator,
        now: Tick,
    ) -> Next {
        let Command { id, request } = command;
        self.tally.count(&request);
        let Some(found) = self.sessions.get(session) else { return Next::Drop };
        match (&found.state, request) {
            (State::Opening, Request::Connect(connect)) => {
                self.connect(session.index, id, &connect, replies, authenticator, now)
            }
            (State::Opening, _) | (State::Connected(_), Request::Connect(_)) => {
                Next::End(Disconnect::BadRequest)
            }
            (State::Connected(_), request) => {
                match self.request(session, id, request, replies) {
                    Ok(Some(reply)) => replies.add(id, &reply),
                    Ok(None) => {}
                    Err(code) => replies.add(id, &Reply::Error(code)),
                }
                Next::Go
            }
            (State::Ended, _) => Next::Drop,
        }
    }

    fn connect(
        &mut self,
        index: u32,
        id: u32,
        connect: &Connect<'_>,
        replies: &mut Replies,
        authenticator: &dyn Authenticator,
        now: Tick,
    ) -> Next {
        let identity = match authenticator.authenticate(connect) {
            Ok(identity) => identity,
            Err(Refusal::Error(code)) => {
                replies.add(id, &Reply::Error(code));
                return Next::Drop;
            }
            Err(Refusal::Disconnect(reason)) => return Next::End(reason),
        };
        let user = if identity.user.is_empty() { Arc::clone(&self.nobody) } else { Arc::from(identity.user) };
        let client = Uuid::new_v4();
        let Some(session) = self.sessions.at_mut(index) else { return Next::Drop };
        let subscriptions = Subscriptions::default();
        session.state = State::Connected(Connected { client, user, subscriptions, heart: Heart::Resting });
        let native_ping = session.native_ping;
        self.first_ping(index, now);
        replies.add(
            id,
            &Reply::Connect(ConnectResult {
                client: client.hyphenated().encode_lower(&mut Uuid::encode_buffer()),
                version: &self.policy.version,
                ping: if native_ping { 0 } else { self.policy.ping_seconds },
                pong: !native_ping,
                ..ConnectResult::default()
            }),
        );
        Next::Go
    }

    fn request(
        &mut self,
        session: SessionKey,
        id: u32,
        request: Request<'_>,
        replies: &mut Replies,
    ) -> Answer {
        match request {
            Request::Pong => {
                self.pong(session.index);
                Ok(None)
            }
            Request::Subscribe(subscribe) => self.subscribe(session.index, id, &subscribe, replies),
            Request::Unsubscribe { channel } => self.unsubscribe(session.index, &channel, replies),
            Request::Publish { channel, data } => self.publish(session, id, &channel, data),
            Request::Ping => Ok(Some(Reply::Ping)),
            // No handler takes messages yet, and they have no reply.
            Request::Send { .. } => Ok(None),
            Request::History(history) => self.ask_history(session, id, &history),
            Request::Presence { channel } => self.ask_presence(session, id, &channel),
            Request::PresenceStats { channel } => self.ask_presence_stats(session, id, &channel),
            Request::Rpc { .. } | Request::Refresh { .. } | Request::SubRefresh { .. } => {
                Err(ErrorCode::NotAvailable)
            }
            // A second connect has ended the session before it came here.
            Request::Connect(_) => Err(ErrorCode::BadRequest),
        }
    }

    fn subscribe(&mut self, index: u32, id: u32, subscribe: &Subscribe<'_>, replies: &mut Replies) -> Answer {
        let (name, namespace) = self.channel(&subscribe.channel)?;
        // Subscription tokens do not exist yet. `positioned`, `recoverable` and `join_leave` are wishes: the namespace
        // decides.
        if !subscribe.token.is_empty() {
            return Err(ErrorCode::NotAvailable);
        }
        if self.is_subscribed(index, name.as_str()) {
            return Err(ErrorCode::AlreadySubscribed);
        }
        // Nobody is a subscriber before the subscription.
        if !self.may(index, namespace.subscribe, || false) {
            return Err(ErrorCode::PermissionDenied);
        }
        if !self.has_room(index) {
            return Err(ErrorCode::LimitExceeded);
        }
        let since = subscribe
            .recover
            .then(|| Box::new(Position { offset: subscribe.offset, epoch: Epoch::new(&subscribe.epoch) }));
        match self.enter(Waiter { session: index, id: Some(id), since }, name) {
            Some(Standing::Now(told)) => {
                replies.add(id, &Reply::Subscribe(told.result(&[])));
                Ok(None)
            }
            Some(Standing::Later) => Ok(None),
            None => Err(ErrorCode::Internal),
        }
    }

    fn unsubscribe(&mut self, index: u32, channel: &str, replies: &mut Replies) -> Answer {
        ChannelName::check(channel).map_err(|_| ErrorCode::BadRequest)?;
        let waiter = self.leave(index, channel).flatten();
        if let Some(id) = waiter.and_then(|waiter| waiter.id) {
            replies.add(id, &Reply::Error(WITHDRAWN));
        }
        Ok(Some(Reply::Unsubscribe))
    }

    fn publish(&mut self, session: SessionKey, id: u32, channel: &str, data: &[u8]) -> Answer {
        let (channel, namespace) = self.channel(channel)?;
        let index = session.index;
        if !self.may(index, namespace.publish, || self.is_member(index, channel.as_str())) {
            return Err(ErrorCode::PermissionDenied);
        }
        let data = json::payload(data).map_err(|_| ErrorCode::BadRequest)?;
        let Some(connected) = self.sessions.connected_at(index) else { return Err(ErrorCode::Internal) };
        let info = connected.info();
        self.effects.push(Effect::Publish { session, id, channel, data, info });
        Ok(None)
    }

    /// A channel by the name a client gave, and what is allowed in it.
    pub(crate) fn channel(&self, name: &str) -> Result<(ChannelName, Namespace), ErrorCode> {
        let known = self.channels.find(name).and_then(|slot| self.channels.name(slot));
        let name = match known {
            Some(known) => known.clone(),
            None => ChannelName::parse(name).map_err(|_| ErrorCode::BadRequest)?,
        };
        let namespace = self.policy.namespace(&name).ok_or(ErrorCode::UnknownChannel)?;
        Ok((name, namespace))
    }

    pub(crate) fn may(&self, index: u32, right: Right, is_subscriber: impl FnOnce() -> bool) -> bool {
        match right {
            Right::Anyone => true,
            Right::Authenticated => {
                self.sessions.connected_at(index).is_some_and(|connected| !connected.user.is_empty())
            }
            Right::Subscriber => is_subscriber(),
            // Subscription tokens do not exist yet.
            Right::Token | Right::Nobody => false,
        }
    }

    /// Whether the session may have one more subscription.
    pub(crate) fn has_room(&self, index: u32) -> bool {
        let held = self.sessions.connected_at(index).map(|connected| connected.subscriptions.len());
        held.is_some_and(|held| held < self.policy.max_subscriptions)
    }
}

/// What a subscribe command gets whose subscription was withdrawn before the relay answered: every command has an
/// answer, and a temporary error does no harm to an SDK that has subscribed again meanwhile.
const WITHDRAWN: ErrorCode = ErrorCode::Internal;
