//! Readers that cannot keep up: what they cost while they stay, how they leave, and that others do not notice.

use std::time::{Duration, Instant};

use serde_json::json;
use tidegate_tests::node::Start;
use tidegate_tests::raw::{Error, Raw, Upgrade};
use tidegate_tests::{Certificates, Node, Redis, eventually};

/// A client which takes next to nothing unless it reads.
fn narrow(node: &Node) -> Upgrade {
    Upgrade::at(node.public()).receive_buffer(4096)
}

async fn joined(upgrade: Upgrade, channel: &str) -> Result<Raw, Error> {
    let mut client = upgrade.open().await?;
    client.connect_command().await?;
    client.subscribe(channel).await?;
    Ok(client)
}

/// A node which pings nobody while a test lasts: whoever does not read does not answer either.
fn quiet() -> Start {
    Node::dev().set("heartbeat.interval", "10m")
}

/// A plain node and one with TLS, with this bound of an outbox.
fn both(certificates: &Certificates, bound: &str) -> [Node; 2] {
    let start = quiet().set("outbox.max_bytes", bound).set("limits.write_timeout", "60s");
    [start.clone().go(), start.tls(certificates).go()]
}

fn trusting(upgrade: Upgrade, node: &Node, certificates: &Certificates) -> Upgrade {
    if node.url().starts_with("wss") { upgrade.tls(certificates.client()) } else { upgrade }
}

fn publish(node: &Node, channel: &str, size: usize) {
    node.api("publish", &json!({"channel": channel, "data": "x".repeat(size)}));
}

/// One command of Redis that publishes often, so that all of it is in one answer.
const BURST: &str = "for i = 1, tonumber(ARGV[1]) do \
    redis.call('PUBLISH', KEYS[1], cjson.encode({i, string.rep('x', tonumber(ARGV[2]))})) end return 'done'";

#[tokio::test]
async fn a_burst_larger_than_its_outbox_does_not_end_a_reader_whose_socket_has_room() -> Result<(), Error> {
    let redis = Redis::start();
    let node = quiet()
        .redis(&redis)
        .set("outbox.max_bytes", "8KiB")
        .set("relay.redis.max_publication_bytes", "4KiB")
        .go();
    let mut reader = joined(Upgrade::at(node.public()), "burst").await?;
    // Together less than any socket's buffers: what the node does not write at once it would hold itself.
    for (count, size) in [(60, 1 << 10), (15, 4000)] {
        let (count_text, size) = (count.to_string(), size.to_string());
        assert_eq!(redis.ask(&["EVAL", BURST, "1", "tg:{burst}", &count_text, &size]), "done");
        for number in 1..=count {
            assert_eq!(reader.publication().await?.data[0], number);
        }
    }
    assert_eq!(node.metrics().sum("tidegate_slow_consumers_total"), 0.0);
    Ok(())
}

#[tokio::test]
async fn a_slow_reader_is_dropped_at_its_bound_and_its_memory_with_it() -> Result<(), Error> {
    const READERS: usize = 30;
    const BOUND: u64 = 1 << 20;
    let node = quiet().set("outbox.max_bytes", "1MiB").set("limits.write_timeout", "60s").go();
    // What the first deliveries make the node allocate once is not the slow readers'.
    let mut warm = joined(Upgrade::at(node.public()), "slow").await?;
    for _ in 0..50 {
        publish(&node, "slow", 64 << 10);
        warm.publication().await?;
    }
    let before = node.resident_bytes();
    let mut slow = Vec::new();
    for _ in 0..READERS {
        slow.push(joined(narrow(&node), "slow").await?);
    }
    let mut most = 0;
    let began = Instant::now();
    let mut published = 0;
    // The kernel takes some megabytes a socket before the outbox begins to fill.
    while node.metrics().sum("tidegate_slow_consumers_total") < READERS as f64 {
        assert!(began.elapsed() < Duration::from_secs(60), "{published} published: {:?}", node.metrics());
        publish(&node, "slow", 64 << 10);
        published += 1;
        warm.publication().await?;
        most = most.max(node.resident_bytes());
    }
    // A publication's bytes are shared, so the outboxes together hold little more than one of them would.
    let grown = most.saturating_sub(before);
    assert!(
        grown < READERS as u64 * BOUND / 2 + (16 << 20),
        "{grown} bytes for {READERS} outboxes of shared bytes"
    );

    node.until("only the fast one is left, though nobody else has read a byte", |m| {
        m.with("tidegate_disconnects_total", &[("code", "3008")]) == READERS as f64
            && m.sum("tidegate_connections") == 1.0
    });
    node.until("nothing waits", |m| m.sum("tidegate_outbox_bytes") == 0.0);
    eventually("the memory is given back", Duration::from_secs(45), || {
        (node.resident_bytes() < before + (8 << 20)).then_some(())
    });
    publish(&node, "slow", 10);
    warm.publication().await?;
    Ok(())
}

