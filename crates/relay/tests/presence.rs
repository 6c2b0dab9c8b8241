//! Who is present, over nodes and through whatever happens to them and to Redis.

#![expect(clippy::print_stdout, reason = "figures for whoever runs the tests")]

mod support;

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::process::Process;
use support::{Recorder, RedisServer, channel, eventually, joined, node, publication, settings, until};
use tidegate_protocol::ClientInfo;
use tidegate_relay::{PresenceStats, RedisSettings, Relay, RelayError};

/// Of all nodes here; of the tests that wait for its end, about the length.
const TTL: Duration = Duration::from_secs(3);

fn client(id: &str, user: &str) -> ClientInfo {
    ClientInfo { user: user.into(), client: id.into(), ..ClientInfo::default() }
}

fn enter(relay: &Relay, name: &str, id: &str, user: &str) {
    relay.enter(channel(name), client(id, user)).expect("room");
}

/// The ids of those who are present, in order.
async fn present(relay: &Relay, name: &str) -> Vec<String> {
    let everyone = relay.presence(channel(name)).await.expect("known");
    let mut ids: Vec<_> = everyone.into_iter().map(|info| info.client).collect();
    ids.sort();
    ids
}

async fn stats(relay: &Relay, name: &str) -> (u64, u64) {
    let PresenceStats { clients, users } = relay.presence_stats(channel(name)).await.expect("known");
    (clients, users)
}

/// What worker 0 was told, sorted: the order of different clients is nobody's promise.
fn told(recorder: &Recorder, name: &str) -> Vec<String> {
    let mut told = recorder.record().told(0, name);
    told.sort();
    told
}

/// Waits until worker 0 was told so much, and checks that it was told nothing else.
fn is_told(recorder: &Recorder, name: &str, expected: &[&str]) {
    recorder.wait(&format!("{expected:?} in {name}"), |r| {
        (r.told(0, name).len() >= expected.len()).then_some(())
    });
    assert_eq!(told(recorder, name), expected);
}

/// When the client is gone unless it is refreshed, in seconds of Redis' clock.
fn expiry(server: &RedisServer, name: &str, id: &str) -> Option<f64> {
    server.command(&["ZSCORE", &format!("tg:{{{name}}}:expiry"), id])
}

/// Waits until the node has refreshed the client so often.
fn refreshed(server: &RedisServer, name: &str, id: &str, times: usize) {
    for _ in 0..times {
        let before = expiry(server, name, id);
        eventually("a refresh", || expiry(server, name, id) > before);
    }
}

#[test]
#[ignore = "run by the tests that kill it, in a process of its own"]
fn a_node_to_be_killed() {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).expect("orders");
    let mut orders = line.split_whitespace();
    let Some(url) = orders.next() else { return };
    let clients: u64 = orders.next().and_then(|n| n.parse().ok()).expect("how many clients");
    let (relay, _recorder) = node("killed", settings(url));
    for name in orders {
        for n in 0..clients {
            enter(&relay, name, &format!("k{n}"), "killed");
        }
    }
    // Until whoever started it ends it, or ends.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

#[tokio::test]
async fn nodes_see_each_others_sessions() {
    let server = RedisServer::start();
    let (one, heard_by_one) = node("n1", settings(&server.url()));
    let (two, heard_by_two) = node("n2", settings(&server.url()));
    joined(&one, &heard_by_one, 0, "room:a");
    joined(&two, &heard_by_two, 0, "room:a");
    enter(&one, "room:a", "c1", "ada");
    is_told(&heard_by_two, "room:a", &["+c1"]);
    enter(&two, "room:a", "c2", "ada");
    enter(&two, "room:a", "c3", "bob");
    for (relay, recorder) in [(&one, &heard_by_one), (&two, &heard_by_two)] {
        is_told(recorder, "room:a", &["+c1", "+c2", "+c3"]);
        assert_eq!(present(relay, "room:a").await, ["c1", "c2", "c3"]);
        assert_eq!(stats(relay, "room:a").await, (3, 2), "a user on two nodes is one user");
    }
    two.exit(channel("room:a"), "c2".into()).expect("room");
    is_told(&heard_by_one, "room:a", &["+c1", "+c2", "+c3", "-c2"]);
    assert_eq!(stats(&one, "room:a").await, (2, 2));
}

