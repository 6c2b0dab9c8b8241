//! Subscribing and unsubscribing, and what the relay has to say to it.

use serde_json::{Value, json};
use tidegate_hub::{Effect, SessionKey};
use tidegate_protocol::ErrorCode;

use crate::node::{Node, name};

fn ask(node: &mut Node, session: SessionKey, id: u32, channel: &str) {
    node.say(session, &format!(r#"{{"id":{id},"subscribe":{{"channel":"{channel}"}}}}"#));
}

fn leave(node: &mut Node, session: SessionKey, id: u32, channel: &str) {
    node.say(session, &format!(r#"{{"id":{id},"unsubscribe":{{"channel":"{channel}"}}}}"#));
}

/// The error code of the only reply that waits.
fn error(node: &mut Node, session: SessionKey) -> Value {
    let replies = node.replies(session);
    assert_eq!(replies.len(), 1, "{replies:?}");
    replies[0]["error"]["code"].clone()
}

#[test]
fn a_subscription_is_answered_only_when_the_relay_hears_the_channel() {
    let mut node = Node::new();
    let session = node.connect("");
    ask(&mut node, session, 2, "news");
    assert_eq!(node.frames(session), []);
    assert_eq!(node.effects(), [Effect::Join(name("news"))]);
    assert_eq!(node.shard.subscription_count(), 0);
    node.deliver("news", "1");
    assert_eq!(node.frames(session), [], "nothing may come before the reply");
    node.shard.joined(&name("news"), Ok(None));
    node.deliver("news", "2");
    let replies = node.replies(session);
    assert_eq!(replies[0], json!({"id": 2, "subscribe": {}}));
    assert_eq!(replies[1]["push"]["pub"]["data"], 2);
    assert_eq!(replies.len(), 2);
    assert_eq!(node.shard.channels(), [(name("news"), 1)]);
}

#[test]
fn one_join_serves_all_who_wait() {
    let mut node = Node::new();
    let sessions: Vec<_> = (0..4).map(|_| node.connect("")).collect();
    for session in &sessions {
        ask(&mut node, *session, 2, "news");
    }
    assert_eq!(node.effects(), [Effect::Join(name("news"))]);
    node.shard.joined(&name("news"), Ok(None));
    for session in sessions {
        assert_eq!(node.replies(session), [json!({"id": 2, "subscribe": {}})]);
    }
    assert_eq!(node.shard.subscription_count(), 4);
}

#[test]
fn a_channel_that_is_heard_already_is_joined_at_once() {
    let mut node = Node::new();
    let (first, second) = (node.connect(""), node.connect(""));
    node.subscribe(first, "news");
    ask(&mut node, second, 2, "news");
    assert_eq!(node.replies(second), [json!({"id": 2, "subscribe": {}})]);
    assert_eq!(node.effects(), []);
}

#[test]
fn a_relay_that_cannot_hear_a_channel_fails_all_who_wait_and_the_next_asks_again() {
    let mut node = Node::new();
    let (first, second) = (node.connect(""), node.connect(""));
    ask(&mut node, first, 2, "news");
    ask(&mut node, second, 5, "news");
    node.effects();
    node.shard.joined(&name("news"), Err(ErrorCode::Internal));
    assert_eq!(
        node.replies(first),
        [json!({"id": 2, "error": {"code": 100, "message": "internal server error", "temporary": true}})]
    );
    assert_eq!(error(&mut node, second), 100);
    assert_eq!(node.effects(), [], "nothing to leave");
    assert_eq!(node.shard.channels(), []);
    node.subscribe(first, "news");
}

#[test]
fn the_last_member_to_go_leaves_the_channel() {
    let mut node = Node::new();
    let (first, second) = (node.connect(""), node.connect(""));
    node.subscribe(first, "news");
    node.subscribe(second, "news");
    leave(&mut node, first, 3, "news");
    assert_eq!(node.replies(first), [json!({"id": 3, "unsubscribe": {}})]);
    assert_eq!(node.effects(), []);
    leave(&mut node, second, 3, "news");
    assert_eq!(node.effects(), [Effect::Leave(name("news"))]);
    assert_eq!(node.shard.subscription_count(), 0);
    node.frames(second);
    node.subscribe(second, "news");
}

#[test]
fn unsubscribing_from_what_one_is_not_in_is_fine() {
    let mut node = Node::new();
    let session = node.connect("");
    leave(&mut node, session, 2, "news");
    assert_eq!(node.replies(session), [json!({"id": 2, "unsubscribe": {}})]);
    leave(&mut node, session, 3, "no good");
    assert_eq!(error(&mut node, session), 107);
}

#[test]
fn who_withdraws_before_the_relay_answers_is_answered_and_is_no_member() {
    let mut node = Node::new();
    let session = node.connect("");
    ask(&mut node, session, 2, "news");
    leave(&mut node, session, 3, "news");
    let replies = node.replies(session);
    assert_eq!(replies[0]["id"], 2);
    assert_eq!(replies[0]["error"]["temporary"], true);
    assert_eq!(replies[1], json!({"id": 3, "unsubscribe": {}}));
    assert_eq!(node.effects(), [Effect::Join(name("news"))], "the answer to the join is awaited first");
    node.shard.joined(&name("news"), Ok(None));
    assert_eq!(node.frames(session), []);
    assert_eq!(node.effects(), [Effect::Leave(name("news"))]);
    assert_eq!(node.shard.channels(), []);
}

#[test]
fn who_withdraws_and_asks_again_is_answered_once_by_the_one_join() {
    let mut node = Node::new();
    let session = node.connect("");
    ask(&mut node, session, 2, "news");
    leave(&mut node, session, 3, "news");
    ask(&mut node, session, 4, "news");
    node.frames(session);
    assert_eq!(node.effects(), [Effect::Join(name("news"))]);
    node.shard.joined(&name("news"), Ok(None));
    assert_eq!(node.replies(session), [json!({"id": 4, "subscribe": {}})]);
    assert_eq!(node.shard.subscription_count(), 1);
}

#[test]
fn who_ends_before_the_relay_answers_is_no_member() {
    let mut node = Node::new();
    let (gone, stays) = (node.connect(""), node.connect(""));
    ask(&mut node, gone, 2, "news");
    ask(&mut node, stays, 2, "news");
    node.shard.remove(gone);
    node.effects();
    node.shard.joined(&name("news"), Ok(None));
    assert_eq!(node.replies(stays), [json!({"id": 2, "subscribe": {}})]);
    assert_eq!(node.shard.channels(), [(name("news"), 1)]);
    assert_eq!(node.effects(), []);
}

#[test]
fn a_place_that_is_used_again_inherits_no_subscription() {
    let mut node = Node::new();
    let gone = node.connect("");
    ask(&mut node, gone, 2, "news");
    node.shard.remove(gone);
    let next = node.connect("");
    assert_eq!(next.index, gone.index);
    node.shard.joined(&name("news"), Ok(None));
    node.deliver("news", "1");
    assert_eq!(node.frames(next), []);
}

#[test]
fn an_answer_nobody_awaits_changes_nothing() {
    let mut node = Node::new();
    let session = node.connect("");
    node.shard.joined(&name("news"), Ok(None));
    node.shard.joined(&name("news"), Err(ErrorCode::Internal));
    assert_eq!(node.effects(), []);
    node.subscribe(session, "news");
    node.shard.joined(&name("news"), Ok(None));
    node.shard.joined(&name("news"), Err(ErrorCode::Internal));
    assert_eq!(node.effects(), []);
    assert_eq!(node.frames(session), []);
    assert_eq!(node.shard.channels(), [(name("news"), 1)]);
}

#[test]
fn a_join_a_leave_and_a_join_come_in_this_order() {
    let mut node = Node::new();
    let session = node.connect("");
    ask(&mut node, session, 2, "news");
    node.shard.joined(&name("news"), Ok(None));
    leave(&mut node, session, 3, "news");
    ask(&mut node, session, 4, "news");
    assert_eq!(
        node.effects(),
        [Effect::Join(name("news")), Effect::Leave(name("news")), Effect::Join(name("news"))]
    );
    node.frames(session);
    node.deliver("news", "1");
    assert_eq!(node.frames(session), [], "the second join has no answer yet");
    node.shard.joined(&name("news"), Ok(None));
    assert_eq!(node.replies(session), [json!({"id": 4, "subscribe": {}})]);
}

#[test]
fn names_and_namespaces_are_checked() {
    let mut node = Node::new();
    let session = node.connect("42");
    for bad in ["", "no good", "a{b}", "a*", &"x".repeat(256)] {
        ask(&mut node, session, 2, bad);
        assert_eq!(error(&mut node, session), 107, "{bad}");
    }
    ask(&mut node, session, 2, "unheard:of");
    assert_eq!(error(&mut node, session), 102);
    assert_eq!(node.effects(), []);
}

#[test]
fn unknown_namespaces_may_be_allowed() {
    let mut node = Node::with(|policy| policy.any_namespace = policy.namespaces.get("default").copied());
    let session = node.connect("");
    node.subscribe(session, "unheard:of");
}

#[test]
fn the_right_to_subscribe_is_asked() {
    let mut node = Node::new();
    let (nobody, somebody) = (node.connect(""), node.connect("42"));
    ask(&mut node, nobody, 2, "users:1");
    assert_eq!(error(&mut node, nobody), 103);
    node.subscribe(somebody, "users:1");
    for channel in ["token:1", "closed:1", "odd:1"] {
        ask(&mut node, somebody, 2, channel);
        assert_eq!(error(&mut node, somebody), 103, "{channel}");
    }
    assert_eq!(node.effects(), []);
}

#[test]
fn tokens_are_not_available() {
    let mut node = Node::new();
    let session = node.connect("");
    node.say(session, r#"{"id":2,"subscribe":{"channel":"news","token":"x"}}"#);
    assert_eq!(error(&mut node, session), 108);
    assert_eq!(node.effects(), []);
}

#[test]
fn wishes_are_ignored() {
    let mut node = Node::new();
    let session = node.connect("");
    node.say(
        session,
        r#"{"id":2,"subscribe":{"channel":"news","positioned":true,"recoverable":true,"join_leave":true,"flag":1}}"#,
    );
    node.shard.joined(&name("news"), Ok(None));
    assert_eq!(node.replies(session), [json!({"id": 2, "subscribe": {}})]);
}

#[test]
fn a_second_subscription_to_a_channel_is_refused_standing_or_waiting() {
    let mut node = Node::new();
    let session = node.connect("");
    ask(&mut node, session, 2, "news");
    ask(&mut node, session, 3, "news");
    assert_eq!(error(&mut node, session), 105);
    node.shard.joined(&name("news"), Ok(None));
    node.frames(session);
    ask(&mut node, session, 4, "news");
    assert_eq!(error(&mut node, session), 105);
    assert_eq!(node.shard.subscription_count(), 1);
}

#[test]
fn no_session_has_more_subscriptions_than_allowed_waiting_ones_included() {
    let mut node = Node::with(|policy| policy.max_subscriptions = 3);
    let session = node.connect("");
    node.subscribe(session, "a");
    ask(&mut node, session, 3, "b");
    ask(&mut node, session, 4, "c");
    assert_eq!(node.frames(session), []);
    ask(&mut node, session, 5, "d");
    assert_eq!(error(&mut node, session), 106);
    leave(&mut node, session, 6, "b");
    node.frames(session);
    ask(&mut node, session, 7, "d");
    assert_eq!(node.frames(session), [], "there is room again");
}

#[test]
fn members_keep_their_channels_when_others_come_and_go() {
    let mut node = Node::new();
    let sessions: Vec<_> = (0..40).map(|_| node.connect("")).collect();
    for session in &sessions {
        for channel in ["a", "b", "c"] {
            node.subscribe(*session, channel);
        }
    }
    for (number, session) in sessions.iter().enumerate() {
        match number % 4 {
            0 => leave(&mut node, *session, 3, "a"),
            1 => node.shard.remove(*session),
            2 => leave(&mut node, *session, 3, "c"),
            _ => {}
        }
        node.frames(*session);
    }
    for channel in ["a", "b", "c"] {
        node.deliver(channel, "1");
    }
    for (number, session) in sessions.iter().enumerate() {
        let heard: Vec<_> =
            node.replies(*session).iter().map(|push| push["push"]["channel"].clone()).collect();
        match number % 4 {
            0 => assert_eq!(heard, ["b", "c"]),
            1 => assert_eq!(heard, [""; 0]),
            2 => assert_eq!(heard, ["a", "b"]),
            _ => assert_eq!(heard, ["a", "b", "c"]),
        }
    }
}

#[test]
fn a_channel_that_the_relay_lost_unsubscribes_its_members_and_may_be_subscribed_again() {
    let mut node = Node::new();
    let (first, second, other) = (node.connect(""), node.connect(""), node.connect(""));
    node.subscribe(first, "news");
    node.subscribe(second, "news");
    node.subscribe(other, "talk:1");
    node.shard.lost(&name("news"));
    let told =
        json!({"push": {"channel": "news", "unsubscribe": {"code": 2500, "reason": "insufficient state"}}});
    for session in [first, second] {
        assert_eq!(node.replies(session), std::slice::from_ref(&told));
    }
    assert_eq!(node.frames(other), []);
    assert_eq!(node.effects(), [], "the relay has forgotten it already");
    assert_eq!(node.shard.channels(), [(name("talk:1"), 1)]);
    node.deliver("news", "1");
    assert_eq!(node.frames(first), []);
    ask(&mut node, first, 3, "news");
    assert_eq!(node.effects(), [Effect::Join(name("news"))]);
    // Said of an earlier time: the answer to the join decides.
    node.shard.lost(&name("news"));
    node.shard.joined(&name("news"), Ok(None));
    assert_eq!(node.replies(first), [json!({"id": 3, "subscribe": {}})]);
    assert_eq!(node.shard.subscription_count(), 2);
}
