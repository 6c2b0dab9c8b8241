//! Durable ingest by the doors of a backend: redis-cli and Python put entries in, clients hear them, nodes die meanwhile.

use std::process::Command;

use serde_json::json;
use tidegate_tests::deadline::throughout;
use tidegate_tests::process::run;
use tidegate_tests::raw::{Error, Raw, Upgrade};
use tidegate_tests::sdk::root;
use tidegate_tests::{Metrics, Node, PATIENCE, Redis, eventually};

/// The guide, whose commands are run here as they stand.
const GUIDE: &str = include_str!("../../docs/guides/ingest-and-events.md");

/// A node that takes over quickly.
fn node(name: &str, redis: &Redis) -> tidegate_tests::node::Start {
    Node::dev()
        .named(name)
        .redis(redis)
        .set("relay.redis.command_timeout", "250ms")
        .set("relay.redis.ingest.claim_after", "1s")
}

async fn subscriber(node: &Node, channels: &[&str]) -> Result<Raw, Error> {
    node.until("the relay is up", |metrics| metrics.sum("tidegate_relay_up") == 1.0);
    let mut client = Upgrade::at(node.public()).open().await?;
    client.connect_command().await?;
    for channel in channels {
        client.subscribe(channel).await?;
    }
    Ok(client)
}

/// What a scrape says of entries with this result.
fn entries(metrics: &Metrics, result: &str) -> f64 {
    metrics.with("tidegate_ingest_entries_total", &[("result", result)])
}

/// Waits until nothing is left to be done.
fn is_done(redis: &Redis) {
    eventually("the stream is empty", PATIENCE, || (redis.ask(&["XLEN", "tg:ingest"]) == "0").then_some(()));
}

/// The code blocks of a language in the guide, in order.
fn examples(language: &str) -> Vec<&'static str> {
    let fence = format!("```{language}\n");
    GUIDE.split(&fence).skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

#[tokio::test]
async fn the_guides_commands_and_its_python_publish_what_they_say() -> Result<(), Error> {
    let redis = Redis::start();
    let node = node("node", &redis).go();
    let mut client = subscriber(&node, &["news", "chat:42"]).await?;
    let shell = examples("sh").first().copied().unwrap_or_default();
    assert_eq!(shell.lines().count(), 3, "{shell}");
    let port = redis.port().to_string();
    for line in shell.lines().take(2) {
        let line = line.replace("redis-cli", &format!("redis-cli -p {port}"));
        let said = run(Command::new("sh").arg("-c").arg(&line));
        assert!(said.status.success(), "{line}: {said:?}");
    }
    let python = examples("python").first().copied().unwrap_or_default();
    let python = python.replace("127.0.0.1:6379", &format!("127.0.0.1:{port}"));
    let said = run(Command::new(root().join(".cache/venv/bin/python")).arg("-c").arg(&python));
    assert!(said.status.success(), "{python}: {said:?}");
    let mut heard = Vec::new();
    for _ in 0..4 {
        let publication = client.publication().await?;
        assert_eq!(publication.data, json!({"text": "hello"}));
        heard.push(publication.channel);
    }
    heard.sort();
    assert_eq!(heard, ["chat:42", "news", "news", "news"]);
    is_done(&redis);
    node.until("they are counted", |metrics| entries(metrics, "published") == 3.0);
    Ok(())
}

#[tokio::test]
async fn a_backend_fills_the_stream_while_no_node_runs_and_loses_nothing() -> Result<(), Error> {
    let redis = Redis::start();
    for n in 0..100 {
        redis.ask(&["XADD", "tg:ingest", "*", "channel", "news", "data", &n.to_string()]);
    }
    // Nobody is subscribed before the node runs, so what it publishes first is heard by nobody; that it publishes
    // all of it is what counts here.
    let node = node("node", &redis).go();
    is_done(&redis);
    node.until("all are published", |metrics| entries(metrics, "published") == 100.0);
    Ok(())
}

