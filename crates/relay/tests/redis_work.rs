//! What a node costs Redis: commands and bytes grow with the nodes that are interested and with nothing else.

#![expect(clippy::print_stdout, reason = "figures for whoever runs the tests")]

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use support::{RedisServer, SOON, calls, channel, settings};
use tidegate_protocol::{ChannelName, Control, Position};
use tidegate_relay::{
    Delivery, Observation, Recovered, RedisSettings, Relay, RelayError, RelaySettings, Report, Sink, Ticket,
    WorkerId,
};
use tokio::sync::oneshot;

/// A sink that only counts, for a recorder remembers too much here.
#[derive(Default)]
struct Counts {
    joined: AtomicUsize,
    heard: AtomicUsize,
    /// How often the relay was up.
    up: Mutex<usize>,
    changed: Condvar,
}

impl Counts {
    fn node(id: &str, settings: RedisSettings) -> (Relay, Arc<Self>) {
        let counts = Arc::new(Self::default());
        let relay = Relay::start(
            RelaySettings::Redis(settings),
            Arc::default(),
            id,
            id,
            "0.0.0-test",
            Arc::clone(&counts),
        )
        .expect("settings that work");
        counts.up(1);
        (relay, counts)
    }

    /// Waits until the relay was up so often.
    fn up(&self, times: usize) {
        let up = self.up.lock().expect("no test panics while counting");
        let (up, late) = self
            .changed
            .wait_timeout_while(up, SOON * 4, |up| *up < times)
            .expect("no test panics while counting");
        assert!(!late.timed_out(), "up {} times, not {times}", *up);
    }
}

impl Sink for Counts {
    fn deliver(&self, batch: &mut Vec<Delivery>, _: Instant) {
        self.heard.fetch_add(batch.drain(..).count(), Ordering::SeqCst);
    }

    fn joined(&self, _: WorkerId, _: &ChannelName, result: Result<Option<Position>, RelayError>) {
        assert!(result.is_ok(), "{result:?}");
        self.joined.fetch_add(1, Ordering::SeqCst);
    }

    fn lost(&self, _: WorkerId, _: &ChannelName) {}

    fn recovered(&self, _: Ticket, _: &ChannelName, _: Result<Recovered, RelayError>) {}

    fn published(&self, _: Ticket, _: Result<(), RelayError>) {}

    fn control(&self, _: Control) {}

    fn report(&self) -> Report {
        Report::default()
    }

    fn channels(&self, _: oneshot::Sender<Vec<(ChannelName, u64)>>) {}

    fn observe(&self, observation: Observation) {
        if observation == Observation::Up {
            *self.up.lock().expect("no test panics while counting") += 1;
            self.changed.notify_all();
        }
    }
}

/// Joins channels `c0` to `c<count - 1>` for each of the workers and waits for the answers.
async fn join(relay: &Relay, counts: &Counts, workers: u8, count: usize) {
    let before = counts.joined.load(Ordering::SeqCst);
    for n in 0..count {
        for worker in 0..workers {
            // The queue is bounded: a worker would tell its client to come back.
            while relay.join(WorkerId(worker), channel(&format!("c{n}"))).is_err() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }
    let all = before + count * usize::from(workers);
    support::eventually("every join is answered", || counts.joined.load(Ordering::SeqCst) == all);
}

/// How many bytes Redis has sent.
fn bytes_sent(server: &RedisServer) -> usize {
    let text: String = server.command(&["INFO", "stats"]);
    let line = text.lines().find_map(|line| line.strip_prefix("total_net_output_bytes:"));
    line.expect("Redis says what it sent").parse().expect("a number")
}

#[tokio::test]
async fn a_hundred_thousand_channels_are_subscribed_again_in_a_hundred_commands() {
    const CHANNELS: usize = 100_000;
    let server = RedisServer::start();
    let patient = RedisSettings { command_timeout: Duration::from_secs(5), ..settings(&server.url()) };
    let (relay, counts) = Counts::node("n1", patient);
    let begun = Instant::now();
    join(&relay, &counts, 2, CHANNELS).await;
    println!("{CHANNELS} channels joined by two workers in {:?}", begun.elapsed());
    let before = calls(&server, "subscribe");

    let begun = Instant::now();
    let killed: usize = server.command(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    assert_eq!(killed, 1, "one connection hears for the whole node");
    counts.up(2);
    println!("{CHANNELS} channels are heard again {:?} after the connection was cut", begun.elapsed());

    let subscribed: Vec<String> = server.command(&["PUBSUB", "CHANNELS", "tg:{c*"]);
    assert_eq!(subscribed.len(), CHANNELS);
    // And one for the control channels. However many workers want a channel, the node asks once.
    assert_eq!(calls(&server, "subscribe") - before, CHANNELS / 1000 + 1);
}

#[tokio::test]
async fn a_publication_is_sent_once_to_each_interested_node_and_to_nobody_else() {
    const PUBLICATIONS: usize = 1000;
    const BYTES: usize = 2000;
    let server = RedisServer::start();
    // Quiet, so that what is sent is the publications: two probes in that time are within the bound.
    let quiet = || RedisSettings { heartbeat: Duration::from_secs(60), ..settings(&server.url()) };
    let nodes: Vec<_> = ["n1", "n2", "n3", "n4"].iter().map(|id| Counts::node(id, quiet())).collect();
    let data = format!("\"{}\"", "x".repeat(BYTES - 2));
    let mut backend = server.backend();
    for interested in 1..=nodes.len() {
        // Eight workers of one node count as one.
        let (relay, counts) = &nodes[interested - 1];
        join(relay, counts, 8, 1).await;
        let heard_before: Vec<_> = nodes.iter().map(|node| node.1.heard.load(Ordering::SeqCst)).collect();
        let sent_before = bytes_sent(&server);
        for _ in 0..PUBLICATIONS {
            let told: usize =
                redis::cmd("PUBLISH").arg("tg:{c0}").arg(&data).query(&mut backend).expect("taken");
            assert_eq!(told, interested);
        }
        for (at, (_, counts)) in nodes.iter().enumerate() {
            let expected = heard_before[at] + if at < interested { PUBLICATIONS } else { 0 };
            support::eventually("everyone interested heard everything", || {
                counts.heard.load(Ordering::SeqCst) == expected
            });
        }
        let sent = bytes_sent(&server) - sent_before;
        let least = interested * PUBLICATIONS * BYTES;
        assert!((least..least + least / 10).contains(&sent), "{sent} bytes for {interested} nodes");
    }
}
