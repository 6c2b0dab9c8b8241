//! The function library: how backends publish into histories, with nothing but a Redis client.

mod support;

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use support::{Recorder, RedisServer, channel, joined, library, node, publication, rules, settings};
use tidegate_relay::{HistoryQuery, Relay, RelaySettings, Retention, Rules};

/// What redis-cli says, line by line.
fn cli(server: &RedisServer, words: &[&str]) -> Vec<String> {
    let output = Command::new("redis-cli").args(["-p", &server.port.to_string()]).args(words).output();
    let output = output.expect("redis-cli is where redis-server is");
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

/// `FCALL tg_publish` as redis-cli says it.
fn publish(server: &RedisServer, name: &str, rest: &[&str]) -> Vec<String> {
    let key = format!("tg:{{{name}}}");
    cli(server, &[&["FCALL", "tg_publish", "1", &key], rest].concat())
}

fn code(server: &RedisServer) -> String {
    cli(server, &["FUNCTION", "LIST", "LIBRARYNAME", "tidegate", "WITHCODE"]).join("\n")
}

/// A node whose namespace `kept` keeps so many.
fn keeping(server: &RedisServer, id: &str, size: u32) -> (Relay, Arc<Recorder>) {
    let mut rules = Rules::clone(&rules());
    let kept = rules.namespaces.get_mut("kept").expect("a namespace");
    kept.retention = Some(Retention { size, ttl: Duration::from_secs(60) });
    let recorder = Recorder::new();
    let redis = RelaySettings::Redis(settings(&server.url()));
    let relay = Relay::start(redis, Arc::new(rules), id, "host", "0.0.0-test", Arc::clone(&recorder))
        .expect("starts");
    recorder.up(1);
    (relay, recorder)
}

#[tokio::test]
async fn redis_cli_publishes_into_a_history() {
    let server = RedisServer::start();
    let (relay, recorder) = node("n1", settings(&server.url()));
    library(&server);
    joined(&relay, &recorder, 0, "kept:a");
    let answer = publish(&server, "kept:a", &[r#"{"text":"hello"}"#]);
    let answered = relay.publish(publication("kept:a", "2")).await.expect("published").expect("kept");
    assert_eq!(answer, ["1", answered.epoch.as_str()]);
    let tags = "{\n\"lang\": \"en\"}";
    assert_eq!(publish(&server, "kept:a", &["3", "tags", tags])[0], "3");
    recorder.hears(0, "kept:a", &[r#"{"text":"hello"}"#, "2", "3"]);
    let last = recorder.record().publications(0, "kept:a").last().cloned().expect("heard");
    assert_eq!((last.offset, last.tags), (3, vec![("lang".to_owned(), "en".to_owned())]));
    let history = relay.history(channel("kept:a"), HistoryQuery::default()).await.expect("history");
    assert_eq!(history.publications.iter().map(|p| p.offset).collect::<Vec<_>>(), [1, 2, 3]);
}

#[tokio::test]
async fn what_the_namespace_keeps_is_kept_unless_the_backend_says_otherwise() {
    let server = RedisServer::start();
    let (relay, recorder) = node("n1", settings(&server.url()));
    library(&server);
    for n in 1..=5 {
        publish(&server, "brief:a", &[&n.to_string()]);
        publish(&server, "brief:b", &[&n.to_string(), "size", "2", "ttl", "1000"]);
    }
    for (name, left, least) in [("brief:a", 3, 200), ("brief:b", 2, 900)] {
        let log = format!("tg:{{{name}}}:log");
        assert_eq!(server.command::<u64>(&["XLEN", &log]), left, "{name}");
        assert!(server.command::<u64>(&["TTL", &log]) > least, "{name}");
        let meta = format!("tg:{{{name}}}:meta");
        assert!(server.command::<u64>(&["TTL", &meta]) >= 24 * 3600, "positions outlive what is kept");
    }
    // A namespace that keeps nothing: at most once, unless asked for more.
    joined(&relay, &recorder, 0, "news");
    assert_eq!(publish(&server, "news", &["1"]), ["0", ""]);
    assert_eq!(publish(&server, "news", &["2", "tags", r#"{"a":"b"}"#]), ["0", ""]);
    assert_eq!(publish(&server, "news", &["3", "size", "5", "ttl", "60"])[0], "1");
    recorder.hears(0, "news", &["1", "2", "3"]);
    assert!(recorder.record().publications(0, "news").all(|p| p.offset == 0), "nodes keep no position of it");
}

#[tokio::test]
async fn the_same_id_is_published_once_by_nodes_and_backends_alike() {
    let server = RedisServer::start();
    let (relay, recorder) = node("n1", settings(&server.url()));
    library(&server);
    joined(&relay, &recorder, 0, "kept:a");
    let first = publish(&server, "kept:a", &["1", "id", "order 7"]);
    assert_eq!(publish(&server, "kept:a", &["1", "id", "order 7"]), first);
    let again =
        tidegate_relay::Outgoing { idempotency_key: "order 7".into(), ..publication("kept:a", "1").into() };
    assert_eq!(relay.publish(again).await.expect("answered").expect("a position").offset, 1);
    publish(&server, "kept:b", &["1", "id", "order 7"]);
    publish(&server, "kept:a", &["2", "id", "order 8"]);
    recorder.hears(0, "kept:a", &["1", "2"]);
    assert!(server.command::<u64>(&["TTL", "tg:{kept:a}:id:order 7"]) > 200);
}

#[tokio::test]
async fn what_is_wrong_is_named_and_nothing_is_published() {
    let server = RedisServer::start();
    let (relay, recorder) = node("n1", settings(&server.url()));
    library(&server);
    joined(&relay, &recorder, 0, "kept:a");
    let long = format!("{{\"a\":\"{}\"}}", "x".repeat(40_000));
    let cases: [(&[&str], &str); 15] = [
        (&[], "the data is missing"),
        (&["nonsense"], "the data is not one JSON value"),
        (&["NaN"], "the data is not one JSON value"),
        (&["1", "sise", "5"], "unknown option sise"),
        (&["1", "size"], "option size has no value"),
        (&["1", "size", "0"], "option size must be a whole number"),
        (&["1", "size", "-1"], "option size must be a whole number"),
        (&["1", "size", "1e3"], "option size must be a whole number"),
        (&["1", "ttl", "5s"], "option ttl must be a whole number"),
        (&["1", "tags", "[]"], "option tags must be a JSON object of strings"),
        (&["1", "tags", r#"{"a":1}"#], "option tags must be a JSON object of strings: a"),
        (&["1", "tags", &long], "option tags may have"),
        (&["1", "info", "{"], "option info is not JSON"),
        (&["1", "id", ""], "option id must have"),
        (&["1", "id", &long], "option id must have"),
    ];
    for (words, expected) in cases {
        let answer = publish(&server, "kept:a", words).join(" ");
        assert!(answer.contains("tidegate: ") && answer.contains(expected), "{words:?}: {answer}");
    }
    let answer = publish(&server, "news", &["1", "size", "5"]).join(" ");
    assert!(answer.contains("give both size and ttl"), "{answer}");
    let answer = cli(&server, &["FCALL", "tg_publish", "1", "tg:kept:a", "1"]).join(" ");
    assert!(answer.contains("give one key"), "{answer}");
    publish(&server, "kept:a", &["1"]);
    recorder.hears(0, "kept:a", &["1"]);
    assert_eq!(recorder.record().publications(0, "kept:a").next().expect("heard").offset, 1);
}

#[tokio::test]
async fn an_older_library_never_replaces_a_newer_one() {
    let server = RedisServer::start();
    let newer = "#!lua name=tidegate\n-- tidegate library 999 abc\n\
                 redis.register_function('tg_publish', function() return {7, 'from the future'} end)";
    assert_eq!(cli(&server, &["FUNCTION", "LOAD", newer]), ["tidegate"]);
    let (relay, recorder) = node("n1", settings(&server.url()));
    joined(&relay, &recorder, 0, "kept:a");
    for round in 1..=2 {
        let _: u64 = server.command(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        recorder.up(1 + round);
    }
    assert_eq!(publish(&server, "kept:a", &["1"]), ["7", "from the future"]);
    relay.publish(publication("kept:a", "1")).await.expect("nodes need no library");
}

#[tokio::test]
async fn another_retention_replaces_the_library_when_a_node_starts_and_not_later() {
    let server = RedisServer::start();
    let (_one, first) = keeping(&server, "n1", 10);
    support::eventually("the first library", || code(&server).contains("{ 10, 60 }"));
    let (_two, second) = keeping(&server, "n2", 20);
    support::eventually("the second one", || code(&server).contains("{ 20, 60 }"));
    // The first node connects again, and has not started again.
    for round in 1..=2 {
        let _: u64 = server.command(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        first.up(1 + round);
        second.up(1 + round);
    }
    assert!(code(&server).contains("{ 20, 60 }"));
    let (_three, _) = keeping(&server, "n3", 10);
    support::eventually("the third one", || code(&server).contains("{ 10, 60 }"));
    // One that was lost is brought back by whoever connects.
    cli(&server, &["FUNCTION", "FLUSH"]);
    let _: u64 = server.command(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    library(&server);
}

#[tokio::test]
async fn without_functions_nodes_publish_all_the_same() {
    // As Redis 6.2 has none.
    let server = RedisServer::with(|_, _| ["--rename-command", "FUNCTION", ""].map(str::to_owned).to_vec());
    let (relay, recorder) = node("n1", settings(&server.url()));
    joined(&relay, &recorder, 0, "kept:a");
    for n in 1..=3 {
        let position = relay.publish(publication("kept:a", &n.to_string())).await.expect("published");
        assert_eq!(position.expect("kept").offset, n);
    }
    recorder.hears(0, "kept:a", &["1", "2", "3"]);
}

#[tokio::test]
async fn a_node_without_histories_leaves_no_library() {
    let server = RedisServer::start();
    let recorder = Recorder::new();
    let redis = RelaySettings::Redis(settings(&server.url()));
    let relay =
        Relay::start(redis, Arc::default(), "n1", "host", "0", Arc::clone(&recorder)).expect("starts");
    recorder.up(1);
    joined(&relay, &recorder, 0, "kept:a");
    relay.publish(publication("kept:a", "1")).await.expect("published");
    recorder.hears(0, "kept:a", &["1"]);
    assert!(server.command::<Vec<redis::Value>>(&["FUNCTION", "LIST"]).is_empty());
}
