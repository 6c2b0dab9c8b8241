//! A shard with a clock, a relay that says yes, and eyes for what a client would see.

use std::collections::HashMap;
use std::io::IoSlice;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;
use tidegate_hub::{
    Authenticator, Backends, Broadcast, Delivery, Effect, Identity, Namespace, Opening, Policy, Refusal,
    Right, SessionKey, Shard, Tick,
};
use tidegate_protocol::command::Connect;
use tidegate_protocol::{ChannelName, Codec, Disconnect, ErrorCode, EventKinds, Publication};

pub(crate) const CONNECT_TIMEOUT: u32 = 40;
pub(crate) const PING_INTERVAL: u32 = 100;
pub(crate) const PONG_TIMEOUT: u32 = 32;

/// A frame as a client receives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Frame {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(u16, String),
}

/// The token is the user's id; two tokens are refused.
pub(crate) struct ByToken;

impl Authenticator for ByToken {
    fn authenticate(&self, connect: &Connect<'_>) -> Result<Identity, Refusal> {
        match &*connect.token {
            "expired" => Err(Refusal::Error(ErrorCode::TokenExpired)),
            "forged" => Err(Refusal::Disconnect(Disconnect::InvalidToken)),
            user => Ok(Identity { user: user.to_owned() }),
        }
    }
}

pub(crate) fn policy() -> Policy {
    let namespace = |name: &str, subscribe, publish| {
        let delivery = if name == "price" { Delivery::Latest } else { Delivery::Every };
        (name.to_owned(), Namespace { delivery, ..Namespace::plain(subscribe, publish) })
    };
    Policy {
        namespaces: HashMap::from([
            namespace("default", Right::Anyone, Right::Anyone),
            namespace("users", Right::Authenticated, Right::Authenticated),
            namespace("talk", Right::Anyone, Right::Subscriber),
            namespace("token", Right::Token, Right::Token),
            namespace("price", Right::Anyone, Right::Anyone),
            namespace("closed", Right::Nobody, Right::Nobody),
            namespace("odd", Right::Subscriber, Right::Anyone),
        ]),
        any_namespace: None,
        backends: Backends::default(),
        max_subscriptions: 8,
        outbox_max_bytes: 64 * 1024,
        connect_timeout: CONNECT_TIMEOUT,
        ping_interval: PING_INTERVAL,
        pong_timeout: PONG_TIMEOUT,
        ping_seconds: 25,
        events: EventKinds::default(),
        version: "1.2.3".to_owned(),
    }
}

pub(crate) fn name(channel: &str) -> ChannelName {
    ChannelName::parse(channel).expect("a valid name")
}

pub(crate) fn publication(channel: &str, data: &str) -> Publication {
    Publication {
        channel: name(channel),
        data: Bytes::copy_from_slice(data.as_bytes()),
        info: None,
        tags: Vec::new(),
        offset: 0,
    }
}

pub(crate) struct Node {
    pub(crate) shard: Shard,
    pub(crate) now: Tick,
}

