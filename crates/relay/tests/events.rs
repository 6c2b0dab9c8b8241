//! The stream of events: in order, bounded, and never in the way of those who make them.

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use support::{Recorder, RedisServer, channel, eventually, node, settings, start};
use tidegate_protocol::{Event, EventKind};
use tidegate_relay::{Observation, RedisSettings, Relay};

fn scene(most: usize) -> (RedisServer, Relay, Arc<Recorder>) {
    let server = RedisServer::start();
    let (relay, recorder) = node("n1", RedisSettings { events: Some(most), ..settings(&server.url()) });
    (server, relay, recorder)
}

fn event(kind: EventKind, client: usize) -> Event {
    Event::new(kind, client.to_string(), "42".into())
}

/// The entries of the stream, each as its fields.
fn entries(server: &RedisServer) -> Vec<Vec<(String, String)>> {
    let entries: Vec<(String, Vec<(String, String)>)> = server.command(&["XRANGE", "tg:events", "-", "+"]);
    entries.into_iter().map(|(_, fields)| fields).collect()
}

fn field<'a>(entry: &'a [(String, String)], name: &str) -> Option<&'a str> {
    entry.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
}

fn numbers(server: &RedisServer) -> Vec<u64> {
    entries(server).iter().filter_map(|entry| field(entry, "number")?.parse().ok()).collect()
}

/// The number of the newest event.
fn newest(server: &RedisServer) -> Option<u64> {
    let last = ["XREVRANGE", "tg:events", "+", "-", "COUNT", "1"];
    let entries: Vec<(String, Vec<(String, String)>)> = server.command(&last);
    field(&entries.first()?.1, "number")?.parse().ok()
}

fn observed(recorder: &Recorder, each: impl Fn(&Observation) -> u64) -> u64 {
    let counted = |event: &support::recorder::Event| match event {
        support::recorder::Event::Observed(observation) => each(observation),
        _ => 0,
    };
    recorder.record().events.iter().map(counted).sum()
}

fn written(recorder: &Recorder) -> u64 {
    observed(recorder, |o| if let Observation::EventsWritten(count) = o { *count } else { 0 })
}

fn dropped(recorder: &Recorder) -> u64 {
    observed(recorder, |o| if let Observation::EventsDropped(count) = o { *count } else { 0 })
}

#[tokio::test]
async fn each_event_has_the_documented_fields() {
    let (server, relay, recorder) = scene(1000);
    relay.happened(Event {
        channel: Some(channel("news")),
        data: Some(Bytes::from_static(b"[1]")),
        ..event(EventKind::Publish, 1)
    });
    relay.happened(Event { code: Some(3001), ..event(EventKind::Disconnect, 1) });
    relay.happened(Event { method: "sum".into(), ..event(EventKind::Rpc, 1) });
    eventually("they are written", || written(&recorder) == 3);
    let entries = entries(&server);
    let names = |at: usize| entries[at].iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(" ");
    assert_eq!(names(0), "kind time node number client user channel data");
    assert_eq!(names(1), "kind time node number client user code");
    assert_eq!(names(2), "kind time node number client user method");
    let values: Vec<_> = ["kind", "node", "number", "client", "user", "channel", "data"]
        .iter()
        .filter_map(|name| field(&entries[0], name))
        .collect();
    assert_eq!(values, ["publish", "n1", "1", "1", "42", "news", "[1]"]);
    let time: u64 = field(&entries[0], "time").and_then(|time| time.parse().ok()).expect("milliseconds");
    let (seconds, _): (u64, u64) = server.command(&["TIME"]);
    assert!(time.abs_diff(seconds * 1000) < 60_000, "{time}");
}

#[tokio::test]
async fn events_come_in_the_order_they_were_made_and_the_stream_is_bounded() {
    let (server, relay, recorder) = scene(200);
    for n in 0..10_000 {
        relay.happened(event(EventKind::Connect, n));
    }
    eventually("they are written", || written(&recorder) == 10_000);
    let numbers = numbers(&server);
    assert!((200..=500).contains(&numbers.len()), "about 200 are kept: {}", numbers.len());
    let first = 10_001 - numbers.len() as u64;
    assert_eq!(numbers, (first..=10_000).collect::<Vec<_>>());
    assert_eq!(dropped(&recorder), 0);
}

#[tokio::test]
async fn while_redis_stands_still_the_oldest_are_dropped_and_counted_and_nobody_waits() {
    const MADE: usize = 100_000;
    let (server, relay, recorder) = scene(1_000_000);
    server.freeze();
    let began = Instant::now();
    for n in 0..MADE {
        relay.happened(event(EventKind::Connect, n));
    }
    assert!(began.elapsed() < Duration::from_secs(5), "nobody waits for Redis: {:?}", began.elapsed());
    recorder.down(1);
    assert!(dropped(&recorder) >= 30_000, "the queue is bounded: {}", dropped(&recorder));
    server.thaw();
    eventually("all that was kept is written", || newest(&server) == Some(MADE as u64));
    // What was on its way when Redis stood still may stand there twice: its number says so.
    let mut numbers = numbers(&server);
    numbers.sort_unstable();
    numbers.dedup();
    eventually("every event is either written or counted as dropped", || {
        numbers.len() as u64 + dropped(&recorder) >= MADE as u64
    });
    let mut kept = (MADE as u64 - 60_000)..=MADE as u64;
    assert!(kept.all(|n| numbers.binary_search(&n).is_ok()), "the newest are there");
}

#[tokio::test]
async fn what_waits_when_the_node_stops_is_still_written() {
    let (server, relay, recorder) = scene(100_000);
    for n in 0..5000 {
        relay.happened(event(EventKind::Disconnect, n));
    }
    relay.stop().await;
    assert_eq!(numbers(&server), (1..=5000).collect::<Vec<_>>());
    assert_eq!(dropped(&recorder), 0);
}

#[tokio::test]
async fn where_no_events_are_asked_for_nothing_is_written() {
    let server = RedisServer::start();
    let (relay, _recorder) = node("n1", settings(&server.url()));
    relay.happened(event(EventKind::Connect, 1));
    relay.stop().await;
    assert_eq!(server.command::<u64>(&["EXISTS", "tg:events"]), 0);
    let recorder = Recorder::new();
    let memory = start("n2", support::MEMORY, &recorder);
    memory.happened(event(EventKind::Connect, 1));
    memory.stop().await;
    assert_eq!((written(&recorder), dropped(&recorder)), (0, 0));
}
