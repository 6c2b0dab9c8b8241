//! Events by the doors of those who make and read them: clients do things, redis-cli and Python see them.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;
use tidegate_tests::process::{Process, run};
use tidegate_tests::raw::{Error, Raw, Upgrade};
use tidegate_tests::sdk::{Kind, root};
use tidegate_tests::{Node, PATIENCE, Redis, Sdk, eventually};

/// The guide, whose Python is run here as it stands.
const GUIDE: &str = include_str!("../../docs/guides/ingest-and-events.md");

const ALL: &str = "connect,disconnect,subscribe,unsubscribe,publish,send,rpc";

type Event = BTreeMap<String, String>;

/// The events in the stream, in order.
fn events(redis: &Redis) -> Vec<Event> {
    let script = "return cjson.encode(redis.call('XRANGE', 'tg:events', '-', '+'))";
    let text = redis.ask(&["EVAL", script, "0"]);
    if text == "{}" {
        return Vec::new();
    }
    let entries: Vec<(String, Vec<String>)> =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let fields =
        |flat: Vec<String>| flat.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
    entries.into_iter().map(|(_, flat)| fields(flat)).collect()
}

/// Waits until there are so many.
fn after(redis: &Redis, count: usize) -> Vec<Event> {
    eventually(&format!("{count} events"), PATIENCE, || {
        Some(events(redis)).filter(|events| events.len() >= count)
    })
}

/// Kind, channel, code, method and data of an event.
fn words(event: &Event) -> String {
    let fields = ["kind", "channel", "code", "method", "data"];
    fields.iter().filter_map(|name| event.get(*name).map(String::as_str)).collect::<Vec<_>>().join(" ")
}

/// Waits until clients can subscribe.
fn is_up(node: &Node) {
    node.until("the relay is up", |metrics| metrics.sum("tidegate_relay_up") == 1.0);
}

async fn client(node: &Node) -> Result<(Raw, String), Error> {
    let mut client = Upgrade::at(node.public()).open().await?;
    let connected = client.connect_command().await?;
    Ok((client, connected["client"].as_str().unwrap_or_default().to_owned()))
}

#[tokio::test]
async fn what_a_client_does_stands_in_the_stream_with_every_documented_field() -> Result<(), Error> {
    let redis = Redis::start();
    let namespaces = r#"[{"name":"default","subscribe":"anyone","publish":"anyone"},
                         {"name":"told","publish":"anyone","events_data":true}]"#;
    let node = Node::dev().redis(&redis).set("events.kinds", ALL).set("namespaces", namespaces).go();
    is_up(&node);
    let (mut client, id) = client(&node).await?;
    client.subscribe("news").await?;
    client.publish("news", json!({"secret": 1})).await?;
    client.publish("told:1", json!({"open": 1})).await?;
    client.text(&json!({"send": {"data": {"typing": true}}}).to_string()).await?;
    client.command("rpc", json!({"method": "sum", "data": [1]})).await.expect_err("nobody answers it");
    client.unsubscribe("news").await?;
    drop(client);
    let events = after(&redis, 8);
    let said: Vec<_> = events.iter().map(words).collect();
    assert_eq!(
        said,
        [
            "connect",
            "subscribe news",
            "publish news",
            r#"publish told:1 {"open":1}"#,
            r#"send {"typing":true}"#,
            "rpc sum",
            "unsubscribe news",
            "disconnect 1006",
        ]
    );
    for (at, event) in events.iter().enumerate() {
        assert_eq!(event["number"], (at + 1).to_string());
        assert_eq!((&event["client"], event["user"].as_str()), (&id, ""));
        assert!(redis.ask(&["EXISTS", &format!("tg:node:{}", event["node"])]) == "1", "the node's own id");
        let documented = |name: &String| GUIDE.contains(&format!("\n| `{name}` | "));
        assert!(event.keys().all(documented), "{event:?}");
    }
    let metrics = node.metrics();
    assert_eq!(metrics.sum("tidegate_events_written_total"), 8.0);
    assert_eq!(metrics.sum("tidegate_events_dropped_total"), 0.0);
    Ok(())
}

