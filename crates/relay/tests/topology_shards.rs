//! Independent servers: each channel lives on the one that the contract says, and one that is away takes only its own with
//! it.

mod support;

use std::sync::Arc;

use support::{
    Keys, NODE, Recorder, RedisServer, channel, eventually, joined, node, publication, settings, ticket,
};
use tidegate_protocol::{Control, control::DisconnectControl};
use tidegate_relay::{
    HistoryQuery, IngestSettings, Observation, RedisSettings, Relay, Secret, Topology, WorkerId,
};

/// Of two servers, by docs/reference/redis-contract.md: `news` and the channels of this are the first one's, `a` the second's.
const FIRST: &str = "news";
const SECOND: &str = "a";

fn two() -> [RedisServer; 2] {
    [RedisServer::start(), RedisServer::start()]
}

fn over(servers: &[RedisServer]) -> RedisSettings {
    let urls = servers.iter().map(RedisServer::url).collect();
    RedisSettings { topology: Topology::Shards(urls), ..settings("") }
}

/// A channel with history that lives on this one of two servers.
fn kept(server: usize) -> String {
    let bid = |place: usize, name: &str| {
        let digest = sha1_smol::Sha1::from(format!("{place}:{name}"));
        digest.digest().bytes()
    };
    let names = (0..).map(|n| format!("kept:{n}"));
    let lives = |name: &String| usize::from(bid(1, name) > bid(0, name)) == server;
    names.into_iter().find(lives).expect("every server has some")
}

fn texts(count: usize) -> Vec<String> {
    (1..=count).map(|n| n.to_string()).collect()
}

