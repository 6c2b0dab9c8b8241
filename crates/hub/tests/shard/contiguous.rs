//! However sessions subscribe, come back, leave and are lost, and whatever the relay does meanwhile: every client sees one
//! stream without a hole or a duplicate, or is told that it does not.

use std::collections::VecDeque;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::Value;
use tidegate_hub::{Broadcast, Effect, History, Namespace, Recovered, Right, SessionKey};
use tidegate_protocol::{ChannelName, Epoch, ErrorCode, Position, Publication};

use crate::node::{Node, name, publication};

const CHANNEL: &str = "back:1";
const CLIENTS: usize = 5;

#[derive(Debug, Clone)]
enum Step {
    /// A client subscribes, from where it stands or as a new one.
    Subscribe(usize, bool),
    Unsubscribe(usize),
    /// A client's connection is lost, and it connects again.
    Reconnect(usize),
    Publish,
    /// The relay takes what it was asked; or fails at it.
    Relay(bool),
    /// The shard takes something from its inbox.
    Inbox(usize),
    Lose,
    NewEpoch,
    Trim,
    /// A publication does not get into the inbox.
    Drop,
}

fn step() -> impl Strategy<Value = Step> {
    let client = 0..CLIENTS;
    prop_oneof![
        8 => (client.clone(), prop::bool::weighted(0.8)).prop_map(|(client, back)| Step::Subscribe(client, back)),
        2 => client.clone().prop_map(Step::Unsubscribe),
        3 => client.prop_map(Step::Reconnect),
        8 => Just(Step::Publish),
        12 => prop::bool::weighted(0.9).prop_map(Step::Relay),
        12 => (1..4_usize).prop_map(Step::Inbox),
        1 => Just(Step::Lose),
        1 => Just(Step::NewEpoch),
        1 => Just(Step::Trim),
        1 => Just(Step::Drop),
    ]
}

/// What the relay tells the shard, in order.
enum Told {
    Joined(Result<Option<Position>, ErrorCode>),
    Said(u64, u64),
    Recovered(SessionKey, u32, ChannelName, Result<Recovered, ErrorCode>),
    Lost,
    Missed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    Asked,
    Subscribed,
}

/// A client over all its connections.
struct Client {
    session: SessionKey,
    state: State,
    /// Epoch and offset of what it saw last.
    at: Option<(u64, u64)>,
}

struct World {
    node: Node,
    clients: Vec<Client>,
    /// What the relay was asked and has not looked at.
    asked: VecDeque<Effect>,
    inbox: VecDeque<Told>,
    /// Whether the relay hears the channel for the shard.
    hears: bool,
    epoch: u64,
    top: u64,
    /// Up to where the log is gone.
    trimmed: u64,
    next_id: u32,
    recovered: usize,
}

impl World {
    fn new() -> Self {
        let mut node = Node::with(|policy| {
            let plain = Namespace::plain(Right::Anyone, Right::Anyone);
            policy.namespaces.insert("back".to_owned(), Namespace { history: History::Recoverable, ..plain });
        });
        let client = |_| Client { session: node.connect(""), state: State::Idle, at: None };
        let clients = (0..CLIENTS).map(client).collect();
        let (asked, inbox) = (VecDeque::new(), VecDeque::new());
        Self {
            node,
            clients,
            asked,
            inbox,
            hears: false,
            epoch: 1,
            top: 0,
            trimmed: 0,
            next_id: 10,
            recovered: 0,
        }
    }

    fn position(&self) -> Position {
        Position { offset: self.top, epoch: Epoch::new(&self.epoch.to_string()) }
    }

    fn run(&mut self, step: &Step) {
        match step {
            Step::Subscribe(client, back) => self.subscribe(*client, *back),
            Step::Unsubscribe(client) => self.unsubscribe(*client),
            Step::Reconnect(client) => {
                let gone = self.clients[*client].session;
                self.node.shard.remove(gone);
                let session = self.node.connect("");
                let at = self.clients[*client].at;
                self.clients[*client] = Client { session, state: State::Idle, at };
            }
            Step::Publish => self.publish(true),
            Step::Relay(ok) => self.relay(*ok),
            Step::Inbox(count) => (0..*count).for_each(|_| self.take()),
            Step::Lose => self.lose(),
            Step::NewEpoch => {
                (self.epoch, self.top, self.trimmed) = (self.epoch + 1, 0, 0);
                self.lose();
            }
            Step::Trim => self.trimmed = self.top.saturating_sub(1),
            Step::Drop => self.publish(false),
        }
        self.asked.extend(self.node.effects());
        (0..CLIENTS).for_each(|client| self.read(client));
    }

