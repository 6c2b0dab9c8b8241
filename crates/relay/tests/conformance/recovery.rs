//! Whoever was away gets exactly what it missed, or is told that it cannot be had.

use std::sync::Arc;

use tidegate_protocol::{Epoch, Position};
use tidegate_relay::{Outgoing, Recover, Recovered, Relay, Said, WorkerId};

use crate::support::recorder::{Event, Record};
use crate::support::{Recorder, channel, joined, publication, ticket, until};
use crate::{Node, numbers};

promises![
    what_was_missed_comes_in_order_up_to_what_is_delivered_next,
    who_missed_nothing_gets_nothing,
    who_has_seen_more_than_this_node_missed_nothing,
    all_or_nothing_once_the_oldest_are_trimmed,
    another_epoch_is_not_recovered,
    an_offset_that_was_never_given_is_not_recovered,
    expired_history_is_not_recovered,
    removed_history_is_not_recovered,
    what_skipped_history_is_not_recovered_nor_missing,
    a_recovery_may_follow_a_join_at_once,
    a_channel_without_history_recovers_nothing,
    every_recovery_ends_where_deliveries_go_on,
    many_recover_at_once,
];

/// Recovers for the ticket's worker, which has joined, and waits.
fn recovered(relay: &Relay, recorder: &Recorder, name: &str, since: Position, id: u32) -> Recovered {
    relay.recover(Recover { channel: channel(name), since, ticket: ticket(id) }).expect("room");
    let answer = recorder.wait(&format!("recovery {id} of {name}"), |r| r.recovered(id));
    answer.expect("recovered")
}

/// The offsets that were recovered, each with the data that it was published with.
fn offsets(recovered: &Recovered) -> Option<Vec<u64>> {
    let publications = recovered.publications.as_ref()?;
    for publication in publications.iter() {
        assert_eq!(publication.data, publication.offset.to_string());
    }
    Some(publications.iter().map(|p| p.offset).collect())
}

/// Publishes numbers as `numbers` does, and waits until worker 1 has got the last.
async fn heard(
    relay: &Relay,
    recorder: &Recorder,
    name: &str,
    offsets: std::ops::RangeInclusive<u64>,
) -> Position {
    let last = numbers(relay, name, offsets).await;
    let got = |r: &Record| r.publications(1, name).any(|p| p.offset == last.offset).then_some(());
    recorder.wait("the last publication", got);
    last
}

fn at(offset: u64, epoch: &Epoch) -> Position {
    Position { offset, epoch: epoch.clone() }
}

async fn what_was_missed_comes_in_order_up_to_what_is_delivered_next(Node { relay, recorder, .. }: Node) {
    let last = numbers(&relay, "kept:a", 1..=10).await;
    assert_eq!(joined(&relay, &recorder, 1, "kept:a"), Some(last.clone()));
    let found = recovered(&relay, &recorder, "kept:a", at(4, &last.epoch), 1);
    assert_eq!(offsets(&found), Some(vec![5, 6, 7, 8, 9, 10]));
    assert_eq!(found.position, last);
    heard(&relay, &recorder, "kept:a", 11..=12).await;
    recorder.hears(1, "kept:a", &["11", "12"]);
    let found = recovered(&relay, &recorder, "kept:a", at(9, &last.epoch), 2);
    assert_eq!(offsets(&found), Some(vec![10, 11, 12]));
}

async fn who_missed_nothing_gets_nothing(Node { relay, recorder, .. }: Node) {
    let start = joined(&relay, &recorder, 1, "kept:a").expect("a channel with history");
    let found = recovered(&relay, &recorder, "kept:a", start.clone(), 1);
    assert_eq!((offsets(&found), found.position), (Some(Vec::new()), start));
    let last = heard(&relay, &recorder, "kept:a", 1..=3).await;
    let found = recovered(&relay, &recorder, "kept:a", last.clone(), 2);
    assert_eq!((offsets(&found), found.position), (Some(Vec::new()), last));
}

