//! A Redis that answers wrongly, or not at all, is found within two probe intervals.

#![expect(clippy::print_stdout, reason = "figures for whoever runs the tests")]

mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use support::{RedisServer, SOON, joined, node, publication, settings};
use tidegate_relay::{Observation, RedisSettings, RelayError, Topology};

const INTERVAL: Duration = Duration::from_secs(1);

fn probing(url: &str) -> RedisSettings {
    RedisSettings { probe_interval: INTERVAL, ..settings(url) }
}

/// Waits until the relay is down for the first time; says how long that took.
fn noticed(recorder: &support::Recorder, since: Instant, what: &str) {
    recorder.down(1);
    let took = since.elapsed();
    println!("{what}: noticed after {took:?}");
    assert!(took < INTERVAL * 2, "{took:?}");
}

#[tokio::test]
async fn a_server_that_stands_still() {
    let server = RedisServer::start();
    let (relay, recorder) = node("n1", probing(&server.url()));
    joined(&relay, &recorder, 0, "kept:a");
    server.freeze();
    noticed(&recorder, Instant::now(), "SIGSTOP");
    server.thaw();
    recorder.up(2);
}

/// Forwards to a server until it is told to swallow everything, without closing anything.
fn swallowing(to: u16) -> (u16, Arc<AtomicBool>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("its address").port();
    let swallows = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&swallows);
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let server = TcpStream::connect(("127.0.0.1", to)).expect("the server listens");
            for (mut from, mut to) in
                [(client.try_clone().expect("a copy"), server.try_clone().expect("a copy")), (server, client)]
            {
                let told = Arc::clone(&told);
                std::thread::spawn(move || {
                    let mut buffer = [0; 16 * 1024];
                    while let Ok(count @ 1..) = from.read(&mut buffer) {
                        if !told.load(Ordering::SeqCst) && to.write_all(&buffer[..count]).is_err() {
                            break;
                        }
                    }
                    let _ = to.shutdown(std::net::Shutdown::Both);
                });
            }
        }
    });
    (port, swallows)
}

#[tokio::test]
async fn a_link_that_swallows_everything() {
    let server = RedisServer::start();
    let (port, swallows) = swallowing(server.port);
    let (relay, recorder) = node("n1", probing(&format!("redis://127.0.0.1:{port}")));
    joined(&relay, &recorder, 0, "kept:a");
    support::library(&server);
    swallows.store(true, Ordering::SeqCst);
    noticed(&recorder, Instant::now(), "a black hole");
    let _: (u64, String) = server.command(&["FCALL", "tg_publish", "1", "tg:{kept:a}", "1"]);
    swallows.store(false, Ordering::SeqCst);
    recorder.up(2);
    recorder.hears(0, "kept:a", &["1"]);
}

#[tokio::test]
async fn a_master_that_is_none_any_more_and_still_answers() {
    let (server, other) = (RedisServer::start(), RedisServer::start());
    let (relay, recorder) = node("n1", probing(&server.url()));
    joined(&relay, &recorder, 0, "kept:a");
    relay.publish(publication("kept:a", "1")).await.expect("published");
    let _: String = server.command(&["REPLICAOF", "127.0.0.1", &other.port.to_string()]);
    noticed(&recorder, Instant::now(), "a demoted master");
    let error = relay.publish(publication("kept:a", "2")).await.expect_err("it takes no writes");
    assert!(matches!(error, RelayError::Away(_)), "{error}");
    // As long as it is none, the relay does not come back.
    let up = |r: &support::recorder::Record| (r.count(|o| *o == Observation::Up) > 1).then_some(());
    assert_eq!(recorder.wait_for(INTERVAL * 3, up), None);
    assert!(!relay.status().up);
    let _: String = server.command(&["REPLICAOF", "NO", "ONE"]);
    recorder.wait("it is up again", up);
}

#[tokio::test]
async fn a_probe_is_measured() {
    let server = RedisServer::start();
    let (_relay, recorder) = node("n1", probing(&server.url()));
    recorder.wait("three probes", |r| {
        (r.count(|o| matches!(o, Observation::Probe(took) if *took < INTERVAL)) >= 3).then_some(())
    });
    assert_eq!(recorder.record().count(|o| matches!(o, Observation::Down { .. })), 0);
    assert_eq!(server.command::<u64>(&["EXISTS", "tg:probe:n1"]), 1);
    assert!(server.command::<i64>(&["TTL", "tg:probe:n1"]) > 0, "it goes by itself");
}

#[tokio::test]
async fn replicas_confirm_what_is_kept_where_that_is_asked() {
    let server = RedisServer::start();
    let waiting = RedisSettings { wait_replicas: 1, ..settings(&server.url()) };
    let (relay, recorder) = node("n1", waiting);
    joined(&relay, &recorder, 0, "kept:a");
    joined(&relay, &recorder, 0, "news");
    // Nobody is there to confirm it: it was made, and the answer says both.
    let error = relay.publish(publication("kept:a", "1")).await.expect_err("no replica");
    let text = error.to_string();
    assert!(matches!(error, RelayError::Away(_)) && text.contains("written at offset 1"), "{text}");
    assert!(text.contains("0 of 1 replicas"), "{text}");
    recorder.hears(0, "kept:a", &["1"]);
    relay.publish(publication("news", "1")).await.expect("what is not kept waits for nobody");

    let replica = RedisServer::with(|_, _| {
        ["--replicaof", "127.0.0.1", &server.port.to_string()].map(str::to_owned).to_vec()
    });
    support::eventually("the replica has caught up", || {
        replica.command::<String>(&["INFO", "replication"]).contains("master_link_status:up")
    });
    let deadline = Instant::now() + SOON;
    while let Err(error) = relay.publish(publication("kept:a", "2")).await {
        assert!(Instant::now() < deadline, "the replica does not confirm: {error}");
    }
    let kept: u64 = replica.command(&["XLEN", "tg:{kept:a}:log"]);
    assert!(kept >= 2, "what was acknowledged is on the replica");
}

#[test]
fn a_wait_longer_than_a_command_may_take_is_refused() {
    let wrong = RedisSettings {
        wait_replicas: 1,
        wait_timeout: Duration::from_secs(5),
        topology: Topology::Server("redis://127.0.0.1:1".into()),
        ..settings("redis://127.0.0.1:1")
    };
    let refused = tidegate_relay::Relay::start(
        tidegate_relay::RelaySettings::Redis(wrong),
        support::rules(),
        "n1",
        "h",
        "0",
        support::Recorder::new(),
    );
    let error = refused.expect_err("settings that cannot work").to_string();
    assert!(error.starts_with("relay.redis.wait_timeout: "), "{error}");
}
