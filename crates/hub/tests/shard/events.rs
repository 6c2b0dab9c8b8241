//! What clients did is told where the policy asks for it, and nowhere else.

use serde_json::json;
use tidegate_hub::Effect;
use tidegate_protocol::control::{DisconnectControl, SubscriptionControl};
use tidegate_protocol::{Control, Event, EventKind};

use crate::node::{Node, name};

/// A node whose policy asks for these kinds.
fn telling(kinds: &[EventKind]) -> Node {
    Node::with(|policy| {
        policy.events = kinds.iter().copied().collect();
        policy.namespaces.get_mut("talk").expect("a namespace").events_data = true;
    })
}

/// What the shard tells since it was last asked. Joins are answered as the relay would.
fn told(node: &mut Node) -> Vec<Event> {
    let mut told = Vec::new();
    loop {
        let effects = node.effects();
        if effects.is_empty() {
            return told;
        }
        for effect in effects {
            match effect {
                Effect::Happened(event) => told.push(*event),
                Effect::Join(channel) => node.shard.joined(&channel, Ok(None)),
                _ => {}
            }
        }
    }
}

/// Kind, channel, code, method and data of each event, in words.
fn words(events: &[Event]) -> Vec<String> {
    let word = |event: &Event| {
        let mut words = vec![event.kind.label().to_owned()];
        words.extend(event.channel.as_ref().map(ToString::to_string));
        words.extend(event.code.map(|code| code.to_string()));
        words.extend(Some(event.method.clone()).filter(|method| !method.is_empty()));
        words.extend(event.data.as_ref().map(|data| String::from_utf8_lossy(data).into_owned()));
        words.join(" ")
    };
    events.iter().map(word).collect()
}

#[test]
fn everything_a_client_does_is_told_in_order_with_whose_it_is() {
    let mut node = telling(&EventKind::ALL);
    let session = node.open(tidegate_protocol::Codec::Json);
    let client = node.connect_as(session, "42");
    for command in [
        json!({"id": 2, "subscribe": {"channel": "talk:1"}}),
        json!({"id": 3, "publish": {"channel": "talk:1", "data": [1]}}),
        json!({"id": 4, "publish": {"channel": "news", "data": [2]}}),
        json!({"send": {"data": {"typing": true}}}),
        json!({"id": 5, "rpc": {"method": "sum", "data": [1, 2]}}),
        json!({"id": 6, "unsubscribe": {"channel": "talk:1"}}),
    ] {
        node.say(session, &command.to_string());
        let told = told(&mut node);
        assert!(told.iter().all(|event| (event.client.as_str(), event.user.as_str()) == (&*client, "42")));
        let expected: &[&str] = match &command {
            command if command["subscribe"].is_object() => &["connect", "subscribe talk:1"],
            command if command["id"] == 3 => &["publish talk:1 [1]"],
            command if command["id"] == 4 => &["publish news"],
            command if command["send"].is_object() => &[r#"send {"typing":true}"#],
            command if command["rpc"].is_object() => &["rpc sum"],
            _ => &["unsubscribe talk:1"],
        };
        assert_eq!(words(&told), expected, "{command}");
    }
    let control = DisconnectControl { user: "42".to_owned(), ..DisconnectControl::default() };
    node.shard.control(&Control::Disconnect(control));
    assert_eq!(words(&told(&mut node)), ["disconnect 3503"]);
    node.shard.remove(session);
    assert_eq!(told(&mut node), [], "once");
}

#[test]
fn what_is_not_asked_for_is_not_told() {
    for kinds in [&[][..], &[EventKind::Unsubscribe]] {
        let mut node = telling(kinds);
        let session = node.connect("42");
        node.say(session, r#"{"id":2,"subscribe":{"channel":"news"}}"#);
        node.say(session, r#"{"id":3,"publish":{"channel":"news","data":1}}"#);
        node.say(session, r#"{"send":{"data":1}}"#);
        node.say(session, r#"{"id":4,"rpc":{"data":1}}"#);
        assert_eq!(told(&mut node), [], "{kinds:?}");
        node.shard.closed_by_peer(session, None);
        assert_eq!(told(&mut node), [], "{kinds:?}");
    }
}

#[test]
fn a_subscription_is_told_when_it_stands_and_when_it_does_not_any_more() {
    let mut node = telling(&[EventKind::Subscribe, EventKind::Unsubscribe]);
    let session = node.connect("42");
    node.say(session, r#"{"id":2,"subscribe":{"channel":"news"}}"#);
    assert_eq!(node.effects(), [Effect::Join(name("news"))], "it waits for the relay");
    node.shard.joined(&name("news"), Ok(None));
    assert_eq!(words(&told(&mut node)), ["subscribe news"]);
    node.shard.lost(&name("news"));
    assert_eq!(words(&told(&mut node)), ["unsubscribe news 2500"]);
    let selection = || SubscriptionControl {
        user: "42".into(),
        channel: "news".into(),
        ..SubscriptionControl::default()
    };
    let mut node = telling(&[EventKind::Subscribe, EventKind::Unsubscribe]);
    let session = node.connect("42");
    node.say(session, r#"{"id":2,"subscribe":{"channel":"news"}}"#);
    assert_eq!(words(&told(&mut node)), ["subscribe news"]);
    node.shard.control(&Control::Unsubscribe(selection()));
    assert_eq!(words(&told(&mut node)), ["unsubscribe news 2000"]);
    node.shard.control(&Control::Unsubscribe(selection()));
    assert_eq!(told(&mut node), [], "there is none any more");
    node.shard.control(&Control::Subscribe(selection()));
    assert_eq!(words(&told(&mut node)), ["subscribe news"]);
}

#[test]
fn a_disconnect_tells_its_code_and_ends_subscriptions_without_a_word_of_its_own() {
    let mut node = telling(&EventKind::ALL);
    for (end, code) in [("closed", "3000"), ("lost", "1006")] {
        let session = node.connect("42");
        node.say(session, r#"{"id":2,"subscribe":{"channel":"news"}}"#);
        told(&mut node);
        match end {
            "closed" => node.shard.closed_by_peer(session, None),
            _ => node.shard.end(session, tidegate_protocol::Disconnect::Lost),
        }
        assert_eq!(words(&told(&mut node)), [format!("disconnect {code}")]);
        node.shard.remove(session);
    }
    let opening = node.open(tidegate_protocol::Codec::Json);
    node.shard.end(opening, tidegate_protocol::Disconnect::Lost);
    assert_eq!(told(&mut node), [], "who has not connected does not disconnect");
}