/// A session that comes from a faster node is ahead of this one, not of another history.
async fn who_has_seen_more_than_this_node_missed_nothing(Node { relay, recorder, .. }: Node) {
    joined(&relay, &recorder, 1, "kept:a");
    for n in 1..=100 {
        let last = numbers(&relay, "kept:a", n..=n).await;
        let found = recovered(&relay, &recorder, "kept:a", last.clone(), n as u32);
        assert_eq!((offsets(&found), found.position), (Some(Vec::new()), last));
    }
}

async fn all_or_nothing_once_the_oldest_are_trimmed(Node { relay, recorder, .. }: Node) {
    joined(&relay, &recorder, 1, "brief:a");
    let last = heard(&relay, &recorder, "brief:a", 1..=6).await;
    let found = recovered(&relay, &recorder, "brief:a", at(3, &last.epoch), 1);
    assert_eq!(offsets(&found), Some(vec![4, 5, 6]), "the three that are kept");
    let found = recovered(&relay, &recorder, "brief:a", at(2, &last.epoch), 2);
    assert_eq!((offsets(&found), found.position), (None, last));
}

async fn another_epoch_is_not_recovered(Node { relay, recorder, .. }: Node) {
    joined(&relay, &recorder, 1, "kept:a");
    let last = heard(&relay, &recorder, "kept:a", 1..=3).await;
    for (id, offset) in [(1, 0), (2, 2), (3, 3)] {
        let found = recovered(&relay, &recorder, "kept:a", at(offset, &Epoch::new("other")), id);
        assert_eq!((offsets(&found), &found.position), (None, &last));
    }
}

async fn an_offset_that_was_never_given_is_not_recovered(Node { relay, recorder, .. }: Node) {
    joined(&relay, &recorder, 1, "kept:a");
    let last = heard(&relay, &recorder, "kept:a", 1..=3).await;
    for (id, offset) in [(1, 4), (2, u64::MAX)] {
        let found = recovered(&relay, &recorder, "kept:a", at(offset, &last.epoch), id);
        assert_eq!((offsets(&found), &found.position), (None, &last));
    }
}

async fn expired_history_is_not_recovered(Node { relay, recorder, .. }: Node) {
    joined(&relay, &recorder, 1, "fleeting:a");
    let last = heard(&relay, &recorder, "fleeting:a", 1..=3).await;
    until("the history has expired", async || {
        let history = relay.history(channel("fleeting:a"), Default::default()).await;
        history.expect("a channel with history").publications.is_empty()
    })
    .await;
    let found = recovered(&relay, &recorder, "fleeting:a", at(1, &last.epoch), 1);
    assert_eq!((offsets(&found), &found.position), (None, &last));
    let found = recovered(&relay, &recorder, "fleeting:a", last.clone(), 2);
    assert_eq!((offsets(&found), &found.position), (Some(Vec::new()), &last), "nothing was missed");
}

async fn removed_history_is_not_recovered(Node { relay, recorder, .. }: Node) {
    joined(&relay, &recorder, 1, "kept:a");
    let last = heard(&relay, &recorder, "kept:a", 1..=3).await;
    relay.history_remove(channel("kept:a")).await.expect("removed");
    let found = recovered(&relay, &recorder, "kept:a", at(2, &last.epoch), 1);
    assert_eq!((offsets(&found), &found.position), (None, &last));
    let last = heard(&relay, &recorder, "kept:a", 4..=4).await;
    let found = recovered(&relay, &recorder, "kept:a", at(3, &last.epoch), 2);
    assert_eq!((offsets(&found), found.position), (Some(vec![4]), last));
}

async fn what_skipped_history_is_not_recovered_nor_missing(Node { relay, recorder, .. }: Node) {
    joined(&relay, &recorder, 1, "kept:a");
    heard(&relay, &recorder, "kept:a", 1..=2).await;
    let fleeting = Outgoing { skip_history: true, ..publication("kept:a", "0").into() };
    relay.publish(fleeting).await.expect("published");
    let last = heard(&relay, &recorder, "kept:a", 3..=3).await;
    let found = recovered(&relay, &recorder, "kept:a", at(0, &last.epoch), 1);
    assert_eq!(offsets(&found), Some(vec![1, 2, 3]));
}