#[tokio::test]
async fn two_nodes_share_the_entries_and_every_client_hears_each_once() -> Result<(), Error> {
    const COUNT: usize = 4000;
    let redis = Redis::start();
    let nodes = [node("one", &redis).go(), node("two", &redis).go()];
    let mut clients = [subscriber(&nodes[0], &["news"]).await?, subscriber(&nodes[1], &["news"]).await?];
    let script =
        "for i=1,ARGV[1] do redis.call('XADD','tg:ingest','*','channel','news','data',i) end return 1";
    redis.ask(&["EVAL", script, "0", &COUNT.to_string()]);
    for client in &mut clients {
        let mut heard = Vec::with_capacity(COUNT);
        for _ in 0..COUNT {
            heard.push(client.publication().await?.data.as_u64().unwrap_or_default());
        }
        heard.sort_unstable();
        assert_eq!(heard, (1..=COUNT as u64).collect::<Vec<_>>());
    }
    is_done(&redis);
    let shares = nodes.each_ref().map(|node| entries(&node.metrics(), "published"));
    assert_eq!(shares[0] + shares[1], COUNT as f64, "{shares:?}");
    assert!(shares.iter().all(|share| *share > 0.0), "both work: {shares:?}");
    Ok(())
}

#[tokio::test]
async fn what_a_killed_node_had_read_is_published_by_another() -> Result<(), Error> {
    let redis = Redis::start();
    let plain = r#"[{"name":"default","subscribe":"anyone"}]"#;
    let quiet = node("listener", &redis).set("namespaces", plain).set("relay.redis.ingest.enabled", false);
    let listener = quiet.go();
    let mut doomed = node("doomed", &redis).set("namespaces", plain).go();
    redis.ask(&["XADD", "tg:ingest", "*", "channel", "news", "data", "0"]);
    is_done(&redis);
    // Redis gives entries to the node, and does not let it publish them: it has read them, and published none, when it is
    // killed.
    let reads = |redis: &Redis| redis.ask(&["XPENDING", "tg:ingest", "tidegate"]);
    redis.ask(&["ACL", "SETUSER", "default", "resetchannels"]);
    for n in 1..=50 {
        redis.ask(&["XADD", "tg:ingest", "*", "channel", "news", "data", &n.to_string()]);
    }
    eventually("the node has read them", PATIENCE, || reads(&redis).starts_with("50\n").then_some(()));
    doomed.kill();
    redis.ask(&["ACL", "SETUSER", "default", "allchannels"]);
    let mut client = subscriber(&listener, &["news"]).await?;
    let heir = node("heir", &redis).set("namespaces", plain).go();
    let mut heard = Vec::new();
    for _ in 1..=50 {
        heard.push(client.publication().await?.data.as_u64().unwrap_or_default());
    }
    assert_eq!(heard, (1..=50).collect::<Vec<_>>(), "all of it, in order");
    is_done(&redis);
    heir.until("it was claimed", |metrics| entries(metrics, "claimed") == 50.0);
    Ok(())
}

#[tokio::test]
async fn with_history_each_entry_is_heard_once_though_its_nodes_are_killed_at_work() -> Result<(), Error> {
    const COUNT: u64 = 45_000;
    let redis = Redis::start();
    let listener = node("listener", &redis).set("relay.redis.ingest.enabled", false).go();
    let mut client = subscriber(&listener, &["news"]).await?;
    let script =
        "for i=ARGV[1],ARGV[2] do redis.call('XADD','tg:ingest','*','channel','news','data',i) end return 1";
    let mut heard = Vec::new();
    for (from, to) in [(1, 15_000), (15_001, 30_000), (30_001, COUNT)] {
        let mut doomed = node("doomed", &redis).go();
        redis.ask(&["EVAL", script, "0", &from.to_string(), &to.to_string()]);
        // Killed in the middle of the work, wherever that is.
        for _ in 0..200 {
            heard.push(client.publication().await?.data.as_u64().unwrap_or_default());
        }
        doomed.kill();
    }
    let left: u64 = redis.ask(&["XLEN", "tg:ingest"]).parse().unwrap_or_default();
    assert!(left > 0, "the last one was killed before it was through");
    let heir = node("heir", &redis).go();
    while heard.len() < COUNT as usize {
        heard.push(client.publication().await?.data.as_u64().unwrap_or_default());
    }
    is_done(&redis);
    heard.sort_unstable();
    assert_eq!(heard, (1..=COUNT).collect::<Vec<_>>());
    let last = redis.ask(&["XREVRANGE", "tg:{news}:log", "+", "-", "COUNT", "1"]);
    assert!(last.starts_with(&format!("{COUNT}-0")), "as many offsets as entries: {last}");
    heir.until("what the dead had is claimed", |metrics| entries(metrics, "published") >= 1.0);
    Ok(())
}

