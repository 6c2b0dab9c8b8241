//! Positions and recovery as a raw client sees them: what is said, by whom it may be asked, and in which order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use tidegate_tests::raw::{Error, Raw, Upgrade};
use tidegate_tests::{Node, Redis};

async fn connected(node: &Node) -> Result<Raw, Error> {
    let mut client = Upgrade::at(node.public()).open().await?;
    client.connect_command().await?;
    Ok(client)
}

const NAMESPACES: &str = "auth: {anonymous: true}
namespaces:
  - {name: open, subscribe: anyone, publish: anyone, history_size: 10000, history_ttl: 5m, recover: true, presence: true,
     read_history: anyone, read_presence: anyone}
  - {name: inner, subscribe: anyone, history_size: 100, history_ttl: 5m, presence: true, read_history: subscriber,
     read_presence: subscriber}
  - {name: shut, subscribe: anyone, history_size: 100, history_ttl: 5m, presence: true}
  - {name: plain, subscribe: anyone, publish: anyone}
";

fn code(result: Result<Value, Error>) -> u64 {
    match result {
        Err(Error::Command { code, .. }) => code,
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn a_publication_of_a_client_has_its_place_in_the_history() -> Result<(), Error> {
    let node = Node::strict().file(NAMESPACES).go();
    let mut client = connected(&node).await?;
    let told = client.subscribe("open:1").await?;
    assert_eq!((&told["positioned"], &told["recoverable"]), (&json!(true), &json!(true)), "{told}");
    let epoch = told["epoch"].clone();
    for number in 1..=3 {
        client.publish("open:1", json!(number)).await?;
        let heard = client.publication().await?;
        assert_eq!((&heard.data, &heard.whole["offset"]), (&json!(number), &json!(number)));
        assert!(heard.whole["info"]["client"].is_string(), "{heard:?}");
    }
    let history = client.command("history", json!({"channel": "open:1", "limit": -1})).await?;
    assert_eq!((&history["offset"], &history["epoch"]), (&json!(3), &epoch));
    assert!(history["publications"][2]["info"]["client"].is_string(), "who published is kept: {history}");
    let top = client.command("history", json!({"channel": "open:1"})).await?;
    assert_eq!(top, json!({"offset": 3, "epoch": epoch}));

    // Without history there is no place to have.
    assert_eq!(client.subscribe("plain:1").await?, json!({}));
    client.publish("plain:1", json!(1)).await?;
    assert!(client.publication().await?.whole.get("offset").is_none());
    Ok(())
}

#[tokio::test]
async fn who_may_ask_is_the_namespaces_to_say() -> Result<(), Error> {
    let node = Node::strict().file(NAMESPACES).go();
    let mut client = connected(&node).await?;
    for command in ["history", "presence", "presence_stats"] {
        client.command(command, json!({"channel": "open:1"})).await?;
        let refused = async |client: &mut Raw, channel: &str| {
            code(client.command(command, json!({"channel": channel})).await)
        };
        assert_eq!(refused(&mut client, "inner:1").await, 103, "{command}: no subscriber");
        client.subscribe("inner:1").await?;
        client.command(command, json!({"channel": "inner:1"})).await?;
        client.unsubscribe("inner:1").await?;
        assert_eq!(refused(&mut client, "inner:1").await, 103, "{command}: no subscriber any more");
        assert_eq!(refused(&mut client, "shut:1").await, 103, "{command}: backends only");
        assert_eq!(refused(&mut client, "plain:1").await, 108, "{command}: there is nothing");
        assert_eq!(refused(&mut client, "elsewhere:1").await, 102, "{command}: no namespace");
        assert_eq!(refused(&mut client, "bad name").await, 107, "{command}: no name");
    }
    Ok(())
}

#[tokio::test]
async fn a_recovery_that_was_never_offered_is_a_subscription_all_the_same() -> Result<(), Error> {
    let node = Node::strict().file(NAMESPACES).go();
    let mut client = connected(&node).await?;
    for (channel, positioned) in [("shut:1", json!(true)), ("plain:1", Value::Null)] {
        let asked = json!({"channel": channel, "recover": true, "epoch": "x", "offset": 7});
        let told = client.command("subscribe", asked).await?;
        assert_eq!((&told["was_recovering"], &told["positioned"]), (&json!(true), &positioned), "{told}");
        assert!(told.get("recovered").is_none() && told.get("recoverable").is_none(), "{told}");
    }
    Ok(())
}

/// A backend that does not stop: by the API, one publication after the other, each a number higher.
struct Publisher {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<u64>>,
}

impl Publisher {
    fn start(node: &Node, channel: &'static str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let url = format!("http://{}/api/publish", node.internal());
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut number = 0;
            while !stopped.load(Ordering::Acquire) {
                number += 1;
                let body = json!({"channel": channel, "data": number}).to_string();
                let answer = tidegate_tests::door::post(&url, None, &body).expect("the API answers").json();
                assert_eq!(answer["result"]["offset"], number, "{answer}");
            }
            number
        });
        Self { stop, thread: Some(thread) }
    }

    /// How many it published.
    fn stop(mut self) -> u64 {
        self.stop.store(true, Ordering::Release);
        let thread = self.thread.take().expect("it was started");
        thread.join().expect("the publisher did not panic")
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

/// What a client hears, item by item in the order of the wire.
struct Wire {
    client: Raw,
    items: std::collections::VecDeque<Value>,
}

impl Wire {
    async fn next(&mut self) -> Result<Value, Error> {
        while self.items.is_empty() {
            let frame = self.client.frame().await?;
            let items = frame.text()?.split('\n').map(|line| serde_json::from_str(line).expect("JSON"));
            self.items.extend(items.filter(|item: &Value| *item != json!({})));
        }
        Ok(self.items.pop_front().unwrap_or_default())
    }
}

/// Comes back again and again while a backend publishes, and sees every number once, in order.
async fn comes_back_in_a_flood(node: &Node) -> Result<(), Error> {
    let mut client = connected(node).await?;
    let told = client.subscribe("open:1").await?;
    let epoch = told["epoch"].clone();
    let (mut seen, mut recovered) = (0, 0);
    let publisher = Publisher::start(node, "open:1");
    for round in 0..100 {
        let mut wire = Wire { client: Upgrade::at(node.public()).open().await?, items: Default::default() };
        let subscribe = json!({"channel": "open:1", "recover": true, "epoch": epoch, "offset": seen});
        let message = json!({"id": 1, "connect": {}}).to_string()
            + "\n"
            + &json!({"id": 2, "subscribe": subscribe}).to_string();
        wire.client.text(&message).await?;
        assert_eq!(wire.next().await?["id"], 1);
        let reply = wire.next().await?;
        assert_eq!(reply["id"], 2, "the reply comes before any push: {reply}");
        let told = &reply["subscribe"];
        assert_eq!((&told["recovered"], &told["was_recovering"]), (&json!(true), &json!(true)), "{reply}");
        for publication in told["publications"].as_array().into_iter().flatten() {
            seen += 1;
            recovered += 1;
            assert_eq!((&publication["offset"], &publication["data"]), (&json!(seen), &json!(seen)));
        }
        for _ in 0..2 {
            let push = wire.next().await?;
            seen += 1;
            assert_eq!(push["push"]["pub"], json!({"offset": seen, "data": seen}), "round {round}");
        }
    }
    assert!(publisher.stop() >= seen);
    assert!(recovered > 0, "nothing was ever missed: this shows nothing");
    let metrics = node.metrics();
    assert_eq!(metrics.with("tidegate_recoveries_total", &[("result", "recovered")]), 100.0);
    Ok(())
}

#[tokio::test]
async fn who_comes_back_in_a_flood_sees_everything_once_and_in_order() -> Result<(), Error> {
    comes_back_in_a_flood(&Node::strict().file(NAMESPACES).go()).await
}

#[tokio::test]
async fn who_comes_back_in_a_flood_sees_everything_once_and_in_order_over_redis() -> Result<(), Error> {
    let redis = Redis::start();
    comes_back_in_a_flood(&Node::strict().file(NAMESPACES).redis(&redis).go()).await
}

#[tokio::test]
async fn the_same_key_is_heard_once_and_what_skips_the_history_has_no_offset() -> Result<(), Error> {
    let redis = Redis::start();
    let node = Node::strict().file(NAMESPACES).redis(&redis).go();
    let mut client = connected(&node).await?;
    client.subscribe("open:1").await?;
    node.api("publish", &json!({"channel": "open:1", "data": 1, "skip_history": true}));
    assert!(client.publication().await?.whole.get("offset").is_none(), "it is not kept");
    node.api("publish", &json!({"channel": "open:1", "data": 2, "idempotency_key": "k"}));
    node.api("publish", &json!({"channel": "open:1", "data": 2, "idempotency_key": "k"}));
    node.api("publish", &json!({"channel": "open:1", "data": 3}));
    for expected in [2, 3] {
        let heard = client.publication().await?;
        assert_eq!((&heard.data, &heard.whole["offset"]), (&json!(expected), &json!(expected - 1)));
    }
    Ok(())
}