#[tokio::test]
async fn the_sessions_of_a_killed_node_leave_once_each_when_their_time_is_over() {
    // More than one call takes out.
    const KILLED: u64 = 1200;
    let server = RedisServer::start();
    let nodes: Vec<_> = ["n1", "n2", "n3"].map(|id| node(id, settings(&server.url()))).into();
    for (n, (relay, recorder)) in nodes.iter().enumerate() {
        joined(relay, recorder, 0, "room:a");
        enter(relay, "room:a", &format!("c{n}"), "ada");
    }
    let mut process = Process::start(&server, &["room:a", "room:alone"], KILLED);
    let (relay, _) = &nodes[0];
    until("its sessions are there", async || stats(relay, "room:a").await == (3 + KILLED, 2)).await;
    process.kill();
    let killed = Instant::now();
    assert_eq!(stats(relay, "room:a").await, (3 + KILLED, 2), "nobody knows yet");
    // Nobody asks: the nodes that have somebody there find it out by their refreshes.
    let leaves = |recorder: &Arc<Recorder>| {
        let left = |r: &support::recorder::Record| r.leaves_said(0, "room:a").len() >= KILLED as usize;
        recorder.wait("all leaves", |r| left(r).then_some(()));
    };
    nodes.iter().for_each(|(_, recorder)| leaves(recorder));
    println!("a killed node's sessions were gone after {:?} (ttl {TTL:?})", killed.elapsed());
    assert!(killed.elapsed() >= TTL / 2 && killed.elapsed() < TTL * 2, "{:?}", killed.elapsed());
    assert_eq!(stats(relay, "room:a").await, (3, 1));
    refreshed(&server, "room:a", "c0", 2);
    for (relay, recorder) in &nodes {
        let mut left: Vec<_> =
            recorder.record().leaves_said(0, "room:a").into_iter().map(|info| info.client).collect();
        left.sort();
        let mut expected: Vec<_> = (0..KILLED).map(|n| format!("k{n}")).collect();
        expected.sort();
        assert_eq!(left, expected, "one leave each, whoever of the three found it out");
        assert_eq!(present(relay, "room:a").await, ["c0", "c1", "c2"]);
    }
    // Where no node has anybody, whoever asks finds it out, and nothing is left.
    assert_eq!(stats(relay, "room:alone").await, (0, 0));
    assert_eq!(server.command::<Vec<String>>(&["KEYS", "tg:{room:alone}*"]), [] as [String; 0]);
}

#[tokio::test]
async fn a_node_that_stood_still_for_too_long_has_left_and_joins_again() {
    let server = RedisServer::start();
    let (relay, recorder) = node("n1", settings(&server.url()));
    joined(&relay, &recorder, 0, "room:a");
    enter(&relay, "room:a", "c1", "ada");
    let process = Process::start(&server, &["room:a"], 1);
    is_told(&recorder, "room:a", &["+c1", "+k0"]);
    process.signal(Signal::STOP);
    is_told(&recorder, "room:a", &["+c1", "+k0", "-k0"]);
    process.signal(Signal::CONT);
    is_told(&recorder, "room:a", &["+c1", "+k0", "+k0", "-k0"]);
    assert_eq!(present(&relay, "room:a").await, ["c1", "k0"]);
}