#[tokio::test]
async fn only_the_kinds_that_are_asked_for_are_written() -> Result<(), Error> {
    let redis = Redis::start();
    let quiet = Node::dev().redis(&redis).go();
    let node = Node::dev().redis(&redis).set("events.kinds", "disconnect").go();
    for node in [&quiet, &node] {
        is_up(node);
        let (mut client, _) = client(node).await?;
        client.subscribe("news").await?;
        client.publish("news", json!(1)).await?;
    }
    assert_eq!(after(&redis, 1).iter().map(words).collect::<Vec<_>>(), ["disconnect 1006"]);
    assert_eq!(quiet.metrics().sum("tidegate_events_written_total"), 0.0);
    Ok(())
}

#[test]
fn the_guides_consumer_reads_what_sdk_clients_do() {
    let redis = Redis::start();
    let node = Node::dev().redis(&redis).set("events.kinds", ALL).go();
    let python =
        GUIDE.split("```python\n").nth(2).and_then(|rest| rest.split("```").next()).expect("an example");
    let python = python.replace("127.0.0.1:6379", &format!("127.0.0.1:{}", redis.port()));
    let mut command = Command::new(root().join(".cache/venv/bin/python"));
    command.arg("-c").arg(&python);
    let consumer = Process::start("consumer", &mut command);
    is_up(&node);
    let sdk = Sdk::start(Kind::Js, None);
    sdk.connect("alice", &node.url());
    sdk.subscribe("alice", "news").expect("alice may");
    sdk.publish("alice", "news", json!(1)).expect("alice may");
    for line in ["connect", "subscribe  news", "publish  news"] {
        let read = consumer.out.find(PATIENCE, |said| (said.trim_end() == line).then_some(()));
        assert!(read.is_ok(), "{line:?} is not in {:?}; {:?}", consumer.out.lines(), consumer.err.lines());
    }
    let pending = || redis.ask(&["XPENDING", "tg:events", "billing"]);
    eventually("all of it is acknowledged", PATIENCE, || pending().starts_with('0').then_some(()));
}

#[tokio::test]
async fn while_redis_stands_still_clients_are_served_and_the_oldest_events_are_dropped() -> Result<(), Error>
{
    const SENT: usize = 100_000;
    let mut redis = Redis::start();
    let node = Node::dev().redis(&redis).set("events.kinds", "connect,send").go();
    let (mut speaker, _) = client(&node).await?;
    after(&redis, 1);
    redis.stop();
    let batch = vec![r#"{"send":{"data":1}}"#; 1000].join("\n");
    for _ in 0..SENT / 1000 {
        speaker.text(&batch).await?;
        // The answer shows that the worker is through with the batch.
        speaker.command("ping", json!({})).await?;
    }
    let began = Instant::now();
    for _ in 0..100 {
        client(&node).await?;
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let dropped = node.metrics().sum("tidegate_events_dropped_total");
    // The queue is full, and a batch was on its way when Redis stopped.
    assert!(dropped >= (SENT - 65_536 - 512) as f64, "{dropped}");
    redis.resume();
    // Whatever was made is either written or counted.
    node.until("what was kept is written", |metrics| {
        let written = metrics.sum("tidegate_events_written_total");
        written + metrics.sum("tidegate_events_dropped_total") == (1 + SENT + 100) as f64
    });
    let newest = redis.ask(&["XREVRANGE", "tg:events", "+", "-", "COUNT", "1"]);
    assert!(newest.contains(&format!("\n{}\n", 1 + SENT + 100)), "the newest is there: {newest}");
    assert_eq!(node.metrics().sum("tidegate_connections"), 1.0, "the speaker was never cut");
    Ok(())
}

#[tokio::test]
async fn a_node_that_is_stopped_tells_of_everyone_it_sends_away() -> Result<(), Error> {
    let redis = Redis::start();
    let mut node = Node::dev().redis(&redis).set("events.kinds", "disconnect").go();
    let mut clients = Vec::new();
    for _ in 0..50 {
        clients.push(client(&node).await?);
    }
    node.terminate();
    node.wait(PATIENCE);
    let told: Vec<_> = events(&redis).iter().map(words).collect();
    assert_eq!(told, vec!["disconnect 3001"; 50]);
    Ok(())
}

#[test]
fn events_without_redis_are_refused_before_the_node_starts() {
    let mut check = Command::new(tidegate_tests::node::binary());
    check.args(["check-config", "--set", "events.kinds=connect,vanish"]);
    let said = run(&mut check);
    assert_eq!(said.status.code(), Some(1), "{said:?}");
    let text = format!("{}{}", said.out, said.err);
    assert!(text.contains("needs relay.kind: redis"), "{text}");
    assert!(text.contains("events.kinds[1] = vanish"), "{text}");
}
