//! How sessions end: slow readers, Close frames, places used again.

use serde_json::json;
use tidegate_hub::{Effect, SessionKey};
use tidegate_protocol::{Codec, Disconnect};

use crate::node::{Frame, Node, frames, name};

/// The payload of a publication whose frame has about a thousand bytes.
fn thousand() -> String {
    format!("\"{}\"", "x".repeat(950))
}

#[test]
fn a_slow_reader_is_ended_before_its_outbox_passes_the_bound() {
    let mut node = Node::with(|policy| policy.outbox_max_bytes = 10_000);
    let (slow, quick) = (node.connect(""), node.connect(""));
    node.subscribe(slow, "news");
    node.subscribe(quick, "news");
    for number in 0..20 {
        node.deliver("news", &thousand());
        assert!(node.shard.outbox(slow).expect("an outbox").bytes() <= 10_000, "after {number}");
        assert_eq!(node.replies(quick).len(), 1, "the others are not held up");
    }
    assert_eq!(node.frames(slow), [Frame::Close(3008, "slow".to_owned())], "what it did not read is dropped");
    assert_eq!(node.effects(), [Effect::Ended { session: slow, reason: Disconnect::Slow }]);
    assert_eq!(node.shard.take_tally().slow_consumers, 1);
    assert_eq!(node.shard.channels(), [(name("news"), 1)]);
    assert_eq!(node.shard.outbox_bytes(), 0);
}

#[test]
fn a_half_written_frame_is_finished_before_the_close_frame() {
    for reason in [Disconnect::Slow, Disconnect::WriteError] {
        let mut node = Node::new();
        let session = node.connect("");
        node.subscribe(session, "news");
        for _ in 0..3 {
            node.deliver("news", &thousand());
        }
        let outbox = node.shard.outbox(session).expect("an outbox");
        let whole = outbox.bytes() / 3;
        let mut slices = [std::io::IoSlice::new(&[])];
        outbox.slices(&mut slices);
        let mut read = slices[0][..100].to_vec();
        outbox.advance(100);
        node.shard.end(session, reason);
        read.extend(node.bytes(session));
        let frames = frames(&read);
        assert_eq!(frames.len(), 2);
        assert!(matches!(&frames[0], Frame::Text(text) if text.len() + 4 == whole));
        assert_eq!(frames[1], Frame::Close(reason.code(), reason.text().to_owned()));
    }
}

#[test]
fn every_slow_member_is_ended_in_one_delivery() {
    let mut node = Node::with(|policy| policy.outbox_max_bytes = 1500);
    let sessions: Vec<_> = (0..10).map(|_| node.connect("")).collect();
    for session in &sessions {
        node.subscribe(*session, "news");
    }
    node.deliver("news", &thousand());
    for session in sessions.iter().skip(1).step_by(2) {
        node.frames(*session);
    }
    node.deliver("news", &thousand());
    let ended: Vec<_> = node.effects();
    let expected: Vec<_> = sessions
        .iter()
        .step_by(2)
        .map(|session| Effect::Ended { session: *session, reason: Disconnect::Slow })
        .collect();
    assert_eq!(ended, expected);
    assert_eq!(node.shard.channels(), [(name("news"), 5)]);
}

