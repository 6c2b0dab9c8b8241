//! A shard with sessions, and what a gateway does around it: joins are answered, outboxes are written out.
//!
//! It writes to no socket: what is counted is what the hub does, not the kernel. Not here: what is counted.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::hint::black_box;
use std::io::IoSlice;
use std::sync::Arc;

use bytes::Bytes;
use tidegate_hub::{
    Authenticator, Backends, Broadcast, Delivery, Effect, Identity, Namespace, Opening, Policy, Refusal,
    Right, SessionKey, Shard, Tick,
};
use tidegate_protocol::command::Connect;
use tidegate_protocol::{ChannelName, Codec, EventKinds, Publication};

/// Ticks between pings.
pub(crate) const PING_INTERVAL: u32 = 100;

/// As many slices as the gateway's transport lends to one write.
const MAX_SLICES: usize = 64;

/// A shard and its sessions.
pub(crate) struct Crowd {
    pub(crate) shard: Shard,
    pub(crate) sessions: Vec<SessionKey>,
    effects: Vec<Effect>,
    dirty: Vec<SessionKey>,
}

/// Takes the token for the user's name.
pub(crate) struct ByToken;

impl Authenticator for ByToken {
    fn authenticate(&self, connect: &Connect<'_>) -> Result<Identity, Refusal> {
        Ok(Identity { user: connect.token.clone().into_owned() })
    }
}

impl Crowd {
    pub(crate) fn new(delivery: Delivery) -> Self {
        let everything = Namespace { delivery, ..Namespace::plain(Right::Anyone, Right::Anyone) };
        let policy = Policy {
            namespaces: HashMap::new(),
            any_namespace: Some(everything),
            backends: Backends::default(),
            max_subscriptions: 128,
            outbox_max_bytes: 1024 * 1024,
            connect_timeout: 40,
            ping_interval: PING_INTERVAL,
            pong_timeout: 32,
            ping_seconds: 25,
            events: EventKinds::default(),
            version: "1.2.3".to_owned(),
        };
        Self {
            shard: Shard::new(Arc::new(policy)),
            sessions: Vec::new(),
            effects: Vec::new(),
            dirty: Vec::new(),
        }
    }

    /// So many sessions with a user and a subscription each, in JSON, with nothing left to write.
    pub(crate) fn of(count: usize, channel: impl Fn(usize) -> String) -> Self {
        Self::with(Delivery::Every, count, channel)
    }

    /// The same, in a namespace that delivers so.
    pub(crate) fn with(delivery: Delivery, count: usize, channel: impl Fn(usize) -> String) -> Self {
        let mut crowd = Self::new(delivery);
        crowd.sessions.reserve_exact(count);
        for number in 0..count {
            let hello = hello(number, &channel(number));
            let session = crowd.enter(&hello);
            crowd.sessions.push(session);
        }
        crowd
    }

    /// A session opens, connects and subscribes by one message, and is told so.
    pub(crate) fn enter(&mut self, hello: &str) -> SessionKey {
        let session = self.shard.open(Opening { codec: Codec::Json, native_ping: false }, Tick(0));
        self.shard.message(session, true, hello.as_bytes(), &ByToken, Tick(0));
        self.settle();
        session
    }

    /// Answers what the shard asks and writes out what waits; as a turn of a worker does. Says how many outboxes had
    /// something.
    pub(crate) fn settle(&mut self) -> usize {
        let mut written = 0;
        loop {
            self.shard.take_effects(&mut self.effects);
            for effect in self.effects.drain(..) {
                match effect {
                    Effect::Join(channel) => self.shard.joined(&channel, Ok(None)),
                    Effect::Publish { session, id, .. } => self.shard.published(session, id, Ok(())),
                    Effect::Leave(_)
                    | Effect::Happened(_)
                    | Effect::Ended { .. }
                    | Effect::Recover { .. }
                    | Effect::Ask { .. }
                    | Effect::Consult { .. }
                    | Effect::Enter { .. }
                    | Effect::Exit { .. } => {}
                }
            }
            self.shard.take_dirty(&mut self.dirty);
            if self.dirty.is_empty() {
                return written;
            }
            written += self.dirty.len();
            for session in self.dirty.drain(..) {
                let Some(outbox) = self.shard.outbox(session) else { continue };
                while !outbox.is_empty() {
                    let mut slices = [IoSlice::new(&[]); MAX_SLICES];
                    let filled = outbox.slices(&mut slices);
                    let size = slices[..filled].iter().map(|slice| slice.len()).sum();
                    outbox.advance(black_box(size));
                }
            }
        }
    }

    /// Every socket takes a byte of what waits, and no more.
    pub(crate) fn block(&mut self) {
        for session in &self.sessions {
            if let Some(outbox) = self.shard.outbox(*session) {
                outbox.advance(1);
            }
            self.shard.blocked(*session);
        }
    }

    /// Publications of one channel reach every member's outbox. Says how many deliveries that made.
    pub(crate) fn deliver(&mut self, run: &[Arc<Broadcast>]) -> usize {
        self.shard.deliver(run) * run.len()
    }
}

/// The message by which a client connects and subscribes.
pub(crate) fn hello(number: usize, channel: &str) -> String {
    let mut text = String::new();
    // Writing to a text cannot fail.
    let _ = write!(
        text,
        "{{\"id\":1,\"connect\":{{\"token\":\"user-{number:08}\",\"name\":\"js\"}}}}\n\
         {{\"id\":2,\"subscribe\":{{\"channel\":\"{channel}\",\"flag\":1}}}}"
    );
    text
}

/// A publication as the relay hands it to the workers.
pub(crate) fn broadcast(channel: &ChannelName, data: &Bytes) -> Arc<Broadcast> {
    let (channel, data) = (channel.clone(), data.clone());
    Arc::new(Broadcast::new(Publication { channel, data, info: None, tags: Vec::new(), offset: 0 }))
}

/// 128 bytes of JSON.
pub(crate) fn data() -> Bytes {
    let mut text = String::from("{\"text\":\"");
    while text.len() < 126 {
        text.push('x');
    }
    text.push_str("\"}");
    Bytes::from(text)
}
