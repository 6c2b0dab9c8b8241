//! Opening a session.

use serde_json::json;
use tidegate_hub::Effect;
use tidegate_protocol::codes::Disconnect;
use tidegate_protocol::reply::ConnectResult;
use tidegate_protocol::{Codec, Reply};

use crate::node::{ByToken, CONNECT_TIMEOUT, Frame, Node, frames};

#[test]
fn a_connect_is_answered_with_what_the_client_needs() {
    let mut node = Node::new();
    let session = node.open(Codec::Json);
    node.say(session, r#"{"id":7,"connect":{"token":"42","name":"js"}}"#);
    let replies = node.replies(session);
    let client = replies[0]["connect"]["client"].clone();
    assert_eq!(
        replies,
        [json!({"id": 7, "connect": {"client": client, "version": "1.2.3", "ping": 25, "pong": true}})]
    );
    let client = client.as_str().expect("text");
    assert_eq!(client.len(), 36);
    assert_eq!(&client[14..15], "4", "a version 4 UUID");
}

#[test]
fn a_client_with_native_pings_is_told_of_no_application_pings() {
    let mut node = Node::new();
    let session = node.open_native();
    node.say(session, r#"{"id":1,"connect":{}}"#);
    let replies = node.replies(session);
    assert_eq!(replies[0]["connect"].get("ping"), None);
    assert_eq!(replies[0]["connect"].get("pong"), None);
}

#[test]
fn every_session_has_its_own_id() {
    let mut node = Node::new();
    let (first, second) = (node.open(Codec::Json), node.open(Codec::Json));
    assert_ne!(node.connect_as(first, "42"), node.connect_as(second, "42"));
}

#[test]
fn a_protobuf_session_is_answered_in_binary() {
    let mut node = Node::new();
    let session = node.open(Codec::Protobuf);
    // Command { id: 1, connect: {} } behind its length.
    node.shard.message(session, false, &[4, 0x08, 1, 0x22, 0], &ByToken, node.now);
    let bytes = node.bytes(session);
    let [Frame::Binary(payload)] = &frames(&bytes)[..] else { panic!("{bytes:?}") };
    let client = payload
        .windows(36)
        .filter_map(|window| std::str::from_utf8(window).ok())
        .find(|text| text.bytes().filter(|byte| *byte == b'-').count() == 4 && text.as_bytes()[8] == b'-')
        .expect("a client id");
    let mut expected = Vec::new();
    let result = ConnectResult { client, version: "1.2.3", ping: 25, pong: true, ..ConnectResult::default() };
    Codec::Protobuf.reply(1, &Reply::Connect(result), &mut expected);
    assert_eq!(*payload, expected);
}

#[test]
fn the_first_command_must_be_connect() {
    for first in [
        r#"{"id":1,"subscribe":{"channel":"news"}}"#,
        r#"{"id":1,"publish":{"channel":"news","data":1}}"#,
        r#"{"id":1,"ping":{}}"#,
        r#"{"send":{"data":1}}"#,
        "{}",
    ] {
        let mut node = Node::new();
        let session = node.open(Codec::Json);
        node.say(session, first);
        assert_eq!(node.frames(session), [Frame::Close(3501, "bad request".to_owned())], "{first}");
        assert_eq!(node.effects(), [Effect::Ended { session, reason: Disconnect::BadRequest }]);
    }
}

#[test]
fn a_second_connect_ends_the_session() {
    let mut node = Node::new();
    let session = node.connect("42");
    node.say(session, r#"{"id":2,"connect":{}}"#);
    assert_eq!(node.frames(session), [Frame::Close(3501, "bad request".to_owned())]);
}

#[test]
fn after_a_refused_connect_the_rest_of_the_message_is_dropped_and_the_client_may_try_again() {
    let mut node = Node::new();
    let session = node.open(Codec::Json);
    node.say(
        session,
        "{\"id\":1,\"connect\":{\"token\":\"expired\"}}\n{\"id\":2,\"subscribe\":{\"channel\":\"news\"}}",
    );
    let replies = node.replies(session);
    assert_eq!(replies.len(), 1);
    assert_eq!(replies[0]["id"], 1);
    assert_eq!(replies[0]["error"]["code"], 109);
    assert_eq!(node.effects(), []);
    node.connect_as(session, "42");
    node.subscribe(session, "news");
}

#[test]
fn a_refused_connect_does_not_stop_the_deadline() {
    let mut node = Node::new();
    let session = node.open(Codec::Json);
    node.pass(CONNECT_TIMEOUT - 1);
    node.say(session, r#"{"id":1,"connect":{"token":"expired"}}"#);
    assert_eq!(node.replies(session).len(), 1);
    node.pass(1);
    assert_eq!(node.close(session), Some((3502, "stale".to_owned())));
}

#[test]
fn a_forged_token_ends_the_session() {
    let mut node = Node::new();
    let session = node.open(Codec::Json);
    node.say(session, r#"{"id":1,"connect":{"token":"forged"}}"#);
    assert_eq!(node.frames(session), [Frame::Close(3500, "invalid token".to_owned())]);
    assert_eq!(node.effects(), [Effect::Ended { session, reason: Disconnect::InvalidToken }]);
}

#[test]
fn a_silent_connection_is_ended_at_the_deadline_and_not_before() {
    let mut node = Node::new();
    let session = node.open(Codec::Json);
    node.pass(CONNECT_TIMEOUT - 1);
    assert_eq!(node.frames(session), []);
    node.pass(1);
    assert_eq!(node.frames(session), [Frame::Close(3502, "stale".to_owned())]);
    assert_eq!(node.effects(), [Effect::Ended { session, reason: Disconnect::Stale }]);
}

#[test]
fn a_connected_session_is_not_stale() {
    let mut node = Node::new();
    let session = node.connect("");
    node.pass(CONNECT_TIMEOUT);
    assert_eq!(node.frames(session), []);
}