#[tokio::test]
async fn the_sessions_of_a_node_that_stops_leave_at_once() {
    let server = RedisServer::start();
    let (one, _) = node("n1", settings(&server.url()));
    let (two, recorder) = node("n2", settings(&server.url()));
    joined(&two, &recorder, 0, "room:a");
    for n in 0..3 {
        enter(&one, "room:a", &format!("c{n}"), "ada");
    }
    for n in 0..2000 {
        enter(&one, &format!("room:{n}"), "c", "ada");
    }
    is_told(&recorder, "room:a", &["+c0", "+c1", "+c2"]);
    let stopping = Instant::now();
    one.stop().await;
    assert!(stopping.elapsed() < TTL, "{:?}", stopping.elapsed());
    assert_eq!(server.command::<Vec<String>>(&["KEYS", "tg:{*"]), [] as [String; 0]);
    is_told(&recorder, "room:a", &["+c0", "+c1", "+c2", "-c0", "-c1", "-c2"]);
    assert!(one.enter(channel("room:a"), client("late", "")).is_err());
    assert!(one.presence(channel("room:a")).await.is_err());
}

#[tokio::test]
async fn a_session_joins_once_however_often_it_is_refreshed() {
    let server = RedisServer::start();
    let (relay, recorder) = node("n1", settings(&server.url()));
    joined(&relay, &recorder, 0, "room:a");
    enter(&relay, "room:a", "c1", "ada");
    is_told(&recorder, "room:a", &["+c1"]);
    let entered = Instant::now();
    refreshed(&server, "room:a", "c1", 6);
    assert!(entered.elapsed() > TTL, "longer than it lives without");
    assert_eq!(told(&recorder, "room:a"), ["+c1"]);
    assert_eq!(present(&relay, "room:a").await, ["c1"]);
}

#[tokio::test]
async fn what_redis_forgot_is_back_within_a_refresh_and_nobody_joins_again() {
    let server = RedisServer::start();
    let (one, recorder) = node("n1", settings(&server.url()));
    let (two, _) = node("n2", settings(&server.url()));
    joined(&one, &recorder, 0, "room:a");
    for n in 0..700 {
        let (relay, id) = (if n % 2 == 0 { &one } else { &two }, format!("c{n:03}"));
        enter(relay, "room:a", &id, &format!("u{}", n % 10));
    }
    until("all are there", async || stats(&one, "room:a").await == (700, 10)).await;
    recorder.wait("all joins", |r| (r.told(0, "room:a").len() == 700).then_some(()));
    let _: String = server.command(&["FLUSHALL"]);
    let flushed = Instant::now();
    until("all are back", async || stats(&one, "room:a").await == (700, 10)).await;
    println!("700 sessions were back {:?} after FLUSHALL (ttl {TTL:?})", flushed.elapsed());
    assert!(flushed.elapsed() < TTL / 2, "{:?}", flushed.elapsed());
    refreshed(&server, "room:a", "c000", 2);
    assert_eq!(recorder.record().told(0, "room:a").len(), 700, "nobody joined again and nobody left");
    // And a part of it.
    for part in ["users", "expiry", "presence"] {
        let _: u64 = server.command(&["DEL", &format!("tg:{{room:a}}:{part}")]);
        until("all are back", async || stats(&one, "room:a").await == (700, 10)).await;
    }
    assert_eq!(recorder.record().told(0, "room:a").len(), 700);
}

