//! Namespaces with `delivery: latest`: who cannot keep up is told what is, not what was, and stays.

use std::time::{Duration, Instant};

use serde_json::json;
use tidegate_tests::node::Start;
use tidegate_tests::raw::{Error, Raw, Upgrade};
use tidegate_tests::sdk::Kind;
use tidegate_tests::{Certificates, Node, Proxy, Sdk};

/// Publications of a test, each of [`SIZE`]: together far more than the kernel and an outbox hold.
const COUNT: u64 = 600;

const SIZE: usize = 32 << 10;

/// A node with prices, which pings nobody while a test lasts: whoever does not read does not answer either.
fn prices() -> Start {
    Node::dev()
        .file("namespaces: [{name: default}, {name: price, delivery: latest}]")
        .set("heartbeat.interval", "10m")
        .set("outbox.max_bytes", "256KiB")
}

async fn joined(upgrade: Upgrade, channels: &[&str]) -> Result<Raw, Error> {
    let mut client = upgrade.open().await?;
    client.connect_command().await?;
    for channel in channels {
        client.subscribe(channel).await?;
    }
    Ok(client)
}

fn publish(node: &Node, channel: &str, n: u64) {
    node.api("publish", &json!({"channel": channel, "data": {"n": n, "text": "x".repeat(SIZE)}}));
}

async fn number(client: &mut Raw) -> Result<u64, Error> {
    Ok(client.publication().await?.data["n"].as_u64().expect("a number"))
}

#[tokio::test]
async fn a_reader_that_stopped_stays_and_finds_the_newest_when_it_reads_again() -> Result<(), Error> {
    let certificates = Certificates::new();
    for node in [prices().go(), prices().tls(&certificates).go()] {
        let at = || {
            let upgrade = Upgrade::at(node.public());
            if node.url().starts_with("wss") { upgrade.tls(certificates.client()) } else { upgrade }
        };
        let mut slow = joined(at().receive_buffer(4096), &["price:a"]).await?;
        let mut fast = joined(at(), &["price:a"]).await?;
        publish(&node, "price:a", 0);
        assert_eq!((number(&mut fast).await?, number(&mut slow).await?), (0, 0));
        let before = node.resident_bytes();
        for n in 1..=COUNT {
            publish(&node, "price:a", n);
            let began = Instant::now();
            assert_eq!(number(&mut fast).await?, n);
            assert!(began.elapsed() < Duration::from_secs(2), "the {n}th took {:?}", began.elapsed());
        }
        let waiting = node.metrics().sum("tidegate_outbox_bytes");
        assert!(waiting < 3.0 * SIZE as f64, "what is begun and the newest: {waiting}");
        let grown = node.resident_bytes().saturating_sub(before);
        assert!(grown < 8 << 20, "{grown} bytes for one reader that does not read");

        let (mut heard, mut last) = (0, 0);
        while last < COUNT {
            let n = number(&mut slow).await?;
            assert!(n > last, "{n} after {last}");
            (heard, last) = (heard + 1, n);
        }
        let metrics = node.until("all is written", |m| m.sum("tidegate_outbox_bytes") == 0.0);
        assert_eq!(metrics.sum("tidegate_publications_conflated_total"), (COUNT - heard) as f64);
        assert!(heard < COUNT - 10, "{heard} is no sign of a reader that was slow");
        assert_eq!(metrics.sum("tidegate_connections"), 2.0);
        assert_eq!(metrics.sum("tidegate_slow_consumers_total"), 0.0);
        // From now on it keeps up, and gets everything again.
        for n in COUNT + 1..COUNT + 20 {
            publish(&node, "price:a", n);
            assert_eq!((number(&mut fast).await?, number(&mut slow).await?), (n, n));
        }
    }
    Ok(())
}

#[tokio::test]
async fn each_channel_keeps_its_newest_and_the_others_their_bound() -> Result<(), Error> {
    let node = prices().go();
    let channels = ["price:a", "price:b", "price:c"];
    let mut slow = joined(Upgrade::at(node.public()).receive_buffer(4096), &channels).await?;
    let mut mixed =
        joined(Upgrade::at(node.public()).receive_buffer(4096), &["price:a", "price:b", "price:c", "news"])
            .await?;
    for n in 1..=COUNT {
        publish(&node, channels[(n % 3) as usize], n);
    }
    let mut newest = [0; 3];
    while newest.iter().min() < Some(&(COUNT - 2)) {
        let publication = slow.publication().await?;
        let of = channels.iter().position(|channel| *channel == publication.channel).expect("one of them");
        let n = publication.data["n"].as_u64().expect("a number");
        assert!(n > newest[of], "{n} after {}", newest[of]);
        newest[of] = n;
    }
    // A channel that may skip nothing ends who cannot keep up, whatever else it hears.
    for n in 1..=COUNT {
        publish(&node, "news", n);
    }
    let end = mixed.end().await?;
    assert_eq!(end.code(), Some(3008), "{end:?}");
    node.until("the other one stays", |m| m.sum("tidegate_connections") == 1.0);
    Ok(())
}

#[tokio::test]
async fn a_reader_that_takes_nothing_at_all_does_not_stay_for_ever() -> Result<(), Error> {
    let node = prices().set("limits.write_timeout", "2s").go();
    let stuck = joined(Upgrade::at(node.public()).receive_buffer(4096), &["price:a"]).await?;
    for n in 1..=COUNT {
        publish(&node, "price:a", n);
    }
    let metrics = node.until("it is dropped", |m| m.sum("tidegate_connections") == 0.0);
    assert_eq!(metrics.with("tidegate_disconnects_total", &[("code", "3009")]), 1.0);
    drop(stuck);
    Ok(())
}

#[test]
fn an_unchanged_sdk_that_was_held_up_goes_on_with_the_newest() {
    for kind in [Kind::Js, Kind::PythonProtobuf] {
        let node = prices().go();
        let proxy = Proxy::to(node.public());
        let sdk = Sdk::start(kind, None);
        sdk.connect("alice", &node.url_at(proxy.address()));
        sdk.subscribe("alice", "price:a").expect("alice may subscribe");
        sdk.named("alice", "connected");
        let begun = sdk.pending("alice", "connecting");
        proxy.silence();
        for n in 1..=COUNT {
            publish(&node, "price:a", n);
        }
        proxy.speak();
        let (mut heard, mut last) = (0, 0);
        while last < COUNT {
            let n = sdk.publication("alice", "price:a")["n"].as_u64().expect("a number");
            assert!(n > last, "{kind:?}: {n} after {last}");
            (heard, last) = (heard + 1, n);
        }
        let metrics = node.metrics();
        assert!(heard < COUNT, "{kind:?} was not held up");
        assert_eq!(metrics.sum("tidegate_publications_conflated_total"), (COUNT - heard) as f64, "{kind:?}");
        assert_eq!(sdk.pending("alice", "connecting"), begun, "{kind:?} connected anew");
    }
}
