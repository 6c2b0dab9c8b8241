//! What all histories take, which goes first, and what expires when.
#![expect(clippy::unwrap_used, reason = "tests")]

use bytes::Bytes;

use super::*;
use crate::rules::ChannelRules;

const TTL: Duration = Duration::from_secs(60);

fn logs(most: usize) -> Logs {
    let retention = Some(Retention { size: 10, ttl: TTL });
    let any = Some(ChannelRules { retention, ..ChannelRules::default() });
    Logs::new(Arc::new(Rules { any, ..Rules::default() }), most)
}

fn channel(name: &str) -> ChannelName {
    ChannelName::parse(name).unwrap()
}

fn publish(logs: &mut Logs, name: &str, bytes: usize, now: Instant) -> Position {
    let data = Bytes::from(vec![b'1'; bytes]);
    let publication = Publication { channel: channel(name), data, info: None, tags: Vec::new(), offset: 0 };
    logs.take(publication.into(), now).position.unwrap()
}

fn held(logs: &Logs) -> usize {
    let of = |(channel, kept): (&ChannelName, &Kept)| fixed(channel) + kept.log.bytes();
    let sum = logs.kept.iter().map(of).sum();
    assert_eq!(logs.bytes, sum, "what is counted is what is there");
    assert_eq!(logs.due.len(), logs.kept.len(), "each channel is due once");
    assert!(logs.uses.len() <= logs.kept.len());
    sum
}

#[test]
fn many_channels_take_no_more_than_the_bound() {
    let (mut logs, now) = (logs(1 << 20), Instant::now());
    for n in 0..50_000 {
        publish(&mut logs, &format!("c{n}"), n % 2000, now);
    }
    assert!(held(&logs) <= 1 << 20);
    assert!(logs.kept.len() > 100);
}

#[test]
fn the_channel_used_least_recently_goes_first_and_comes_back_in_another_epoch() {
    let (mut logs, now) = (logs(40_000), Instant::now());
    let first = publish(&mut logs, "a", 10_000, now);
    publish(&mut logs, "b", 10_000, now);
    publish(&mut logs, "c", 10_000, now);
    assert_eq!(logs.recover(&channel("a"), &first, now).unwrap().position, first, "a use");
    publish(&mut logs, "d", 10_000, now);
    held(&logs);
    assert!(logs.kept.contains_key("a") && !logs.kept.contains_key("b"));
    let again = publish(&mut logs, "b", 1, now);
    assert_eq!(again.offset, 1);
    let gone = Position { offset: 0, epoch: first.epoch.clone() };
    assert_eq!(logs.recover(&channel("b"), &gone, now).unwrap().publications, None);
}

#[test]
fn a_channel_that_is_heard_loses_its_publications_and_not_its_epoch() {
    let (mut logs, now) = (logs(40_000), Instant::now());
    let start = logs.joined(&channel("a"), now).unwrap();
    let last = publish(&mut logs, "a", 10_000, now);
    for n in 0..10 {
        publish(&mut logs, &format!("c{n}"), 10_000, now);
    }
    held(&logs);
    let next = publish(&mut logs, "a", 1, now);
    assert_eq!((next.offset, &next.epoch), (2, &start.epoch));
    assert_eq!(logs.recover(&channel("a"), &start, now).unwrap().publications, None);
    assert_eq!(logs.recover(&channel("a"), &last, now).unwrap().publications.unwrap().len(), 1);
    // And when nobody hears it any more, it goes like all others.
    logs.left(&channel("a"), now);
    for n in 0..10 {
        publish(&mut logs, &format!("c{n}"), 10_000, now);
    }
    held(&logs);
    assert!(!logs.kept.contains_key("a"));
}

#[test]
fn of_a_channel_larger_than_the_bound_the_newest_stay() {
    let (mut logs, now) = (logs(40_000), Instant::now());
    let first = publish(&mut logs, "a", 10_000, now);
    for _ in 0..5 {
        publish(&mut logs, "a", 10_000, now);
    }
    assert!(held(&logs) <= 40_000);
    let all = logs.history(&channel("a"), &HistoryQuery::default(), now).unwrap();
    assert_eq!(all.publications.iter().map(|p| p.offset).collect::<Vec<_>>(), [4, 5, 6]);
    assert_eq!(all.position, Position { offset: 6, epoch: first.epoch });
    assert_eq!(publish(&mut logs, "a", 50_000, now).offset, 7);
    assert!(held(&logs) <= 40_000);
}

#[test]
fn what_expired_is_not_seen_before_the_sweep_and_takes_nothing_after_it() {
    let (mut logs, start) = (logs(1 << 20), Instant::now());
    let position = publish(&mut logs, "a", 1000, start);
    publish(&mut logs, "b", 1000, start + TTL / 2);
    let before = held(&logs);
    let late = start + TTL;
    assert_eq!(logs.due(), Some(late));
    logs.sweep(late);
    assert!(held(&logs) <= before - 1000, "a's publication is gone, b's is there");
    let history = logs.history(&channel("a"), &HistoryQuery::default(), late).unwrap();
    assert_eq!((history.publications.len(), history.position), (0, position), "its position is not gone");
    // Without a sweep.
    let later = start + TTL * 2;
    assert_eq!(logs.history(&channel("b"), &HistoryQuery::default(), later).unwrap().publications.len(), 0);
    held(&logs);
}

#[test]
fn a_publication_after_a_long_silence_expires_in_its_time() {
    let (mut logs, start) = (logs(1 << 20), Instant::now());
    publish(&mut logs, "a", 1000, start);
    logs.sweep(start + TTL);
    publish(&mut logs, "a", 1000, start + TTL * 2);
    assert_eq!(logs.due(), Some(start + TTL * 3));
    held(&logs);
}

#[test]
fn an_epoch_that_nobody_used_for_a_day_is_forgotten() {
    let (mut logs, start) = (logs(1 << 20), Instant::now());
    publish(&mut logs, "a", 1000, start);
    logs.joined(&channel("heard"), start).unwrap();
    let mut now = start;
    while now < start + LEAST_EPOCH_LIFE * 2 {
        now = logs.due().unwrap();
        logs.sweep(now);
        assert_eq!(logs.kept.contains_key("a"), now < start + LEAST_EPOCH_LIFE);
    }
    held(&logs);
    assert!(logs.kept.contains_key("heard"), "its worker has a position in it");
}
