//! `tidegate-bench` aimed at real nodes: what it counts through Redis, over TLS and in a storm is what happened.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tidegate_tests::process::run;
use tidegate_tests::{Certificates, Node, Redis};

/// The tool, which lies in cargo's target directory beside the node's own.
fn tool() -> PathBuf {
    let own = std::env::current_exe().expect("this program has a path");
    let profile = own.ancestors().find(|dir| dir.ends_with("debug") || dir.ends_with("release"));
    let path = profile.map(|dir| dir.join("tidegate-bench")).unwrap_or_default();
    assert!(path.is_file(), "{} is not there: cargo build -p tidegate-bench makes it", path.display());
    path
}

/// Runs a scenario against these nodes.
fn bench(scenario: &str, nodes: &[&Node], others: &[&str]) -> Value {
    let mut command = Command::new(tool());
    command.args([scenario, "--json"]);
    for node in nodes {
        command.args(["--target", &node.url(), "--pid", &node.process.pid().to_string()]);
    }
    let said = run(command.args(others));
    assert!(said.status.success(), "{said:?}");
    serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {said:?}"))
}

/// (received, lost, duplicated, in the wrong channel).
fn account(delivery: &Value) -> Vec<u64> {
    let of = |name: &str| delivery["account"][name].as_u64();
    ["received", "lost", "duplicated", "strayed"].into_iter().filter_map(of).collect()
}

fn path(path: &Path) -> &str {
    path.to_str().expect("the path is text")
}

#[test]
fn what_a_backend_publishes_through_redis_reaches_each_connection_on_two_nodes_in_both_codecs() {
    let redis = Redis::start();
    let (left, right) = (Node::dev().redis(&redis).go(), Node::dev().redis(&redis).go());
    for protocol in ["centrifuge-json", "centrifuge-protobuf"] {
        for pace in [&["--rate", "1000"][..], &[]] {
            let fixed =
                ["-n", "41", "--publications", "1000", "--redis", &redis.url(), "--protocol", protocol];
            let seen = bench("direct", &[&left, &right], &[&fixed[..], pace].concat());
            assert_eq!(account(&seen["delivery"]), [1_000, 0, 0, 0], "{protocol}: {seen}");
            assert_eq!((&seen["delivery"]["unheard"], &seen["nodes"]), (&0.into(), &2.into()), "{seen}");
        }
        // Published by a connection in the same codec.
        let seen =
            bench("fanout", &[&left, &right], &["-n", "10", "--publications", "50", "--protocol", protocol]);
        assert_eq!(account(&seen["delivery"]), [500, 0, 0, 0], "{protocol}: {seen}");
    }
}

#[test]
fn what_nobody_subscribes_to_is_seen_as_unheard_and_lost() {
    let redis = Redis::start();
    let node = Node::dev().redis(&redis).go();
    // The node listens to `tg`, and the publisher speaks to another prefix.
    let arguments =
        ["-n", "5", "--publications", "20", "--rate", "200", "--redis", &redis.url(), "--prefix", "other"];
    let seen = bench("direct", &[&node], &arguments);
    assert_eq!(account(&seen["delivery"]), [0, 20, 0, 0], "{seen}");
    assert_eq!(seen["delivery"]["unheard"], 20, "{seen}");
}

#[test]
fn a_fleet_with_the_same_ticket_keys_resumes_every_session_on_the_other_node() {
    let certificates = Certificates::new();
    let keys = tempfile::NamedTempFile::new().expect("a temporary file");
    // Thirty-two bytes in base64.
    std::fs::write(keys.path(), "BwcH".repeat(10) + "Bwc=\n").expect("it can be written");
    let node = || Node::dev().tls(&certificates).set("tls.ticket_keys", keys.path().display()).go();
    let (left, right) = (node(), node());
    for (tls, resumed) in [("full", 0), ("resumed", 60)] {
        let ca = certificates.authority();
        let arguments = ["-n", "60", "--at-once", "8", "--tls", tls, "--ca", path(&ca)];
        let seen = bench("connect", &[&left, &right], &arguments);
        assert_eq!((&seen["resumed"], &seen["tls"]), (&resumed.into(), &tls.into()), "{seen}");
        assert!(seen["cpu_ms_each"].is_number(), "{seen}");
    }
}

#[test]
fn who_is_refused_in_a_storm_comes_again_until_all_are_back() {
    let node = Node::dev().set("limits.accept_rate", 100).set("limits.accept_burst", 100).go();
    let arguments = ["-n", "700", "--established", "20", "--rate", "500", "--calm", "1", "--at-once", "10"];
    let seen = bench("storm", &[&node], &arguments);
    assert_eq!(seen["reconnected"], 700, "{seen}");
    // 700 at 100 a second after a burst of 100.
    assert!(seen["back_seconds"].as_f64() > Some(5.0), "{seen}");
    let made = seen["storm"]["publications"].as_u64();
    assert_eq!(account(&seen["storm"]), [made.unwrap_or_default(), 0, 0, 0], "{seen}");
    assert_eq!(seen["storm"]["broken"], 0, "{seen}");
}

/// Two readers of ten stall for three seconds, while six megabytes a second are published.
fn stalling(node: &Node, redis: &Redis, others: &[&str]) -> Value {
    let fixed = "-n 10 --stalled 20 --rate 100 --seconds 3 --calm 1 --size 60000 --redis";
    let url = redis.url();
    let arguments: Vec<&str> = fixed.split(' ').chain([url.as_str()]).chain(others.iter().copied()).collect();
    bench("slow", &[node], &arguments)
}

#[test]
fn a_reader_that_stalls_too_long_is_seen_to_be_ended_as_slow() {
    let redis = Redis::start();
    let node = Node::dev().redis(&redis).set("outbox.max_bytes", "128KiB").go();
    let seen = stalling(&node, &redis, &[]);
    assert_eq!(account(&seen["others"]), [8 * 300, 0, 0, 0], "{seen}");
    let stalled = &seen["stalled"];
    assert_eq!((&stalled["ended"], &stalled["connections"]), (&2.into(), &2.into()), "{seen}");
    let ends = stalled["ends"].as_object().expect("an object");
    // A Close frame with 3008, or a reset if the node gave the socket up before it was read.
    assert_eq!(ends.values().filter_map(Value::as_u64).sum::<u64>(), 2, "{seen}");
    assert!(ends.keys().all(|how| how.contains("3008") || how.contains("reset")), "{seen}");
    assert_eq!(node.metrics().sum("tidegate_slow_consumers_total"), 2.0);
    assert!(stalled["skipped"].as_u64() > Some(0) && stalled["newest"] == 0, "{seen}");
}

#[test]
fn where_only_the_latest_counts_a_stalled_reader_stays_and_is_seen_to_have_the_newest() {
    let redis = Redis::start();
    let settings = "namespaces: [{name: prices, delivery: latest}]";
    let node = Node::dev().redis(&redis).file(settings).set("outbox.max_bytes", "128KiB").go();
    let seen = stalling(&node, &redis, &["--channel", "prices:btc"]);
    let stalled = &seen["stalled"];
    assert_eq!((&stalled["ended"], &stalled["newest"]), (&0.into(), &2.into()), "{seen}");
    let of = |name: &str| stalled[name].as_u64().unwrap_or_default();
    assert!(of("skipped") > 0 && of("received") > 0, "{seen}");
    assert_eq!(of("skipped") + of("received"), 2 * 300, "{seen}");
}
