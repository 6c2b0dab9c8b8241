//! Whatever happens in whatever order, the shard keeps its books, and no client sees what it should not.

use std::collections::{HashMap, HashSet};
use std::io::IoSlice;

use proptest::prelude::*;
use serde_json::Value;
use tidegate_hub::{Effect, Opening, SessionKey};
use tidegate_protocol::control::{DisconnectControl, SubscriptionControl};
use tidegate_protocol::{Codec, Control, Disconnect, ErrorCode};

use crate::node::{Frame, Node, frames, lines, name};

const CHANNELS: [&str; 3] = ["a", "b", "talk:c"];
const USERS: [&str; 3] = ["", "42", "7"];
const OUTBOX_MAX: usize = 700;

#[derive(Debug, Clone)]
enum Ask {
    Connect(usize),
    Subscribe(usize),
    Unsubscribe(usize),
    Publish(usize),
    Ping,
    Pong,
    Nonsense,
}

#[derive(Debug, Clone)]
enum Step {
    Open { native_ping: bool, protobuf: bool, user: usize },
    Say(usize, Vec<Ask>),
    NativePing(usize),
    NativePong(usize),
    Joined(usize, bool),
    Lost(usize),
    Published(usize, bool),
    Deliver(usize),
    Disconnect(usize),
    Unsubscribe(usize, usize),
    Subscribe(usize, usize),
    End(usize, Disconnect),
    Remove(usize),
    Read(usize, usize),
    Pass(u32),
}

fn ask() -> impl Strategy<Value = Ask> {
    let channel = 0..CHANNELS.len();
    prop_oneof![
        1 => (0..USERS.len()).prop_map(Ask::Connect),
        8 => channel.clone().prop_map(Ask::Subscribe),
        5 => channel.clone().prop_map(Ask::Unsubscribe),
        2 => channel.prop_map(Ask::Publish),
        1 => Just(Ask::Ping),
        2 => Just(Ask::Pong),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let (channel, user) = (0..CHANNELS.len(), 0..USERS.len());
    let session = 0..8_usize;
    let asks = prop::collection::vec(prop_oneof![60 => ask(), 1 => Just(Ask::Nonsense)], 1..4);
    prop_oneof![
        4 => (any::<bool>(), prop::bool::weighted(0.2), user.clone())
            .prop_map(|(native_ping, protobuf, user)| Step::Open { native_ping, protobuf, user }),
        12 => (session.clone(), asks).prop_map(|(session, asks)| Step::Say(session, asks)),
        1 => session.clone().prop_map(Step::NativePing),
        1 => session.clone().prop_map(Step::NativePong),
        6 => (channel.clone(), prop::bool::weighted(0.8)).prop_map(|(channel, ok)| Step::Joined(channel, ok)),
        1 => channel.clone().prop_map(Step::Lost),
        1 => (session.clone(), any::<bool>()).prop_map(|(session, ok)| Step::Published(session, ok)),
        6 => channel.clone().prop_map(Step::Deliver),
        1 => user.clone().prop_map(Step::Disconnect),
        2 => (user.clone(), channel.clone()).prop_map(|(user, channel)| Step::Unsubscribe(user, channel)),
        2 => (user, channel).prop_map(|(user, channel)| Step::Subscribe(user, channel)),
        1 => (session.clone(), prop::sample::select(Disconnect::ALL.to_vec()))
            .prop_map(|(session, reason)| Step::End(session, reason)),
        2 => session.clone().prop_map(Step::Remove),
        5 => (session, 1..300_usize).prop_map(|(session, bytes)| Step::Read(session, bytes)),
        2 => (1..20_u32).prop_map(Step::Pass),
    ]
}

/// What the relay was asked for a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Interest {
    Idle,
    Joining,
    Hearing,
}

/// A client: what it read, and which command its ids belong to.
struct Client {
    codec: Codec,
    read: Vec<u8>,
    asked: HashMap<u64, Ask>,
    ended: Option<Disconnect>,
}

struct World {
    node: Node,
    clients: HashMap<SessionKey, Client>,
    present: Vec<SessionKey>,
    gone: HashSet<SessionKey>,
    interest: HashMap<&'static str, Interest>,
    next_id: u32,
}

impl World {
    fn new() -> Self {
        let node = Node::with(|policy| {
            policy.outbox_max_bytes = OUTBOX_MAX;
            policy.max_subscriptions = 2;
        });
        let interest = CHANNELS.iter().map(|channel| (*channel, Interest::Idle)).collect();
        let (clients, present, gone) = (HashMap::new(), Vec::new(), HashSet::new());
        Self { node, clients, present, gone, interest, next_id: 1 }
    }

