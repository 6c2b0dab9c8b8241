//! One worker's sessions and channels: how sessions open and end, and what reaches their outboxes.
//!
//! Not here: what a client's commands mean (`commands`, `asking`), what waits for backends (`consulting`), entering and
//! leaving channels (`membership`, `recovery`), pings and deadlines (`liveness`), what backends ask (`control`).

use std::sync::Arc;

use bytes::Bytes;
use tidegate_protocol::frame::{self, Opcode};
use tidegate_protocol::{ChannelName, Codec, Control, Disconnect, ErrorCode, EventKind, Position, Reply};

use crate::broadcast::{Broadcast, Run};
use crate::channels::Channels;
use crate::effect::{Effect, Found};
use crate::grants::Grants;
use crate::outbox::{Full, Outbox};
use crate::policy::{Authenticator, Policy};
use crate::recovery::Recovered;
use crate::session::{Session, State, opcode};
use crate::sessions::Sessions;
use crate::tally::{SENT_REPLY, Tally};
use crate::tick::Tick;

/// The scratch buffer's size beyond which it is given back after use.
const SCRATCH_BYTES: usize = 64 * 1024;

/// How many entries of a list that is filled and emptied all the time have their room kept between bursts.
const KEPT: usize = 256;

/// RFC 6455, 7.4.1: the purpose for which the connection was made is fulfilled.
const NORMAL_CLOSURE: u16 = 1000;

/// Names a session of a shard. The index is small and dense, so that the gateway can keep its sockets in a parallel
/// table; the generation tells a later session in the same place apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionKey {
    /// Where the session is in the shard's tables.
    pub index: u32,
    /// How often the place was used before.
    pub generation: u32,
}

/// What is known of a connection when its WebSocket opens.
#[derive(Debug, Clone, Copy)]
pub struct Opening {
    /// Which codec it speaks.
    pub codec: Codec,
    /// Whether it wants native WebSocket pings instead of application pings.
    pub native_ping: bool,
}

/// One worker's sessions and channels.
///
/// A key of a session that was removed is ignored everywhere, whoever has its place now.
#[derive(Debug)]
pub struct Shard {
    pub(crate) policy: Arc<Policy>,
    pub(crate) sessions: Sessions,
    pub(crate) channels: Channels,
    pub(crate) grants: Grants,
    pub(crate) effects: Vec<Effect>,
    pub(crate) tally: Tally,
    pub(crate) random: fastrand::Rng,
    /// The user of every anonymous session.
    pub(crate) nobody: Arc<str>,
    /// The ping frames: by codec in the order of `Codec::ALL`, then the native one.
    pub(crate) pings: [Bytes; 3],
    /// Where payloads are encoded before they are framed.
    pub(crate) scratch: Vec<u8>,
    /// Sessions that have not ended, in the order of `Codec::ALL`.
    counts: [usize; 2],
}

impl Shard {
    /// An empty shard.
    pub fn new(policy: Arc<Policy>) -> Self {
        let ping = |opcode: Opcode, payload: &[u8]| {
            let mut out = Vec::new();
            frame::encode(opcode, payload, &mut out);
            Bytes::from(out)
        };
        let [json, protobuf] = Codec::ALL.map(|codec| ping(opcode(codec), codec.ping()));
        Self {
            policy,
            sessions: Sessions::default(),
            channels: Channels::default(),
            grants: Grants::default(),
            effects: Vec::new(),
            tally: Tally::default(),
            random: fastrand::Rng::new(),
            nobody: Arc::from(""),
            pings: [json, protobuf, ping(Opcode::Ping, b"")],
            scratch: Vec::new(),
            counts: [0; 2],
        }
    }

    /// A connection opened; it must send `connect` before the policy's deadline.
    pub fn open(&mut self, opening: Opening, now: Tick) -> SessionKey {
        self.counts[ordinal(opening.codec)] += 1;
        self.sessions.insert(Session::new(opening), now.after(self.policy.connect_timeout))
    }

