//! What a node does about publications that it did not hear: it reads them, or says that they are lost.

#![expect(clippy::print_stdout, reason = "figures for whoever runs the tests")]

mod support;

use std::sync::Arc;
use std::time::Instant;

use support::recorder::{Event, Record};
use support::{Recorder, RedisServer, SOON, calls, channel, joined, node, publication, rules, settings};
use tidegate_protocol::Position;
use tidegate_relay::{Observation, OnGap, Recover, Relay, RelaySettings, Rules, Ticket, WorkerId};

async fn published(relay: &Relay, name: &str, data: &str) -> Position {
    relay.publish(publication(name, data)).await.expect("published").expect("a position")
}

/// Publishes from elsewhere, as a backend does, so that no node need be up.
fn backend_publishes(server: &RedisServer, name: &str, data: &[&str]) -> Vec<(u64, String)> {
    support::library(server);
    let key = format!("tg:{{{name}}}");
    data.iter().map(|data| server.command(&["FCALL", "tg_publish", "1", &key, data])).collect()
}

/// Appends to the log and tells nobody: as if the message had been lost on its way.
fn unheard(server: &RedisServer, name: &str, data: &str) {
    let script = "local n = redis.call('HINCRBY', KEYS[1] .. ':meta', 'offset', 1) \
                  redis.call('XADD', KEYS[1] .. ':log', n .. '-0', 'data', ARGV[1]) return n";
    let _: u64 = server.command(&["EVAL", script, "1", &format!("tg:{{{name}}}"), data]);
}