    /// A session that was opened and not removed, or a key of one that was.
    fn pick(&self, number: usize) -> Option<SessionKey> {
        if number == 7 {
            return self.gone.iter().min_by_key(|key| (key.index, key.generation)).copied();
        }
        self.present.get(number % self.present.len().max(1)).copied()
    }

    fn run(&mut self, step: &Step) {
        match step {
            Step::Open { native_ping, protobuf, user } => {
                let codec = if *protobuf { Codec::Protobuf } else { Codec::Json };
                let opening = Opening { codec, native_ping: *native_ping };
                let session = self.node.shard.open(opening, self.node.now);
                let client = Client { codec, read: Vec::new(), asked: HashMap::new(), ended: None };
                assert!(self.clients.insert(session, client).is_none(), "a key is never used twice");
                self.present.push(session);
                self.say(session, &[Ask::Connect(*user)]);
            }
            Step::Say(session, asks) => {
                if let Some(session) = self.pick(*session) {
                    self.say(session, asks);
                }
            }
            Step::NativePing(session) => {
                if let Some(session) = self.pick(*session) {
                    self.node.shard.native_ping(session, b"ping");
                }
            }
            Step::NativePong(session) => {
                if let Some(session) = self.pick(*session) {
                    self.node.shard.native_pong(session, self.node.now);
                }
            }
            Step::Joined(channel, ok) => self.answer(CHANNELS[*channel], *ok),
            Step::Lost(channel) => {
                // It may come late, when the channel was left or is being joined again: then it must change nothing.
                let interest = self.interest.get_mut(CHANNELS[*channel]).expect("a channel");
                if *interest == Interest::Hearing {
                    *interest = Interest::Idle;
                }
                self.node.shard.lost(&name(CHANNELS[*channel]));
            }
            Step::Published(session, ok) => {
                if let Some(session) = self.pick(*session) {
                    let result = if *ok { Ok(()) } else { Err(ErrorCode::Internal) };
                    self.node.shard.published(session, 1_000_000, result);
                }
            }
            Step::Deliver(channel) => {
                // The relay delivers what it hears, and perhaps a little more.
                self.node.deliver(CHANNELS[*channel], "\"publication\"");
            }
            Step::Disconnect(user) => {
                let user = USERS[*user].to_owned();
                let control = DisconnectControl { user, client: String::new(), reconnect: false };
                self.node.shard.control(&Control::Disconnect(control));
            }
            Step::Unsubscribe(user, channel) => {
                self.node.shard.control(&Control::Unsubscribe(selection(*user, *channel)));
            }
            Step::Subscribe(user, channel) => {
                self.node.shard.control(&Control::Subscribe(selection(*user, *channel)));
            }
            Step::End(session, reason) => {
                if let Some(session) = self.pick(*session) {
                    self.node.shard.end(session, *reason);
                }
            }
            Step::Remove(session) => {
                if let Some(session) = self.pick(*session) {
                    self.remove(session);
                }
            }
            Step::Read(session, bytes) => {
                if let Some(session) = self.pick(*session) {
                    self.read(session, *bytes);
                }
            }
            Step::Pass(ticks) => self.node.pass(*ticks),
        }
        self.effects();
        self.balance();
    }

    fn say(&mut self, session: SessionKey, asks: &[Ask]) {
        let codec = self.clients[&session].codec;
        let mut message = Vec::new();
        for ask in asks {
            self.next_id += 1;
            let id = self.next_id;
            if let Some(client) = self.clients.get_mut(&session) {
                client.asked.insert(id.into(), ask.clone());
            }
            match codec {
                Codec::Json => {
                    if !message.is_empty() {
                        message.push(b'\n');
                    }
                    message.extend_from_slice(json(id, ask).as_bytes());
                }
                Codec::Protobuf => message.extend(protobuf(id, ask)),
            }
        }
        let is_text = codec == Codec::Json;
        self.node.shard.message(session, is_text, &message, &crate::node::ByToken, self.node.now);
    }

    fn answer(&mut self, channel: &'static str, ok: bool) {
        let result = if ok { Ok(None) } else { Err(ErrorCode::Internal) };
        let interest = self.interest.get_mut(channel).expect("a channel");
        // An answer that nobody awaits is given too: it must change nothing.
        if *interest == Interest::Joining {
            *interest = if ok { Interest::Hearing } else { Interest::Idle };
        }
        self.node.shard.joined(&name(channel), result);
    }

    fn remove(&mut self, session: SessionKey) {
        self.node.shard.remove(session);
        self.present.retain(|present| *present != session);
        self.gone.insert(session);
    }