#[tokio::test]
async fn a_restart_of_redis_takes_nobody_away() {
    let mut server = RedisServer::start();
    let (relay, recorder) = node("n1", settings(&server.url()));
    joined(&relay, &recorder, 0, "room:a");
    for n in 0..300 {
        enter(&relay, "room:a", &format!("c{n}"), "ada");
        enter(&relay, &format!("room:{n}"), "c", "ada");
    }
    recorder.wait("all joins", |r| (r.told(0, "room:a").len() == 300).then_some(()));
    until("all are there", async || stats(&relay, "room:299").await == (1, 1)).await;
    server.kill();
    recorder.down(1);
    let error = relay.presence(channel("room:a")).await.expect_err("redis is away");
    assert!(matches!(error, RelayError::Away(_)), "{error}");
    // What happens meanwhile is not lost.
    enter(&relay, "room:a", "new", "bob");
    relay.exit(channel("room:a"), "c0".into()).expect("room");
    enter(&relay, "room:a", "brief", "eve");
    relay.exit(channel("room:a"), "brief".into()).expect("room");
    server.start_again();
    recorder.up(2);
    let returned = Instant::now();
    until("all are back", async || {
        let stats = relay.presence_stats(channel("room:a")).await;
        stats.is_ok_and(|stats| (stats.clients, stats.users) == (300, 2))
    })
    .await;
    println!("600 entries were back {:?} after redis was", returned.elapsed());
    until("in every channel", async || stats(&relay, "room:299").await == (1, 1)).await;
    recorder.wait("the join of whoever came meanwhile", |r| {
        r.told(0, "room:a").contains(&"+new".to_owned()).then_some(())
    });
    let ids = present(&relay, "room:a").await;
    assert!(ids.contains(&"new".into()) && !ids.contains(&"c0".into()) && !ids.contains(&"brief".into()));
    let again = recorder.record().told(0, "room:a").into_iter().filter(|told| told == "+c5").count();
    assert_eq!(again, 1, "whoever was there did not join again");
}

#[tokio::test]
async fn an_outage_longer_than_the_time_to_live_makes_nobody_leave_or_join() {
    let server = RedisServer::start();
    let nodes: Vec<_> = ["n1", "n2"].map(|id| node(id, settings(&server.url()))).into();
    for (n, (relay, recorder)) in nodes.iter().enumerate() {
        joined(relay, recorder, 0, "room:a");
        enter(relay, "room:a", &format!("c{n}"), "ada");
    }
    nodes.iter().for_each(|(_, recorder)| is_told(recorder, "room:a", &["+c0", "+c1"]));
    server.freeze();
    tokio::time::sleep(TTL * 2).await;
    server.thaw();
    nodes.iter().for_each(|(_, recorder)| recorder.up(2));
    for (relay, _) in &nodes {
        until("both are there", async || {
            let everyone = relay.presence(channel("room:a")).await;
            everyone.is_ok_and(|everyone| everyone.len() == 2)
        })
        .await;
    }
    refreshed(&server, "room:a", "c0", 3);
    refreshed(&server, "room:a", "c1", 1);
    for (relay, recorder) in &nodes {
        relay.publish(publication("room:a", "1")).await.expect("published");
        recorder.wait("the publication", |r| (!r.delivered(0, "room:a").is_empty()).then_some(()));
        assert_eq!(told(recorder, "room:a"), ["+c0", "+c1"]);
        assert_eq!(present(relay, "room:a").await, ["c0", "c1"]);
    }
}

#[tokio::test]
async fn a_node_that_comes_back_later_than_others_after_an_outage_is_waited_for() {
    let server = RedisServer::start();
    let (relay, recorder) = node("n1", settings(&server.url()));
    joined(&relay, &recorder, 0, "room:a");
    enter(&relay, "room:a", "c1", "ada");
    let process = Process::start(&server, &["room:a"], 1);
    is_told(&recorder, "room:a", &["+c1", "+k0"]);
    // Or what it sends meanwhile lies in redis' socket and speaks for it.
    process.signal(Signal::STOP);
    server.freeze();
    tokio::time::sleep(TTL * 2).await;
    server.thaw();
    recorder.up(2);
    refreshed(&server, "room:a", "c1", 1);
    process.signal(Signal::CONT);
    refreshed(&server, "room:a", "k0", 2);
    assert_eq!(told(&recorder, "room:a"), ["+c1", "+k0"]);
}

