//! Redis goes away in every way it can, and everything comes back by itself.

#![expect(clippy::print_stdout, reason = "figures for whoever runs the tests")]

mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use support::recorder::{Event, Record};
use support::{Recorder, RedisServer, SOON, channel, joined, node, publication, settings, start, ticket};
use tidegate_relay::{Observation, RedisSettings, Relay, RelaySettings, Secret, WorkerId};

/// Publishes until Redis takes it: while it is away, every attempt must be answered within a bound.
async fn published(relay: &Relay, name: &str, data: &str) {
    let deadline = Instant::now() + SOON;
    loop {
        let asked = Instant::now();
        let result = relay.publish(publication(name, data)).await;
        assert!(asked.elapsed() < Duration::from_secs(4), "answered after {:?}", asked.elapsed());
        match result {
            Ok(_) => return,
            Err(error) => assert!(Instant::now() < deadline, "publishing does not come back: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_killed_pubsub_connection_is_made_again_with_its_channels() {
    let server = RedisServer::start();
    let (relay, recorder) = node("n1", settings(&server.url()));
    joined(&relay, &recorder, 0, "news");
    joined(&relay, &recorder, 1, "other");
    for round in 1..=3 {
        let _: u64 = server.command(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        recorder.down(round);
        recorder.up(round + 1);
        published(&relay, "news", &round.to_string()).await;
    }
    recorder.hears(0, "news", &["1", "2", "3"]);
    let record = recorder.record();
    assert_eq!(record.gaps(), 6, "two channels may have missed something, each time");
    assert_eq!(record.count(|o| *o == Observation::Reconnected), 3);
    assert_eq!(server.subscribers("tg:{other}"), 1);
}

#[tokio::test]
async fn killed_command_connections_are_made_again() {
    let server = RedisServer::start();
    let (relay, recorder) = node("n1", settings(&server.url()));
    joined(&relay, &recorder, 0, "news");
    published(&relay, "news", "1").await;
    for _ in 0..5 {
        let _: u64 = server.command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        published(&relay, "news", "1").await;
    }
    assert_eq!(recorder.record().count(|o| matches!(o, Observation::Down { .. })), 0);
}

#[tokio::test]
async fn a_restart_of_redis_is_survived() {
    let mut server = RedisServer::start();
    let (relay, recorder) = node("n1", settings(&server.url()));
    joined(&relay, &recorder, 0, "news");
    server.kill();
    recorder.down(1);
    assert!(!relay.status().up);
    relay.join(WorkerId(0), channel("late")).expect("room");
    let answer = recorder.wait("an answer to the join", |r| r.joins(0, "late").first().cloned());
    assert!(answer.is_err_and(|error| error.contains("away")));
    assert!(relay.publish(publication("news", "0")).await.is_err());
    server.start_again();
    recorder.up(2);
    published(&relay, "news", "1").await;
    recorder.hears(0, "news", &["1"]);
    joined(&relay, &recorder, 0, "late");
    support::eventually("the node is in the empty registry again", || {
        server.command::<u64>(&["EXISTS", "tg:node:n1"]) == 1
    });
}

#[tokio::test]
async fn a_frozen_redis_is_noticed_in_seconds_and_everything_returns_when_it_thaws() {
    let server = RedisServer::start();
    let (relay, recorder) = node("n1", settings(&server.url()));
    joined(&relay, &recorder, 0, "news");
    published(&relay, "news", "0").await;
    server.freeze();
    let frozen = Instant::now();
    recorder.down(1);
    let noticed = frozen.elapsed();
    println!("a frozen redis was noticed after {noticed:?}");
    assert!(noticed < Duration::from_secs(7));
    while frozen.elapsed() < Duration::from_secs(8) {
        let asked = Instant::now();
        let before = recorder.answers_to_joins(0, "late").len();
        relay.join(WorkerId(0), channel("late")).expect("room");
        recorder.wait("an answer to the join", |r| (r.joins(0, "late").len() > before).then_some(()));
        assert!(asked.elapsed() < Duration::from_secs(1), "a join fails fast: {:?}", asked.elapsed());
        assert!(relay.publish(publication("news", "lost")).await.is_err());
        assert!(asked.elapsed() < Duration::from_secs(4), "a publish fails fast: {:?}", asked.elapsed());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(!relay.status().up);
    server.thaw();
    recorder.up(2);
    published(&relay, "news", "1").await;
    let back = |r: &Record| r.delivered(0, "news").contains(&"1".to_owned()).then_some(());
    recorder.wait("the channel is heard again", back);
    joined(&relay, &recorder, 0, "late");
    assert!(recorder.record().joins(0, "late").iter().rev().skip(1).all(Result::is_err));
}

#[tokio::test]
async fn a_publication_without_an_answer_is_not_sent_again() {
    let server = RedisServer::start();
    let (relay, recorder) = node("n1", settings(&server.url()));
    joined(&relay, &recorder, 0, "news");
    published(&relay, "news", "0").await;
    server.freeze();
    relay.submit(publication("news", "1"), ticket(1)).expect("room");
    let answer = recorder.wait("an answer", |r| r.published(1));
    let error = answer.expect_err("redis is frozen");
    assert!(error.contains("may or may not"), "{error}");
    server.thaw();
    recorder.up(1);
    published(&relay, "news", "2").await;
    let seen = |r: &Record| r.delivered(0, "news").contains(&"2".to_owned()).then_some(());
    recorder.wait("the channel is heard again", seen);
    let ones = recorder.record().delivered(0, "news").iter().filter(|data| *data == "1").count();
    assert!(ones <= 1, "heard {ones} times");
}

#[tokio::test]
async fn a_node_starts_without_redis_and_serves_when_it_comes() {
    let mut server = RedisServer::start();
    server.kill();
    let recorder = Recorder::new();
    let relay = start("n1", RelaySettings::Redis(settings(&server.url())), &recorder);
    relay.join(WorkerId(0), channel("news")).expect("room");
    let answer = recorder.wait("an answer", |r| r.joins(0, "news").first().cloned());
    assert!(answer.is_err());
    assert!(relay.nodes().await.is_err());
    assert!(relay.channels().await.is_err());
    assert!(!relay.status().up);
    server.start_again();
    recorder.up(1);
    joined(&relay, &recorder, 0, "news");
    published(&relay, "news", "1").await;
    recorder.hears(0, "news", &["1"]);
    assert_eq!(recorder.record().count(|o| *o == Observation::Reconnected), 0, "it was never there before");
}

#[tokio::test]
async fn twenty_thousand_channels_are_subscribed_again_after_a_kill() {
    let server = RedisServer::start();
    let (relay, recorder) = node("n1", settings(&server.url()));
    let count = 20_000;
    for n in 0..count {
        relay.join(WorkerId((n % 8) as u8), channel(&format!("c{n}"))).expect("room");
    }
    recorder.wait("all joins", |r| {
        let joins = r.events.iter().filter(|e| matches!(e, Event::Joined(_, _, Ok(_))));
        (joins.count() == count).then_some(())
    });
    let _: u64 = server.command(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    let killed = Instant::now();
    recorder.down(1);
    recorder.up(2);
    println!("{count} channels subscribed again {:?} after the kill", killed.elapsed());
    assert_eq!(recorder.record().gaps(), count);
    assert_eq!(server.command::<Vec<String>>(&["PUBSUB", "CHANNELS", "tg:{*"]).len(), count);
    published(&relay, "c19999", "1").await;
    recorder.hears(7, "c19999", &["1"]);
}

#[tokio::test]
async fn a_relay_that_says_it_is_up_again_takes_the_first_publication() {
    let mut server = RedisServer::start();
    let (relay, recorder) = node("n1", settings(&server.url()));
    joined(&relay, &recorder, 0, "news");
    for round in 1..=3 {
        server.kill();
        server.start_again();
        recorder.up(round + 1);
        relay.publish(publication("news", &round.to_string())).await.expect("it is up");
    }
    recorder.hears(0, "news", &["1", "2", "3"]);
}

#[tokio::test]
async fn a_relay_that_hears_and_cannot_speak_is_down() {
    let server = RedisServer::start();
    let add = ["ACL", "SETUSER", "node", "reset", "on", ">s3cret", "~*", "&*", "+@all"];
    let _: String = server.command(&add);
    let as_node = RedisSettings {
        username: Some("node".into()),
        password: Some(Secret::new("s3cret".into())),
        ..settings(&server.url())
    };
    let (relay, recorder) = node("n1", as_node);
    joined(&relay, &recorder, 0, "news");
    // Who is in stays in: the subscription. Whoever is sent out does not come back: everything else.
    let _: String = server.command(&["ACL", "SETUSER", "node", "resetpass", ">other"]);
    let _: u64 = server.command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    recorder.down(1);
    assert!(!relay.status().up);
    assert_eq!(recorder.record().gaps(), 0, "everything is still heard");
    let _: u64 = server.command(&["PUBLISH", "tg:{news}", "1"]);
    recorder.hears(0, "news", &["1"]);
    // Now it is deaf as well: that is a gap, and no second end.
    let _: u64 = server.command(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    recorder.wait("the gap", |r| (r.gaps() == 1).then_some(()));
    let _: String = server.command(&["ACL", "SETUSER", "node", "resetpass", ">s3cret"]);
    recorder.up(2);
    assert!(relay.status().up);
    let record = recorder.record();
    assert_eq!(record.count(|o| matches!(o, Observation::Down { .. })), 1);
    assert_eq!(record.count(|o| *o == Observation::Up), 2);
    assert_eq!(record.gaps(), 1);
}

/// Forwards to one of two servers, whichever is chosen when a connection is made.
fn switch(first: u16) -> (u16, Arc<AtomicU16>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("its address").port();
    let target = Arc::new(AtomicU16::new(first));
    let chosen = Arc::clone(&target);
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(server) = TcpStream::connect(("127.0.0.1", chosen.load(Ordering::SeqCst))) else {
                continue;
            };
            for (mut from, mut to) in
                [(client.try_clone().expect("a copy"), server.try_clone().expect("a copy")), (server, client)]
            {
                std::thread::spawn(move || {
                    let mut buffer = [0; 16 * 1024];
                    while let Ok(count @ 1..) = from.read(&mut buffer) {
                        if to.write_all(&buffer[..count]).is_err() {
                            break;
                        }
                    }
                    let _ = to.shutdown(std::net::Shutdown::Both);
                });
            }
        }
    });
    (port, target)
}

#[tokio::test]
async fn a_connection_that_lives_and_hears_nothing_is_left() {
    let (old, new) = (RedisServer::start(), RedisServer::start());
    let (port, target) = switch(old.port);
    let (relay, recorder) = node("n1", settings(&format!("redis://127.0.0.1:{port}")));
    joined(&relay, &recorder, 0, "news");
    published(&relay, "news", "1").await;
    recorder.hears(0, "news", &["1"]);
    // As after a failover behind an address: commands go to the new server, the subscription stays with the old one.
    target.store(new.port, Ordering::SeqCst);
    let _: u64 = old.command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    recorder.down(1);
    recorder.up(2);
    new.has_subscribers("tg:{news}", 1);
    old.has_subscribers("tg:{news}", 0);
    published(&relay, "news", "2").await;
    recorder.hears(0, "news", &["1", "2"]);
}
