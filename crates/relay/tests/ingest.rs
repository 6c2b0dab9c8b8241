//! Durable ingest: what is in the stream is published by some node, or set aside with the reason; never forgotten.

mod support;

use std::sync::Arc;
use std::time::Duration;

use redis::Value;
use support::{Recorder, RedisServer, eventually, joined, node, publication, settings};
use tidegate_relay::{
    IngestSettings, Ingested, Observation, Outgoing, RedisSettings, Relay, Secret, Topology,
};

const CLAIM_AFTER: Duration = Duration::from_secs(1);

fn ingesting(server: &RedisServer) -> RedisSettings {
    let ingest = IngestSettings { claim_after: CLAIM_AFTER, batch: 64 };
    RedisSettings { ingest: Some(ingest), ..settings(&server.url()) }
}

fn scene() -> (RedisServer, Relay, Arc<Recorder>) {
    let server = RedisServer::start();
    let (relay, recorder) = node("n1", ingesting(&server));
    (server, relay, recorder)
}

/// Puts an entry in, as a backend does; its id.
fn add(server: &RedisServer, fields: &[&str]) -> String {
    server.command(&[&["XADD", "tg:ingest", "*"], fields].concat())
}

fn count(recorder: &Recorder, what: Ingested) -> u64 {
    let counted = |event: &support::recorder::Event| match event {
        support::recorder::Event::Observed(Observation::Ingested(it, count)) if *it == what => *count,
        _ => 0,
    };
    recorder.record().events.iter().map(counted).sum()
}

/// Waits until nothing is left of the stream, in it or pending.
fn is_done(server: &RedisServer) {
    eventually("the stream is empty", || server.command::<u64>(&["XLEN", "tg:ingest"]) == 0);
    let (pending, ..): (u64, Value, Value, Value) = server.command(&["XPENDING", "tg:ingest", "tidegate"]);
    assert_eq!(pending, 0);
}

/// What was set aside: the fields of each entry as one line.
fn poison(server: &RedisServer) -> Vec<String> {
    let entries: Vec<(String, Vec<String>)> = server.command(&["XRANGE", "tg:ingest:poison", "-", "+"]);
    entries.into_iter().map(|(_, fields)| fields.join(" ")).collect()
}