#[tokio::test]
async fn counting_ten_thousand_reads_none_of_them() {
    let server = RedisServer::start();
    let (relay, _) = node("n1", settings(&server.url()));
    for n in 0..10_000 {
        let info = client(&format!("c{n}"), &format!("u{}", n % 3000));
        while relay.enter(channel("room:a"), info.clone()).is_err() {
            tokio::task::yield_now().await;
        }
    }
    until("all are there", async || stats(&relay, "room:a").await == (10_000, 3000)).await;
    let _: String = server.command(&["CONFIG", "RESETSTAT"]);
    let asked = Instant::now();
    for _ in 0..100 {
        assert_eq!(stats(&relay, "room:a").await, (10_000, 3000));
    }
    println!("a count of 10,000 took {:?}", asked.elapsed() / 100);
    let calls = calls(&server);
    println!("redis did for 100 counts: {calls:?}");
    for whole in ["hvals", "hgetall", "hkeys", "hget", "hmget", "zrange", "smembers"] {
        assert_eq!(calls.get(whole), None, "{whole} reads who is there");
    }
    assert!(calls["hlen"].0 >= 200 && calls["zrangebyscore"].0 >= 100);
    let _: String = server.command(&["CONFIG", "RESETSTAT"]);
    assert_eq!(relay.presence(channel("room:a")).await.expect("known").len(), 10_000);
    println!("and for everyone: {:?}", self::calls(&server));
}

/// How often each command was called, and what it took in microseconds.
fn calls(server: &RedisServer) -> BTreeMap<String, (u64, u64)> {
    let stats: String = server.command(&["INFO", "commandstats"]);
    let figure = |rest: &str, key: &str| -> Option<u64> {
        rest.split(',').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('=')?.parse().ok())
    };
    stats
        .lines()
        .filter_map(|line| {
            let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(':')?;
            Some((name.to_owned(), (figure(rest, "calls")?, figure(rest, "usec")?)))
        })
        .collect()
}

#[tokio::test]
async fn a_thousand_who_ask_at_once_make_redis_read_it_a_few_times() {
    let server = RedisServer::start();
    let (relay, _) = node("n1", settings(&server.url()));
    for n in 0..500 {
        enter(&relay, "room:a", &format!("c{n:03}"), "ada");
    }
    assert_eq!(stats(&relay, "room:a").await, (500, 1));
    let _: String = server.command(&["CONFIG", "RESETSTAT"]);
    let (relay, everyone) = (&relay, (0..1000).map(|_| relay.presence(channel("room:a"))));
    for answer in futures_util::future::join_all(everyone).await {
        assert_eq!(answer.expect("known").len(), 500);
    }
    let reads = calls(&server)["hvals"].0;
    assert!(reads < 20, "{reads} readings for a thousand");
    assert_eq!(stats(relay, "room:a").await, (500, 1));
}

#[tokio::test]
async fn what_is_too_long_to_be_told_is_left_out() {
    let server = RedisServer::start();
    let (relay, recorder) = node("n1", settings(&server.url()));
    joined(&relay, &recorder, 0, "room:a");
    let long = format!("\"{}\"", "x".repeat(70_000));
    let info = ClientInfo { conn_info: long.into(), ..client("c1", "ada") };
    relay.enter(channel("room:a"), info).expect("room");
    let join = recorder.wait("the join", |r| r.joins_said(0, "room:a").first().cloned());
    assert_eq!(join, client("c1", "ada"));
    assert_eq!(relay.presence(channel("room:a")).await.expect("known"), [join]);
}

#[tokio::test]
async fn joins_are_told_where_the_namespace_says_so_whoever_writes_them() {
    let server = RedisServer::start();
    let (relay, recorder) = node("n1", settings(&server.url()));
    for name in ["room:a", "news"] {
        joined(&relay, &recorder, 0, name);
        let join = "\x011 {\"join\":{\"client\":\"c1\"}}\n";
        let _: u64 = server.command(&["PUBLISH", &format!("tg:{{{name}}}"), join]);
        let _: u64 = server.command(&["PUBLISH", &format!("tg:{{{name}}}"), "1"]);
        recorder.hears(0, name, &["1"]);
    }
    assert_eq!(told(&recorder, "room:a"), ["+c1"]);
    assert_eq!(told(&recorder, "news"), [] as [String; 0]);
}

