//! What the shard counts.

use tidegate_hub::tally::{COMMANDS, SENT};
use tidegate_protocol::Codec;

use crate::node::{Node, PING_INTERVAL};

fn received(counts: [u64; COMMANDS.len()]) -> Vec<(&'static str, u64)> {
    COMMANDS.into_iter().zip(counts).filter(|(_, count)| *count > 0).collect()
}

fn sent(counts: [u64; SENT.len()]) -> Vec<(&'static str, u64)> {
    SENT.into_iter().zip(counts).filter(|(_, count)| *count > 0).collect()
}

#[test]
fn every_command_is_counted_by_its_name() {
    for (label, fields) in [
        ("subscribe", r#"{"channel":"news"}"#),
        ("unsubscribe", r#"{"channel":"news"}"#),
        ("publish", r#"{"channel":"news","data":1}"#),
        ("presence", r#"{"channel":"news"}"#),
        ("presence_stats", r#"{"channel":"news"}"#),
        ("history", r#"{"channel":"news"}"#),
        ("ping", "{}"),
        ("send", r#"{"data":1}"#),
        ("rpc", r#"{"data":1}"#),
        ("refresh", r#"{"token":"x"}"#),
        ("sub_refresh", r#"{"channel":"news","token":"x"}"#),
    ] {
        let mut node = Node::new();
        let session = node.open(Codec::Json);
        node.connect_as(session, "42");
        assert_eq!(received(node.shard.take_tally().received), [("connect", 1)]);
        node.say(session, &format!(r#"{{"id":2,"{label}":{fields}}}"#));
        assert_eq!(received(node.shard.take_tally().received), [(label, 1)]);
        node.say(session, "{}");
        assert_eq!(received(node.shard.take_tally().received), [("pong", 1)]);
    }
}

#[test]
fn frames_are_counted_by_their_kind() {
    let mut node = Node::new();
    let session = node.connect("42");
    assert_eq!(sent(node.shard.take_tally().sent), [("reply", 1)]);
    node.say(session, "{\"id\":2,\"ping\":{}}\n{\"id\":3,\"ping\":{}}");
    assert_eq!(sent(node.shard.take_tally().sent), [("reply", 1)]);
    node.frames(session);
    node.subscribe(session, "news");
    node.shard.take_tally();
    node.deliver("news", "1");
    node.deliver("news", "1");
    assert_eq!(sent(node.shard.take_tally().sent), [("publication", 2)]);
    node.shard.control(&tidegate_protocol::Control::Unsubscribe(
        tidegate_protocol::control::SubscriptionControl {
            user: "42".to_owned(),
            client: String::new(),
            channel: "news".to_owned(),
        },
    ));
    assert_eq!(sent(node.shard.take_tally().sent), [("push", 1)]);
    node.pass(PING_INTERVAL);
    assert_eq!(sent(node.shard.take_tally().sent), [("ping", 1)]);
    assert_eq!(node.shard.take_tally(), tidegate_hub::Tally::default());
}
