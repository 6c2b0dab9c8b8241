//! Workers join channels and leave them.

use tidegate_relay::WorkerId;

use crate::Node;
use crate::support::recorder::Event;
use crate::support::{channel, joined, publication, ticket};

promises![a_worker_that_left_hears_nothing_more, a_join_is_answered_before_the_first_delivery,];

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
            Event::Said(_, p) if p.channel().as_str() == name => Some("delivered"),
            Event::Joined(_, c, _) if c.as_str() == name => Some("joined"),
            _ => None,
        });
        assert_eq!(first, Some("joined"));
        let heard = record.delivered(0, &name);
        let from = heard.first().and_then(|n| n.parse::<u32>().ok()).expect("a number");
        let expected: Vec<_> = (from..=20).map(|n| n.to_string()).collect();
        assert_eq!(heard, expected, "without a hole from the first one on");
    }
}