#[tokio::test]
async fn an_empty_channel_leaves_nothing_behind() {
    let server = RedisServer::start();
    let (relay, _) = node("n1", settings(&server.url()));
    for id in ["c1", "c2"] {
        enter(&relay, "room:a", id, "ada");
    }
    assert_eq!(stats(&relay, "room:a").await, (2, 1));
    let mut keys: Vec<String> = server.command(&["KEYS", "tg:{*"]);
    keys.sort();
    assert_eq!(keys, ["tg:{room:a}:expiry", "tg:{room:a}:presence", "tg:{room:a}:users"]);
    for key in keys {
        let life: i64 = server.command(&["TTL", &key]);
        assert!(life > 0, "{key} goes if every node does");
    }
    for id in ["c1", "c2"] {
        relay.exit(channel("room:a"), id.into()).expect("room");
    }
    assert_eq!(stats(&relay, "room:a").await, (0, 0));
    assert_eq!(server.command::<Vec<String>>(&["KEYS", "tg:{*"]), [] as [String; 0]);
}

#[tokio::test]
async fn scripts_that_redis_forgot_are_loaded_again() {
    let server = RedisServer::start();
    let (relay, recorder) = node("n1", settings(&server.url()));
    joined(&relay, &recorder, 0, "room:a");
    enter(&relay, "room:a", "c1", "ada");
    assert_eq!(present(&relay, "room:a").await, ["c1"]);
    let _: String = server.command(&["SCRIPT", "FLUSH"]);
    enter(&relay, "room:a", "c2", "ada");
    relay.exit(channel("room:a"), "c1".into()).expect("room");
    until("c2 alone is there", async || {
        let everyone = relay.presence(channel("room:a")).await;
        everyone.is_ok_and(|everyone| everyone.len() == 1 && everyone[0].client == "c2")
    })
    .await;
    is_told(&recorder, "room:a", &["+c1", "+c2", "-c1"]);
}

#[tokio::test]
async fn a_key_of_another_type_spoils_its_channel_alone() {
    let server = RedisServer::start();
    let (relay, _) = node("n1", settings(&server.url()));
    let _: String = server.command(&["SET", "tg:{room:a}:presence", "something else"]);
    enter(&relay, "room:a", "c1", "ada");
    enter(&relay, "room:b", "c1", "ada");
    let error = relay.presence(channel("room:a")).await.expect_err("not a hash");
    assert!(matches!(error, RelayError::Refused(_)), "{error}");
    assert_eq!(present(&relay, "room:b").await, ["c1"]);
    let _: u64 = server.command(&["DEL", "tg:{room:a}:presence"]);
    until("the next refresh puts it right", async || present(&relay, "room:a").await == ["c1"]).await;
}

#[tokio::test]
async fn a_full_queue_says_so_and_loses_nothing_that_it_took() {
    let server = RedisServer::start();
    let (relay, _) = node("n1", RedisSettings { command_timeout: TTL, ..settings(&server.url()) });
    enter(&relay, "room:a", "c", "ada");
    assert_eq!(stats(&relay, "room:a").await, (1, 1));
    server.freeze();
    let mut taken = 0;
    while relay.enter(channel("room:a"), client(&format!("c{taken}"), "ada")).is_ok() {
        taken += 1;
        assert!(taken < 100_000, "there is no bound");
    }
    println!("the queue took {taken}");
    server.thaw();
    until("all that was taken is there", async || {
        let stats = relay.presence_stats(channel("room:a")).await;
        stats.is_ok_and(|stats| stats.clients == taken + 1)
    })
    .await;
}