    /// A whole data message came (text in JSON, binary in Protobuf; `is_text` says which frame type it had, the
    /// wrong one ends the session with 3501). Runs its commands in order; replies made at once leave as one frame.
    pub fn message(
        &mut self,
        session: SessionKey,
        is_text: bool,
        message: &[u8],
        authenticator: &dyn Authenticator,
        now: Tick,
    ) {
        let Some(found) = self.sessions.get(session).filter(|found| !found.is_ended()) else { return };
        let codec = found.codec;
        if is_text == (codec == Codec::Json) {
            if matches!(found.state, State::Connecting(_)) {
                self.hold(session, message, 0);
            } else {
                self.run(session, codec, message, 0, authenticator, now);
            }
        } else {
            self.end(session, Disconnect::BadRequest);
        }
    }

    /// A native WebSocket pong came.
    pub fn native_pong(&mut self, session: SessionKey, _now: Tick) {
        if self.sessions.get(session).is_some_and(|found| found.native_ping) {
            self.pong(session.index);
        }
    }

    /// A native WebSocket ping came: answers with a pong of the same bytes.
    pub fn native_ping(&mut self, session: SessionKey, payload: &[u8]) {
        if self.sessions.get(session).is_some_and(|found| !found.is_ended()) {
            self.send_frame(session.index, SENT_REPLY, Opcode::Pong, payload);
        }
    }

    /// The relay hears the channel now, or cannot. Answers one `Effect::Join`; after an error the channel is
    /// forgotten without an `Effect::Leave`. In a channel with history, what is delivered from now on begins behind the
    /// position.
    pub fn joined(&mut self, channel: &ChannelName, result: Result<Option<Position>, ErrorCode>) {
        self.settle(channel, result);
    }

    /// The relay heard the channel and cannot hear it any more: its members are unsubscribed with 2500, after which
    /// SDKs subscribe again by themselves. The channel is forgotten without an `Effect::Leave`. Does nothing while the
    /// relay's answer to a join is out, for that will say how it stands.
    pub fn lost(&mut self, channel: &ChannelName) {
        self.lose(channel);
    }

    /// What the relay said may not have reached the shard, and nobody knows which channels it was about: all those with
    /// history are lost, as by `lost`, and left.
    pub fn missed(&mut self) {
        self.lose_positioned();
    }

    /// The relay has found what a session missed, or could not. Answers one `Effect::Recover`; one that nobody waits for
    /// any more changes nothing. Must come in order with `deliver`.
    pub fn recovered(
        &mut self,
        session: SessionKey,
        id: u32,
        channel: &ChannelName,
        result: Result<Recovered, ErrorCode>,
    ) {
        self.recover(session, id, channel, result);
    }

    /// What a session asked for was found, or not. Answers one `Effect::Ask`.
    pub fn answered(&mut self, session: SessionKey, id: u32, result: Result<Found, ErrorCode>) {
        self.tell(session, id, result);
    }

    /// The relay acknowledged a client's publication, or could not take it.
    pub fn published(&mut self, session: SessionKey, id: u32, result: Result<(), ErrorCode>) {
        if self.sessions.get(session).is_none() {
            return;
        }
        let reply = match result {
            Ok(()) => Reply::Publish,
            Err(code) => Reply::Error(code),
        };
        self.send_reply(session.index, id, &reply);
    }

    /// Publications of one channel arrived, in this order, or joins and leaves: puts their frames, as one piece, into the
    /// outbox of each member. Says how many outboxes were given something. All must be of the first one's channel, and
    /// publications be apart from the others.
    pub fn deliver(&mut self, publications: &[Arc<Broadcast>]) -> usize {
        let Some(first) = publications.first() else { return 0 };
        let Some(channel) = self.channels.find(first.channel().as_str()) else { return 0 };
        let run = Run::new(publications);
        let max = self.policy.outbox_max_bytes;
        let latest = self.channels.advance(channel, run.offset()) && first.is_publication();
        let given = if latest {
            self.each_member(channel, &run, |sessions, index| sessions.push_latest(index, channel, &run, max))
        } else {
            self.each_member(channel, &run, |sessions, index| {
                sessions.push_shared(index, max, |codec| run.frames(codec))
            })
        };
        #[cfg(feature = "sabotage")]
        self.give_withheld(channel);
        given
    }