    fn say(&mut self, client: usize, command: &str, fields: &str) {
        self.next_id += 1;
        let (id, session) = (self.next_id, self.clients[client].session);
        self.node.say(session, &format!(r#"{{"id":{id},"{command}":{{"channel":"{CHANNEL}"{fields}}}}}"#));
    }

    fn subscribe(&mut self, client: usize, back: bool) {
        if self.clients[client].state != State::Idle {
            return;
        }
        self.clients[client].state = State::Asked;
        match self.clients[client].at.filter(|_| back) {
            Some((epoch, offset)) => {
                let fields = format!(r#","recover":true,"epoch":"{epoch}","offset":{offset}"#);
                self.say(client, "subscribe", &fields);
            }
            None => {
                self.clients[client].at = None;
                self.say(client, "subscribe", "");
            }
        }
    }

    fn unsubscribe(&mut self, client: usize) {
        self.read(client);
        if self.clients[client].state != State::Idle {
            self.say(client, "unsubscribe", "");
        }
    }

    fn publish(&mut self, arrives: bool) {
        self.top += 1;
        if self.hears {
            self.inbox.push_back(if arrives { Told::Said(self.epoch, self.top) } else { Told::Missed });
        }
    }

    fn lose(&mut self) {
        if std::mem::take(&mut self.hears) {
            self.inbox.push_back(Told::Lost);
        }
    }

    fn relay(&mut self, ok: bool) {
        let position = self.position();
        match self.asked.pop_front() {
            Some(Effect::Join(_)) => {
                self.hears = ok;
                let result = if ok { Ok(Some(position)) } else { Err(ErrorCode::Internal) };
                self.inbox.push_back(Told::Joined(result));
            }
            Some(Effect::Leave(_)) => self.hears = false,
            Some(Effect::Recover { session, id, channel, since }) => {
                let had = since.epoch == position.epoch && (self.trimmed..=self.top).contains(&since.offset);
                let missed = || {
                    let all = since.offset + 1..=self.top;
                    all.map(|offset| Arc::new(numbered(self.epoch, offset))).collect()
                };
                let result = if ok && self.hears {
                    Ok(Recovered { position, publications: had.then(missed) })
                } else {
                    Err(ErrorCode::Internal)
                };
                self.inbox.push_back(Told::Recovered(session, id, channel, result));
            }
            Some(other) => panic!("{other:?}"),
            None => {}
        }
    }

    fn take(&mut self) {
        let channel = name(CHANNEL);
        match self.inbox.pop_front() {
            Some(Told::Joined(result)) => self.node.shard.joined(&channel, result),
            Some(Told::Said(epoch, offset)) => {
                self.node.shard.deliver(&[Arc::new(Broadcast::new(numbered(epoch, offset)))]);
            }
            Some(Told::Recovered(session, id, channel, result)) => {
                self.node.shard.recovered(session, id, &channel, result);
            }
            Some(Told::Lost) => self.node.shard.lost(&channel),
            Some(Told::Missed) => self.node.shard.missed(),
            None => {}
        }
        self.asked.extend(self.node.effects());
    }

    fn read(&mut self, client: usize) {
        let session = self.clients[client].session;
        for item in self.node.replies(session) {
            if let Some(publication) = item.pointer("/push/pub") {
                assert_eq!(self.clients[client].state, State::Subscribed, "no push before the reply: {item}");
                self.see(client, publication);
            } else if let Some(code) = item.pointer("/push/unsubscribe/code") {
                assert_eq!(code, 2500);
                self.clients[client].state = State::Idle;
            } else if let Some(result) = item.get("subscribe") {
                self.subscribed(client, result);
            } else if item.get("unsubscribe").is_some() {
                self.clients[client].state = State::Idle;
            } else {
                assert_eq!(item["error"]["temporary"], true, "{item}");
                self.clients[client].state = State::Idle;
            }
        }
    }

    fn subscribed(&mut self, client: usize, result: &Value) {
        assert_eq!(self.clients[client].state, State::Asked);
        self.clients[client].state = State::Subscribed;
        let number = |value: &Value| match value {
            Value::String(text) => text.parse().expect("a number"),
            other => other.as_u64().unwrap_or_default(),
        };
        let at = (number(&result["epoch"]), number(&result["offset"]));
        if result["recovered"] == true {
            assert_eq!(self.clients[client].at, Some(at), "it begins where it was asked to");
            self.recovered += 1;
        }
        self.clients[client].at = Some(at);
        for publication in result["publications"].as_array().into_iter().flatten() {
            self.see(client, publication);
        }
    }

    fn see(&mut self, client: usize, publication: &Value) {
        let (epoch, offset) = self.clients[client].at.expect("it has a position");
        assert_eq!(publication["offset"], offset + 1, "client {client} sees a hole or a duplicate");
        assert_eq!(publication["data"], format!("{epoch}-{}", offset + 1), "of its epoch");
        self.clients[client].at = Some((epoch, offset + 1));
    }

    /// Everything settles: nobody waits, and who is subscribed has everything.
    fn finish(mut self) -> usize {
        while !self.asked.is_empty() || !self.inbox.is_empty() {
            self.run(&Step::Relay(true));
            self.run(&Step::Inbox(1));
        }
        let mut subscribed = 0;
        for client in &self.clients {
            assert_ne!(client.state, State::Asked, "nobody waits for ever");
            if client.state == State::Subscribed {
                assert_eq!(client.at, Some((self.epoch, self.top)), "nothing is withheld");
                subscribed += 1;
            }
        }
        assert_eq!(self.node.shard.subscription_count(), subscribed);
        assert_eq!(self.hears, subscribed > 0);
        self.recovered
    }
}

fn numbered(epoch: u64, offset: u64) -> Publication {
    Publication { offset, ..publication(CHANNEL, &format!("\"{epoch}-{offset}\"")) }
}

proptest! {
    #[test]
    fn every_client_sees_a_contiguous_stream_or_is_told(steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::new();
        for step in &steps {
            world.run(step);
        }
        world.finish();
    }
}

/// The model above is worth nothing if nobody ever recovers in it.
#[test]
fn clients_of_the_model_do_recover() {
    let mut world = World::new();
    for step in [
        Step::Subscribe(0, false),
        Step::Relay(true),
        Step::Inbox(1),
        Step::Publish,
        Step::Inbox(1),
        Step::Subscribe(1, false),
        Step::Reconnect(0),
        Step::Publish,
        Step::Publish,
        Step::Subscribe(0, true),
        Step::Relay(true),
        Step::Publish,
        Step::Inbox(9),
    ] {
        world.run(&step);
    }
    assert_eq!(world.clients[0].at, Some((1, 4)));
    assert_eq!(world.finish(), 1);
}
