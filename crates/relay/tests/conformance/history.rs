//! What a channel with history keeps, and how it is read.

use tidegate_protocol::{Epoch, Publication};
use tidegate_relay::{History, HistoryQuery, Outgoing, Relay, RelayError, Since};

use crate::support::{channel, joined, publication, ticket, until};
use crate::{Node, furnished, numbers};

promises![
    offsets_count_from_one_and_arrive_with_the_publications,
    a_channel_without_history_has_no_positions,
    a_channel_that_nobody_published_in_has_a_position,
    every_channel_has_an_epoch_of_its_own,
    what_clients_publish_is_kept_too,
    only_the_newest_are_kept,
    a_publication_is_kept_as_it_was_given,
    a_part_is_read_by_limit,
    a_part_is_read_from_behind_an_offset,
    a_part_is_read_backwards,
    the_history_of_another_epoch_is_not_there,
    history_expires_and_offsets_go_on,
    a_removed_history_is_gone_and_offsets_go_on,
    what_skips_history_is_delivered_and_has_no_offset,
    the_same_key_publishes_once,
    a_key_belongs_to_its_channel,
];

fn data(publications: &[Publication]) -> Vec<(u64, String)> {
    publications.iter().map(|p| (p.offset, String::from_utf8_lossy(&p.data).into_owned())).collect()
}

fn pairs(offsets: impl Iterator<Item = u64>) -> Vec<(u64, String)> {
    offsets.map(|n| (n, n.to_string())).collect()
}

async fn read(relay: &Relay, name: &str, query: HistoryQuery) -> History {
    relay.history(channel(name), query).await.expect("a channel with history")
}

async fn all(relay: &Relay, name: &str) -> History {
    read(relay, name, HistoryQuery::default()).await
}

fn since(offset: u64, epoch: Option<&Epoch>) -> Option<Since> {
    Some(Since { offset, epoch: epoch.cloned() })
}

async fn offsets_count_from_one_and_arrive_with_the_publications(Node { relay, recorder, .. }: Node) {
    joined(&relay, &recorder, 0, "kept:a");
    let position = numbers(&relay, "kept:a", 1..=20).await;
    recorder.wait("the last one", |r| (r.delivered(0, "kept:a").len() >= 20).then_some(()));
    let heard: Vec<_> = recorder.record().publications(0, "kept:a").cloned().collect();
    assert_eq!(data(&heard), pairs(1..=20));
    let History { publications, position: newest } = all(&relay, "kept:a").await;
    assert_eq!(publications, heard, "what is kept is what was delivered");
    assert_eq!(newest, position);
}

async fn a_channel_without_history_has_no_positions(Node { relay, recorder, .. }: Node) {
    assert_eq!(joined(&relay, &recorder, 0, "news"), None);
    assert_eq!(relay.publish(publication("news", "1")).await.expect("published"), None);
    let twice = Outgoing { idempotency_key: "k".into(), ..publication("news", "2").into() };
    assert_eq!(relay.publish(twice.clone()).await.expect("published"), None);
    assert_eq!(relay.publish(twice).await.expect("published"), None);
    recorder.hears(0, "news", &["1", "2", "2"]);
    assert!(recorder.record().publications(0, "news").all(|p| p.offset == 0));
    let error = relay.history(channel("news"), HistoryQuery::default()).await.expect_err("no history");
    assert!(matches!(error, RelayError::Unavailable), "{error}");
    let error = relay.history_remove(channel("news")).await.expect_err("no history");
    assert!(matches!(error, RelayError::Unavailable), "{error}");
}

async fn a_channel_that_nobody_published_in_has_a_position(Node { relay, .. }: Node) {
    let History { publications, position } = all(&relay, "kept:a").await;
    assert_eq!((publications.len(), position.offset), (0, 0));
    assert_eq!(numbers(&relay, "kept:a", 1..=1).await.epoch, position.epoch);
}

async fn every_channel_has_an_epoch_of_its_own(Node { relay, .. }: Node) {
    let a = numbers(&relay, "kept:a", 1..=2).await;
    let b = numbers(&relay, "kept:b", 1..=1).await;
    assert_ne!(a.epoch, b.epoch);
}

async fn what_clients_publish_is_kept_too(Node { relay, recorder, .. }: Node) {
    for n in 1..=50 {
        relay.submit(publication("kept:a", &n.to_string()), ticket(n)).expect("room");
    }
    recorder.wait("the last answer", |r| r.published(50)).expect("published");
    let position = relay.publish(publication("kept:a", "51")).await.expect("published");
    assert_eq!(position.map(|p| p.offset), Some(51));
    assert_eq!(data(&all(&relay, "kept:a").await.publications), pairs(1..=51));
}

async fn only_the_newest_are_kept(Node { relay, .. }: Node) {
    let last = numbers(&relay, "brief:a", 1..=5).await;
    let History { publications, position } = all(&relay, "brief:a").await;
    assert_eq!(data(&publications), pairs(3..=5));
    assert_eq!(position, last);
}

async fn a_publication_is_kept_as_it_was_given(Node { relay, .. }: Node) {
    let sent = furnished("kept:a");
    relay.publish(sent.clone()).await.expect("published");
    assert_eq!(all(&relay, "kept:a").await.publications, [Publication { offset: 1, ..sent }]);
}

async fn a_part_is_read_by_limit(Node { relay, .. }: Node) {
    let last = numbers(&relay, "kept:a", 1..=10).await;
    for (limit, expected) in [(0, 1..1), (1, 1..2), (3, 1..4), (10, 1..11), (1000, 1..11)] {
        let query = HistoryQuery { limit: Some(limit), ..HistoryQuery::default() };
        let History { publications, position } = read(&relay, "kept:a", query).await;
        assert_eq!(data(&publications), pairs(expected), "limit {limit}");
        assert_eq!(position, last, "the newest, whatever was asked for");
    }
}

