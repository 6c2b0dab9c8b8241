//! Publishing by clients, and the commands that nothing answers yet.

use serde_json::{Value, json};
use tidegate_hub::{Effect, SessionKey};
use tidegate_protocol::{Codec, ErrorCode};

use crate::node::{Node, name};

fn publish(node: &mut Node, session: SessionKey, channel: &str, data: &str) {
    node.say(session, &format!(r#"{{"id":3,"publish":{{"channel":"{channel}","data":{data}}}}}"#));
}

/// The error code of the only reply that waits.
fn error(node: &mut Node, session: SessionKey) -> Value {
    let replies = node.replies(session);
    assert_eq!(replies.len(), 1, "{replies:?}");
    replies[0]["error"]["code"].clone()
}

#[test]
fn a_publication_goes_to_the_relay_with_who_published_it() {
    let mut node = Node::new();
    let session = node.open(Codec::Json);
    let client = node.connect_as(session, "42");
    publish(&mut node, session, "news", "{\"text\": \"hello\"}");
    let effects = node.effects();
    let [Effect::Publish { session: by, id, channel, data, info, skip_history: false }] = &effects[..] else {
        panic!("{effects:?}")
    };
    assert_eq!((*by, *id, channel), (session, 3, &name("news")));
    assert_eq!(&data[..], b"{\"text\": \"hello\"}");
    assert_eq!((info.user.as_str(), &info.client), ("42", &client));
}

#[test]
fn a_publish_is_answered_when_the_relay_acknowledged_it() {
    let mut node = Node::new();
    let session = node.connect("42");
    publish(&mut node, session, "news", "1");
    assert_eq!(node.frames(session), []);
    node.shard.published(session, 3, Ok(()));
    assert_eq!(node.replies(session), [json!({"id": 3, "publish": {}})]);
    node.shard.published(session, 4, Err(ErrorCode::Internal));
    assert_eq!(error(&mut node, session), 100);
}

#[test]
fn nobody_is_told_of_a_publication_before_the_relay_delivers_it() {
    let mut node = Node::new();
    let session = node.connect("42");
    node.subscribe(session, "news");
    publish(&mut node, session, "news", "1");
    node.shard.published(session, 3, Ok(()));
    assert_eq!(node.replies(session), [json!({"id": 3, "publish": {}})]);
}

#[test]
fn the_answer_to_a_session_that_is_gone_reaches_nobody() {
    let mut node = Node::new();
    let session = node.connect("42");
    publish(&mut node, session, "news", "1");
    node.shard.remove(session);
    let next = node.connect("7");
    assert_eq!(next.index, session.index);
    node.shard.published(session, 3, Ok(()));
    assert_eq!(node.frames(next), []);
}

#[test]
fn the_right_to_publish_is_asked() {
    let mut node = Node::new();
    let (nobody, somebody) = (node.connect(""), node.connect("42"));
    publish(&mut node, nobody, "users:1", "1");
    assert_eq!(error(&mut node, nobody), 103);
    for channel in ["talk:1", "token:1", "closed:1"] {
        publish(&mut node, somebody, channel, "1");
        assert_eq!(error(&mut node, somebody), 103, "{channel}");
    }
    assert_eq!(node.effects(), []);
    publish(&mut node, somebody, "users:1", "1");
    assert_eq!(node.effects().len(), 1);
}

#[test]
fn where_subscribers_may_publish_a_subscription_that_waits_is_not_enough() {
    let mut node = Node::new();
    let session = node.connect("");
    node.say(session, r#"{"id":2,"subscribe":{"channel":"talk:1"}}"#);
    node.effects();
    publish(&mut node, session, "talk:1", "1");
    assert_eq!(error(&mut node, session), 103);
    node.shard.joined(&name("talk:1"), Ok(None));
    node.frames(session);
    publish(&mut node, session, "talk:1", "1");
    assert_eq!(node.effects().len(), 1);
}

#[test]
fn names_and_payloads_are_checked() {
    let mut node = Node::new();
    let session = node.connect("42");
    publish(&mut node, session, "no good", "1");
    assert_eq!(error(&mut node, session), 107);
    publish(&mut node, session, "unheard:of", "1");
    assert_eq!(error(&mut node, session), 102);
    node.say(session, r#"{"id":3,"publish":{"channel":"news"}}"#);
    assert_eq!(error(&mut node, session), 107);
    assert_eq!(node.effects(), []);
}

#[test]
fn a_protobuf_payload_must_be_json_too() {
    let mut node = Node::new();
    let session = node.open(Codec::Protobuf);
    let tell = |node: &mut Node, bytes: &[u8]| {
        node.shard.message(session, false, bytes, &crate::node::ByToken, node.now);
    };
    tell(&mut node, &[4, 0x08, 1, 0x22, 0]);
    node.frames(session);
    // Command { id: 3, publish: { channel: "a", data: .. } }
    tell(&mut node, b"\x0b\x08\x03\x3a\x07\x0a\x01a\x12\x02{x");
    let mut refused = Vec::new();
    Codec::Protobuf.reply(3, &tidegate_protocol::Reply::Error(ErrorCode::BadRequest), &mut refused);
    assert_eq!(node.frames(session), [crate::node::Frame::Binary(refused)]);
    tell(&mut node, b"\x0b\x08\x03\x3a\x07\x0a\x01a\x12\x02{}");
    assert!(matches!(&node.effects()[..], [Effect::Publish { data, .. }] if data == "{}"));
}

#[test]
fn what_does_not_exist_yet_is_answered_as_not_available() {
    let mut node = Node::new();
    let session = node.connect("42");
    for command in [
        r#"{"id":2,"presence":{"channel":"news"}}"#,
        r#"{"id":2,"presence_stats":{"channel":"news"}}"#,
        r#"{"id":2,"history":{"channel":"news"}}"#,
        r#"{"id":2,"rpc":{"method":"x","data":{}}}"#,
        r#"{"id":2,"refresh":{"token":"x"}}"#,
        r#"{"id":2,"sub_refresh":{"channel":"news","token":"x"}}"#,
    ] {
        node.say(session, command);
        assert_eq!(error(&mut node, session), 108, "{command}");
    }
}

#[test]
fn a_sent_message_has_no_answer() {
    let mut node = Node::new();
    let session = node.connect("42");
    node.say(session, r#"{"send":{"data":{}}}"#);
    assert_eq!(node.frames(session), []);
    assert_eq!(node.effects(), []);
}
