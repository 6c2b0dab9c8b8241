//! Where a worker begins in a channel with history.

use tidegate_relay::{Said, WorkerId};

use crate::support::recorder::Event;
use crate::support::{channel, joined, publication, ticket};
use crate::{Node, numbers};

promises![
    a_join_tells_where_the_channel_stands,
    deliveries_begin_behind_the_position_of_the_join,
    each_worker_has_a_position_of_its_own,
];

async fn a_join_tells_where_the_channel_stands(Node { relay, recorder, .. }: Node) {
    let start = joined(&relay, &recorder, 0, "kept:a").expect("a channel with history");
    assert_eq!(start.offset, 0);
    let last = numbers(&relay, "kept:a", 1..=3).await;
    assert_eq!(last.epoch, start.epoch);
    // It is where what was delivered on this node has led.
    recorder.hears(0, "kept:a", &["1", "2", "3"]);
    assert_eq!(joined(&relay, &recorder, 2, "kept:a"), Some(last.clone()));
    relay.leave(WorkerId(2), channel("kept:a")).expect("room");
    assert_eq!(joined(&relay, &recorder, 2, "kept:a"), Some(last.clone()));
    // And when nobody heard the channel in between.
    relay.leave(WorkerId(0), channel("kept:a")).expect("room");
    relay.leave(WorkerId(2), channel("kept:a")).expect("room");
    assert_eq!(joined(&relay, &recorder, 1, "kept:a"), Some(last));
    assert_eq!(joined(&relay, &recorder, 1, "news"), None);
}

/// Without a hole and without an overlap, while publications go on.
async fn deliveries_begin_behind_the_position_of_the_join(Node { relay, recorder, .. }: Node) {
    let count: u32 = 2000;
    let (rounds, every) = (20, count / 20);
    for n in 1..=count {
        while relay.submit(publication("kept:a", &n.to_string()), ticket(n)).is_err() {
            tokio::task::yield_now().await;
        }
        if n % every == 0 {
            let worker = WorkerId((n / every) as u8);
            while relay.join(worker, channel("kept:a")).is_err() {
                tokio::task::yield_now().await;
            }
        }
    }
    recorder.wait("the last answer", |r| r.published(count)).expect("published");
    let last = relay.publish(publication("kept:a", "\"last\"")).await.expect("published").expect("kept");
    for worker in 1..=rounds {
        let position = recorder.wait("its answer", |r| r.joins(worker, "kept:a").first().cloned());
        let position = position.expect("joined").expect("a channel with history");
        let all = (last.offset - position.offset) as usize;
        recorder.wait("the rest", |r| (r.delivered(worker, "kept:a").len() >= all).then_some(()));
        let offsets: Vec<_> = recorder.record().publications(worker, "kept:a").map(|p| p.offset).collect();
        assert_eq!(offsets, (position.offset + 1..=last.offset).collect::<Vec<_>>());
    }
}

async fn each_worker_has_a_position_of_its_own(Node { relay, recorder, .. }: Node) {
    for n in 1..=5 {
        let position = joined(&relay, &recorder, n, "kept:a").expect("a channel with history");
        assert_eq!(position.offset, u64::from(n) - 1);
        numbers(&relay, "kept:a", u64::from(n)..=u64::from(n)).await;
        recorder.hears(n, "kept:a", &[&n.to_string()]);
    }
    recorder.hears(5, "kept:a", &["5"]);
    recorder.hears(1, "kept:a", &["1", "2", "3", "4", "5"]);
    let record = recorder.record();
    let said = |event: &&Event| matches!(event, Event::Said(_, Said::Publication(_)));
    assert_eq!(record.events.iter().filter(said).count(), 5, "one delivery for all workers");
}