fn kill_pubsub(server: &RedisServer) {
    let killed: u64 = server.command(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    assert_eq!(killed, 1);
}

fn repaired(recorder: &Recorder) -> u64 {
    let count = |event: &Event| if let Event::Observed(Observation::Repaired(n)) = event { *n } else { 0 };
    recorder.record().events.iter().map(count).sum()
}

#[tokio::test]
async fn what_was_published_while_the_connection_was_cut_is_delivered_in_order() {
    let server = RedisServer::start();
    let (relay, recorder) = node("n1", settings(&server.url()));
    joined(&relay, &recorder, 0, "kept:a");
    joined(&relay, &recorder, 1, "kept:a");
    joined(&relay, &recorder, 0, "kept:quiet");
    published(&relay, "kept:a", "0").await;
    let mut expected = vec!["0".to_owned()];
    for round in 1..=5 {
        kill_pubsub(&server);
        for n in 0..20 {
            let data = (100 * round + n).to_string();
            backend_publishes(&server, "kept:a", &[&data]);
            expected.push(data);
        }
        recorder.up(1 + round);
    }
    let expected: Vec<_> = expected.iter().map(String::as_str).collect();
    recorder.hears(0, "kept:a", &expected);
    recorder.hears(1, "kept:a", &expected);
    support::eventually("the repairs are counted", || repaired(&recorder) > 0);
    assert_eq!(recorder.record().gaps(), 0, "nothing was lost");
    assert_eq!(recorder.record().lost("kept:a"), [0; 0]);
}

#[tokio::test]
async fn what_was_published_while_redis_stood_still_is_delivered_once_it_goes_on() {
    let server = RedisServer::start();
    let (relay, recorder) = node("n1", settings(&server.url()));
    joined(&relay, &recorder, 0, "kept:a");
    published(&relay, "kept:a", "1").await;
    backend_publishes(&server, "kept:a", &["2"]);
    server.freeze();
    recorder.down(1);
    // Asked while it stands still; Redis takes it when it goes on.
    let url = server.url();
    let waiting = std::thread::spawn(move || {
        let client = redis::Client::open(url).expect("a url");
        let mut backend = client.get_connection_with_timeout(SOON).expect("the kernel lets it in");
        redis::cmd("FCALL").arg("tg_publish").arg(1).arg("tg:{kept:a}").arg("3").exec(&mut backend)
    });
    server.thaw();
    waiting.join().expect("no panic").expect("published");
    recorder.up(2);
    recorder.hears(0, "kept:a", &["1", "2", "3"]);
}

#[tokio::test]
async fn a_hole_in_what_is_heard_is_read_from_the_log() {
    let server = RedisServer::start();
    let (relay, recorder) = node("n1", settings(&server.url()));
    joined(&relay, &recorder, 0, "kept:a");
    published(&relay, "kept:a", "1").await;
    unheard(&server, "kept:a", "2");
    unheard(&server, "kept:a", "3");
    published(&relay, "kept:a", "4").await;
    recorder.hears(0, "kept:a", &["1", "2", "3", "4"]);
    published(&relay, "kept:a", "5").await;
    recorder.hears(0, "kept:a", &["1", "2", "3", "4", "5"]);
    assert!(repaired(&recorder) >= 2);
    assert_eq!(recorder.record().count(|o| matches!(o, Observation::Down { .. })), 0);
}

#[tokio::test]
async fn a_long_log_is_read_in_pages() {
    let server = RedisServer::start();
    let (relay, recorder) = node("n1", settings(&server.url()));
    joined(&relay, &recorder, 0, "kept:a");
    let mut expected = Vec::new();
    for n in 0..90 {
        let data = format!("\"{n:02}{}\"", "x".repeat(60_000));
        unheard(&server, "kept:a", &data);
        expected.push(data);
    }
    published(&relay, "kept:a", "1").await;
    expected.push("1".into());
    let expected: Vec<_> = expected.iter().map(String::as_str).collect();
    recorder.hears(0, "kept:a", &expected);
}

#[tokio::test]
async fn thousands_of_channels_are_repaired_in_batches() {
    const CHANNELS: usize = 3000;
    let server = RedisServer::start();
    let (relay, recorder) = node("n1", settings(&server.url()));
    for n in 0..CHANNELS {
        relay.join(WorkerId(0), channel(&format!("kept:{n}"))).expect("room");
    }
    let joined = |r: &Record| {
        (r.events.iter().filter(|e| matches!(e, Event::Joined(_, _, Ok(Some(_))))).count() == CHANNELS)
            .then_some(())
    };
    recorder.wait("every join", joined);
    let before = calls(&server, "evalsha");
    let mut pipeline = redis::pipe();
    for n in 0..CHANNELS {
        let script = "redis.call('HSET', KEYS[1] .. ':meta', 'offset', 2) \
                      redis.call('XADD', KEYS[1] .. ':log', '1-0', 'data', '1') \
                      return redis.call('XADD', KEYS[1] .. ':log', '2-0', 'data', '2')";
        pipeline.cmd("EVAL").arg(script).arg(1).arg(format!("tg:{{kept:{n}}}")).ignore();
    }
    pipeline.exec(&mut server.backend()).expect("appended");
    kill_pubsub(&server);
    let killed = Instant::now();
    recorder.wait("everything", |r| {
        (r.events.iter().filter(|e| matches!(e, Event::Said(..))).count() == 2 * CHANNELS).then_some(())
    });
    println!("{CHANNELS} channels repaired {:?} after the connection was cut", killed.elapsed());
    assert_eq!(recorder.record().delivered(0, "kept:7"), ["1", "2"]);
    assert_eq!(repaired(&recorder), 2 * CHANNELS as u64);
    // A look and a reading each, and nothing else.
    assert_eq!(calls(&server, "evalsha") - before, 2 * CHANNELS);
}

#[tokio::test]
async fn a_publication_too_large_to_deliver_leaves_no_hole_behind() {
    let server = RedisServer::start();
    let (relay, recorder) = node("n1", settings(&server.url()));
    joined(&relay, &recorder, 0, "kept:a");
    let large = format!("\"{}\"", "x".repeat(70_000));
    backend_publishes(&server, "kept:a", &["1", &large, "3"]);
    recorder.hears(0, "kept:a", &["1", "3"]);
    let offsets: Vec<_> = recorder.record().publications(0, "kept:a").map(|p| p.offset).collect();
    assert_eq!(offsets, [1, 3]);
    assert_eq!(recorder.record().lost("kept:a"), [0; 0]);
}

#[tokio::test]
async fn a_publication_that_is_not_json_is_refused_in_its_place() {
    let server = RedisServer::start();
    let (relay, recorder) = node("n1", settings(&server.url()));
    joined(&relay, &recorder, 0, "kept:a");
    for data in ["1", "nonsense", "3", "nonsense"] {
        published(&relay, "kept:a", data).await;
    }
    recorder.wait("both are refused", |r| {
        (r.count(|o| *o == Observation::Refused("not_json")) == 2).then_some(())
    });
    recorder.hears(0, "kept:a", &["1", "3"]);
    joined(&relay, &recorder, 1, "kept:a");
    let answer = recorder.answers_to_joins(1, "kept:a").remove(0).expect("joined");
    assert_eq!(answer.expect("a position").offset, 4, "the position is behind the last one too");
}

#[tokio::test]
async fn a_redis_that_takes_no_writes_is_still_read() {
    let server = RedisServer::start();
    let (relay, recorder) = node("n1", settings(&server.url()));
    joined(&relay, &recorder, 0, "kept:a");
    published(&relay, "kept:a", "1").await;
    recorder.hears(0, "kept:a", &["1"]);
    unheard(&server, "kept:a", "2");
    // Too few replicas: Redis refuses to write, and goes on otherwise.
    let _: String = server.command(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    kill_pubsub(&server);
    recorder.hears(0, "kept:a", &["1", "2"]);
    relay.publish(publication("kept:a", "3")).await.expect_err("no writes");
    relay.publish(publication("news", "1")).await.expect("that is no write");
    let _: String = server.command(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
    published(&relay, "kept:a", "4").await;
    recorder.hears(0, "kept:a", &["1", "2", "4"]);
    assert_eq!(recorder.record().lost("kept:a"), [0; 0]);
}

#[tokio::test]
async fn a_redis_that_forgot_everything_is_said_aloud() {
    let server = RedisServer::start();
    let (relay, recorder) = node("n1", settings(&server.url()));
    joined(&relay, &recorder, 0, "kept:a");
    joined(&relay, &recorder, 1, "kept:a");
    let before = published(&relay, "kept:a", "1").await;
    let _: String = server.command(&["FLUSHALL"]);
    let after = published(&relay, "kept:a", "2").await;
    assert_ne!(before.epoch, after.epoch);
    recorder.wait("both workers are told", |r| (r.lost("kept:a") == [0, 1]).then_some(()));
    assert_eq!(recorder.record().delivered(0, "kept:a"), ["1"]);
    // Whoever comes back begins there.
    joined(&relay, &recorder, 0, "kept:a");
    published(&relay, "kept:a", "3").await;
    recorder.hears(0, "kept:a", &["1", "3"]);
}

#[tokio::test]
async fn a_redis_that_came_back_empty_is_said_aloud() {
    let mut server = RedisServer::start();
    let (relay, recorder) = node("n1", settings(&server.url()));
    joined(&relay, &recorder, 0, "kept:a");
    let since = published(&relay, "kept:a", "1").await;
    server.kill();
    recorder.down(1);
    assert_eq!(recorder.record().lost("kept:a"), [0; 0], "not before it is known");
    server.start_again();
    recorder.wait("it is told", |r| (r.lost("kept:a") == [0]).then_some(()));
    joined(&relay, &recorder, 0, "kept:a");
    let ticket = Ticket { worker: WorkerId(0), session: 1, id: 1 };
    relay.recover(Recover { channel: channel("kept:a"), since, ticket }).expect("room");
    let got = recorder.wait("the recovery", |r| {
        r.events
            .iter()
            .find_map(|e| if let Event::Recovered(_, _, got) = e { Some(got.clone()) } else { None })
    });
    assert_eq!(got.expect("an answer").publications, None);
}

#[tokio::test]
async fn a_log_trimmed_while_nobody_listened_is_said_aloud() {
    let server = RedisServer::start();
    let (relay, recorder) = node("n1", settings(&server.url()));
    for name in ["brief:a", "brief:b"] {
        joined(&relay, &recorder, 0, name);
        published(&relay, name, "1").await;
        recorder.hears(0, name, &["1"]);
    }
    for n in 2..=6 {
        unheard(&server, "brief:a", &n.to_string());
    }
    let _: u64 = server.command(&["XTRIM", "tg:{brief:a}:log", "MAXLEN", "=", "3"]);
    unheard(&server, "brief:b", "2");
    kill_pubsub(&server);
    recorder.wait("it is told", |r| (r.lost("brief:a") == [0]).then_some(()));
    recorder.hears(0, "brief:b", &["1", "2"]);
    assert_eq!(recorder.record().lost("brief:b"), [0; 0]);
    assert_eq!(recorder.record().delivered(0, "brief:a"), ["1"]);
    recorder.wait("it is counted", |r| (r.gaps() == 1).then_some(()));
}

#[tokio::test]
async fn offsets_that_run_backwards_begin_a_new_epoch_and_are_no_duplicates() {
    let server = RedisServer::start();
    let (one, first) = node("n1", settings(&server.url()));
    let (two, second) = node("n2", settings(&server.url()));
    for (relay, recorder) in [(&one, &first), (&two, &second)] {
        joined(relay, recorder, 0, "kept:a");
    }
    let mut last = None;
    for n in 1..=5 {
        last = Some(published(&one, "kept:a", &n.to_string()).await);
    }
    for recorder in [&first, &second] {
        recorder.hears(0, "kept:a", &["1", "2", "3", "4", "5"]);
    }
    // As a failover to a replica that had not heard of the last two.
    let script = "redis.call('HSET', KEYS[1] .. ':meta', 'offset', 3) \
                  redis.call('DEL', KEYS[1] .. ':log') \
                  for n = 1, 3 do redis.call('XADD', KEYS[1] .. ':log', n .. '-0', 'data', n) end return 1";
    let _: u64 = server.command(&["EVAL", script, "1", "tg:{kept:a}"]);
    let again = published(&one, "kept:a", "40").await;
    assert_eq!(again.offset, 4);
    for recorder in [&first, &second] {
        recorder.wait("it is told", |r| (r.lost("kept:a") == [0]).then_some(()));
    }
    joined(&one, &first, 0, "kept:a");
    let next = published(&one, "kept:a", "10").await;
    assert_ne!(next.epoch, last.expect("a position").epoch);
    assert_eq!(next.offset, 1);
    first.hears(0, "kept:a", &["1", "2", "3", "4", "5", "10"]);
}

#[tokio::test]
async fn a_history_that_was_wound_back_and_overtook_itself_is_found_out() {
    let server = RedisServer::start();
    let (relay, recorder) = node("n1", settings(&server.url()));
    for name in ["kept:a", "kept:b", "kept:c"] {
        joined(&relay, &recorder, 0, name);
        for n in 1..=5 {
            published(&relay, name, &n.to_string()).await;
        }
        recorder.hears(0, name, &["1", "2", "3", "4", "5"]);
    }
    // As a failover to a replica that lacks the last two, where others publish before the node is there: offset and epoch
    // are those that the node knows, or larger.
    for (name, anew) in [("kept:a", &["40", "50"][..]), ("kept:b", &["40", "50", "60"])] {
        let key = format!("tg:{{{name}}}");
        let _: u64 = server.command(&["HSET", &format!("{key}:meta"), "offset", "3"]);
        let _: u64 = server.command(&["XDEL", &format!("{key}:log"), "4-0", "5-0"]);
        let _: String = server.command(&["XSETID", &format!("{key}:log"), "3-0"]);
        anew.iter().for_each(|data| unheard(&server, name, data));
    }
    kill_pubsub(&server);
    recorder.up(2);
    for name in ["kept:a", "kept:b"] {
        recorder.wait("it is told", |r| (r.lost(name) == [0]).then_some(()));
        assert_eq!(recorder.record().delivered(0, name), ["1", "2", "3", "4", "5"]);
    }
    // Who asks for what it missed is not given the rest of another history.
    joined(&relay, &recorder, 0, "kept:b");
    let after = published(&relay, "kept:b", "70").await;
    assert_eq!(after.offset, 1);
    // What is as it was, goes on.
    published(&relay, "kept:c", "6").await;
    recorder.hears(0, "kept:c", &["1", "2", "3", "4", "5", "6"]);
    assert_eq!(recorder.record().lost("kept:c"), [0; 0]);
}

#[tokio::test]
async fn a_log_that_is_ahead_of_its_position_belongs_to_an_epoch_that_is_over() {
    let server = RedisServer::start();
    let (relay, recorder) = node("n1", settings(&server.url()));
    joined(&relay, &recorder, 0, "kept:a");
    published(&relay, "kept:a", "1").await;
    let before = published(&relay, "kept:a", "2").await;
    let _: u64 = server.command(&["HSET", "tg:{kept:a}:meta", "offset", "1"]);
    let after = published(&relay, "kept:a", "20").await;
    assert_eq!(after.offset, 1);
    assert_ne!(after.epoch, before.epoch);
    recorder.wait("it is told", |r| (r.lost("kept:a") == [0]).then_some(()));
}

#[tokio::test]
async fn writes_that_were_lost_during_an_interruption_begin_a_new_epoch() {
    let server = RedisServer::start();
    let (relay, recorder) = node("n1", settings(&server.url()));
    joined(&relay, &recorder, 0, "kept:a");
    let mut last = None;
    for n in 1..=3 {
        last = Some(published(&relay, "kept:a", &n.to_string()).await);
    }
    recorder.hears(0, "kept:a", &["1", "2", "3"]);
    let _: u64 = server.command(&["HSET", "tg:{kept:a}:meta", "offset", "2"]);
    kill_pubsub(&server);
    recorder.wait("it is told", |r| (r.lost("kept:a") == [0]).then_some(()));
    let next = published(&relay, "kept:a", "9").await;
    assert_eq!(next.offset, 1);
    assert_ne!(next.epoch, last.expect("a position").epoch);
}

#[tokio::test]
async fn a_message_that_the_log_does_not_know_is_dropped_and_nothing_is_lost() {
    let server = RedisServer::start();
    let (relay, recorder) = node("n1", settings(&server.url()));
    joined(&relay, &recorder, 0, "kept:a");
    let position = published(&relay, "kept:a", "1").await;
    for (offset, epoch) in [(1, position.epoch.as_str()), (1000, position.epoch.as_str()), (2, "other")] {
        let forged = format!("\u{1}1 {{\"offset\":{offset},\"epoch\":\"{epoch}\"}}\n\"forged\"");
        let _: u64 = server.command(&["PUBLISH", "tg:{kept:a}", &forged]);
    }
    published(&relay, "kept:a", "2").await;
    recorder.hears(0, "kept:a", &["1", "2"]);
    assert_eq!(recorder.record().lost("kept:a"), [0; 0]);
}

#[tokio::test]
async fn a_recovery_during_an_outage_fails_and_can_be_asked_again() {
    let server = RedisServer::start();
    let (relay, recorder) = node("n1", settings(&server.url()));
    joined(&relay, &recorder, 0, "kept:a");
    let since = published(&relay, "kept:a", "1").await;
    published(&relay, "kept:a", "2").await;
    recorder.hears(0, "kept:a", &["1", "2"]);
    server.freeze();
    let ask = |id| {
        let ticket = Ticket { worker: WorkerId(0), session: 1, id };
        let recover = Recover { channel: channel("kept:a"), since: since.clone(), ticket };
        relay.recover(recover).expect("room");
        recorder.wait("an answer", |r| {
            r.events.iter().find_map(|event| match event {
                Event::Recovered(ticket, _, got) if ticket.id == id => Some(got.clone()),
                _ => None,
            })
        })
    };
    ask(1).expect_err("redis stands still");
    server.thaw();
    recorder.up(2);
    let got = ask(2).expect("an answer");
    assert_eq!(got.publications.expect("recovered").len(), 1);
}

#[tokio::test]
async fn subscribers_without_history_are_told_of_a_gap_where_the_namespace_says_so() {
    let server = RedisServer::start();
    let mut rules = Rules::clone(&rules());
    let told = tidegate_relay::ChannelRules { on_gap: OnGap::Notify, ..Default::default() };
    rules.namespaces.insert("told".into(), told);
    let recorder = Recorder::new();
    let redis = RelaySettings::Redis(settings(&server.url()));
    let relay =
        Relay::start(redis, Arc::new(rules), "n1", "host", "0", Arc::clone(&recorder)).expect("starts");
    recorder.up(1);
    for name in ["told:a", "news", "kept:a"] {
        joined(&relay, &recorder, 0, name);
    }
    kill_pubsub(&server);
    recorder.up(2);
    recorder.wait("it is told", |r| (r.lost("told:a") == [0]).then_some(()));
    assert_eq!(recorder.record().gaps(), 2, "and counted, with the other one");
    for name in ["news", "kept:a"] {
        assert_eq!(recorder.record().lost(name), [0; 0]);
    }
    joined(&relay, &recorder, 0, "told:a");
}