#[tokio::test]
async fn a_slow_reader_that_reads_again_is_told_why() -> Result<(), Error> {
    let certificates = Certificates::new();
    for node in both(&certificates, "256KiB") {
        let mut slow = joined(trusting(narrow(&node), &node, &certificates), "slow").await?;
        let mut fast = joined(trusting(Upgrade::at(node.public()), &node, &certificates), "slow").await?;
        let began = Instant::now();
        while node.metrics().sum("tidegate_slow_consumers_total") < 1.0 {
            assert!(began.elapsed() < Duration::from_secs(60), "it stays for ever");
            publish(&node, "slow", 64 << 10);
            fast.publication().await?;
        }
        let end = slow.end().await?;
        assert_eq!((end.code(), end.reason()), (Some(3008), Some("slow")), "{}: {end:?}", node.url());
    }
    Ok(())
}

#[tokio::test]
async fn a_reader_that_pauses_within_its_bound_gets_everything_in_order() -> Result<(), Error> {
    let certificates = Certificates::new();
    for node in both(&certificates, "8MiB") {
        let mut client = joined(trusting(narrow(&node), &node, &certificates), "news").await?;
        for n in 0..400 {
            node.api("publish", &json!({"channel": "news", "data": [n, "x".repeat(20_000)]}));
        }
        for n in 0..400 {
            let publication = client.publication().await?;
            assert_eq!(publication.data[0], n, "{}", node.url());
        }
        node.until("nothing waits", |m| m.sum("tidegate_outbox_bytes") == 0.0);
        assert_eq!(node.metrics().sum("tidegate_slow_consumers_total"), 0.0);
    }
    Ok(())
}

#[tokio::test]
async fn a_peer_that_takes_nothing_does_not_hold_its_socket_for_ever() -> Result<(), Error> {
    let node = quiet().set("limits.write_timeout", "2s").set("outbox.max_bytes", "64MiB").go();
    let stuck = joined(narrow(&node), "news").await?;
    // Far more than the kernel takes, far less than the bound.
    for _ in 0..400 {
        publish(&node, "news", 32 << 10);
    }
    let metrics = node.until("it is dropped", |m| m.sum("tidegate_connections") == 0.0);
    assert_eq!(metrics.with("tidegate_disconnects_total", &[("code", "3009")]), 1.0, "a write that stalled");
    node.until("nothing waits", |m| m.sum("tidegate_outbox_bytes") == 0.0);
    drop(stuck);
    Ok(())
}

#[tokio::test]
async fn who_asks_and_never_reads_is_bounded_too() -> Result<(), Error> {
    let node = quiet().set("outbox.max_bytes", "64KiB").set("limits.write_timeout", "60s").go();
    let mut client = narrow(&node).open().await?;
    client.connect_command().await?;
    let before = node.resident_bytes();
    let batch: Vec<String> = (2..500).map(|id| format!(r#"{{"id":{id},"rpc":{{"method":"x"}}}}"#)).collect();
    let batch = batch.join("\n");
    client.set_patience(Duration::from_millis(500));
    let began = Instant::now();
    while node.metrics().sum("tidegate_connections") > 0.0 {
        assert!(began.elapsed() < Duration::from_secs(60), "its answers are kept without end");
        // The node may have stopped to read, or to be there.
        let _ = client.text(&batch).await;
        assert!(node.resident_bytes() < before + (32 << 20), "memory grows");
    }
    assert_eq!(node.metrics().with("tidegate_disconnects_total", &[("code", "3008")]), 1.0);
    Ok(())
}

#[tokio::test]
async fn a_slow_reader_costs_the_others_nothing() -> Result<(), Error> {
    let node = quiet().set("outbox.max_bytes", "16MiB").set("limits.write_timeout", "60s").go();
    let mut fast = joined(Upgrade::at(node.public()), "news").await?;
    let mut slow = Vec::new();
    for _ in 0..20 {
        slow.push(joined(narrow(&node), "news").await?);
    }
    for n in 0..200 {
        node.api("publish", &json!({"channel": "news", "data": [n, "x".repeat(32 << 10)]}));
        let began = Instant::now();
        assert_eq!(fast.publication().await?.data[0], n);
        assert!(began.elapsed() < Duration::from_secs(2), "the {n}th took {:?}", began.elapsed());
    }
    Ok(())
}
