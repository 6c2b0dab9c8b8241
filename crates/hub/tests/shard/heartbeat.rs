//! Pings and pongs.

use serde_json::json;
use tidegate_hub::{Effect, SessionKey};
use tidegate_protocol::{Codec, Disconnect};

use crate::node::{ByToken, Frame, Node, PING_INTERVAL, PONG_TIMEOUT};

/// Lets time pass until something waits for the session; gives back how many ticks passed.
fn wait(node: &mut Node, session: SessionKey) -> u32 {
    for ticks in 1..=2 * PING_INTERVAL {
        node.pass(1);
        if node.shard.outbox(session).is_some_and(|outbox| !outbox.is_empty()) {
            return ticks;
        }
    }
    panic!("nothing came");
}

#[test]
fn the_first_ping_is_spread_over_half_an_interval_and_the_others_come_every_interval() {
    let mut firsts = Vec::new();
    for _ in 0..50 {
        let mut node = Node::new();
        let session = node.connect("");
        firsts.push(wait(&mut node, session));
        for _ in 0..3 {
            assert_eq!(node.frames(session), [Frame::Text("{}".to_owned())]);
            node.pass(PONG_TIMEOUT / 2);
            node.say(session, "{}");
            assert_eq!(wait(&mut node, session) + PONG_TIMEOUT / 2, PING_INTERVAL);
        }
    }
    assert!(firsts.iter().all(|first| (PING_INTERVAL / 2..=PING_INTERVAL).contains(first)), "{firsts:?}");
    firsts.sort_unstable();
    firsts.dedup();
    assert!(firsts.len() > 10, "spread: {firsts:?}");
}

#[test]
fn a_session_that_does_not_answer_is_ended_at_the_timeout_and_not_before() {
    let mut node = Node::new();
    let session = node.connect("");
    wait(&mut node, session);
    node.frames(session);
    node.pass(PONG_TIMEOUT - 1);
    assert_eq!(node.frames(session), []);
    node.pass(1);
    assert_eq!(node.frames(session), [Frame::Close(3012, "no pong".to_owned())]);
    assert_eq!(node.effects(), [Effect::Ended { session, reason: Disconnect::NoPong }]);
    assert_eq!(node.shard.take_tally().heartbeat_timeouts, 1);
}

#[test]
fn other_commands_are_no_pong() {
    let mut node = Node::new();
    let session = node.connect("");
    wait(&mut node, session);
    node.say(session, r#"{"id":9,"ping":{}}"#);
    node.frames(session);
    node.pass(PONG_TIMEOUT);
    assert_eq!(node.close(session), Some((3012, "no pong".to_owned())));
}

#[test]
fn a_pong_nobody_asked_for_is_tolerated_and_changes_no_schedule() {
    let mut node = Node::new();
    let session = node.connect("");
    wait(&mut node, session);
    node.frames(session);
    node.say(session, "{}\n{}");
    for _ in 0..PING_INTERVAL - 1 {
        node.pass(1);
        node.say(session, "{}");
        node.shard.native_pong(session, node.now);
        assert_eq!(node.frames(session), []);
    }
    assert_eq!(wait(&mut node, session), 1);
    assert_eq!(node.frames(session), [Frame::Text("{}".to_owned())]);
}

#[test]
fn a_protobuf_session_is_pinged_in_its_codec() {
    let mut node = Node::new();
    let session = node.open(Codec::Protobuf);
    node.shard.message(session, false, &[4, 0x08, 1, 0x22, 0], &ByToken, node.now);
    node.frames(session);
    wait(&mut node, session);
    assert_eq!(node.frames(session), [Frame::Binary(vec![0])]);
    node.shard.message(session, false, &[0], &ByToken, node.now);
    node.pass(PONG_TIMEOUT);
    assert_eq!(node.frames(session), []);
}

#[test]
fn native_pings_are_frames_of_their_own_and_native_pongs_answer_them() {
    let mut node = Node::new();
    let session = node.open_native();
    node.say(session, r#"{"id":1,"connect":{}}"#);
    node.frames(session);
    for _ in 0..3 {
        wait(&mut node, session);
        assert_eq!(node.frames(session), [Frame::Ping(Vec::new())]);
        node.shard.native_pong(session, node.now);
    }
    node.pass(PONG_TIMEOUT);
    assert_eq!(node.frames(session), []);
}

#[test]
fn a_native_session_without_pongs_is_ended_and_may_pong_in_its_codec() {
    let mut node = Node::new();
    let session = node.open_native();
    node.say(session, r#"{"id":1,"connect":{}}"#);
    node.frames(session);
    wait(&mut node, session);
    node.frames(session);
    node.say(session, "{}");
    node.pass(PONG_TIMEOUT);
    assert_eq!(node.frames(session), []);
    wait(&mut node, session);
    node.pass(PONG_TIMEOUT);
    assert_eq!(node.close(session), Some((3012, "no pong".to_owned())));
}

#[test]
fn a_native_pong_is_not_the_answer_to_an_application_ping() {
    let mut node = Node::new();
    let session = node.connect("");
    wait(&mut node, session);
    node.shard.native_pong(session, node.now);
    node.pass(PONG_TIMEOUT);
    assert_eq!(node.close(session), Some((3012, "no pong".to_owned())));
}

#[test]
fn a_clients_pings_are_answered() {
    let mut node = Node::new();
    let session = node.open(Codec::Json);
    node.shard.native_ping(session, b"before connect");
    assert_eq!(node.frames(session), [Frame::Pong(b"before connect".to_vec())]);
    node.connect_as(session, "");
    node.say(session, r#"{"id":9,"ping":{}}"#);
    assert_eq!(node.replies(session), [json!({"id": 9, "ping": {}})]);
    node.shard.native_ping(session, b"hi");
    assert_eq!(node.frames(session), [Frame::Pong(b"hi".to_vec())]);
}

#[test]
fn a_sweep_that_comes_late_gives_every_session_its_whole_pong_timeout() {
    let mut node = Node::new();
    let session = node.connect("");
    node.now = node.now.after(10 * PING_INTERVAL);
    node.shard.sweep(node.now);
    assert_eq!(node.frames(session), [Frame::Text("{}".to_owned())]);
    node.pass(PONG_TIMEOUT - 1);
    node.say(session, "{}");
    assert_eq!(node.frames(session), []);
    assert_eq!(wait(&mut node, session), PING_INTERVAL - PONG_TIMEOUT + 1);
}
