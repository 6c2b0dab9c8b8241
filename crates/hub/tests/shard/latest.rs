//! Channels of newest values: what a session gets that cannot keep up with them.

use std::collections::HashMap;
use std::io::IoSlice;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};
use tidegate_hub::{Broadcast, SessionKey};
use tidegate_protocol::Disconnect;

use crate::node::{Frame, Node, frames, lines, publication};

/// The socket takes so many bytes; what is left, is left.
fn write(node: &mut Node, session: SessionKey, most: usize, into: &mut Vec<u8>) {
    let outbox = node.shard.outbox(session).expect("it is there");
    let mut room = most;
    while room > 0 && !outbox.is_empty() {
        let mut slices = [IoSlice::new(&[]); 3];
        let filled = outbox.slices(&mut slices);
        let waiting: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.to_vec()).collect();
        let taken = room.min(waiting.len());
        into.extend_from_slice(&waiting[..taken]);
        outbox.advance(taken);
        room -= taken;
    }
    if !outbox.is_empty() {
        node.shard.blocked(session);
    }
}

/// A session in these channels.
fn subscriber(node: &mut Node, channels: &[&str]) -> SessionKey {
    let session = node.connect("");
    channels.iter().for_each(|channel| node.subscribe(session, channel));
    session
}

fn deliver_run(node: &mut Node, channel: &str, data: impl IntoIterator<Item = String>) {
    let run: Vec<_> =
        data.into_iter().map(|data| Arc::new(Broadcast::new(publication(channel, &data)))).collect();
    node.shard.deliver(&run);
}

/// (channel, data) of each publication among frames.
fn publications(frames: &[Frame]) -> Vec<(String, Value)> {
    let pushes = frames.iter().flat_map(lines).filter_map(|line| {
        let push = line.get("push")?;
        Some((push["channel"].as_str()?.to_owned(), push["pub"]["data"].clone()))
    });
    pushes.collect()
}

fn numbers(frames: &[Frame], channel: &str) -> Vec<u64> {
    let of_channel = publications(frames).into_iter().filter(|(found, _)| found == channel);
    of_channel.map(|(_, data)| data["n"].as_u64().expect("a number")).collect()
}

#[test]
fn a_session_that_keeps_up_gets_every_publication() {
    let mut node = Node::new();
    let session = subscriber(&mut node, &["price:a"]);
    let mut seen = Vec::new();
    for number in 0..20 {
        deliver_run(&mut node, "price:a", (0..3).map(|step| json!({"n": number * 3 + step}).to_string()));
        node.deliver("price:a", &json!({"n": number * 3 + 2}).to_string());
        write(&mut node, session, usize::MAX, &mut seen);
    }
    assert_eq!(numbers(&frames(&seen), "price:a").len(), 80);
    assert_eq!(node.shard.take_tally().conflated, 0);
}

#[test]
fn a_session_that_is_behind_gets_the_newest_of_each_channel_and_what_was_begun() {
    let mut node = Node::new();
    let session = subscriber(&mut node, &["price:a", "price:b", "news"]);
    let mut seen = Vec::new();
    deliver_run(&mut node, "price:a", (0..10).map(|n| json!({"n": n}).to_string()));
    write(&mut node, session, 5, &mut seen);
    for n in 10..1_000 {
        node.deliver("price:a", &json!({"n": n}).to_string());
        deliver_run(&mut node, "price:b", (2 * n..2 * n + 2).map(|n| json!({"n": n}).to_string()));
        if n % 100 == 0 {
            node.deliver("news", &json!({"n": n}).to_string());
        }
        write(&mut node, session, 0, &mut seen);
    }
    let waiting = node.shard.outbox_bytes();
    assert!(waiting < 13 * 80, "one frame a channel and nine of news: {waiting}");
    write(&mut node, session, usize::MAX, &mut seen);
    let seen = frames(&seen);
    assert_eq!(numbers(&seen, "price:a"), [0, 999], "the first was begun");
    assert_eq!(numbers(&seen, "price:b"), [1_999]);
    assert_eq!(numbers(&seen, "news"), [100, 200, 300, 400, 500, 600, 700, 800, 900]);
    assert_eq!(node.shard.take_tally().conflated, 998 + 2 * 990 - 1);
    // From then on it keeps up again.
    let mut seen = Vec::new();
    deliver_run(&mut node, "price:a", (0..10).map(|n| json!({"n": n}).to_string()));
    write(&mut node, session, usize::MAX, &mut seen);
    assert_eq!(numbers(&frames(&seen), "price:a").len(), 10);
}