fn hears(recorder: &Recorder, name: &str, expected: &[String]) {
    recorder.hears(0, name, &expected.iter().map(String::as_str).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_channel_lives_on_the_server_that_the_contract_says_and_on_no_other() {
    let servers = two();
    let (one, at_one) = node("n1", over(&servers));
    let (two, at_two) = node("n2", over(&servers));
    for (relay, recorder) in [(&one, &at_one), (&two, &at_two)] {
        joined(relay, recorder, 0, FIRST);
        joined(relay, recorder, 0, SECOND);
    }
    let heard = |server: &RedisServer, name: &str| -> u64 {
        server.command(&["PUBLISH", &format!("tg:{{{name}}}"), "1"])
    };
    assert_eq!([heard(&servers[0], FIRST), heard(&servers[0], SECOND)], [2, 0]);
    assert_eq!([heard(&servers[1], FIRST), heard(&servers[1], SECOND)], [0, 2]);
    one.publish(publication(FIRST, "2")).await.expect("published");
    one.submit(publication(SECOND, "2"), ticket(1)).expect("room");
    for recorder in [&at_one, &at_two] {
        recorder.hears(0, FIRST, &["1", "2"]);
        recorder.hears(0, SECOND, &["1", "2"]);
    }
    at_one.wait("the answer", |r| r.published(1)).expect("published");
    assert_eq!(one.channel_count(), 2);
    for (relay, id) in [(&one, "n1"), (&two, "n2")] {
        let nodes = relay.nodes().await.expect("the registry");
        let own = nodes.iter().find(|node| node.id == id).expect("itself");
        assert_eq!((nodes.len(), own.channels), (2, 2), "channels of all servers count");
    }
    at_one.record().channels = Some(vec![(channel(FIRST), 3), (channel(SECOND), 1)]);
    let counted = two.channels().await.expect("counted");
    assert_eq!(counted, [(SECOND.to_owned(), 1), (FIRST.to_owned(), 3)]);
}

#[tokio::test]
async fn a_server_that_is_gone_takes_only_its_own_channels_with_it() {
    for gone in [0, 1] {
        let mut servers = two();
        let (one, at_one) = node("n1", over(&servers));
        let (two, at_two) = node("n2", over(&servers));
        let (lost, safe) = (kept(gone), kept(1 - gone));
        for (relay, recorder) in [(&one, &at_one), (&two, &at_two)] {
            joined(relay, recorder, 0, &lost);
            joined(relay, recorder, 0, &safe);
        }
        one.publish(publication(&lost, "1")).await.expect("published");
        one.publish(publication(&safe, "1")).await.expect("published");
        servers[gone].kill();
        at_one.down(1);
        at_two.down(1);
        assert!(!one.status().up, "not every channel can be carried");

        let error = one.publish(publication(&lost, "no")).await.expect_err("its server is gone");
        assert!(matches!(error, tidegate_relay::RelayError::Away(_)), "{error}");
        one.join(WorkerId(1), channel(&lost)).expect("room");
        at_one.wait("an answer", |r| r.joins(1, &lost).first().cloned()).expect_err("its server is gone");
        one.publish(publication(&safe, "2")).await.expect("the other server is there");
        joined(&two, &at_two, 1, &safe);
        let key = format!("tg:{{{safe}}}");
        let _: (u64, String) = servers[1 - gone].command(&["FCALL", "tg_publish", "1", &key, "3"]);
        for recorder in [&at_one, &at_two] {
            hears(recorder, &safe, &texts(3));
        }
        // What concerns all nodes goes by the server that is left.
        assert_eq!(one.nodes().await.expect("the registry").len(), 2);
        let control = Control::Disconnect(DisconnectControl { user: "42".into(), ..Default::default() });
        one.control(control.clone()).await.expect("sent");
        let heard = at_two.wait("the control message", |r| r.controls().first().cloned());
        assert_eq!(heard, control);
        two.channels().await.expect("counted");

        servers[gone].start_again();
        at_one.up(2);
        at_two.up(2);
        two.publish(publication(&lost, "2")).await.expect("published again");
        // It came back empty, and that is said.
        at_one.wait("the word of it", |r| (r.lost(&lost) == [0]).then_some(()));
        assert_eq!(at_one.record().lost(&safe), [] as [u8; 0]);
        assert_eq!(at_one.record().controls().len(), 1, "once, though two servers could have carried it");
    }
}

#[tokio::test]
async fn what_was_published_while_a_connection_was_cut_is_repaired_on_its_server() {
    let servers = two();
    let (relay, recorder) = node("n1", over(&servers));
    let (first, second) = (kept(0), kept(1));
    joined(&relay, &recorder, 0, &first);
    joined(&relay, &recorder, 0, &second);
    let publish = |server: usize, name: &str, data: &str| {
        let key = format!("tg:{{{name}}}");
        let _: (u64, String) = servers[server].command(&["FCALL", "tg_publish", "1", &key, data]);
    };
    for n in 1..=100 {
        publish(0, &first, &n.to_string());
        publish(1, &second, &n.to_string());
        if n % 25 == 0 {
            let _: u64 = servers[n / 25 % 2].command(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        }
    }
    hears(&recorder, &first, &texts(100));
    hears(&recorder, &second, &texts(100));
    let history = relay.history(channel(&second), HistoryQuery::default()).await.expect("kept");
    assert_eq!(history.publications.len(), 100);
}

#[tokio::test]
async fn an_entry_of_the_ingest_stream_of_any_server_is_published_in_channels_of_all() {
    let servers = two();
    let ingest = IngestSettings { claim_after: std::time::Duration::from_secs(1), batch: 64 };
    let (relay, recorder) = node("n1", RedisSettings { ingest: Some(ingest), ..over(&servers) });
    joined(&relay, &recorder, 0, FIRST);
    joined(&relay, &recorder, 0, SECOND);
    for (at, server) in servers.iter().enumerate() {
        let channels = format!(r#"["{FIRST}","{SECOND}"]"#);
        let data = (at + 1).to_string();
        let _: String = server.command(&["XADD", "tg:ingest", "*", "channels", &channels, "data", &data]);
        let expected = texts(at + 1);
        hears(&recorder, FIRST, &expected);
        hears(&recorder, SECOND, &expected);
        eventually("the stream is empty", || server.command::<u64>(&["XLEN", "tg:ingest"]) == 0);
    }
}

#[tokio::test]
async fn tls_and_users_hold_on_every_server() {
    let keys = Keys::new();
    let server = || {
        RedisServer::with(|_, _| {
            let mut args = keys.arguments(support::server::free_port());
            args.extend(["--user", "node", "on", ">s3cret"].map(str::to_owned));
            args.extend(NODE.map(str::to_owned));
            args
        })
    };
    let servers = [server(), server()];
    let urls = servers.iter().map(|server| format!("rediss://127.0.0.1:{}", server.tls_port())).collect();
    let secured = RedisSettings {
        topology: Topology::Shards(urls),
        username: Some("node".to_owned()),
        password: Some(Secret::new("s3cret".to_owned())),
        ca: Some(keys.authority()),
        ..settings("")
    };
    let (relay, recorder): (Relay, Arc<Recorder>) = node("n1", secured);
    for name in [kept(0), kept(1), FIRST.to_owned(), SECOND.to_owned()] {
        joined(&relay, &recorder, 0, &name);
        relay.publish(publication(&name, "1")).await.expect("published");
        recorder.hears(0, &name, &["1"]);
    }
    for server in &servers {
        let denied: Vec<redis::Value> = server.command(&["ACL", "LOG"]);
        assert!(denied.is_empty(), "redis denied something: {denied:?}");
    }
    assert_eq!(recorder.record().count(|o| *o == Observation::Up), 1, "once for all of them");
}
