//! Publications on their way into outboxes.

use std::sync::Arc;

use serde_json::json;
use tidegate_hub::Broadcast;
use tidegate_protocol::Codec;

use crate::node::{ByToken, Frame, Node, lines, name, publication};

/// A Protobuf session, connected and subscribed; what it was told is read already.
fn protobuf_subscriber(node: &mut Node, channel: &str) -> tidegate_hub::SessionKey {
    let session = node.open(Codec::Protobuf);
    node.shard.message(session, false, &[4, 0x08, 1, 0x22, 0], &ByToken, node.now);
    let length = u8::try_from(channel.len()).expect("short");
    let mut subscribe = vec![length + 6, 0x08, 2, 0x2a, length + 2, 0x0a, length];
    subscribe.extend_from_slice(channel.as_bytes());
    node.shard.message(session, false, &subscribe, &ByToken, node.now);
    node.shard.joined(&name(channel), Ok(None));
    assert_eq!(node.frames(session).len(), 2);
    session
}

#[test]
fn every_member_gets_a_publication_once_and_nobody_else_does() {
    let mut node = Node::new();
    let members: Vec<_> = (0..5).map(|_| node.connect("")).collect();
    let other = node.connect("");
    let left = node.connect("");
    for session in &members {
        node.subscribe(*session, "news");
    }
    node.subscribe(other, "else");
    node.subscribe(left, "news");
    node.say(left, r#"{"id":3,"unsubscribe":{"channel":"news"}}"#);
    node.frames(left);
    node.deliver("news", r#"{"text":"hello"}"#);
    for session in members {
        assert_eq!(
            node.replies(session),
            [json!({"push": {"channel": "news", "pub": {"data": {"text": "hello"}}}})]
        );
    }
    assert_eq!(node.frames(other), []);
    assert_eq!(node.frames(left), []);
}

#[test]
fn a_run_of_publications_is_one_piece_for_all_members_of_a_codec_with_a_frame_each() {
    let mut node = Node::new();
    let members: Vec<_> = (0..3).map(|_| node.connect("")).collect();
    members.iter().for_each(|session| node.subscribe(*session, "news"));
    let binary = protobuf_subscriber(&mut node, "news");
    let run: Vec<_> =
        (0..20).map(|number| Arc::new(Broadcast::new(publication("news", &number.to_string())))).collect();
    assert_eq!(node.shard.deliver(&run), 4);
    let pieces: Vec<_> = members
        .iter()
        .map(|session| {
            let outbox = node.shard.outbox(*session).expect("it is there");
            let piece = outbox.single().expect("one piece");
            (piece.as_ptr(), piece.len())
        })
        .collect();
    assert!(pieces.iter().all(|piece| *piece == pieces[0]), "the members share the bytes: {pieces:?}");
    for session in members {
        let frames = node.frames(session);
        let numbers: Vec<_> =
            frames.iter().map(|frame| lines(frame)[0]["push"]["pub"]["data"].clone()).collect();
        assert_eq!(numbers, (0..20).map(|number| json!(number)).collect::<Vec<_>>());
    }
    assert_eq!(node.frames(binary).len(), 20);
    assert_eq!(node.shard.take_tally().sent[1], 4 * 20);
}

#[test]
fn publications_keep_their_order_and_a_frame_each() {
    let mut node = Node::new();
    let session = node.connect("");
    node.subscribe(session, "news");
    for number in 0..20 {
        node.deliver("news", &number.to_string());
    }
    let frames = node.frames(session);
    assert_eq!(frames.len(), 20);
    for (number, frame) in frames.iter().enumerate() {
        assert_eq!(lines(frame)[0]["push"]["pub"]["data"], number);
    }
}

#[test]
fn each_codec_gets_its_own_frame_and_the_bytes_are_shared() {
    let mut node = Node::new();
    let json_session = node.connect("");
    node.subscribe(json_session, "news");
    let protobuf_session = protobuf_subscriber(&mut node, "news");
    let broadcast = Arc::new(Broadcast::new(publication("news", "[1]")));
    node.shard.deliver(std::slice::from_ref(&broadcast));
    let mut slices = [std::io::IoSlice::new(&[]); 2];
    let outbox = node.shard.outbox(json_session).expect("an outbox");
    assert_eq!(outbox.slices(&mut slices), 1);
    assert_eq!(slices[0].as_ptr(), broadcast.frame(Codec::Json).as_ptr(), "shared, not copied");
    assert!(matches!(&node.frames(json_session)[..], [Frame::Text(_)]));
    // Push { channel: "news", pub: { data: "[1]" } } in a reply without an id.
    let push = [b"\x22\x0d\x12\x04news\x22\x05\x22\x03[1]".as_slice()].concat();
    let mut expected = vec![u8::try_from(push.len()).expect("short")];
    expected.extend_from_slice(&push);
    assert_eq!(node.frames(protobuf_session), [Frame::Binary(expected)]);
}

#[test]
fn a_publication_in_a_channel_that_nobody_here_is_in_does_nothing() {
    let mut node = Node::new();
    let session = node.connect("");
    node.deliver("news", "1");
    assert_eq!(node.frames(session), []);
    assert_eq!(node.dirty(), []);
}

#[test]
fn a_session_is_dirty_once_however_much_it_is_sent() {
    let mut node = Node::new();
    let session = node.connect("");
    node.subscribe(session, "news");
    node.dirty();
    for _ in 0..3 {
        node.deliver("news", "1");
    }
    assert_eq!(node.dirty(), [session]);
    assert_eq!(node.dirty(), []);
    node.deliver("news", "1");
    assert_eq!(node.dirty(), [], "it waits for its socket already");
    node.frames(session);
    node.deliver("news", "1");
    assert_eq!(node.dirty(), [session]);
}

#[test]
fn a_removed_session_is_not_dirty() {
    let mut node = Node::new();
    let session = node.connect("");
    node.subscribe(session, "news");
    node.dirty();
    node.deliver("news", "1");
    node.shard.remove(session);
    let next = node.open(Codec::Json);
    assert_eq!(next.index, session.index);
    assert_eq!(node.dirty(), []);
}
