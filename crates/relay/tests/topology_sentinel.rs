//! Sentinel: the master is found, a failover is followed, and a master of yesterday is left.

#![expect(clippy::print_stdout, reason = "figures for whoever runs the tests")]

mod support;

use std::time::{Duration, Instant};

use support::{SOON, Watched, eventually, joined, node, publication};
use tidegate_relay::{Observation, Relay};

/// Publishes until it is taken.
async fn published(relay: &Relay, name: &str, data: &str) {
    let deadline = Instant::now() + SOON;
    while let Err(error) = relay.publish(publication(name, data)).await {
        assert!(Instant::now() < deadline, "publishing does not come back: {error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_killed_master_is_replaced_within_seconds() {
    let mut watched = Watched::start();
    let (one, at_one) = node("n1", watched.settings());
    let (two, at_two) = node("n2", watched.settings());
    joined(&one, &at_one, 0, "news");
    joined(&two, &at_two, 0, "news");
    published(&one, "news", "1").await;
    at_two.hears(0, "news", &["1"]);

    let before = watched.elected();
    watched.kill_master();
    let killed = Instant::now();
    at_one.down(1);
    at_two.down(1);
    at_one.up(2);
    at_two.up(2);
    let followed = killed.elapsed();
    println!("a failover after a kill was followed after {followed:?}");
    assert!(followed < Duration::from_secs(10), "{followed:?}");
    assert_ne!(watched.elected(), before);
    published(&one, "news", "2").await;
    at_one.hears(0, "news", &["1", "2"]);
    at_two.hears(0, "news", &["1", "2"]);
    let _: u64 = watched.master().command(&["PUBLISH", "tg:{news}", "3"]);
    at_two.hears(0, "news", &["1", "2", "3"]);
    eventually("both nodes are in the new master's registry", || {
        watched.master().command::<u64>(&["EXISTS", "tg:node:n1", "tg:node:n2"]) == 2
    });

    // The old one comes back as a replica, and nothing happens.
    let old = watched.servers.iter_mut().find(|server| server.port == before).expect("one of the two");
    old.start_again();
    eventually("the old master was made a replica", || {
        old.says(&["INFO", "replication"]).is_some_and(|said| said.contains("role:slave"))
    });
    published(&two, "news", "4").await;
    at_one.hears(0, "news", &["1", "2", "3", "4"]);
    assert_eq!(at_one.record().count(|o| *o == Observation::Up), 2);
}

#[tokio::test]
async fn a_failover_by_hand_is_followed_though_the_old_master_lives() {
    let watched = Watched::start();
    let (relay, recorder) = node("n1", watched.settings());
    joined(&relay, &recorder, 0, "news");
    watched.fail_over();
    recorder.up(2);
    published(&relay, "news", "1").await;
    recorder.hears(0, "news", &["1"]);
    eventually("the new master has the node's subscription", || {
        watched.master().subscribers("tg:{news}") == 1
    });
}

#[tokio::test]
async fn tls_and_users_hold_on_sentinels_and_servers() {
    let mut watched = Watched::secured();
    let (relay, recorder) = node("n1", watched.settings());
    joined(&relay, &recorder, 0, "news");
    published(&relay, "news", "1").await;
    watched.kill_master();
    recorder.down(1);
    recorder.up(2);
    published(&relay, "news", "2").await;
    recorder.hears(0, "news", &["1", "2"]);
    assert_eq!(relay.nodes().await.expect("the registry").len(), 1);
    let denied: Vec<redis::Value> = watched.master().command(&["ACL", "LOG"]);
    assert!(denied.is_empty(), "redis denied something: {denied:?}");
}

#[tokio::test]
async fn a_master_that_stands_still_is_left_for_the_new_one_and_not_returned_to() {
    let watched = Watched::start();
    let (relay, recorder) = node("n1", watched.settings());
    joined(&relay, &recorder, 0, "news");
    let before = watched.elected();
    watched.master().freeze();
    let frozen = Instant::now();
    recorder.down(1);
    recorder.up(2);
    println!("a failover from a frozen master was followed after {:?}", frozen.elapsed());
    assert!(frozen.elapsed() < Duration::from_secs(12));
    assert_ne!(watched.elected(), before);
    published(&relay, "news", "1").await;
    let old = watched.servers.iter().find(|server| server.port == before).expect("one of the two");
    old.thaw();
    eventually("the old master was made a replica", || {
        old.says(&["INFO", "replication"]).is_some_and(|said| said.contains("role:slave"))
    });
    published(&relay, "news", "2").await;
    recorder.hears(0, "news", &["1", "2"]);
    assert_eq!(recorder.record().count(|o| *o == Observation::Up), 2, "it stayed where it was");
}

#[tokio::test]
async fn one_sentinel_that_is_gone_and_one_that_stands_still_are_no_hindrance() {
    let mut watched = Watched::start();
    drop(watched.sentinels.remove(0));
    let mut settings = watched.settings();
    let tidegate_relay::Topology::Sentinel(sentinel) = &mut settings.topology else { unreachable!() };
    sentinel.nodes.insert(0, "redis://127.0.0.1:1".to_owned());
    watched.sentinels[0].freeze();
    let (relay, recorder) = node("n1", settings);
    joined(&relay, &recorder, 0, "news");
    published(&relay, "news", "1").await;
    recorder.hears(0, "news", &["1"]);
    watched.sentinels[0].thaw();
}