#[test]
fn a_client_that_asks_much_and_reads_nothing_is_slow_too() {
    let mut node = Node::with(|policy| policy.outbox_max_bytes = 10_000);
    let session = node.connect("");
    for _ in 0..2000 {
        node.say(session, r#"{"id":9,"ping":{}}"#);
        node.shard.native_ping(session, b"x");
    }
    assert_eq!(node.frames(session), [Frame::Close(3008, "slow".to_owned())]);
    assert_eq!(node.shard.take_tally().slow_consumers, 1);
}

#[test]
fn a_waiting_client_that_is_slow_leaves_the_channel_it_was_answered_for() {
    let mut node = Node::with(|policy| policy.outbox_max_bytes = 300);
    let session = node.connect("");
    node.say(session, r#"{"id":2,"subscribe":{"channel":"news"}}"#);
    while node.shard.outbox(session).expect("an outbox").bytes() < 210 {
        node.say(session, r#"{"id":3,"ping":{}}"#);
    }
    node.effects();
    node.shard.joined(&name("news"), Ok(None));
    assert_eq!(
        node.effects(),
        [Effect::Leave(name("news")), Effect::Ended { session, reason: Disconnect::Slow }]
    );
    assert_eq!(node.shard.channels(), []);
}

#[test]
fn the_close_frame_comes_behind_what_waits() {
    let mut node = Node::new();
    let session = node.connect("");
    node.subscribe(session, "news");
    node.deliver("news", "1");
    node.shard.end(session, Disconnect::Shutdown);
    let frames = node.frames(session);
    assert!(matches!(frames[0], Frame::Text(_)));
    assert_eq!(frames[1..], [Frame::Close(3001, "shutdown".to_owned())]);
}

#[test]
fn replies_come_before_the_close_frame_of_the_same_message() {
    let mut node = Node::new();
    let session = node.connect("");
    node.say(session, "{\"id\":2,\"ping\":{}}\n{\"id\":3,\"connect\":{}}");
    let frames = node.frames(session);
    assert_eq!(crate::node::lines(&frames[0]), [json!({"id": 2, "ping": {}})]);
    assert_eq!(frames[1..], [Frame::Close(3501, "bad request".to_owned())]);
}

#[test]
fn a_lost_connection_is_told_nothing() {
    let mut node = Node::new();
    let session = node.connect("");
    node.subscribe(session, "news");
    node.deliver("news", "1");
    node.shard.end(session, Disconnect::Lost);
    assert_eq!(node.frames(session), []);
    assert_eq!(
        node.effects(),
        [Effect::Leave(name("news")), Effect::Ended { session, reason: Disconnect::Lost }]
    );
}

#[test]
fn a_session_ends_once() {
    let mut node = Node::new();
    let session = node.connect("");
    node.shard.end(session, Disconnect::Shutdown);
    node.shard.end(session, Disconnect::Slow);
    node.shard.end(session, Disconnect::Lost);
    assert_eq!(node.effects(), [Effect::Ended { session, reason: Disconnect::Shutdown }]);
    assert_eq!(node.frames(session), [Frame::Close(3001, "shutdown".to_owned())]);
    node.shard.remove(session);
    assert_eq!(node.effects(), []);
}

#[test]
fn an_ended_session_hears_and_says_nothing_more() {
    let mut node = Node::new();
    let session = node.connect("42");
    node.subscribe(session, "news");
    node.say(session, r#"{"id":3,"subscribe":{"channel":"late"}}"#);
    node.shard.end(session, Disconnect::Shutdown);
    node.frames(session);
    node.effects();
    node.deliver("news", "1");
    node.say(session, r#"{"id":4,"ping":{}}"#);
    node.shard.message(session, false, b"", &crate::node::ByToken, node.now);
    node.shard.published(session, 5, Ok(()));
    node.shard.joined(&name("late"), Ok(None));
    node.shard.native_ping(session, b"");
    node.shard.native_pong(session, node.now);
    node.pass(500);
    assert_eq!(node.frames(session), []);
    assert_eq!(node.effects(), [Effect::Leave(name("late"))]);
    assert_eq!(node.shard.sessions(), []);
    assert_eq!(node.shard.session_counts(), [0, 0]);
}

#[test]
fn a_removed_session_leaves_its_channels_without_ending() {
    let mut node = Node::new();
    let session = node.connect("");
    node.subscribe(session, "news");
    node.shard.remove(session);
    assert_eq!(node.effects(), [Effect::Leave(name("news"))]);
    assert!(node.shard.outbox(session).is_none());
}

#[test]
fn a_key_of_a_removed_session_reaches_nobody() {
    let mut node = Node::new();
    let old = node.connect("");
    node.shard.remove(old);
    let new = node.connect("");
    node.subscribe(new, "news");
    assert_eq!(new.index, old.index);
    assert_ne!(new.generation, old.generation);
    node.say(old, r#"{"id":3,"unsubscribe":{"channel":"news"}}"#);
    node.shard.native_ping(old, b"");
    node.shard.native_pong(old, node.now);
    node.shard.end(old, Disconnect::Shutdown);
    node.shard.remove(old);
    let nowhere = SessionKey { index: 1000, generation: 0 };
    node.shard.end(nowhere, Disconnect::Shutdown);
    node.shard.remove(nowhere);
    assert!(node.shard.outbox(old).is_none());
    assert_eq!(node.frames(new), []);
    assert_eq!(node.effects(), []);
    assert_eq!(node.shard.sessions(), [new]);
}

#[test]
fn sessions_are_counted_by_codec_until_they_end() {
    let mut node = Node::new();
    let json = node.open(Codec::Json);
    let other = node.open(Codec::Json);
    let protobuf = node.open(Codec::Protobuf);
    assert_eq!(node.shard.session_counts(), [2, 1]);
    node.shard.end(json, Disconnect::Shutdown);
    node.shard.remove(json);
    node.shard.remove(protobuf);
    assert_eq!(node.shard.session_counts(), [1, 0]);
    assert_eq!(node.shard.sessions(), [other]);
}
