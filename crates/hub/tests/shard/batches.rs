//! Several commands in one message.

use serde_json::json;
use tidegate_hub::Effect;
use tidegate_protocol::{Codec, Disconnect};

use crate::node::{ByToken, Frame, Node, lines, name};

#[test]
fn replies_made_at_once_leave_as_one_frame_in_order() {
    let mut node = Node::new();
    let session = node.connect("42");
    node.say(
        session,
        "{\"id\":2,\"ping\":{}}\n{\"id\":3,\"rpc\":{\"method\":\"x\"}}\n{\"id\":4,\"unsubscribe\":{\"channel\":\"news\"}}",
    );
    let frames = node.frames(session);
    assert_eq!(frames.len(), 1);
    let replies = lines(&frames[0]);
    assert_eq!(replies.len(), 3);
    assert_eq!(replies[0], json!({"id": 2, "ping": {}}));
    assert_eq!(replies[1]["id"], 3);
    assert_eq!(replies[1]["error"]["code"], 108);
    assert_eq!(replies[2], json!({"id": 4, "unsubscribe": {}}));
}

#[test]
fn connect_and_subscribe_may_share_a_message() {
    let mut node = Node::new();
    let session = node.open(Codec::Json);
    node.say(session, "{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{\"channel\":\"news\"}}");
    assert_eq!(node.replies(session).len(), 1, "the relay has not answered yet");
    assert_eq!(node.effects(), [Effect::Join(name("news"))]);
    node.shard.joined(&name("news"), Ok(None));
    assert_eq!(node.replies(session), [json!({"id": 2, "subscribe": {}})]);
}

#[test]
fn protobuf_replies_share_a_frame_without_a_joint() {
    let mut node = Node::new();
    let session = node.open(Codec::Protobuf);
    node.shard.message(session, false, &[4, 0x08, 1, 0x22, 0], &ByToken, node.now);
    node.frames(session);
    // Two pings, ids 2 and 3.
    node.shard.message(session, false, &[4, 0x08, 2, 0x5a, 0, 4, 0x08, 3, 0x5a, 0], &ByToken, node.now);
    assert_eq!(node.frames(session), [Frame::Binary(vec![4, 0x08, 2, 0x62, 0, 4, 0x08, 3, 0x62, 0])]);
}

#[test]
fn commands_before_a_bad_one_are_run_and_answered() {
    let mut node = Node::new();
    let session = node.connect("42");
    node.say(session, "{\"id\":2,\"ping\":{}}\n{\"id\":3,\"subscribe\":{\"channel\":\"news\"}}\nnonsense\n{\"id\":4,\"ping\":{}}");
    let frames = node.frames(session);
    assert_eq!(frames.len(), 2, "{frames:?}");
    assert_eq!(lines(&frames[0]), [json!({"id": 2, "ping": {}})]);
    assert_eq!(frames[1], Frame::Close(3501, "bad request".to_owned()));
    assert_eq!(
        node.effects(),
        [Effect::Join(name("news")), Effect::Ended { session, reason: Disconnect::BadRequest }]
    );
}

#[test]
fn a_message_that_is_no_command_ends_the_session() {
    for message in ["", "\n", "[]", "{\"id\":1}", "{\"id\":2,\"connect\":", "{\"ping\":{}}"] {
        let mut node = Node::new();
        let session = node.connect("42");
        node.say(session, message);
        assert_eq!(node.close(session), Some((3501, "bad request".to_owned())), "{message:?}");
    }
}

#[test]
fn a_frame_of_the_wrong_type_ends_the_session() {
    for (codec, is_text, message) in
        [(Codec::Json, false, &b"{\"id\":1,\"connect\":{}}"[..]), (Codec::Protobuf, true, &[4, 8, 1, 34, 0])]
    {
        let mut node = Node::new();
        let session = node.open(codec);
        node.shard.message(session, is_text, message, &ByToken, node.now);
        assert_eq!(node.frames(session), [Frame::Close(3501, "bad request".to_owned())]);
    }
}
