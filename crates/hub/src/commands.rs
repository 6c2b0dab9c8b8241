//! What a client's commands mean.
//!
//! Not here: what it asks of a channel beside its subscription (`asking`).

use std::sync::Arc;

use bytes::Bytes;
use tidegate_protocol::codec::json;
use tidegate_protocol::command::{Connect, Subscribe};
use tidegate_protocol::reply::ConnectResult;
use tidegate_protocol::{
    ChannelName, Codec, Command, Disconnect, Epoch, ErrorCode, EventKind, Position, Reply, Request,
};
use uuid::Uuid;

use crate::backend::Matter;
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
    /// It waits until a backend has decided about the connect.
    Hold,
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
    /// Runs the commands of a message of a session that has not ended, but for the first so many, which were run already.
    pub(crate) fn run(
        &mut self,
        session: SessionKey,
        codec: Codec,
        message: &[u8],
        run: usize,
        authenticator: &dyn Authenticator,
        now: Tick,
    ) {
        let (mut seen, mut held) = (0, false);
        let mut replies = Replies { codec, payload: std::mem::take(&mut self.scratch) };
        let mut end = None;
        let decoded = codec.commands(message, |command| {
            if held {
                self.hold(session, message, seen);
                return false;
            }
            seen += 1;
            if seen <= run {
                return true;
            }
            match self.command(session, command, &mut replies, authenticator, now) {
                Next::Go => true,
                Next::Hold => {
                    held = true;
                    true
                }
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
                if self.policy.backends.connect {
                    self.consult_connect(session, id, &connect);
                    return Next::Hold;
                }
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
            (State::Connecting(_) | State::Ended, _) => Next::Drop,
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
        self.let_in(index, client, user, now);
        self.welcome(index, client, &[], |reply| replies.add(id, reply));
        Next::Go
    }

    /// From now on the session has an identity.
    pub(crate) fn let_in(&mut self, index: u32, client: Uuid, user: Arc<str>, now: Tick) {
        let Some(session) = self.sessions.at_mut(index) else { return };
        let subscriptions = Subscriptions::default();
        session.state = State::Connected(Connected { client, user, subscriptions, heart: Heart::Resting });
        self.happened(index, EventKind::Connect, |_| {});
        self.first_ping(index, now);
    }

    /// What a client is told that was let in, with a backend's payload or none.
    pub(crate) fn welcome(&self, index: u32, client: Uuid, data: &[u8], tell: impl FnOnce(&Reply<'_>)) {
        let native_ping = self.sessions.at(index).is_some_and(|session| session.native_ping);
        tell(&Reply::Connect(ConnectResult {
            client: client.hyphenated().encode_lower(&mut Uuid::encode_buffer()),
            version: &self.policy.version,
            ping: if native_ping { 0 } else { self.policy.ping_seconds },
            pong: !native_ping,
            data,
            ..ConnectResult::default()
        }));
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
            Request::Subscribe(subscribe) => self.subscribe(session, id, &subscribe, replies),
            Request::Unsubscribe { channel } => self.unsubscribe(session.index, &channel, replies),
            Request::Publish { channel, data } => self.publish(session, id, &channel, data),
            Request::Ping => Ok(Some(Reply::Ping)),
            Request::Rpc { method, data } => {
                let (method, data) = (method.into_owned(), Bytes::copy_from_slice(data));
                self.happened(session.index, EventKind::Rpc, |event| event.method.clone_from(&method));
                if !self.policy.backends.rpc {
                    return Err(ErrorCode::NotAvailable);
                }
                self.consult(session, id, Matter::Rpc { method, data }).map(|()| None)
            }
            Request::Send { data } => {
                self.sends(session.index, data);
                Ok(None)
            }
            Request::History(history) => self.ask_history(session, id, &history),
            Request::Presence { channel } => self.ask_presence(session, id, &channel),
            Request::PresenceStats { channel } => self.ask_presence_stats(session, id, &channel),
            Request::Refresh { .. } | Request::SubRefresh { .. } => Err(ErrorCode::NotAvailable),
            // A second connect has ended the session before it came here.
            Request::Connect(_) => Err(ErrorCode::BadRequest),
        }
    }

    fn subscribe(
        &mut self,
        session: SessionKey,
        id: u32,
        subscribe: &Subscribe<'_>,
        replies: &mut Replies,
    ) -> Answer {
        let index = session.index;
        let (name, namespace) = self.channel(&subscribe.channel)?;
        let backend_decides = namespace.subscribe == Right::Backend;
        // Subscription tokens do not exist yet, but for a backend. `positioned`, `recoverable` and `join_leave` are wishes:
        // the namespace decides.
        if !subscribe.token.is_empty() && !backend_decides {
            return Err(ErrorCode::NotAvailable);
        }
        if self.is_subscribed(index, name.as_str()) {
            return Err(ErrorCode::AlreadySubscribed);
        }
        // Nobody is a subscriber before the subscription.
        if !backend_decides && !self.may(index, namespace.subscribe, || false) {
            return Err(ErrorCode::PermissionDenied);
        }
        if !self.has_room(index) {
            return Err(ErrorCode::LimitExceeded);
        }
        let since = subscribe
            .recover
            .then(|| Box::new(Position { offset: subscribe.offset, epoch: Epoch::new(&subscribe.epoch) }));
        if backend_decides {
            return self.consult_subscribe(session, id, name, subscribe, since).map(|()| None);
        }
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
        self.leaves(index, channel, None);
        let waiter = self.leave(index, channel).flatten();
        let waiting = waiter.and_then(|waiter| waiter.id).or_else(|| self.grants.withdraw(index, channel));
        if let Some(id) = waiting {
            replies.add(id, &Reply::Error(WITHDRAWN));
        }
        Ok(Some(Reply::Unsubscribe))
    }

    fn publish(&mut self, session: SessionKey, id: u32, channel: &str, data: &[u8]) -> Answer {
        let (channel, namespace) = self.channel(channel)?;
        let index = session.index;
        let backend_decides = namespace.publish == Right::Backend;
        if !backend_decides && !self.may(index, namespace.publish, || self.is_member(index, channel.as_str()))
        {
            return Err(ErrorCode::PermissionDenied);
        }
        let data = json::payload(data).map_err(|_| ErrorCode::BadRequest)?;
        if backend_decides {
            self.consult(session, id, Matter::Publish { channel, data })?;
        } else {
            self.hand_over(session, id, channel, data, false)?;
        }
        Ok(None)
    }

    /// Gives a session's publication, which may be made, to the relay.
    pub(crate) fn hand_over(
        &mut self,
        session: SessionKey,
        id: u32,
        channel: ChannelName,
        data: Bytes,
        skip_history: bool,
    ) -> Result<(), ErrorCode> {
        let info = self.info(session.index, channel.as_str()).ok_or(ErrorCode::Internal)?;
        self.publishes(session.index, &channel, &data);
        self.effects.push(Effect::Publish { session, id, channel, data, info, skip_history });
        Ok(())
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
            // Subscription tokens do not exist yet. A backend is asked before it comes here.
            Right::Token | Right::Backend | Right::Nobody => false,
        }
    }

    /// Whether the session may have one more subscription.
    pub(crate) fn has_room(&self, index: u32) -> bool {
        let held = self.sessions.connected_at(index).map(|connected| connected.subscriptions.len());
        held.is_some_and(|held| held + self.grants.asked(index) < self.policy.max_subscriptions)
    }
}

/// What a subscribe command gets whose subscription was withdrawn before the relay answered: every command has an
/// answer, and a temporary error does no harm to an SDK that has subscribed again meanwhile.
const WITHDRAWN: ErrorCode = ErrorCode::Internal;
