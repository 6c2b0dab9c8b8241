//! What a node subscribes to in Redis, and when.

#![expect(clippy::print_stdout, reason = "figures for whoever runs the tests")]

mod support;

use std::time::{Duration, Instant};

use support::{RedisServer, channel, joined, node, settings};
use tidegate_relay::{RedisSettings, WorkerId};

#[tokio::test]
async fn a_join_is_answered_when_redis_has_the_subscription() {
    let server = RedisServer::start();
    let (relay, recorder) = node("n1", settings(&server.url()));
    for n in 0..50 {
        let name = format!("c{n}");
        joined(&relay, &recorder, 0, &name);
        assert_eq!(server.subscribers(&format!("tg:{{{name}}}")), 1, "at the moment of the answer");
    }
}

#[tokio::test]
async fn while_redis_stands_still_no_join_is_answered_with_success() {
    let server = RedisServer::start();
    let (relay, recorder) = node("n1", settings(&server.url()));
    server.freeze();
    relay.join(WorkerId(0), channel("news")).expect("room");
    let answer = recorder.wait("an answer", |r| r.joins(0, "news").first().cloned());
    assert!(answer.is_err());
    server.thaw();
}

#[tokio::test]
async fn workers_share_one_subscription() {
    let server = RedisServer::start();
    let (relay, recorder) = node("n1", settings(&server.url()));
    for worker in [0, 1, 63] {
        joined(&relay, &recorder, worker, "news");
    }
    assert_eq!(server.subscribers("tg:{news}"), 1);
    relay.leave(WorkerId(0), channel("news")).expect("room");
    relay.leave(WorkerId(63), channel("news")).expect("room");
    let _: u64 = server.command(&["PUBLISH", "tg:{news}", "1"]);
    recorder.hears(1, "news", &["1"]);
}

#[tokio::test]
async fn the_last_leave_ends_the_subscription_after_the_linger() {
    let server = RedisServer::start();
    let linger = Duration::from_millis(800);
    let (relay, recorder) = node("n1", RedisSettings { linger, ..settings(&server.url()) });
    joined(&relay, &recorder, 0, "news");
    let left = Instant::now();
    relay.leave(WorkerId(0), channel("news")).expect("room");
    server.has_subscribers("tg:{news}", 0);
    assert!(left.elapsed() >= linger, "gave up after {:?}", left.elapsed());
}

#[tokio::test]
async fn a_return_within_the_linger_is_answered_without_redis() {
    let server = RedisServer::start();
    let (relay, recorder) =
        node("n1", RedisSettings { linger: Duration::from_secs(60), ..settings(&server.url()) });
    joined(&relay, &recorder, 0, "news");
    relay.leave(WorkerId(0), channel("news")).expect("room");
    // Redis answers nothing now; the channel is heard already.
    server.freeze();
    joined(&relay, &recorder, 0, "news");
    server.thaw();
}

#[tokio::test]
async fn ten_thousand_channels_come_and_go() {
    let server = RedisServer::start();
    let (relay, recorder) = node("n1", settings(&server.url()));
    let begun = Instant::now();
    for n in 0..10_000 {
        relay.join(WorkerId(0), channel(&format!("c{n}"))).expect("room");
    }
    let all = |r: &support::recorder::Record| {
        let joins = r.events.iter().filter(|e| matches!(e, support::recorder::Event::Joined(_, _, Ok(_))));
        (joins.count() == 10_000).then_some(())
    };
    recorder.wait("all joins", all);
    println!("10,000 channels subscribed in {:?}", begun.elapsed());
    for n in 0..10_000 {
        relay.leave(WorkerId(0), channel(&format!("c{n}"))).expect("room");
    }
    support::eventually("nothing is subscribed", || {
        server.command::<Vec<String>>(&["PUBSUB", "CHANNELS", "tg:{*"]).is_empty()
    });
}