    /// Pushes a run to each member of a channel; ends those who cannot take it. Says how many members there are.
    fn each_member(
        &mut self,
        channel: u32,
        run: &Run<'_>,
        mut push: impl FnMut(&mut Sessions, u32) -> Result<(), Full>,
    ) -> usize {
        let members = self.channels.members(channel).len();
        let kind = run.kind();
        let mut slow = Vec::new();
        for &index in self.channels.members(channel) {
            match push(&mut self.sessions, index) {
                Ok(()) => self.tally.sent[kind] += run.len() as u64,
                // Ending it changes the list of members, so it waits.
                Err(_) => slow.push(index),
            }
        }
        for index in slow {
            self.overflow(index);
        }
        members
    }

    /// A backend or another node asks something of the sessions it selects.
    pub fn control(&mut self, control: &Control) {
        self.obey(control);
    }

    /// Ends a session: leaves its channels, puts a Close frame behind what its outbox holds (for `Slow` and
    /// `WriteError` everything but a half-written frame is dropped first) and asks for `Effect::Ended`. Does nothing to
    /// a session that has ended already. `Lost` puts no Close frame and drops what its outbox holds.
    pub fn end(&mut self, session: SessionKey, reason: Disconnect) {
        if !self.finish(session, reason.code()) {
            return;
        }
        if let Some(found) = self.sessions.get_mut(session) {
            match reason {
                Disconnect::Lost => found.outbox.clear(),
                Disconnect::Slow | Disconnect::WriteError => found.outbox.cut(),
                _ => {}
            }
        }
        if reason != Disconnect::Lost {
            self.sessions.push_close(session.index, reason.code(), reason.text());
        }
        self.effects.push(Effect::Ended { session, reason });
    }

    /// The client sent a Close frame: ends the session with `Closed`, behind what its outbox holds, and answers with
    /// the client's own code (RFC 6455, 5.5.1) or, where it gave none, with 1000.
    pub fn closed_by_peer(&mut self, session: SessionKey, code: Option<u16>) {
        if self.finish(session, Disconnect::Closed.code()) {
            self.sessions.push_close(session.index, code.unwrap_or(NORMAL_CLOSURE), "");
            self.effects.push(Effect::Ended { session, reason: Disconnect::Closed });
        }
    }

    /// Sends a data message back as it came: for conformance suites, which know no codec. The session needs no
    /// `connect` from then on.
    pub fn echo(&mut self, session: SessionKey, is_text: bool, message: &[u8]) {
        if self.sessions.get(session).is_some_and(|found| !found.is_ended()) {
            self.sessions.never_due(session.index);
            let opcode = if is_text { Opcode::Text } else { Opcode::Binary };
            self.send_frame(session.index, SENT_REPLY, opcode, message);
        }
    }

    /// The socket is gone: forgets the session, whatever its state.
    pub fn remove(&mut self, session: SessionKey) {
        self.finish(session, Disconnect::Lost.code());
        self.sessions.remove(session);
    }

    /// Time has passed: sends due pings, ends sessions past a deadline. Call it after what sockets had to say was
    /// given to the shard, so that a worker that was held up does not take a waiting pong for a missing one.
    pub fn sweep(&mut self, now: Tick) {
        self.effects.shrink_to(KEPT);
        self.sessions.shrink(KEPT);
        let mut from = 0;
        while let Some(index) = self.sessions.next_due(from, now) {
            self.due(index, now);
            from = index + 1;
        }
    }

    /// A session's outbox, to write from.
    pub fn outbox(&mut self, session: SessionKey) -> Option<&mut Outbox> {
        self.sessions.get_mut(session).map(|found| &mut found.outbox)
    }

    /// A write took not everything that a session's outbox holds: until one does, only the newest publication of each
    /// channel with `Delivery::Latest` waits in it.
    pub fn blocked(&mut self, session: SessionKey) {
        self.sessions.fall_behind(session);
    }