async fn a_recovery_may_follow_a_join_at_once(Node { relay, recorder, .. }: Node) {
    let last = numbers(&relay, "kept:a", 1..=3).await;
    relay.join(WorkerId(1), channel("kept:a")).expect("room");
    let found = recovered(&relay, &recorder, "kept:a", at(1, &last.epoch), 1);
    assert_eq!(offsets(&found), Some(vec![2, 3]));
    let record = recorder.record();
    let first = record.events.iter().find_map(|event| match event {
        Event::Joined(..) => Some("joined"),
        Event::Recovered(..) => Some("recovered"),
        _ => None,
    });
    assert_eq!(first, Some("joined"));
}

async fn a_channel_without_history_recovers_nothing(Node { relay, recorder, .. }: Node) {
    joined(&relay, &recorder, 1, "news");
    let since = at(0, &Epoch::new("e"));
    relay.recover(Recover { channel: channel("news"), since, ticket: ticket(1) }).expect("room");
    let answer = recorder.wait("the answer", |r| r.recovered(1));
    assert!(answer.expect_err("no history").contains("not available"));
}

/// What a hub relies on: publications recovered and publications pushed meet without a hole and without an overlap.
async fn every_recovery_ends_where_deliveries_go_on(Node { relay, recorder, .. }: Node) {
    let start = joined(&relay, &recorder, 1, "kept:a").expect("a channel with history");
    let count: u32 = 2000;
    for n in 1..=count {
        while relay.submit(publication("kept:a", &n.to_string()), ticket(n)).is_err() {
            tokio::task::yield_now().await;
        }
        if n % 10 == 0 {
            let since = at(u64::from(n.saturating_sub(40)), &start.epoch);
            let recover = Recover { channel: channel("kept:a"), since, ticket: ticket(count + n) };
            while relay.recover(recover.clone()).is_err() {
                tokio::task::yield_now().await;
            }
        }
    }
    recorder.wait("the last recovery", |r| r.recovered(2 * count)).expect("recovered");
    recorder.wait("the last delivery", |r| (r.delivered(1, "kept:a").len() >= count as usize).then_some(()));
    let (mut stands, mut complete) = (0, 0);
    for event in &recorder.record().events {
        match event {
            Event::Said(_, Said::Publication(publication)) => {
                assert_eq!(publication.offset, stands + 1);
                stands += 1;
            }
            Event::Recovered(ticket, _, answer) => {
                let found = answer.as_ref().expect("recovered");
                assert_eq!(found.position, at(stands, &start.epoch), "recovery {}", ticket.id);
                let since = u64::from(ticket.id - count).saturating_sub(40);
                if let Some(offsets) = offsets(found) {
                    assert_eq!(offsets, (since + 1..=stands).collect::<Vec<_>>());
                    complete += 1;
                }
            }
            _ => {}
        }
    }
    assert_eq!(stands, u64::from(count));
    assert!(complete > 0, "not one of them was complete");
}

async fn many_recover_at_once(Node { relay, recorder, .. }: Node) {
    joined(&relay, &recorder, 1, "kept:a");
    let last = heard(&relay, &recorder, "kept:a", 1..=50).await;
    for id in 0..1000 {
        let since = at(u64::from(id % 50), &last.epoch);
        let recover = Recover { channel: channel("kept:a"), since, ticket: ticket(id) };
        while relay.recover(recover.clone()).is_err() {
            tokio::task::yield_now().await;
        }
    }
    let mut answers = Vec::new();
    for id in 0..1000 {
        let found = recorder.wait("its answer", |r| r.recovered(id)).expect("recovered");
        assert_eq!(offsets(&found), Some((u64::from(id % 50) + 1..=50).collect()));
        answers.extend(found.publications);
    }
    let mut distinct: Vec<_> = answers.iter().map(|answer| Arc::as_ptr(&answer[answer.len() - 1])).collect();
    distinct.sort_unstable();
    distinct.dedup();
    assert!(distinct.len() < 20, "{} copies of one publication for a thousand", distinct.len());
}