    fn read(&mut self, session: SessionKey, mut bytes: usize) {
        let (Some(outbox), Some(client)) = (self.node.shard.outbox(session), self.clients.get_mut(&session))
        else {
            return;
        };
        while bytes > 0 && !outbox.is_empty() {
            let mut slices = [IoSlice::new(&[])];
            outbox.slices(&mut slices);
            let taken = slices[0].len().min(bytes);
            client.read.extend_from_slice(&slices[0][..taken]);
            outbox.advance(taken);
            bytes -= taken;
        }
    }

    /// Takes the shard's effects as the gateway would, and checks that each makes sense now.
    fn effects(&mut self) {
        for effect in self.node.effects() {
            match effect {
                Effect::Join(channel) => {
                    let interest = self.interest.get_mut(channel.as_str()).expect("a channel");
                    assert_eq!(*interest, Interest::Idle, "{channel} is joined once");
                    *interest = Interest::Joining;
                }
                Effect::Leave(channel) => {
                    let interest = self.interest.get_mut(channel.as_str()).expect("a channel");
                    assert_eq!(*interest, Interest::Hearing, "{channel} is left only when it is heard");
                    *interest = Interest::Idle;
                }
                Effect::Publish { session, .. } => {
                    assert!(!self.gone.contains(&session), "a session that is gone does not publish");
                    assert!(self.clients.contains_key(&session));
                }
                Effect::Recover { .. } | Effect::Ask { .. } | Effect::Enter { .. } | Effect::Exit { .. } => {
                    panic!("nothing is kept of these channels")
                }
                Effect::Consult { .. } => unreachable!("no backend decides anything here"),
                Effect::Happened(event) => panic!("nobody asked for {event:?}"),
                Effect::Ended { session, reason } => {
                    assert!(!self.gone.contains(&session), "a session that is gone does not end");
                    let client = self.clients.get_mut(&session).expect("a session");
                    assert_eq!(client.ended.replace(reason), None, "a session ends once");
                }
            }
        }
    }

    fn balance(&mut self) {
        let shard = &mut self.node.shard;
        let channels = shard.channels();
        assert_eq!(shard.subscription_count(), channels.iter().map(|(_, members)| members).sum::<usize>());
        for (channel, members) in channels {
            assert!(members > 0);
            assert_eq!(self.interest[channel.as_str()], Interest::Hearing, "{channel} has members");
        }
        let alive: Vec<_> =
            self.present.iter().filter(|session| self.clients[*session].ended.is_none()).copied().collect();
        let mut sessions = shard.sessions();
        sessions.sort_unstable_by_key(|session| (session.index, session.generation));
        let mut expected = alive;
        expected.sort_unstable_by_key(|session| (session.index, session.generation));
        assert_eq!(sessions, expected);
        assert_eq!(shard.session_counts().iter().sum::<usize>(), sessions.len());
        let mut bytes = 0;
        for session in &self.present {
            let outbox = shard.outbox(*session).expect("an outbox");
            assert!(outbox.bytes() <= OUTBOX_MAX + 127, "the bound and a Close frame");
            bytes += outbox.bytes();
        }
        assert_eq!(shard.outbox_bytes(), bytes);
    }

    fn finish(mut self) {
        for session in self.present.clone() {
            self.read(session, usize::MAX);
        }
        for (session, client) in &self.clients {
            client.check(self.gone.contains(session));
        }
        for session in self.present.clone() {
            self.remove(session);
        }
        self.effects();
        for channel in CHANNELS {
            self.answer(channel, true);
        }
        self.effects();
        self.balance();
        assert!(self.interest.values().all(|interest| *interest == Interest::Idle), "{:?}", self.interest);
        assert_eq!(self.node.shard.channels(), []);
        assert_eq!(self.node.shard.outbox_bytes(), 0);
        assert_eq!(self.node.shard.session_counts(), [0, 0]);
        assert_eq!(self.node.dirty(), []);
    }
}

impl Client {
    /// What the client read makes sense to it. Of a connection that was cut, only whole frames count.
    fn check(&self, cut: bool) {
        let whole = whole(&self.read);
        assert!(cut || self.ended == Some(Disconnect::Lost) || whole == self.read.len(), "whole frames");
        let mut subscribed = HashSet::new();
        let frames = frames(&self.read[..whole]);
        for (number, frame) in frames.iter().enumerate() {
            match frame {
                Frame::Text(_) => {
                    assert_eq!(self.codec, Codec::Json);
                    lines(frame).iter().for_each(|item| self.hear(item, &mut subscribed));
                }
                Frame::Binary(_) => assert_eq!(self.codec, Codec::Protobuf),
                Frame::Close(code, _) => {
                    assert_eq!(number, frames.len() - 1, "nothing comes behind a Close frame");
                    assert_eq!(Some(*code), self.ended.map(Disconnect::code));
                }
                Frame::Ping(_) | Frame::Pong(_) => {}
            }
        }
    }