#[tokio::test]
async fn poison_is_kept_with_its_reason_and_the_rest_goes_on() -> Result<(), Error> {
    let redis = Redis::start();
    let node = node("node", &redis).go();
    let mut client = subscriber(&node, &["news"]).await?;
    for fields in [["channel", "news", "data", "{no json"], ["channel", "a b", "data", "1"]] {
        redis.ask(&[&["XADD", "tg:ingest", "*"], &fields[..]].concat());
        redis.ask(&["XADD", "tg:ingest", "*", "channel", "news", "data", "1"]);
    }
    for _ in 0..2 {
        assert_eq!(client.publication().await?.data, 1);
    }
    is_done(&redis);
    let kept = redis.ask(&["XRANGE", "tg:ingest:poison", "-", "+"]);
    for words in ["not JSON: not exactly one JSON value", "{no json", "a channel name may not contain ' '"] {
        assert!(kept.contains(words), "{words}: {kept}");
    }
    let metrics = node.until("both are counted", |metrics| entries(metrics, "poison") == 2.0);
    assert_eq!(entries(&metrics, "published"), 2.0);
    Ok(())
}

#[tokio::test]
async fn a_namespace_that_no_node_knows_is_poison_where_namespaces_are_listed() -> Result<(), Error> {
    let redis = Redis::start();
    let _node = Node::strict().redis(&redis).set("namespaces", r#"[{"name":"chat"}]"#).go();
    redis.ask(&["XADD", "tg:ingest", "*", "channel", "news", "data", "1"]);
    is_done(&redis);
    let kept = redis.ask(&["XRANGE", "tg:ingest:poison", "-", "+"]);
    assert!(kept.contains(r#"channel "news": the namespace "default" is not known"#), "{kept}");
    Ok(())
}

#[tokio::test]
async fn a_standstill_of_redis_delays_entries_and_loses_none() -> Result<(), Error> {
    let mut redis = Redis::start();
    let node = node("node", &redis).go();
    let mut client = subscriber(&node, &["news"]).await?;
    redis.ask(&["XADD", "tg:ingest", "*", "channel", "news", "data", "1"]);
    assert_eq!(client.publication().await?.data, 1);
    redis.stop();
    node.until("the relay is down", |metrics| metrics.sum("tidegate_relay_up") == 0.0);
    redis.resume();
    node.until("the relay is up", |metrics| metrics.sum("tidegate_relay_up") == 1.0);
    eventually("the channel is heard again", PATIENCE, || (redis.listeners("news") == 1).then_some(()));
    redis.ask(&["XADD", "tg:ingest", "*", "channel", "news", "data", "2"]);
    assert_eq!(client.publication().await?.data, 2);
    is_done(&redis);
    Ok(())
}

#[test]
fn a_node_that_is_told_not_to_leaves_the_stream_alone() {
    let redis = Redis::start();
    let node = node("node", &redis).set("relay.redis.ingest.enabled", false).go();
    redis.ask(&["XADD", "tg:ingest", "*", "channel", "news", "data", "1"]);
    throughout("the entry stays", std::time::Duration::from_secs(2), || {
        redis.ask(&["XLEN", "tg:ingest"]) == "1"
    });
    assert_eq!(entries(&node.metrics(), "published"), 0.0);
}

#[test]
fn ingest_without_redis_is_refused_before_the_node_starts() {
    let mut check = Command::new(tidegate_tests::node::binary());
    check.args(["check-config", "--set", "relay.redis.ingest.enabled=true"]);
    let said = run(&mut check);
    assert_eq!(said.status.code(), Some(1), "{said:?}");
    let text = format!("{}{}", said.out, said.err);
    assert!(text.contains("relay.redis.ingest.enabled = true"), "{text}");
    assert!(text.contains("needs relay.kind: redis"), "{text}");
}
