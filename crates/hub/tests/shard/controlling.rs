//! What backends ask of sessions.

use serde_json::json;
use tidegate_hub::{Effect, SessionKey};
use tidegate_protocol::control::{DisconnectControl, SubscriptionControl};
use tidegate_protocol::{Codec, Control, Disconnect};

use crate::node::{Frame, Node, name};

fn disconnect(user: &str, client: &str, reconnect: bool) -> Control {
    Control::Disconnect(DisconnectControl { user: user.to_owned(), client: client.to_owned(), reconnect })
}

fn selection(user: &str, client: &str, channel: &str) -> SubscriptionControl {
    SubscriptionControl { user: user.to_owned(), client: client.to_owned(), channel: channel.to_owned() }
}

fn ended(session: SessionKey, reason: Disconnect) -> Effect {
    Effect::Ended { session, reason }
}

#[test]
fn a_user_is_disconnected_everywhere_and_nobody_else_is() {
    let mut node = Node::new();
    let (first, other, second) = (node.connect("42"), node.connect("7"), node.connect("42"));
    let opening = node.open(Codec::Json);
    node.shard.control(&disconnect("42", "", false));
    assert_eq!(
        node.effects(),
        [ended(first, Disconnect::ForceDisconnect), ended(second, Disconnect::ForceDisconnect)]
    );
    assert_eq!(node.frames(first), [Frame::Close(3503, "force disconnect".to_owned())]);
    assert_eq!(node.shard.sessions(), [other, opening]);
}

#[test]
fn a_disconnect_may_ask_to_come_back() {
    let mut node = Node::new();
    let session = node.connect("42");
    node.shard.control(&disconnect("42", "", true));
    assert_eq!(node.frames(session), [Frame::Close(3011, "force reconnect".to_owned())]);
}

#[test]
fn a_client_id_narrows_to_one_session() {
    let mut node = Node::new();
    let (first, second) = (node.open(Codec::Json), node.open(Codec::Json));
    node.connect_as(first, "42");
    let client = node.connect_as(second, "42");
    node.shard.control(&disconnect("7", &client, false));
    assert_eq!(node.effects(), [], "the session of another user");
    node.shard.control(&disconnect("42", &client, false));
    assert_eq!(node.effects(), [ended(second, Disconnect::ForceDisconnect)]);
    node.shard.control(&disconnect("", "no id", false));
    assert_eq!(node.effects(), []);
    let third = node.open(Codec::Json);
    let client = node.connect_as(third, "");
    node.shard.control(&disconnect("", &client, false));
    assert_eq!(node.effects(), [ended(third, Disconnect::ForceDisconnect)]);
}

#[test]
fn an_empty_selector_matches_nobody() {
    let mut node = Node::new();
    let session = node.connect("");
    node.subscribe(session, "news");
    node.shard.control(&disconnect("", "", false));
    node.shard.control(&Control::Unsubscribe(selection("", "", "news")));
    node.shard.control(&Control::Subscribe(selection("", "", "else")));
    assert_eq!(node.effects(), []);
    assert_eq!(node.frames(session), []);
}

#[test]
fn an_unsubscribed_user_is_told_and_hears_nothing_more() {
    let mut node = Node::new();
    let (session, bystander) = (node.connect("42"), node.connect("42"));
    node.subscribe(session, "news");
    node.shard.control(&Control::Unsubscribe(selection("42", "", "news")));
    assert_eq!(
        node.replies(session),
        [json!({"push": {"channel": "news", "unsubscribe": {"code": 2000, "reason": "server unsubscribe"}}})]
    );
    assert_eq!(node.frames(bystander), [], "it was not subscribed");
    assert_eq!(node.effects(), [Effect::Leave(name("news"))]);
    node.deliver("news", "1");
    assert_eq!(node.frames(session), []);
}

#[test]
fn a_waiting_subscription_is_answered_and_then_ended_for_good() {
    let mut node = Node::new();
    let session = node.connect("42");
    node.say(session, r#"{"id":2,"subscribe":{"channel":"news"}}"#);
    node.shard.control(&Control::Unsubscribe(selection("42", "", "news")));
    let replies = node.replies(session);
    assert_eq!(replies[0], json!({"id": 2, "subscribe": {}}));
    assert_eq!(replies[1]["push"]["unsubscribe"]["code"], 2000);
    node.shard.joined(&name("news"), Ok(None));
    assert_eq!(node.frames(session), []);
    assert_eq!(node.shard.subscription_count(), 0);
}

#[test]
fn a_user_is_subscribed_once_the_relay_hears_the_channel() {
    let mut node = Node::new();
    let (first, second) = (node.connect("42"), node.connect("42"));
    node.shard.control(&Control::Subscribe(selection("42", "", "news")));
    assert_eq!(node.effects(), [Effect::Join(name("news"))]);
    assert_eq!(node.frames(first), []);
    node.shard.joined(&name("news"), Ok(None));
    for session in [first, second] {
        assert_eq!(node.replies(session), [json!({"push": {"channel": "news", "subscribe": {}}})]);
    }
    let third = node.connect("42");
    node.shard.control(&Control::Subscribe(selection("42", "", "news")));
    assert_eq!(node.replies(third).len(), 1, "the channel is heard already");
    assert_eq!(node.frames(first), [], "it has the subscription already");
    node.deliver("news", "1");
    for session in [first, second, third] {
        assert_eq!(node.replies(session).len(), 1);
    }
}

#[test]
fn a_subscription_by_the_server_that_fails_says_nothing() {
    let mut node = Node::new();
    let session = node.connect("42");
    node.shard.control(&Control::Subscribe(selection("42", "", "news")));
    node.shard.joined(&name("news"), Err(tidegate_protocol::ErrorCode::Internal));
    assert_eq!(node.frames(session), []);
    node.effects();
    node.subscribe(session, "news");
}

#[test]
fn a_server_may_subscribe_where_the_client_may_not_but_within_the_limits() {
    let mut node = Node::with(|policy| policy.max_subscriptions = 1);
    let session = node.connect("42");
    for channel in ["unheard:of", "no good"] {
        node.shard.control(&Control::Subscribe(selection("42", "", channel)));
        assert_eq!(node.effects(), [], "{channel}");
    }
    node.shard.control(&Control::Subscribe(selection("42", "", "closed:1")));
    assert_eq!(node.effects(), [Effect::Join(name("closed:1"))]);
    node.shard.control(&Control::Subscribe(selection("42", "", "closed:2")));
    assert_eq!(node.effects(), []);
    node.shard.joined(&name("closed:1"), Ok(None));
    assert_eq!(node.replies(session).len(), 1);
}
