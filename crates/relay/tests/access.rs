//! Ways into Redis: ACL users, TLS, and settings that cannot work.

mod support;

use std::sync::Arc;
use std::time::Duration;

use support::{
    CLUSTER, Keys, NODE, Recorder, RedisServer, channel, joined, node, publication, settings, start,
};
use tidegate_protocol::{ClientInfo, Event, EventKind};
use tidegate_relay::{
    HistoryQuery, IngestSettings, Observation, RedisSettings, Relay, RelaySettings, Secret, SentinelSettings,
    Topology, WorkerId,
};

/// The rights that it gives to backends that publish into histories.
const PUBLISHER: [&str; 16] = [
    "resetchannels",
    "~tg:{*",
    "&tg:{*",
    "+publish",
    "+ping",
    "+hello",
    "+fcall",
    "+time",
    "+get",
    "+set",
    "+del",
    "+hget",
    "+hset",
    "+hincrby",
    "+xadd",
    "+expire",
];

#[test]
fn the_reference_gives_the_rights_that_are_tested_here() {
    let page = include_str!("../../../docs/reference/redis-contract.md");
    let recipe = |user: &str| {
        let (_, rest) = page.split_once(&format!("ACL SETUSER {user} on >secret ")).expect("the recipe");
        let end = rest.find("ACL SETUSER").into_iter().chain(rest.find("```")).min().expect("its end");
        rest[..end].split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(recipe("tidegate"), NODE);
    assert_eq!(recipe("publisher"), PUBLISHER);
    assert!(page.contains(&format!("`{}`", CLUSTER.join(" "))), "what a cluster needs besides");
}

fn as_user(server: &RedisServer, name: &str, password: &str) -> RedisSettings {
    RedisSettings {
        username: Some(name.to_owned()),
        password: Some(Secret::new(password.to_owned())),
        ..settings(&server.url())
    }
}

fn add_user(server: &RedisServer, name: &str, rights: &[&str]) {
    let words = [&["ACL", "SETUSER", name, "reset", "on", ">s3cret"], rights].concat();
    let _: String = server.command(&words);
}

#[tokio::test]
async fn a_node_needs_no_more_than_the_documented_rights() {
    let server = RedisServer::start();
    add_user(&server, "node", &NODE);
    let (relay, recorder) = node("n1", as_user(&server, "node", "s3cret"));
    joined(&relay, &recorder, 0, "news");
    relay.publish(publication("news", "1")).await.expect("published");
    recorder.hears(0, "news", &["1"]);
    joined(&relay, &recorder, 0, "kept:a");
    relay.publish(publication("kept:a", "1")).await.expect("published");
    for reverse in [false, true] {
        let query = HistoryQuery { reverse, ..HistoryQuery::default() };
        assert_eq!(relay.history(channel("kept:a"), query).await.expect("history").publications.len(), 1);
    }
    relay.history_remove(channel("kept:a")).await.expect("removed");
    support::library(&server);
    joined(&relay, &recorder, 0, "room:a");
    for id in ["c1", "c2"] {
        let client = ClientInfo { client: id.into(), ..ClientInfo::default() };
        relay.enter(channel("room:a"), client).expect("room");
    }
    assert_eq!(relay.presence(channel("room:a")).await.expect("known").len(), 2);
    // One that expires, and one that redis forgets.
    let _: u64 = server.command(&["ZADD", "tg:{room:a}:expiry", "1", "c1"]);
    assert_eq!(relay.presence_stats(channel("room:a")).await.expect("known").clients, 1);
    let _: u64 = server.command(&["DEL", "tg:{room:a}:presence"]);
    support::until("both are back by a refresh", async || {
        relay.presence_stats(channel("room:a")).await.expect("known").clients == 2
    })
    .await;
    relay.exit(channel("room:a"), "c1".into()).expect("room");
    recorder.wait("leaves", |r| (r.leaves_said(0, "room:a").len() == 2).then_some(()));
    recorder.wait("a heartbeat", |r| {
        (r.count(|o| matches!(o, Observation::Command("heartbeat", _))) > 0).then_some(())
    });
    assert_eq!(relay.nodes().await.expect("the registry").len(), 1);
    relay.channels().await.expect("counted");
    relay.leave(WorkerId(0), channel("news")).expect("room");
    server.has_subscribers("tg:{news}", 0);
    relay.stop().await;
    assert_eq!(server.command::<u64>(&["EXISTS", "tg:nodes", "tg:node:n1"]), 0);
    let log: Vec<redis::Value> = server.command(&["ACL", "LOG"]);
    assert!(log.is_empty(), "redis denied something: {log:?}");
}

#[tokio::test]
async fn a_backend_with_the_documented_rights_publishes_and_controls_nothing() {
    let server = RedisServer::start();
    add_user(&server, "backend", &["resetchannels", "&tg:{*", "+publish", "+ping", "+hello"]);
    let (relay, recorder) = node("n1", settings(&server.url()));
    joined(&relay, &recorder, 0, "news");
    let url = format!("redis://backend:s3cret@127.0.0.1:{}", server.port);
    let client = redis::Client::open(url).expect("a url");
    let mut backend = client.get_connection_with_timeout(support::SOON).expect("let in");
    redis::cmd("PUBLISH").arg("tg:{news}").arg("1").exec(&mut backend).expect("allowed");
    recorder.hears(0, "news", &["1"]);
    let order = r#"{"disconnect":{"user":"42"}}"#;
    let denied =
        redis::cmd("PUBLISH").arg("tg:control").arg(order).exec(&mut backend).expect_err("not allowed");
    assert_eq!(denied.code(), Some("NOPERM"));
    redis::cmd("SUBSCRIBE").arg("tg:{news}").exec(&mut backend).expect_err("not allowed");
}

#[tokio::test]
async fn a_publisher_with_the_documented_rights_publishes_into_histories() {
    let server = RedisServer::start();
    add_user(&server, "publisher", &PUBLISHER);
    let (relay, recorder) = node("n1", settings(&server.url()));
    joined(&relay, &recorder, 0, "kept:a");
    support::library(&server);
    let url = format!("redis://publisher:s3cret@127.0.0.1:{}", server.port);
    let client = redis::Client::open(url).expect("a url");
    let mut backend = client.get_connection_with_timeout(support::SOON).expect("let in");
    for n in 1..=2_u64 {
        let mut call = redis::cmd("FCALL");
        call.arg("tg_publish").arg(1).arg("tg:{kept:a}").arg(n).arg("id").arg(n);
        let (offset, _): (u64, String) = call.query(&mut backend).expect("allowed");
        assert_eq!(offset, n);
    }
    recorder.hears(0, "kept:a", &["1", "2"]);
    let log: Vec<redis::Value> = server.command(&["ACL", "LOG"]);
    assert!(log.is_empty(), "redis denied something: {log:?}");
    redis::cmd("FUNCTION").arg("FLUSH").exec(&mut backend).expect_err("not allowed");
    redis::cmd("DEL").arg("tg:nodes").exec(&mut backend).expect_err("not allowed");
}

#[tokio::test]
async fn without_the_rights_for_history_its_channels_are_refused_and_the_others_are_not() {
    let server = RedisServer::start();
    add_user(&server, "node", &NODE[..17]);
    let (relay, recorder) = node("n1", as_user(&server, "node", "s3cret"));
    joined(&relay, &recorder, 0, "news");
    relay.join(WorkerId(0), channel("kept:a")).expect("room");
    let answer = recorder.wait("an answer", |r| r.joins(0, "kept:a").first().cloned());
    assert!(answer.is_err_and(|error| error.contains("refused") && error.contains("script")));
    let error = relay.publish(publication("kept:a", "1")).await.expect_err("refused").to_string();
    assert!(error.contains("refused"), "{error}");
    relay.publish(publication("news", "1")).await.expect("published");
    recorder.hears(0, "news", &["1"]);
    assert_eq!(recorder.record().count(|o| matches!(o, Observation::Down { .. })), 0);
}

#[tokio::test]
async fn a_channel_that_the_acl_forbids_is_refused_and_the_others_are_not() {
    let server = RedisServer::start();
    let rights: Vec<&str> = NODE
        .into_iter()
        .filter(|r| *r != "&tg:*")
        .chain(["&tg:control", "&tg:control:*", "&tg:{open:*"])
        .collect();
    add_user(&server, "node", &rights);
    let (relay, recorder) = node("n1", as_user(&server, "node", "s3cret"));
    for n in 0..40 {
        relay.join(WorkerId(0), channel(&format!("open:{n}"))).expect("room");
        relay.join(WorkerId(0), channel(&format!("shut:{n}"))).expect("room");
    }
    for n in 0..40 {
        let open = recorder.wait("an answer", |r| r.joins(0, &format!("open:{n}")).first().cloned());
        open.expect("an open channel");
        let shut = recorder.wait("an answer", |r| r.joins(0, &format!("shut:{n}")).first().cloned());
        assert!(shut.is_err_and(|error| error.contains("refused")));
    }
    let error = relay.publish(publication("shut:1", "1")).await.expect_err("forbidden").to_string();
    assert!(error.contains("NOPERM"), "{error}");
    relay.publish(publication("open:1", "1")).await.expect("published");
    recorder.hears(0, "open:1", &["1"]);
    assert_eq!(recorder.record().count(|o| matches!(o, Observation::Down { .. })), 0);
}

#[tokio::test]
async fn a_channel_whose_rights_are_taken_away_is_lost_aloud() {
    let server = RedisServer::start();
    add_user(&server, "node", &NODE);
    let (relay, recorder) = node("n1", as_user(&server, "node", "s3cret"));
    for (worker, name) in [(0, "shut:1"), (3, "shut:1"), (1, "open:1")] {
        joined(&relay, &recorder, worker, name);
    }
    // Redis cuts connections that hear what they may not.
    let _: String = server.command(&[
        "ACL",
        "SETUSER",
        "node",
        "resetchannels",
        "&tg:control",
        "&tg:control:*",
        "&tg:{open:*",
    ]);
    recorder.up(2);
    assert_eq!(recorder.record().lost("shut:1"), [0, 3]);
    assert_eq!(recorder.record().lost("open:1"), [] as [u8; 0]);
    assert_eq!(recorder.record().gaps(), 3, "two by the interruption, one for good");
    relay.publish(publication("open:1", "1")).await.expect("published");
    recorder.hears(1, "open:1", &["1"]);
    // And it may be heard again once it is allowed.
    let _: String = server.command(&["ACL", "SETUSER", "node", "resetchannels", "&tg:*"]);
    joined(&relay, &recorder, 0, "shut:1");
}

#[tokio::test]
async fn a_wrong_password_is_an_outage_that_heals_when_it_is_put_right() {
    let server = RedisServer::start();
    add_user(&server, "node", &NODE);
    let recorder = Recorder::new();
    let relay = start("n1", RelaySettings::Redis(as_user(&server, "node", "other")), &recorder);
    let error = relay.publish(publication("news", "1")).await.expect_err("not let in").to_string();
    assert!(!error.contains("other"), "the password is in {error}");
    assert!(!relay.status().up);
    let _: String = server.command(&["ACL", "SETUSER", "node", ">other"]);
    recorder.up(1);
    joined(&relay, &recorder, 0, "news");
}

/// A server with TLS on a port of its own, and the keys it uses.
fn tls_server() -> (RedisServer, Keys) {
    let keys = Keys::new();
    let server = RedisServer::with(|_, _| keys.arguments(support::server::free_port()));
    (server, keys)
}

#[tokio::test]
async fn tls_with_an_authority_of_our_own() {
    let (server, keys) = tls_server();
    let url = format!("rediss://localhost:{}/0", server.tls_port());
    let tls = RedisSettings { ca: Some(keys.authority()), ..settings(&url) };
    let (relay, recorder) = node("n1", tls);
    joined(&relay, &recorder, 0, "news");
    relay.publish(publication("news", "1")).await.expect("published");
    recorder.hears(0, "news", &["1"]);
    assert_eq!(relay.nodes().await.expect("the registry").len(), 1);
    let _: u64 = server.command(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    recorder.up(2);
    relay.publish(publication("news", "2")).await.expect("published");
    recorder.hears(0, "news", &["1", "2"]);
}

#[tokio::test]
async fn tls_refuses_a_server_that_the_authority_did_not_sign() {
    let (server, _keys) = tls_server();
    let (_other, foreign) = tls_server();
    let url = format!("rediss://localhost:{}/0", server.tls_port());
    let recorder = Recorder::new();
    let relay = start(
        "n1",
        RelaySettings::Redis(RedisSettings { ca: Some(foreign.authority()), ..settings(&url) }),
        &recorder,
    );
    let error = relay.publish(publication("news", "1")).await.expect_err("not trusted").to_string();
    assert!(error.contains("certificate"), "{error}");
    assert!(
        recorder
            .wait_for(Duration::from_secs(1), |r| (r.count(|o| *o == Observation::Up) > 0).then_some(()))
            .is_none()
    );
}

#[tokio::test]
async fn a_unix_socket_is_a_way_in() {
    let socket = |dir: &tempfile::TempDir| dir.path().join("redis.sock").display().to_string();
    let server = RedisServer::with(|_, dir| vec!["--unixsocket".to_owned(), socket(dir)]);
    let (relay, recorder) = node("n1", settings(&format!("redis+unix://{}", socket(&server.directory))));
    joined(&relay, &recorder, 0, "news");
    relay.publish(publication("news", "1")).await.expect("published");
    recorder.hears(0, "news", &["1"]);
}

#[tokio::test]
async fn a_host_by_name_or_by_either_address_is_a_way_in() {
    let server = RedisServer::with(|_, _| ["--bind", "127.0.0.1", "-::1"].map(str::to_owned).to_vec());
    for host in ["localhost", "127.0.0.1", "[::1]"] {
        if host == "[::1]" && std::net::TcpStream::connect(("::1", server.port)).is_err() {
            continue; // No IPv6 on this machine.
        }
        let (relay, recorder) = node("n1", settings(&format!("redis://{host}:{}/0", server.port)));
        joined(&relay, &recorder, 0, "news");
        let _: u64 = server.command(&["PUBLISH", "tg:{news}", "1"]);
        recorder.hears(0, "news", &["1"]);
        relay.stop().await;
    }
}

#[tokio::test]
async fn settings_that_cannot_work_are_named_and_show_no_password() {
    let here = settings("redis://127.0.0.1:1");
    let dir = tempfile::tempdir().expect("a directory");
    let empty = dir.path().join("empty.pem");
    std::fs::write(&empty, "no certificate").expect("written");
    let at = |url: &str| Topology::Server(url.to_owned());
    let sentinel = |nodes: &[&str]| {
        Topology::Sentinel(Box::new(SentinelSettings {
            master: "main".into(),
            nodes: nodes.iter().map(|&url| url.to_owned()).collect(),
            username: None,
            password: None,
        }))
    };
    let cases = [
        ("url", RedisSettings { topology: at("http://u:s3cret@host"), ..here.clone() }),
        ("url", RedisSettings { topology: at("rediss://u:s3cret@host/#insecure"), ..here.clone() }),
        ("sentinel.nodes", RedisSettings { topology: sentinel(&[]), ..here.clone() }),
        ("sentinel.nodes", RedisSettings { topology: sentinel(&["http://u:s3cret@host"]), ..here.clone() }),
        ("prefix", RedisSettings { prefix: "a b".into(), ..here.clone() }),
        ("pool_size", RedisSettings { pool_size: 1, ..here.clone() }),
        (
            "ca",
            RedisSettings {
                ca: Some("missing.pem".into()),
                topology: at("rediss://localhost"),
                ..here.clone()
            },
        ),
        ("ca", RedisSettings { ca: Some(empty.clone()), topology: at("rediss://localhost"), ..here.clone() }),
        ("ca", RedisSettings { ca: Some(empty), ..here }),
    ];
    for (key, settings) in cases {
        let refused =
            Relay::start(RelaySettings::Redis(settings), Arc::default(), "n1", "h", "0", Recorder::new());
        let error = refused.expect_err("settings that cannot work").to_string();
        assert!(error.starts_with(&format!("relay.redis.{key}: ")), "{error}");
        assert!(!error.contains("s3cret"), "{error}");
    }
    assert!(Relay::start(support::MEMORY, Arc::default(), "a:b", "h", "0", Recorder::new()).is_err());
}

#[tokio::test]
async fn ingest_and_events_need_no_more_than_the_documented_rights() {
    let server = RedisServer::start();
    add_user(&server, "node", &NODE);
    let ingest = IngestSettings { claim_after: Duration::from_secs(1), batch: 8 };
    let node_settings = as_user(&server, "node", "s3cret");
    let (relay, recorder) =
        node("n1", RedisSettings { ingest: Some(ingest), events: Some(100), ..node_settings });
    joined(&relay, &recorder, 0, "news");
    let _: String = server.command(&["XADD", "tg:ingest", "*", "channel", "news", "data", "1"]);
    let _: String = server.command(&["XADD", "tg:ingest", "*", "channel", "news"]);
    recorder.hears(0, "news", &["1"]);
    relay.happened(Event::new(EventKind::Connect, "c1".into(), String::new()));
    recorder.wait("a look at the stream", |r| {
        (r.count(|o| matches!(o, Observation::IngestStands { .. })) > 0).then_some(())
    });
    support::eventually("the stream is empty", || server.command::<u64>(&["XLEN", "tg:ingest"]) == 0);
    relay.stop().await;
    assert_eq!(server.command::<u64>(&["XLEN", "tg:ingest:poison"]), 1);
    assert_eq!(server.command::<u64>(&["XLEN", "tg:events"]), 1);
    let log: Vec<redis::Value> = server.command(&["ACL", "LOG"]);
    assert!(log.is_empty(), "redis denied something: {log:?}");
}