    fn hear(&self, item: &Value, subscribed: &mut HashSet<String>) {
        if let Some(push) = item.get("push") {
            let channel = push["channel"].as_str().expect("a channel").to_owned();
            if push.get("pub").is_some() {
                assert!(subscribed.contains(&channel), "a publication in {channel} without a subscription");
            } else if push.get("subscribe").is_some() {
                assert!(subscribed.insert(channel), "subscribed twice");
            } else if push.get("unsubscribe").is_some() {
                subscribed.remove(&channel);
            } else {
                panic!("{push}");
            }
        } else if let Some(id) = item["id"].as_u64().filter(|id| *id != 1_000_000) {
            match &self.asked[&id] {
                Ask::Subscribe(channel) if item.get("error").is_none() => {
                    assert!(subscribed.insert(CHANNELS[*channel].to_owned()), "subscribed twice");
                }
                Ask::Unsubscribe(channel) => {
                    assert_eq!(item.get("error"), None);
                    subscribed.remove(CHANNELS[*channel]);
                }
                _ => {}
            }
        }
    }
}

fn selection(user: usize, channel: usize) -> SubscriptionControl {
    SubscriptionControl {
        user: USERS[user].to_owned(),
        client: String::new(),
        channel: CHANNELS[channel].to_owned(),
    }
}

fn json(id: u32, ask: &Ask) -> String {
    match ask {
        Ask::Connect(user) => format!(r#"{{"id":{id},"connect":{{"token":"{}"}}}}"#, USERS[*user]),
        Ask::Subscribe(channel) => {
            format!(r#"{{"id":{id},"subscribe":{{"channel":"{}"}}}}"#, CHANNELS[*channel])
        }
        Ask::Unsubscribe(channel) => {
            format!(r#"{{"id":{id},"unsubscribe":{{"channel":"{}"}}}}"#, CHANNELS[*channel])
        }
        Ask::Publish(channel) => {
            format!(r#"{{"id":{id},"publish":{{"channel":"{}","data":1}}}}"#, CHANNELS[*channel])
        }
        Ask::Ping => format!(r#"{{"id":{id},"ping":{{}}}}"#),
        Ask::Pong => "{}".to_owned(),
        Ask::Nonsense => "nonsense".to_owned(),
    }
}

fn protobuf(id: u32, ask: &Ask) -> Vec<u8> {
    let text = |tag: u8, text: &str| {
        let mut field = vec![tag << 3 | 2, u8::try_from(text.len()).expect("short")];
        field.extend_from_slice(text.as_bytes());
        field
    };
    let (tag, request) = match ask {
        Ask::Connect(user) => (4, text(1, USERS[*user])),
        Ask::Subscribe(channel) => (5, text(1, CHANNELS[*channel])),
        Ask::Unsubscribe(channel) => (6, text(1, CHANNELS[*channel])),
        Ask::Publish(channel) => (7, [text(1, CHANNELS[*channel]), text(2, "1")].concat()),
        Ask::Ping => (11, Vec::new()),
        Ask::Pong => return vec![0],
        Ask::Nonsense => return vec![2, 0xff, 0xff],
    };
    // Ids beyond 127 take two bytes.
    let id =
        [0x08, u8::try_from(id & 0x7f).expect("seven bits") | 0x80, u8::try_from(id >> 7).expect("small")];
    let mut command = id.to_vec();
    command.extend([tag << 3 | 2, u8::try_from(request.len()).expect("short")]);
    command.extend(request);
    command.insert(0, u8::try_from(command.len()).expect("short"));
    command
}

/// How many bytes of a server's stream are whole frames; no frame here is longer than 65,535 bytes.
fn whole(stream: &[u8]) -> usize {
    let mut at = 0;
    while let Some(rest) =
        stream.get(at..).filter(|rest| rest.len() >= 4 || (rest.len() >= 2 && rest[1] < 126))
    {
        let size = match rest[1] {
            126 => 4 + usize::from(u16::from_be_bytes([rest[2], rest[3]])),
            length => 2 + usize::from(length),
        };
        if size > rest.len() {
            break;
        }
        at += size;
    }
    at
}

proptest! {
    #[test]
    fn any_course_of_events_keeps_the_books_and_no_client_hears_what_it_has_not_subscribed(
        steps in prop::collection::vec(step(), 1..120)
    ) {
        let mut world = World::new();
        for step in &steps {
            world.run(step);
        }
        world.finish();
    }
}
