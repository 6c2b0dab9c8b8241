//! Positions, and how who comes back is given what they missed.

use std::sync::Arc;

use serde_json::{Value, json};
use tidegate_hub::{Broadcast, Effect, History, Namespace, Recovered, Right, SessionKey};
use tidegate_protocol::{Codec, Epoch, ErrorCode, Position, Publication};

use crate::node::{Frame, Node, name, publication};

fn at(offset: u64, epoch: &str) -> Position {
    Position { offset, epoch: Epoch::new(epoch) }
}

fn numbered(channel: &str, offset: u64) -> Publication {
    Publication { offset, ..publication(channel, &offset.to_string()) }
}

/// A node whose namespace `kept` has history and `back` recovery besides.
fn node() -> Node {
    Node::with(|policy| {
        let plain = Namespace::plain(Right::Anyone, Right::Anyone);
        policy.namespaces.insert("kept".to_owned(), Namespace { history: History::Kept, ..plain });
        policy.namespaces.insert("back".to_owned(), Namespace { history: History::Recoverable, ..plain });
    })
}

impl Node {
    /// A session subscribes, and the relay hears the channel from this position on.
    fn position(&mut self, session: SessionKey, channel: &str, position: Position) -> Value {
        self.say(session, &format!(r#"{{"id":2,"subscribe":{{"channel":"{channel}"}}}}"#));
        for effect in self.effects() {
            assert_eq!(effect, Effect::Join(name(channel)));
            self.shard.joined(&name(channel), Ok(Some(position.clone())));
        }
        self.only(session)
    }

    fn come_back(&mut self, session: SessionKey, id: u32, channel: &str, since: &Position) {
        let (offset, epoch) = (since.offset, since.epoch.as_str());
        self.say(
            session,
            &format!(
                r#"{{"id":{id},"subscribe":{{"channel":"{channel}","recover":true,"offset":{offset},"epoch":"{epoch}"}}}}"#
            ),
        );
    }

    /// The only thing that waits for the session.
    fn only(&mut self, session: SessionKey) -> Value {
        let mut replies = self.replies(session);
        assert_eq!(replies.len(), 1, "{replies:?}");
        replies.remove(0)
    }

    fn say_in(&mut self, channel: &str, offsets: std::ops::RangeInclusive<u64>) {
        let run: Vec<_> = offsets.map(|offset| Arc::new(Broadcast::new(numbered(channel, offset)))).collect();
        self.shard.deliver(&run);
    }
}

fn missed(channel: &str, offsets: std::ops::RangeInclusive<u64>, epoch: &str) -> Recovered {
    let position = at(*offsets.end(), epoch);
    let publications = offsets.map(|offset| Arc::new(numbered(channel, offset))).collect();
    Recovered { position, publications: Some(publications) }
}

fn asked(session: SessionKey, id: u32, channel: &str, since: Position) -> Effect {
    Effect::Recover { session, id, channel: name(channel), since }
}

/// What is not there.
const ABSENT: Value = Value::Null;

fn error(reply: &Value) -> (u64, Value) {
    (reply["error"]["code"].as_u64().unwrap_or_default(), reply["error"]["temporary"].clone())
}

#[test]
fn a_subscription_is_told_where_it_begins_and_whether_it_can_be_recovered() {
    let mut node = node();
    let (first, second) = (node.connect(""), node.connect(""));
    let reply = node.position(first, "back:1", at(7, "e"));
    let expected = json!({"id": 2, "subscribe":
        {"recoverable": true, "epoch": "e", "offset": 7, "positioned": true}});
    assert_eq!(reply, expected);
    // Who comes later begins where the others stand by then.
    node.say_in("back:1", 8..=9);
    assert_eq!(node.replies(first).len(), 2);
    let reply = node.position(second, "back:1", at(0, "unused"));
    assert_eq!(reply["subscribe"]["offset"], 9);

    let kept = node.position(first, "kept:1", at(3, "k"));
    assert_eq!(kept["subscribe"], json!({"epoch": "k", "offset": 3, "positioned": true}));
}

#[test]
fn a_backends_subscription_is_told_its_position_too() {
    let mut node = node();
    let (first, second) = (node.connect("42"), node.connect("42"));
    let control = tidegate_protocol::control::SubscriptionControl {
        user: "42".to_owned(),
        client: String::new(),
        channel: "back:1".to_owned(),
    };
    node.position(first, "back:1", at(7, "e"));
    node.shard.control(&tidegate_protocol::Control::Subscribe(control));
    let push = node.only(second);
    let expected = json!({"recoverable": true, "epoch": "e", "offset": 7, "positioned": true});
    assert_eq!(push["push"]["subscribe"], expected);
    assert_eq!(node.frames(first), []);
}

#[test]
fn who_missed_nothing_is_told_so_at_once() {
    let mut node = node();
    let (first, second) = (node.connect(""), node.connect(""));
    node.position(first, "back:1", at(7, "e"));
    node.come_back(second, 3, "back:1", &at(7, "e"));
    assert_eq!(node.effects(), [], "the relay has nothing to say to it");
    let reply = node.only(second);
    let expected = json!({"recoverable": true, "epoch": "e", "offset": 7, "positioned": true,
        "recovered": true, "was_recovering": true});
    assert_eq!(reply["subscribe"], expected);
    node.say_in("back:1", 8..=8);
    assert_eq!(node.only(second)["push"]["pub"]["offset"], 8);
    assert_eq!(node.shard.take_tally().recoveries, [1, 0, 0]);
}

#[test]
fn who_missed_something_gets_exactly_that_and_then_what_follows() {
    let mut node = node();
    let (first, second) = (node.connect(""), node.connect(""));
    node.position(first, "back:1", at(7, "e"));
    node.come_back(second, 3, "back:1", &at(4, "e"));
    assert_eq!(node.effects(), [asked(second, 3, "back:1", at(4, "e"))]);
    node.say_in("back:1", 8..=9);
    assert_eq!(node.frames(second), [], "nothing may come before the reply");
    assert_eq!(node.shard.subscription_count(), 1);
    node.shard.recovered(second, 3, &name("back:1"), Ok(missed("back:1", 5..=9, "e")));
    node.say_in("back:1", 10..=10);
    let replies = node.replies(second);
    let subscribe = &replies[0]["subscribe"];
    assert_eq!((&subscribe["recovered"], &subscribe["was_recovering"]), (&json!(true), &json!(true)));
    assert_eq!(subscribe["offset"], 4, "the asked one: an SDK counts on from there");
    let offsets: Vec<_> = subscribe["publications"]
        .as_array()
        .expect("publications")
        .iter()
        .map(|it| it["offset"].clone())
        .collect();
    assert_eq!(offsets, [5, 6, 7, 8, 9].map(Value::from));
    assert_eq!(replies[1]["push"]["pub"]["offset"], 10);
    assert_eq!(node.shard.subscription_count(), 2);
}

#[test]
fn the_first_of_a_channel_is_recovered_as_well() {
    let mut node = node();
    let (back, new) = (node.connect(""), node.connect(""));
    node.come_back(back, 3, "back:1", &at(4, "e"));
    node.say(new, r#"{"id":2,"subscribe":{"channel":"back:1"}}"#);
    assert_eq!(node.effects(), [Effect::Join(name("back:1"))]);
    node.shard.joined(&name("back:1"), Ok(Some(at(6, "e"))));
    assert_eq!(node.effects(), [asked(back, 3, "back:1", at(4, "e"))]);
    assert_eq!(node.only(new)["subscribe"]["offset"], 6);
    // The one that stands leaves; the one that waits holds the channel.
    node.say(new, r#"{"id":3,"unsubscribe":{"channel":"back:1"}}"#);
    assert_eq!(node.effects(), []);
    assert_eq!(node.shard.channels(), [], "nobody is in it yet");
    node.shard.recovered(back, 3, &name("back:1"), Ok(missed("back:1", 5..=6, "e")));
    assert_eq!(node.only(back)["subscribe"]["publications"].as_array().map(Vec::len), Some(2));
    assert_eq!(node.shard.channels(), [(name("back:1"), 1)]);
}

#[test]
fn what_cannot_be_had_is_told_with_the_position_to_go_on_from() {
    let mut node = node();
    let sessions: Vec<_> = (0..4).map(|_| node.connect("")).collect();
    node.position(sessions[0], "back:1", at(7, "e"));
    let told = |reply: &Value| {
        let subscribe = &reply["subscribe"];
        assert_eq!(subscribe["was_recovering"], true, "{reply}");
        assert!(subscribe.get("recovered").is_none() && subscribe.get("publications").is_none(), "{reply}");
        (subscribe["epoch"].clone(), subscribe["offset"].clone(), subscribe["recoverable"].clone())
    };
    // Another life of the channel.
    node.come_back(sessions[1], 3, "back:1", &at(7, "other"));
    assert_eq!(node.effects(), []);
    assert_eq!(told(&node.only(sessions[1])), (json!("e"), json!(7), json!(true)));
    // Trimmed.
    node.come_back(sessions[2], 3, "back:1", &at(1, "e"));
    node.effects();
    let gone = Recovered { position: at(7, "e"), publications: None };
    node.shard.recovered(sessions[2], 3, &name("back:1"), Ok(gone));
    assert_eq!(told(&node.only(sessions[2])), (json!("e"), json!(7), json!(true)));
    // Never offered.
    node.position(sessions[0], "kept:1", at(3, "k"));
    node.come_back(sessions[3], 3, "kept:1", &at(2, "k"));
    assert_eq!(node.effects(), []);
    assert_eq!(told(&node.only(sessions[3])), (json!("k"), json!(3), ABSENT));
    // A channel without history at all.
    node.subscribe(sessions[0], "news");
    node.come_back(sessions[3], 4, "news", &at(2, "k"));
    assert_eq!(node.only(sessions[3]), json!({"id": 4, "subscribe": {"was_recovering": true}}));
    assert_eq!(node.shard.take_tally().recoveries, [0, 4, 0]);
    node.say_in("back:1", 8..=8);
    for session in &sessions[..3] {
        assert_eq!(node.only(*session)["push"]["pub"]["offset"], 8, "all are members");
    }
}

#[test]
fn a_recovery_that_fails_is_a_temporary_error_and_no_subscription() {
    let mut node = node();
    let (first, second) = (node.connect(""), node.connect(""));
    node.position(first, "back:1", at(7, "e"));
    let wrong = [
        Err(ErrorCode::Internal),
        // Of another life than its members see.
        Ok(missed("back:1", 5..=7, "other")),
        // From before what the members were given already.
        Ok(missed("back:1", 5..=6, "e")),
    ];
    for (id, result) in (3..).zip(wrong) {
        node.come_back(second, id, "back:1", &at(4, "e"));
        node.effects();
        node.shard.recovered(second, id, &name("back:1"), result);
        assert_eq!(error(&node.only(second)), (100, json!(true)));
    }
    // Behind what the session has seen elsewhere: it would hear the same again.
    node.come_back(second, 9, "back:1", &at(9, "e"));
    node.effects();
    node.shard.recovered(
        second,
        9,
        &name("back:1"),
        Ok(Recovered { publications: Some(Arc::new([])), position: at(8, "e") }),
    );
    assert_eq!(error(&node.only(second)), (100, json!(true)));
    node.say_in("back:1", 8..=8);
    assert_eq!(node.frames(second), []);
    assert_eq!(node.shard.subscription_count(), 1);
    assert_eq!(node.shard.take_tally().recoveries, [0, 0, 4]);
}

#[test]
fn who_withdraws_from_a_recovery_is_answered_and_its_late_answer_changes_nothing() {
    let mut node = node();
    let (first, second) = (node.connect(""), node.connect(""));
    node.position(first, "back:1", at(7, "e"));
    node.come_back(second, 3, "back:1", &at(4, "e"));
    node.come_back(second, 4, "back:1", &at(4, "e"));
    assert_eq!(error(&node.only(second)), (105, ABSENT), "it waits already");
    node.say(second, r#"{"id":5,"unsubscribe":{"channel":"back:1"}}"#);
    let replies = node.replies(second);
    assert_eq!((&replies[0]["id"], error(&replies[0])), (&json!(3), (100, json!(true))));
    assert_eq!(replies[1], json!({"id": 5, "unsubscribe": {}}));
    // Asked again, the first answer is not the second's.
    node.come_back(second, 6, "back:1", &at(5, "e"));
    node.effects();
    node.shard.recovered(second, 3, &name("back:1"), Ok(missed("back:1", 5..=7, "e")));
    assert_eq!(node.frames(second), []);
    node.shard.recovered(second, 6, &name("back:1"), Ok(missed("back:1", 6..=7, "e")));
    assert_eq!(node.only(second)["subscribe"]["publications"].as_array().map(Vec::len), Some(2));
    node.shard.recovered(second, 6, &name("back:1"), Ok(missed("back:1", 6..=7, "e")));
    assert_eq!(node.frames(second), [], "an answer is given once");
}

#[test]
fn a_place_that_is_used_again_gets_nobody_elses_recovery() {
    let mut node = node();
    let (first, gone) = (node.connect(""), node.connect(""));
    node.position(first, "back:1", at(7, "e"));
    node.come_back(gone, 3, "back:1", &at(4, "e"));
    node.shard.remove(gone);
    let next = node.connect("");
    assert_eq!(next.index, gone.index);
    node.come_back(next, 3, "back:1", &at(6, "e"));
    node.shard.recovered(gone, 3, &name("back:1"), Ok(missed("back:1", 5..=7, "e")));
    assert_eq!(node.frames(next), []);
    node.shard.recovered(next, 3, &name("back:1"), Ok(missed("back:1", 7..=7, "e")));
    assert_eq!(node.only(next)["subscribe"]["publications"].as_array().map(Vec::len), Some(1));
}

#[test]
fn the_last_to_withdraw_from_a_recovery_leaves_the_channel() {
    let mut node = node();
    let session = node.connect("");
    for end in [false, true] {
        node.come_back(session, 3, "back:1", &at(4, "e"));
        node.shard.joined(&name("back:1"), Ok(Some(at(6, "e"))));
        node.effects();
        if end {
            node.shard.remove(session);
        } else {
            node.say(session, r#"{"id":4,"unsubscribe":{"channel":"back:1"}}"#);
        }
        assert_eq!(node.effects(), [Effect::Leave(name("back:1"))]);
        node.frames(session);
    }
}

#[test]
fn a_channel_that_is_lost_fails_those_who_recover_and_unsubscribes_its_members() {
    let mut node = node();
    let (member, back) = (node.connect(""), node.connect(""));
    for lose in [true, false] {
        node.position(member, "back:1", at(7, "e"));
        node.come_back(back, 3, "back:1", &at(4, "e"));
        node.effects();
        if lose {
            node.shard.lost(&name("back:1"));
            assert_eq!(node.effects(), [], "the relay has forgotten it already");
        } else {
            node.shard.missed();
            assert_eq!(node.effects(), [Effect::Leave(name("back:1"))], "the relay knows nothing of it");
        }
        assert_eq!(node.only(member)["push"]["unsubscribe"]["code"], 2500);
        assert_eq!(error(&node.only(back)), (100, json!(true)));
        assert_eq!(node.shard.subscription_count(), 0);
        node.say_in("back:1", 8..=8);
        node.shard.recovered(back, 3, &name("back:1"), Ok(missed("back:1", 5..=7, "e")));
        assert_eq!((node.frames(member), node.frames(back)), (vec![], vec![]));
    }
}

#[test]
fn what_was_missed_on_the_way_loses_no_channel_without_history() {
    let mut node = node();
    let session = node.connect("");
    node.subscribe(session, "news");
    node.position(session, "kept:1", at(7, "e"));
    node.shard.missed();
    assert_eq!(node.only(session)["push"]["channel"], "kept:1");
    assert_eq!(node.shard.channels(), [(name("news"), 1)]);
}

#[test]
fn those_who_recover_count_against_the_limit_of_subscriptions() {
    let mut node = node();
    let (first, second) = (node.connect(""), node.connect(""));
    for channel in 0..8 {
        node.position(first, &format!("back:{channel}"), at(7, "e"));
        node.come_back(second, 3 + channel, &format!("back:{channel}"), &at(4, "e"));
        assert_eq!(node.effects().len(), 1);
    }
    assert_eq!(node.frames(second), []);
    node.come_back(second, 20, "back:8", &at(4, "e"));
    assert_eq!(error(&node.only(second)), (106, ABSENT));
}

#[test]
fn more_than_an_outbox_holds_is_not_recovered_and_ends_nobody() {
    let mut node = node();
    let (first, second) = (node.connect(""), node.connect(""));
    node.position(first, "back:1", at(1000, "e"));
    let large = |count: u64| {
        let publication =
            |offset| Publication { offset, ..publication("back:1", &format!("\"{}\"", "x".repeat(1000))) };
        let publications = (1001 - count..=1000).map(|offset| Arc::new(publication(offset))).collect();
        Recovered { position: at(1000, "e"), publications: Some(publications) }
    };
    node.come_back(second, 3, "back:1", &at(900, "e"));
    node.effects();
    node.shard.recovered(second, 3, &name("back:1"), Ok(large(100)));
    let reply = node.only(second);
    assert_eq!((&reply["subscribe"]["offset"], &reply["subscribe"]["recovered"]), (&json!(1000), &ABSENT));
    node.say(second, r#"{"id":4,"unsubscribe":{"channel":"back:1"}}"#);
    node.frames(second);

    // What would fit, but for what waits already, can be asked for again.
    for id in [5, 6] {
        node.come_back(second, id, "back:1", &at(960, "e"));
        node.effects();
        if id == 5 {
            node.shard.native_ping(second, &[0; 125]);
            node.shard.echo(second, true, "x".repeat(30_000).as_bytes());
        }
        node.shard.recovered(second, id, &name("back:1"), Ok(large(40)));
        let reply = match node.frames(second).pop() {
            Some(Frame::Text(text)) => serde_json::from_str::<Value>(&text).expect("JSON"),
            other => panic!("{other:?}"),
        };
        if id == 5 {
            assert_eq!(error(&reply), (100, json!(true)));
        } else {
            assert_eq!(reply["subscribe"]["recovered"], true);
        }
    }
}

#[test]
fn a_client_of_protobuf_recovers_the_same() {
    let mut node = node();
    let first = node.connect("");
    node.position(first, "back:1", at(7, "e"));
    let session = node.open(Codec::Protobuf);
    // connect, then subscribe {channel: "back:1", recover, epoch: "e", offset: 5}.
    let connect = [4, 0x08, 1, 0x22, 0];
    let subscribe = [&[0x0a, 6][..], b"back:1", &[0x18, 1, 0x32, 1, b'e', 0x38, 5]].concat();
    let mut command = vec![0x08, 2, 0x2a, u8::try_from(subscribe.len()).expect("short")];
    command.extend(&subscribe);
    let mut message = connect.to_vec();
    message.push(u8::try_from(command.len()).expect("short"));
    message.extend(command);
    node.shard.message(session, false, &message, &crate::node::ByToken, node.now);
    node.frames(session);
    assert_eq!(node.effects(), [asked(session, 2, "back:1", at(5, "e"))]);
    node.shard.recovered(session, 2, &name("back:1"), Ok(missed("back:1", 6..=7, "e")));
    let frames = node.frames(session);
    let [Frame::Binary(reply)] = &frames[..] else { panic!("{frames:?}") };
    // In the reply's subscribe (6): recoverable (3), epoch (6), two publications (7) with data (4) and offset (6), ...
    let publication = |offset: u8| vec![0x3a, 5, 0x22, 1, b'0' + offset, 0x30, offset];
    let mut result = vec![0x18, 1, 0x32, 1, b'e'];
    result.extend(publication(6));
    result.extend(publication(7));
    // ... recovered (8), offset (9), positioned (10), was_recovering (12).
    result.extend([0x40, 1, 0x48, 5, 0x50, 1, 0x60, 1]);
    let mut expected = vec![0x08, 2, 0x32, u8::try_from(result.len()).expect("short")];
    expected.extend(result);
    expected.insert(0, u8::try_from(expected.len()).expect("short"));
    assert_eq!(*reply, expected);
}