#[tokio::test]
async fn an_entry_is_published_in_each_of_its_channels_and_leaves_the_stream() {
    let (server, relay, recorder) = scene();
    joined(&relay, &recorder, 0, "a");
    joined(&relay, &recorder, 0, "b");
    add(&server, &["channel", "a", "data", "1"]);
    add(&server, &["channels", r#"["a","b"]"#, "data", "2", "tags", r#"{"lang":"en"}"#]);
    recorder.hears(0, "a", &["1", "2"]);
    recorder.hears(0, "b", &["2"]);
    let tagged = recorder.wait("b's publication", |r| r.publications(0, "b").next().cloned());
    assert_eq!(tagged.tags, [("lang".to_owned(), "en".to_owned())]);
    is_done(&server);
    assert_eq!(count(&recorder, Ingested::Published), 2);
    assert_eq!(poison(&server), [] as [&str; 0]);
}

#[tokio::test]
async fn what_was_put_in_before_any_node_ran_is_published_too() {
    let server = RedisServer::start();
    add(&server, &["channel", "kept:1", "data", "1"]);
    let (_relay, recorder) = node("n1", ingesting(&server));
    is_done_once_there(&server);
    eventually("it is counted", || count(&recorder, Ingested::Published) == 1);
}

/// The group is made by the first node: until then there is nothing to ask.
fn is_done_once_there(server: &RedisServer) {
    eventually("the group is there", || {
        let groups: Vec<Value> = server.command(&["XINFO", "GROUPS", "tg:ingest"]);
        groups.len() == 1
    });
    is_done(server);
}

#[tokio::test]
async fn entries_keep_their_order() {
    let (server, relay, recorder) = scene();
    joined(&relay, &recorder, 0, "a");
    let script = "for i=1,ARGV[1] do redis.call('XADD','tg:ingest','*','channel','a','data',i) end";
    let _: Value = server.command(&["EVAL", script, "0", "5000"]);
    let expected: Vec<String> = (1..=5000).map(|n| n.to_string()).collect();
    recorder.hears(0, "a", &expected.iter().map(String::as_str).collect::<Vec<_>>());
    is_done(&server);
}

#[tokio::test]
async fn a_control_message_reaches_every_node_behind_what_stood_before_it() {
    let (server, relay, recorder) = scene();
    let (_other, elsewhere) = node("n2", settings(&server.url()));
    joined(&relay, &recorder, 0, "a");
    add(&server, &["channel", "a", "data", "1"]);
    add(&server, &["control", r#"{"disconnect":{"user":"42"}}"#]);
    for recorder in [&recorder, &elsewhere] {
        recorder.wait("the control message", |r| r.controls().first().cloned());
    }
    let order: Vec<_> = recorder
        .record()
        .events
        .iter()
        .filter_map(|event| match event {
            support::recorder::Event::Said(..) => Some("said"),
            support::recorder::Event::Control(_) => Some("control"),
            _ => None,
        })
        .collect();
    assert_eq!(order, ["said", "control"]);
    is_done(&server);
    assert_eq!(count(&recorder, Ingested::Control), 1);
}

#[tokio::test]
async fn what_can_never_be_published_is_set_aside_with_the_reason_and_harms_nobody() {
    let (server, relay, recorder) = scene();
    joined(&relay, &recorder, 0, "a");
    let bad = add(&server, &["channel", "a", "data", "{"]);
    add(&server, &["data", "1"]);
    add(&server, &["chanel", "a", "data", "1"]);
    add(&server, &["control", "{}"]);
    add(&server, &["channel", "a", "data", "1"]);
    recorder.hears(0, "a", &["1"]);
    is_done(&server);
    let poison = poison(&server);
    assert_eq!(poison.len(), 4, "{poison:#?}");
    assert_eq!(
        poison[0],
        format!("entry {bad} reason `data`: not JSON: not exactly one JSON value node n1 channel a data {{")
    );
    assert!(poison[1].contains("no `channel`"), "{}", poison[1]);
    assert!(poison[2].contains("`chanel` is no field"), "{}", poison[2]);
    assert!(poison[3].contains("`control`: "), "{}", poison[3]);
    assert_eq!((count(&recorder, Ingested::Poison), count(&recorder, Ingested::Published)), (4, 1));
}

#[tokio::test]
async fn what_a_dead_node_had_is_claimed_by_another() {
    let server = RedisServer::start();
    let _: String = server.command(&["XGROUP", "CREATE", "tg:ingest", "tidegate", "0", "MKSTREAM"]);
    add(&server, &["channel", "a", "data", "1"]);
    add(&server, &["channel", "a", "data", "2"]);
    let read = ["XREADGROUP", "GROUP", "tidegate", "dead", "STREAMS", "tg:ingest", ">"];
    let _: Value = server.command(&read);
    let (relay, recorder) = node("n1", ingesting(&server));
    joined(&relay, &recorder, 0, "a");
    recorder.hears(0, "a", &["1", "2"]);
    is_done(&server);
    assert_eq!(count(&recorder, Ingested::Claimed), 2);
}

#[tokio::test]
async fn in_a_channel_with_history_an_entry_is_published_once_though_a_node_died_before_it_acknowledged() {
    let server = RedisServer::start();
    let _: String = server.command(&["XGROUP", "CREATE", "tg:ingest", "tidegate", "0", "MKSTREAM"]);
    let published = add(&server, &["channels", r#"["kept:1","kept:2"]"#, "data", "1"]);
    add(&server, &["channel", "kept:1", "data", "2"]);
    let _: Value = server.command(&["XREADGROUP", "GROUP", "tidegate", "dead", "STREAMS", "tg:ingest", ">"]);
    // One of the two channels had it when the node died.
    let (relay, recorder) = node("n1", settings(&server.url()));
    joined(&relay, &recorder, 0, "kept:1");
    joined(&relay, &recorder, 0, "kept:2");
    let outgoing =
        Outgoing { idempotency_key: format!("ingest:{published}"), ..publication("kept:1", "1").into() };
    relay.publish(outgoing).await.expect("published");
    recorder.hears(0, "kept:1", &["1"]);
    let (_heir, elsewhere) = node("n2", ingesting(&server));
    is_done(&server);
    recorder.hears(0, "kept:1", &["1", "2"]);
    recorder.hears(0, "kept:2", &["1"]);
    assert_eq!(server.command::<u64>(&["XLEN", "tg:{kept:1}:log"]), 2);
    eventually("both are counted", || count(&elsewhere, Ingested::Published) == 2);
}

#[tokio::test]
async fn two_entries_with_one_id_are_one_publication_where_there_is_history() {
    let (server, relay, recorder) = scene();
    joined(&relay, &recorder, 0, "kept:1");
    for data in ["1", "2"] {
        add(&server, &["channel", "kept:1", "data", data, "id", "order-7"]);
    }
    add(&server, &["channel", "kept:1", "data", "3"]);
    recorder.hears(0, "kept:1", &["1", "3"]);
    is_done(&server);
    assert_eq!(count(&recorder, Ingested::Published), 3, "Redis has taken all of them");
}

#[tokio::test]
async fn what_redis_refuses_waits_until_it_is_allowed_and_holds_nothing_up() {
    let server = RedisServer::start();
    let rights = |channels: &[&str]| {
        let words =
            [&["ACL", "SETUSER", "node", "on", ">s3cret", "~tg:*", "+@all", "resetchannels"], channels];
        let _: String = server.command(&words.concat());
    };
    rights(&["&tg:control", "&tg:control:*", "&tg:{open:*"]);
    let as_user = RedisSettings {
        username: Some("node".into()),
        password: Some(Secret::new("s3cret".into())),
        ..ingesting(&server)
    };
    let (relay, recorder) = node("n1", as_user);
    joined(&relay, &recorder, 0, "open:1");
    add(&server, &["channel", "shut:1", "data", "1"]);
    add(&server, &["channel", "open:1", "data", "1"]);
    recorder.hears(0, "open:1", &["1"]);
    eventually("it waits", || count(&recorder, Ingested::Deferred) >= 1);
    eventually("it alone is left", || server.command::<u64>(&["XLEN", "tg:ingest"]) == 1);
    rights(&["&tg:*"]);
    is_done(&server);
    assert_eq!(count(&recorder, Ingested::Published), 2);
    assert_eq!(poison(&server), [] as [&str; 0]);
}

#[tokio::test]
async fn what_fails_again_and_again_is_set_aside_in_the_end() {
    let server = RedisServer::start();
    let node_rights = ["resetchannels", "&tg:control", "&tg:control:*", "~tg:*", "+@all"];
    let words = [&["ACL", "SETUSER", "node", "on", ">s3cret"], &node_rights[..]].concat();
    let _: String = server.command(&words);
    let _: String = server.command(&["XGROUP", "CREATE", "tg:ingest", "tidegate", "0", "MKSTREAM"]);
    let tried = add(&server, &["channel", "shut:1", "data", "1"]);
    let never = add(&server, &["channel", "shut:1", "data", "2"]);
    let _: Value = server.command(&["XREADGROUP", "GROUP", "tidegate", "dead", "STREAMS", "tg:ingest", ">"]);
    for (id, times) in [(&tried, "20"), (&never, "40")] {
        let claim =
            ["XCLAIM", "tg:ingest", "tidegate", "dead", "0", id, "IDLE", "60000", "RETRYCOUNT", times];
        let _: Value = server.command(&claim);
    }
    let as_user = RedisSettings {
        username: Some("node".into()),
        password: Some(Secret::new("s3cret".into())),
        ..ingesting(&server)
    };
    let (_relay, recorder) = node("n1", as_user);
    is_done(&server);
    eventually("both are counted", || count(&recorder, Ingested::Poison) == 2);
    let mut poison = poison(&server);
    poison.sort();
    assert!(
        poison[0].contains("given to nodes 21 times, and never published: refused: NOPERM"),
        "{poison:#?}"
    );
    assert!(poison[1].contains("given to nodes 41 times, and none has acknowledged it"), "{poison:#?}");
}

#[tokio::test]
async fn two_nodes_share_the_work_and_each_entry_is_published_once() {
    let server = RedisServer::start();
    let (relay, recorder) = node("n1", ingesting(&server));
    let (_other, elsewhere) = node("n2", ingesting(&server));
    joined(&relay, &recorder, 0, "a");
    let script = "for i=1,ARGV[1] do redis.call('XADD','tg:ingest','*','channel','a','data',i) end";
    let _: Value = server.command(&["EVAL", script, "0", "3000"]);
    recorder.wait("all are heard", |r| (r.delivered(0, "a").len() >= 3000).then_some(()));
    is_done(&server);
    let mut heard: Vec<u32> =
        recorder.record().delivered(0, "a").iter().filter_map(|n| n.parse().ok()).collect();
    heard.sort_unstable();
    assert_eq!(heard, (1..=3000).collect::<Vec<_>>(), "each once");
    eventually("all are counted", || {
        count(&recorder, Ingested::Published) + count(&elsewhere, Ingested::Published) == 3000
    });
    assert!(count(&recorder, Ingested::Published) > 0, "the first has a share");
    assert!(count(&elsewhere, Ingested::Published) > 0, "the second has a share");
}

#[tokio::test]
async fn a_stream_that_is_lost_is_made_again() {
    let (server, relay, recorder) = scene();
    joined(&relay, &recorder, 0, "a");
    add(&server, &["channel", "a", "data", "1"]);
    recorder.hears(0, "a", &["1"]);
    let _: String = server.command(&["FLUSHALL"]);
    add(&server, &["channel", "a", "data", "2"]);
    recorder.hears(0, "a", &["1", "2"]);
    is_done(&server);
}

#[tokio::test]
async fn a_redis_that_stands_still_delays_entries_and_loses_none() {
    let (server, relay, recorder) = scene();
    joined(&relay, &recorder, 0, "a");
    add(&server, &["channel", "a", "data", "1"]);
    recorder.hears(0, "a", &["1"]);
    server.freeze();
    recorder.down(1);
    server.thaw();
    recorder.up(2);
    add(&server, &["channel", "a", "data", "2"]);
    recorder.hears(0, "a", &["1", "2"]);
    is_done(&server);
}

#[tokio::test]
async fn a_node_that_leaves_takes_itself_out_of_the_group_and_forgets_nothing() {
    let (server, relay, recorder) = scene();
    joined(&relay, &recorder, 0, "a");
    for n in 0..200 {
        add(&server, &["channel", "a", "data", &n.to_string()]);
    }
    relay.stop().await;
    let consumers: Vec<Value> = server.command(&["XINFO", "CONSUMERS", "tg:ingest", "tidegate"]);
    assert!(consumers.is_empty(), "{consumers:?}");
    let left: u64 = server.command(&["XLEN", "tg:ingest"]);
    let (_relay, after) = node("n2", ingesting(&server));
    is_done(&server);
    eventually("what was left is published by the next", || count(&after, Ingested::Published) == left);
    assert_eq!(count(&recorder, Ingested::Published) + left, 200);
}

#[tokio::test]
async fn how_the_stream_stands_is_told() {
    let (server, _relay, recorder) = scene();
    let stands = |o: &Observation| matches!(o, Observation::IngestStands { pending: 0, waiting: 0, .. });
    recorder.wait("a look", |r| (r.count(stands) > 0).then_some(()));
    drop(server);
}

#[tokio::test]
async fn the_streams_of_several_servers_are_told_as_one() {
    let servers = [RedisServer::start(), RedisServer::start()];
    for server in &servers {
        let _: String = server.command(&["XGROUP", "CREATE", "tg:ingest", "tidegate", "0", "MKSTREAM"]);
        add(server, &["channel", "a", "data", "1"]);
        let read = ["XREADGROUP", "GROUP", "tidegate", "elsewhere", "STREAMS", "tg:ingest", ">"];
        let _: Value = server.command(&read);
    }
    let urls = servers.iter().map(RedisServer::url).collect();
    let ingest = IngestSettings { claim_after: Duration::from_secs(60), batch: 64 };
    let settings =
        RedisSettings { topology: Topology::Shards(urls), ingest: Some(ingest), ..ingesting(&servers[0]) };
    let (_relay, recorder) = node("n1", settings);
    let both = |o: &Observation| matches!(o, Observation::IngestStands { pending: 2, waiting: 0, .. });
    recorder.wait("both are counted", |r| (r.count(both) > 0).then_some(()));
}
