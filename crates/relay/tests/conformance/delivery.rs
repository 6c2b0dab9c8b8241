//! What is published arrives.

use std::time::Duration;

use tidegate_relay::Observation;

use crate::support::recorder::{Event, Record};
use crate::support::{joined, publication, ticket};
use crate::{Node, furnished};

promises![
    only_workers_that_joined_hear_a_channel,
    publications_of_a_channel_keep_their_order,
    client_info_and_tags_arrive_as_they_were_given,
    every_publish_is_answered_once,
    a_slow_worker_loses_nothing,
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
    let one_batch = |r: &Record| {
        r.events.iter().filter(|e| matches!(e, Event::Said(_, p) if p.channel().as_str() == "news")).count()
    };
    assert_eq!(one_batch(&recorder.record()), 1, "one delivery for both workers");
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

async fn client_info_and_tags_arrive_as_they_were_given(Node { relay, recorder, .. }: Node) {
    joined(&relay, &recorder, 0, "news");
    let sent = furnished("news");
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
    let answers = recorder.record().events.iter().filter(|e| matches!(e, Event::Published(..))).count();
    assert_eq!(answers, 100);
}

async fn a_slow_worker_loses_nothing(Node { relay, recorder, .. }: Node) {
    joined(&relay, &recorder, 0, "news");
    recorder.stall(true);
    for n in 0..2000 {
        relay.submit(publication("news", &n.to_string()), ticket(n)).expect("room");
    }
    let blocked =
        recorder.wait_for(Duration::from_secs(1), |r| (!r.delivered(0, "news").is_empty()).then_some(()));
    assert!(blocked.is_none(), "nothing passes while the worker stalls");
    recorder.stall(false);
    let expected: Vec<String> = (0..2000).map(|n| n.to_string()).collect();
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    recorder.hears(0, "news", &expected);
    assert_eq!(recorder.record().count(|o| matches!(o, Observation::Down { .. })), 0);
}