async fn a_part_is_read_from_behind_an_offset(Node { relay, .. }: Node) {
    let last = numbers(&relay, "brief:a", 1..=6).await;
    for (offset, limit, expected) in [
        (0, None, 4..7),
        (4, None, 5..7),
        (3, Some(2), 4..6),
        (6, None, 1..1),
        (100, None, 1..1),
        (u64::MAX, None, 1..1),
    ] {
        let query = HistoryQuery { limit, since: since(offset, Some(&last.epoch)), reverse: false };
        let found = read(&relay, "brief:a", query).await;
        assert_eq!(data(&found.publications), pairs(expected), "since {offset}, limit {limit:?}");
        assert_eq!(found.position, last);
    }
}

async fn a_part_is_read_backwards(Node { relay, .. }: Node) {
    numbers(&relay, "brief:a", 1..=6).await;
    for (offset, limit, expected) in [
        (None, None, 4..7),
        (None, Some(2), 5..7),
        (Some(6), None, 4..6),
        (Some(6), Some(1), 5..6),
        (Some(4), None, 1..1),
        (Some(1), None, 1..1),
        (Some(0), None, 1..1),
        (Some(7), None, 4..7),
        (Some(u64::MAX), None, 4..7),
    ] {
        let since = offset.and_then(|offset| since(offset, None));
        let found = read(&relay, "brief:a", HistoryQuery { limit, since, reverse: true }).await;
        assert_eq!(data(&found.publications), pairs(expected.rev()), "before {offset:?}, limit {limit:?}");
    }
}

async fn the_history_of_another_epoch_is_not_there(Node { relay, .. }: Node) {
    let last = numbers(&relay, "kept:a", 1..=3).await;
    for reverse in [false, true] {
        let query = HistoryQuery { since: since(1, Some(&Epoch::new("other"))), reverse, limit: None };
        let error = relay.history(channel("kept:a"), query).await.expect_err("another epoch");
        assert!(matches!(error, RelayError::Unrecoverable), "{error}");
        let query = HistoryQuery { since: since(2, Some(&last.epoch)), reverse, limit: None };
        assert_eq!(read(&relay, "kept:a", query).await.publications.len(), 1);
    }
}

async fn history_expires_and_offsets_go_on(Node { relay, .. }: Node) {
    let last = numbers(&relay, "fleeting:a", 1..=3).await;
    until("the history has expired", async || all(&relay, "fleeting:a").await.publications.is_empty()).await;
    assert_eq!(all(&relay, "fleeting:a").await.position, last);
    let next = numbers(&relay, "fleeting:a", 4..=4).await;
    assert_eq!(next.epoch, last.epoch);
    assert_eq!(data(&all(&relay, "fleeting:a").await.publications), pairs(4..=4));
}

async fn a_removed_history_is_gone_and_offsets_go_on(Node { relay, .. }: Node) {
    relay.history_remove(channel("kept:a")).await.expect("nothing to remove");
    let last = numbers(&relay, "kept:a", 1..=3).await;
    relay.history_remove(channel("kept:a")).await.expect("removed");
    let History { publications, position } = all(&relay, "kept:a").await;
    assert_eq!((data(&publications), &position), (Vec::new(), &last));
    numbers(&relay, "kept:a", 4..=5).await;
    assert_eq!(data(&all(&relay, "kept:a").await.publications), pairs(4..=5));
}

async fn what_skips_history_is_delivered_and_has_no_offset(Node { relay, recorder, .. }: Node) {
    joined(&relay, &recorder, 0, "kept:a");
    numbers(&relay, "kept:a", 1..=1).await;
    let fleeting = Outgoing { skip_history: true, ..publication("kept:a", "\"now\"").into() };
    assert_eq!(relay.publish(fleeting).await.expect("published"), None);
    numbers(&relay, "kept:a", 2..=2).await;
    recorder.hears(0, "kept:a", &["1", "\"now\"", "2"]);
    let offsets: Vec<_> = recorder.record().publications(0, "kept:a").map(|p| p.offset).collect();
    assert_eq!(offsets, [1, 0, 2]);
    assert_eq!(data(&all(&relay, "kept:a").await.publications), pairs(1..=2));
}

async fn the_same_key_publishes_once(Node { relay, recorder, .. }: Node) {
    joined(&relay, &recorder, 0, "kept:a");
    let keyed = |key: &str, data: &str| Outgoing {
        idempotency_key: key.into(),
        ..publication("kept:a", data).into()
    };
    let first = relay.publish(keyed("k", "1")).await.expect("published");
    assert_eq!(first.as_ref().map(|p| p.offset), Some(1));
    numbers(&relay, "kept:a", 2..=2).await;
    assert_eq!(relay.publish(keyed("k", "3")).await.expect("answered"), first);
    let other = relay.publish(keyed("other", "3")).await.expect("published");
    assert_eq!(other.map(|p| p.offset), Some(3));
    recorder.hears(0, "kept:a", &["1", "2", "3"]);
    // Its answer is the same after its history is gone.
    relay.history_remove(channel("kept:a")).await.expect("removed");
    assert_eq!(relay.publish(keyed("k", "4")).await.expect("answered"), first);
    assert_eq!(all(&relay, "kept:a").await.publications, []);
}

async fn a_key_belongs_to_its_channel(Node { relay, .. }: Node) {
    for name in ["kept:a", "kept:b"] {
        let keyed = Outgoing { idempotency_key: "k".into(), ..publication(name, "1").into() };
        let position = relay.publish(keyed).await.expect("published");
        assert_eq!(position.map(|p| p.offset), Some(1));
        assert_eq!(all(&relay, name).await.publications.len(), 1);
    }
}
