//! What every relay promises, run over each kind.

mod support;

use std::sync::Arc;

use bytes::Bytes;
use support::{Recorder, RedisServer, channel, joined, publication, settings, start, ticket};
use tidegate_protocol::control::{Control, DisconnectControl};
use tidegate_protocol::{ClientInfo, Publication};
use tidegate_relay::{Relay, WorkerId};

/// One node on a relay of some kind.
struct Node {
    relay: Relay,
    recorder: Arc<Recorder>,
    _server: Option<RedisServer>,
}

fn memory() -> Node {
    let recorder = Recorder::new();
    let relay = start("n1", support::MEMORY, &recorder);
    recorder.up(1);
    Node { relay, recorder, _server: None }
}

fn redis() -> Node {
    let server = RedisServer::start();
    let (relay, recorder) = support::node("n1", settings(&server.url()));
    Node { relay, recorder, _server: Some(server) }
}

macro_rules! promises {
    ($($name:ident),+ $(,)?) => {
        mod memory {
            $(#[tokio::test] async fn $name() { super::$name(super::memory()).await; })+
        }
        mod redis {
            $(#[tokio::test] async fn $name() { super::$name(super::redis()).await; })+
        }
    };
}

promises![
    only_workers_that_joined_hear_a_channel,
    a_worker_that_left_hears_nothing_more,
    publications_of_a_channel_keep_their_order,
    a_join_is_answered_before_the_first_delivery,
    client_info_and_tags_arrive_as_they_were_given,
    every_publish_is_answered_once,
    control_messages_reach_the_node_that_sent_them,
    the_node_knows_itself,
    the_channels_of_the_node_are_counted,
    status_is_up,
    a_slow_worker_loses_nothing,
    after_the_end_nothing_hangs,
];

async fn only_workers_that_joined_hear_a_channel(Node { relay, recorder, .. }: Node) {
    joined(&relay, &recorder, 0, "news");
    joined(&relay, &recorder, 2, "news");
    joined(&relay, &recorder, 1, "other");
    relay.publish(publication("news", "1")).await.expect("published");
    relay.publish(publication("other", "2")).await.expect("published");
    relay.publish(publication("nobody", "3")).await.expect("published");
    recorder.hears(1, "other", &["2"]);
    recorder.hears(0, "news", &["1"]);
    recorder.hears(2, "news", &["1"]);
    assert!(recorder.record().delivered(1, "news").is_empty());
    let one_batch = |r: &support::recorder::Record| {
        r.events
            .iter()
            .filter(|e| matches!(e, support::recorder::Event::Said(_, p) if p.channel().as_str() == "news"))
            .count()
    };
    assert_eq!(one_batch(&recorder.record()), 1, "one delivery for both workers");
}

async fn a_worker_that_left_hears_nothing_more(Node { relay, recorder, .. }: Node) {
    joined(&relay, &recorder, 0, "news");
    joined(&relay, &recorder, 1, "news");
    relay.leave(WorkerId(0), channel("news")).expect("room");
    // The answer to a later join shows that the leave was taken.
    joined(&relay, &recorder, 0, "other");
    relay.publish(publication("news", "1")).await.expect("published");
    recorder.hears(1, "news", &["1"]);
    assert!(recorder.record().delivered(0, "news").is_empty());
    joined(&relay, &recorder, 0, "news");
    relay.publish(publication("news", "2")).await.expect("published");
    recorder.hears(0, "news", &["2"]);
}

async fn publications_of_a_channel_keep_their_order(Node { relay, recorder, .. }: Node) {
    joined(&relay, &recorder, 0, "news");
    let count = 5000;
    for n in 0..count {
        // There are more than the queue of either relay takes at once.
        while relay.submit(publication("news", &n.to_string()), ticket(n)).is_err() {
            tokio::task::yield_now().await;
        }
    }
    let expected: Vec<String> = (0..count).map(|n| n.to_string()).collect();
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    recorder.hears(0, "news", &expected);
}

async fn a_join_is_answered_before_the_first_delivery(Node { relay, recorder, .. }: Node) {
    for round in 0..50 {
        let name = format!("c{round}");
        relay.join(WorkerId(0), channel(&name)).expect("room");
        for n in 0..20 {
            relay.submit(publication(&name, &n.to_string()), ticket(round * 100 + n)).expect("room");
        }
        recorder.wait("the join's answer", |r| r.joins(0, &name).first().cloned()).expect("joined");
        relay.publish(publication(&name, "20")).await.expect("published");
        recorder
            .wait("the last publication", |r| r.delivered(0, &name).contains(&"20".to_owned()).then_some(()));
        let record = recorder.record();
        let first = record.events.iter().find_map(|event| match event {
            support::recorder::Event::Said(_, p) if p.channel().as_str() == name => Some("delivered"),
            support::recorder::Event::Joined(_, c, _) if c.as_str() == name => Some("joined"),
            _ => None,
        });
        assert_eq!(first, Some("joined"));
        let heard = record.delivered(0, &name);
        let from = heard.first().and_then(|n| n.parse::<u32>().ok()).expect("a number");
        let expected: Vec<_> = (from..=20).map(|n| n.to_string()).collect();
        assert_eq!(heard, expected, "without a hole from the first one on");
    }
}

async fn client_info_and_tags_arrive_as_they_were_given(Node { relay, recorder, .. }: Node) {
    joined(&relay, &recorder, 0, "news");
    let sent = Publication {
        info: Some(ClientInfo {
            user: "42".into(),
            client: "8d3f".into(),
            conn_info: Bytes::from_static(br#"{"name":"Ada \u00e4 \"x\""}"#),
            chan_info: Bytes::from_static(b"[1,2]"),
        }),
        tags: vec![("a".into(), "1".into()), ("b".into(), "\n".into())],
        offset: 0,
        ..publication("news", r#"{"text":"hello"}"#)
    };
    relay.publish(sent.clone()).await.expect("published");
    let got = recorder.wait("the publication", |r| r.publications(0, "news").next().cloned());
    assert_eq!(got, sent);
}

async fn every_publish_is_answered_once(Node { relay, recorder, .. }: Node) {
    for n in 0..100 {
        relay.submit(publication("nobody", "1"), ticket(n)).expect("room");
    }
    for n in 0..100 {
        recorder.wait("the answer", |r| r.published(n)).expect("published");
    }
    let answers = recorder
        .record()
        .events
        .iter()
        .filter(|e| matches!(e, support::recorder::Event::Published(..)))
        .count();
    assert_eq!(answers, 100);
}

async fn control_messages_reach_the_node_that_sent_them(Node { relay, recorder, .. }: Node) {
    let control = Control::Disconnect(DisconnectControl { user: "42".into(), ..Default::default() });
    relay.control(control.clone()).await.expect("sent");
    let got = recorder.wait("the control message", |r| r.controls().first().cloned());
    assert_eq!(got, control);
}

async fn the_node_knows_itself(Node { relay, recorder, .. }: Node) {
    joined(&relay, &recorder, 0, "news");
    joined(&relay, &recorder, 1, "news");
    joined(&relay, &recorder, 1, "other");
    relay.leave(WorkerId(1), channel("other")).expect("room");
    joined(&relay, &recorder, 1, "news");
    assert_eq!(relay.channel_count(), 1, "once, however many workers hear it, and not while nobody does");
    let nodes = relay.nodes().await.expect("the registry");
    assert_eq!(nodes.len(), 1);
    assert_eq!((nodes[0].id.as_str(), nodes[0].name.as_str()), ("n1", "host-n1"));
    assert_eq!((nodes[0].connections, nodes[0].subscriptions, nodes[0].channels), (3, 2, 1));
}

async fn the_channels_of_the_node_are_counted(Node { relay, recorder, .. }: Node) {
    recorder.record().channels = Some(vec![(channel("news"), 3), (channel("a"), 1)]);
    assert_eq!(relay.channels().await.expect("counted"), [("a".to_owned(), 1), ("news".to_owned(), 3)]);
    recorder.record().channels = None;
    let error = relay.channels().await.expect_err("the node does not answer").to_string();
    assert!(error.contains("n1"), "the error names the node: {error}");
}

async fn status_is_up(Node { relay, .. }: Node) {
    relay.publish(publication("news", "1")).await.expect("published");
    assert!(relay.status().up);
}

async fn a_slow_worker_loses_nothing(Node { relay, recorder, .. }: Node) {
    joined(&relay, &recorder, 0, "news");
    recorder.stall(true);
    for n in 0..2000 {
        relay.submit(publication("news", &n.to_string()), ticket(n)).expect("room");
    }
    let blocked = recorder
        .wait_for(std::time::Duration::from_secs(1), |r| (!r.delivered(0, "news").is_empty()).then_some(()));
    assert!(blocked.is_none(), "nothing passes while the worker stalls");
    recorder.stall(false);
    let expected: Vec<String> = (0..2000).map(|n| n.to_string()).collect();
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    recorder.hears(0, "news", &expected);
    assert_eq!(recorder.record().count(|o| matches!(o, tidegate_relay::Observation::Down { .. })), 0);
}

async fn after_the_end_nothing_hangs(Node { relay, recorder, .. }: Node) {
    joined(&relay, &recorder, 0, "news");
    relay.stop().await;
    assert!(relay.publish(publication("news", "1")).await.is_err());
    assert!(relay.control(Control::Disconnect(DisconnectControl::default())).await.is_err());
    assert!(relay.join(WorkerId(0), channel("late")).is_err());
    assert!(relay.submit(publication("news", "1"), ticket(1)).is_err());
    assert!(!relay.status().up);
}