#[test]
fn more_newest_values_than_fit_cost_the_oldest_and_never_the_connection() {
    let mut node = Node::new();
    let channels: Vec<_> = (0..8).map(|number| format!("price:{number}")).collect();
    let session = subscriber(&mut node, &channels.iter().map(String::as_str).collect::<Vec<_>>());
    let large = "x".repeat(10_000);
    let mut seen = Vec::new();
    for n in 0..5 {
        for channel in &channels {
            node.deliver(channel, &json!({"n": n, "text": large}).to_string());
            write(&mut node, session, 0, &mut seen);
            assert!(node.shard.outbox_bytes() <= 32 * 1024, "{}", node.shard.outbox_bytes());
        }
    }
    // Replies and pings have room all the while.
    node.say(session, r#"{"id":9,"ping":{}}"#);
    write(&mut node, session, usize::MAX, &mut seen);
    let seen = frames(&seen);
    let expected: Vec<_> = ["price:5", "price:6", "price:7"].map(str::to_owned).into();
    let found: Vec<_> =
        publications(&seen).into_iter().map(|(channel, data)| (channel, data["n"].clone())).collect();
    assert_eq!(found, expected.into_iter().map(|channel| (channel, json!(4))).collect::<Vec<_>>());
    assert_eq!(seen.last().map(lines), Some(vec![json!({"id": 9, "ping": {}})]));
    let tally = node.shard.take_tally();
    assert_eq!((tally.conflated, tally.slow_consumers), (8 * 5 - 3, 0));
}

#[test]
fn what_other_channels_pile_up_ends_a_session_as_ever() {
    let mut node = Node::new();
    let session = subscriber(&mut node, &["price:a", "news"]);
    let large = json!({"n": 1, "text": "x".repeat(10_000)}).to_string();
    node.deliver("price:a", &large);
    write(&mut node, session, 1, &mut Vec::new());
    for _ in 0..10 {
        node.deliver("news", &large);
    }
    assert_eq!(node.shard.take_tally().slow_consumers, 1);
    let mut rest = Vec::new();
    write(&mut node, session, usize::MAX, &mut rest);
    assert!(rest.len() > 10_000, "what was begun is finished");
    assert_eq!(frames(&rest[rest.len() - 8..]), [Frame::Close(Disconnect::Slow.code(), "slow".into())]);
}

#[test]
fn a_subscription_made_anew_does_not_take_the_place_of_what_waits_of_the_old_one() {
    let mut node = Node::new();
    let session = subscriber(&mut node, &["price:a"]);
    // Somebody else keeps the channel.
    subscriber(&mut node, &["price:a"]);
    let mut seen = Vec::new();
    node.deliver("price:a", &json!({"n": 0}).to_string());
    node.deliver("price:a", &json!({"n": 1}).to_string());
    write(&mut node, session, 1, &mut seen);
    node.say(session, r#"{"id":3,"unsubscribe":{"channel":"price:a"}}"#);
    node.say(session, r#"{"id":4,"subscribe":{"channel":"price:a"}}"#);
    for n in 2..5 {
        node.deliver("price:a", &json!({"n": n}).to_string());
    }
    write(&mut node, session, usize::MAX, &mut seen);
    let lines: Vec<_> = frames(&seen).iter().flat_map(lines).collect();
    let of = |n: u64| json!({"push": {"channel": "price:a", "pub": {"data": {"n": n}}}});
    let (left, back) = (json!({"id": 3, "unsubscribe": {}}), json!({"id": 4, "subscribe": {}}));
    assert_eq!(lines, [of(0), of(1), left, back, of(4)]);
    assert_eq!(node.shard.take_tally().conflated, 2);
}

#[derive(Debug, Clone)]
enum Step {
    /// A run of publications of a channel, each of a size.
    Deliver(usize, Vec<usize>),
    /// The socket takes so many bytes.
    Write(usize),
    /// The client pings.
    Ping,
    /// The client leaves a channel and comes back.
    Again(usize),
}

/// The last one is an ordinary channel.
const CHANNELS: [&str; 4] = ["price:a", "price:b", "price:c", "news"];

fn step() -> impl Strategy<Value = Step> {
    let run = prop::collection::vec(prop_oneof![0..40_usize, 100..300_usize], 1..5);
    prop_oneof![
        8 => (0..CHANNELS.len(), run).prop_map(|(channel, run)| Step::Deliver(channel, run)),
        6 => prop_oneof![Just(0_usize), 1..200_usize, Just(usize::MAX)].prop_map(Step::Write),
        1 => Just(Step::Ping),
        1 => (0..CHANNELS.len()).prop_map(Step::Again),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn each_channel_is_heard_in_order_up_to_its_newest_and_what_is_missing_is_counted(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut node = Node::with(|policy| policy.outbox_max_bytes = 1024 * 1024);
        let session = subscriber(&mut node, &CHANNELS);
        // Somebody else keeps the channels, reads nothing and is never behind.
        subscriber(&mut node, &CHANNELS);
        let (mut seen, mut made, mut id) = (Vec::new(), 0_u64, 10);
        let mut newest: HashMap<&str, u64> = HashMap::new();
        // What comes in this order, whatever is skipped between: publications of news, and replies.
        let mut kept = Vec::new();
        for step in steps {
            match step {
                Step::Deliver(channel, run) => {
                    let channel = CHANNELS[channel];
                    let data: Vec<_> = run.iter().map(|size| {
                        made += 1;
                        if channel == "news" {
                            kept.push(json!(made));
                        }
                        newest.insert(channel, made);
                        json!({"n": made, "text": "x".repeat(*size)}).to_string()
                    }).collect();
                    deliver_run(&mut node, channel, data);
                }
                Step::Write(most) => {
                    write(&mut node, session, most, &mut seen);
                    // One frame of each channel of newest values, one that was begun and one of each former
                    // subscription, beside what may not be skipped.
                    let frames = CHANNELS.len() + 1 + kept.len();
                    let waiting = node.shard.outbox(session).expect("it is there").bytes();
                    prop_assert!(waiting <= frames * 400, "{}", waiting);
                }
                Step::Ping => {
                    id += 1;
                    node.say(session, &format!(r#"{{"id":{id},"ping":{{}}}}"#));
                    kept.push(json!({"id": id, "ping": {}}));
                }
                Step::Again(channel) => {
                    let channel = CHANNELS[channel];
                    id += 2;
                    node.say(session, &format!(r#"{{"id":{},"unsubscribe":{{"channel":"{channel}"}}}}"#, id - 1));
                    node.say(session, &format!(r#"{{"id":{id},"subscribe":{{"channel":"{channel}"}}}}"#));
                    kept.push(json!({"id": id - 1, "unsubscribe": {}}));
                    kept.push(json!({"id": id, "subscribe": {}}));
                }
            }
        }
        write(&mut node, session, usize::MAX, &mut seen);
        let seen = frames(&seen);
        let mut heard = 0;
        for channel in CHANNELS {
            let numbers = numbers(&seen, channel);
            prop_assert!(numbers.is_sorted_by(|a, b| a < b), "{channel}: {numbers:?}");
            prop_assert_eq!(numbers.last(), newest.get(channel), "{}", channel);
            heard += numbers.len() as u64;
        }
        let in_order: Vec<_> = seen.iter().flat_map(lines).filter_map(|line| match line.get("push") {
            Some(push) if push["channel"] == "news" => Some(push["pub"]["data"]["n"].clone()),
            Some(_) => None,
            None => Some(line),
        }).collect();
        prop_assert_eq!(in_order, kept);
        let tally = node.shard.take_tally();
        prop_assert_eq!(heard + tally.conflated, made);
        prop_assert_eq!(tally.slow_consumers, 0);
    }
}
