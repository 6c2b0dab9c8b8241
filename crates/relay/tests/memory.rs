//! What the memory relay keeps is bounded, and what it lets go of is said.

mod support;

use support::{Recorder, channel, joined, publication, start, ticket};
use tidegate_protocol::Position;
use tidegate_relay::{HistoryQuery, MemorySettings, Recover, Relay, RelaySettings};

/// Room for some sixty publications of 16 KB.
const HISTORY: RelaySettings = RelaySettings::Memory(MemorySettings { history_bytes: 1 << 20 });

async fn publish(relay: &Relay, name: &str) -> Position {
    let data = format!("\"{}\"", "x".repeat(16_000));
    relay.publish(publication(name, &data)).await.expect("published").expect("a channel with history")
}

async fn kept(relay: &Relay, name: &str) -> (usize, Position) {
    let history =
        relay.history(channel(name), HistoryQuery::default()).await.expect("a channel with history");
    (history.publications.len(), history.position)
}

#[tokio::test]
async fn beyond_the_bound_the_channels_that_rest_lose_their_history() {
    let recorder = Recorder::new();
    let relay = start("n1", HISTORY, &recorder);
    let mut first = None;
    for n in 0..200 {
        let position = publish(&relay, &format!("kept:{n}")).await;
        first.get_or_insert(position);
    }
    assert_eq!(kept(&relay, "kept:199").await.0, 1);
    let mut held = 0;
    for n in (0..200).rev() {
        held += kept(&relay, &format!("kept:{n}")).await.0;
    }
    assert!((50..=65).contains(&held), "{held} publications of 16 KB in a mebibyte");
    let (none, position) = kept(&relay, "kept:0").await;
    assert_eq!((none, position.offset), (0, 0));
    assert_ne!(Some(position.epoch), first.map(|first| first.epoch), "whoever comes back there is told so");
}

#[tokio::test]
async fn beyond_the_bound_whoever_listens_goes_on_and_whoever_comes_back_is_told() {
    let recorder = Recorder::new();
    let relay = start("n1", HISTORY, &recorder);
    let start = joined(&relay, &recorder, 1, "kept:heard").expect("a channel with history");
    publish(&relay, "kept:heard").await;
    for n in 0..100 {
        publish(&relay, &format!("kept:{n}")).await;
    }
    let last = publish(&relay, "kept:heard").await;
    assert_eq!((last.offset, &last.epoch), (2, &start.epoch));
    let offsets: Vec<_> = recorder.record().publications(1, "kept:heard").map(|p| p.offset).collect();
    assert_eq!(offsets, [1, 2]);
    assert_eq!(recorder.record().lost("kept:heard"), [] as [u8; 0]);
    relay.recover(Recover { channel: channel("kept:heard"), since: start, ticket: ticket(1) }).expect("room");
    let recovered = recorder.wait("the answer", |r| r.recovered(1)).expect("an answer");
    assert_eq!((recovered.publications, recovered.position), (None, last));
}