    /// Moves the sessions whose outbox became non-empty since the last call into `into`, each once.
    pub fn take_dirty(&mut self, into: &mut Vec<SessionKey>) {
        self.sessions.take_dirty(into);
    }

    /// Moves what the shard asks for into `into`, in order.
    pub fn take_effects(&mut self, into: &mut Vec<Effect>) {
        into.append(&mut self.effects);
    }

    /// What was counted since the last call.
    pub fn take_tally(&mut self) -> Tally {
        Tally { conflated: self.sessions.take_conflated(), ..std::mem::take(&mut self.tally) }
    }

    /// Every session that has not ended, for a drain.
    pub fn sessions(&self) -> Vec<SessionKey> {
        self.sessions.iter().filter(|(_, session)| !session.is_ended()).map(|(key, _)| key).collect()
    }

    /// The sessions that have not ended counted by codec, in the order of `Codec::ALL`.
    pub fn session_counts(&self) -> [usize; 2] {
        self.counts
    }

    /// How many subscriptions the sessions hold together. One that waits for the relay does not count yet.
    pub fn subscription_count(&self) -> usize {
        self.channels.member_count()
    }

    /// Bytes waiting in all outboxes. Looks at every session.
    pub fn outbox_bytes(&self) -> usize {
        self.sessions.iter().map(|(_, session)| session.outbox.bytes()).sum()
    }

    /// The channels with a member here, each with how many.
    pub fn channels(&self) -> Vec<(ChannelName, usize)> {
        self.channels.counts().map(|(name, members)| (name.clone(), members)).collect()
    }

    /// Takes a session out of its channels and marks it ended; false if it has ended already or is not there.
    pub(crate) fn finish(&mut self, session: SessionKey, code: u16) -> bool {
        let Some(found) = self.sessions.get_mut(session) else { return false };
        let codec = found.codec;
        match std::mem::replace(&mut found.state, State::Ended) {
            State::Ended => return false,
            State::Opening | State::Connecting(_) => {}
            State::Connected(connected) => {
                self.happened_to(&connected, EventKind::Disconnect, |event| event.code = Some(code));
                for subscription in connected.subscriptions.iter() {
                    self.take(subscription, connected.client);
                }
            }
        }
        self.sessions.never_due(session.index);
        self.grants.ended(session.index);
        self.counts[ordinal(codec)] -= 1;
        true
    }

    /// Encodes a payload and sends it as a frame, counted as `kind`, to a session that has not ended.
    pub(crate) fn send(&mut self, index: u32, kind: usize, encode: impl FnOnce(Codec, &mut Vec<u8>)) {
        let Some(session) = self.sessions.at_mut(index).filter(|session| !session.is_ended()) else { return };
        let codec = session.codec;
        let mut payload = std::mem::take(&mut self.scratch);
        encode(codec, &mut payload);
        self.send_frame(index, kind, opcode(codec), &payload);
        self.reuse(payload);
    }

    /// Sends a frame, counted as `kind`; ends the session if its outbox cannot take it.
    pub(crate) fn send_frame(&mut self, index: u32, kind: usize, opcode: Opcode, payload: &[u8]) {
        match self.sessions.push_own(index, opcode, payload, self.policy.outbox_max_bytes) {
            Ok(()) => self.tally.sent[kind] += 1,
            Err(_) => self.overflow(index),
        }
    }

    /// Ends a session whose outbox has passed its bound.
    pub(crate) fn overflow(&mut self, index: u32) {
        self.tally.slow_consumers += 1;
        self.end(self.sessions.key(index), Disconnect::Slow);
    }

    /// Gives the scratch buffer back, unless one message made it large.
    pub(crate) fn reuse(&mut self, mut scratch: Vec<u8>) {
        if scratch.capacity() <= SCRATCH_BYTES {
            scratch.clear();
            self.scratch = scratch;
        }
    }
}

/// A codec's place in `Codec::ALL`.
pub(crate) const fn ordinal(codec: Codec) -> usize {
    match codec {
        Codec::Json => 0,
        Codec::Protobuf => 1,
    }
}