impl Node {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut Policy)) -> Self {
        let mut policy = policy();
        change(&mut policy);
        Self { shard: Shard::new(Arc::new(policy)), now: Tick(1000) }
    }

    pub(crate) fn open(&mut self, codec: Codec) -> SessionKey {
        self.shard.open(Opening { codec, native_ping: false }, self.now)
    }

    pub(crate) fn open_native(&mut self) -> SessionKey {
        self.shard.open(Opening { codec: Codec::Json, native_ping: true }, self.now)
    }

    /// Says something in JSON.
    pub(crate) fn say(&mut self, session: SessionKey, text: &str) {
        self.shard.message(session, true, text.as_bytes(), &ByToken, self.now);
    }

    /// Opens a JSON session and connects it as a user; what it was told is read already.
    pub(crate) fn connect(&mut self, user: &str) -> SessionKey {
        let session = self.open(Codec::Json);
        self.connect_as(session, user);
        session
    }

    /// Connects an open JSON session; gives back its client id.
    pub(crate) fn connect_as(&mut self, session: SessionKey, user: &str) -> String {
        self.say(session, &format!(r#"{{"id":1,"connect":{{"token":"{user}"}}}}"#));
        let replies = self.replies(session);
        assert_eq!(replies.len(), 1, "{replies:?}");
        replies[0]["connect"]["client"].as_str().expect("a client id").to_owned()
    }

    /// Subscribes a connected JSON session; the relay says yes, and what it was told is read already.
    pub(crate) fn subscribe(&mut self, session: SessionKey, channel: &str) {
        self.say(session, &format!(r#"{{"id":2,"subscribe":{{"channel":"{channel}"}}}}"#));
        for effect in self.effects() {
            assert_eq!(effect, Effect::Join(name(channel)));
            self.shard.joined(&name(channel), Ok(None));
        }
        assert_eq!(self.replies(session), [serde_json::json!({"id": 2, "subscribe": {}})]);
    }

    pub(crate) fn deliver(&mut self, channel: &str, data: &str) {
        self.shard.deliver(&[Arc::new(Broadcast::new(publication(channel, data)))]);
    }

    pub(crate) fn effects(&mut self) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.shard.take_effects(&mut effects);
        effects
    }

    pub(crate) fn dirty(&mut self) -> Vec<SessionKey> {
        let mut dirty = Vec::new();
        self.shard.take_dirty(&mut dirty);
        dirty
    }

    /// What the session's socket would get now; the outbox is empty afterwards.
    pub(crate) fn bytes(&mut self, session: SessionKey) -> Vec<u8> {
        let mut bytes = Vec::new();
        let Some(outbox) = self.shard.outbox(session) else { return bytes };
        while !outbox.is_empty() {
            let mut slices = [IoSlice::new(&[]); 4];
            let filled = outbox.slices(&mut slices);
            let written = slices[..filled].iter().map(|slice| slice.len()).sum();
            slices[..filled].iter().for_each(|slice| bytes.extend_from_slice(slice));
            outbox.advance(written);
        }
        bytes
    }

    /// Every frame that waits for the session's socket.
    pub(crate) fn frames(&mut self, session: SessionKey) -> Vec<Frame> {
        frames(&self.bytes(session))
    }

    /// Every JSON reply and push that waits for the session's socket, which must be all that waits.
    pub(crate) fn replies(&mut self, session: SessionKey) -> Vec<Value> {
        self.frames(session).iter().flat_map(lines).collect()
    }

    /// The reason the session was closed with, which must be the last frame it gets.
    pub(crate) fn close(&mut self, session: SessionKey) -> Option<(u16, String)> {
        match self.frames(session).pop() {
            Some(Frame::Close(code, reason)) => Some((code, reason)),
            _ => None,
        }
    }

    /// Lets time pass, a tick at a time.
    pub(crate) fn pass(&mut self, ticks: u32) {
        for _ in 0..ticks {
            self.now = self.now.after(1);
            self.shard.sweep(self.now);
        }
    }
}

/// The items of a JSON frame.
pub(crate) fn lines(frame: &Frame) -> Vec<Value> {
    let Frame::Text(text) = frame else { panic!("not a text frame: {frame:?}") };
    text.split('\n').map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// Reads a server's frames: whole, not masked, not fragmented.
pub(crate) fn frames(mut bytes: &[u8]) -> Vec<Frame> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let (opcode, length) = (bytes[0], usize::from(bytes[1]));
        let (header, length) = match length {
            126 => (4, usize::from(u16::from_be_bytes([bytes[2], bytes[3]]))),
            127 => {
                let length = u64::from_be_bytes(bytes[2..10].try_into().expect("eight bytes"));
                (10, usize::try_from(length).expect("a length"))
            }
            length => (2, length),
        };
        let payload = bytes[header..header + length].to_vec();
        bytes = &bytes[header + length..];
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        frames.push(match opcode {
            0x81 => Frame::Text(text(payload)),
            0x82 => Frame::Binary(payload),
            0x88 => Frame::Close(u16::from_be_bytes([payload[0], payload[1]]), text(payload[2..].to_vec())),
            0x89 => Frame::Ping(payload),
            0x8a => Frame::Pong(payload),
            other => panic!("unknown first byte {other:#x}"),
        });
    }
    frames
}
