//! How a node starts, says that it is well, and leaves.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidegate_tests::sdk::Kind;
use tidegate_tests::{Node, PATIENCE, Redis, Sdk, door, eventually};

#[test]
fn a_leaving_node_closes_everyone_with_3001_over_a_while_and_exits_with_0() {
    let mut node = Node::dev().set("drain.delay", "1s").set("drain.duration", "2s").go();
    let sdk = Sdk::start(Kind::Js, None);
    let names: Vec<String> = (0..40).map(|n| format!("client-{n}")).collect();
    // Nobody listens on the port again, so no client comes back.
    for name in &names {
        sdk.connect(name, &node.url());
        sdk.named(name, "connecting");
    }
    node.terminate();
    let began = Instant::now();
    eventually("the node is not ready at once", PATIENCE, || {
        (node.get("/health/ready").status == 503).then_some(())
    });
    assert!(began.elapsed() < Duration::from_secs(1), "before the delay has passed");
    assert_eq!(node.get("/health/live").status, 200, "it lives while it drains");
    assert_eq!(
        node.metrics().sum("tidegate_connections"),
        40.0,
        "nobody is closed before the delay has passed"
    );

    let mut closed = Vec::new();
    for name in &names {
        let event = sdk.event("a close", |e| e["event"] == "connecting" && e["client"] == name.as_str());
        assert_eq!((&event["code"], &event["reason"]), (&json!(3001), &json!("shutdown")), "{name}");
        closed.push(began.elapsed());
    }
    let last = closed.iter().max().copied().unwrap_or_default();
    assert!(last > Duration::from_secs(2), "spread over drain.duration, not at once: {last:?}");
    let status = node.wait(Duration::from_secs(10));
    assert_eq!(status.code(), Some(0), "{status}");
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
}

#[test]
fn a_leaving_node_takes_nobody_in() {
    let mut node = Node::dev().set("drain.delay", "0s").set("drain.duration", "3s").go();
    let sdk = Sdk::start(Kind::Js, None);
    for name in ["alice", "bob", "carol"] {
        sdk.connect(name, &node.url());
    }
    node.terminate();
    eventually("it is not ready", PATIENCE, || (node.get("/health/ready").status == 503).then_some(()));
    node.until("it closes", |m| m.with("tidegate_disconnects_total", &[("code", "3001")]) >= 1.0);
    // The SDKs try to come back all the time.
    let accepted = node.metrics().sum("tidegate_connections_accepted_total");
    assert_eq!(accepted, 3.0);
    assert!(node.wait(Duration::from_secs(10)).success());
}

#[test]
fn an_empty_node_leaves_at_once() {
    let mut node = Node::dev().set("drain.duration", "30s").go();
    let began = Instant::now();
    node.terminate();
    assert!(node.wait(PATIENCE).success());
    assert!(began.elapsed() < Duration::from_secs(5), "nobody is there to be closed: {:?}", began.elapsed());
}

#[test]
fn a_second_signal_ends_the_node_at_once() {
    let mut node = Node::dev().set("drain.delay", "30s").set("drain.duration", "30s").go();
    let sdk = Sdk::start(Kind::Js, None);
    sdk.connect("alice", &node.url());
    node.terminate();
    eventually("the first signal is heard", PATIENCE, || {
        (node.get("/health/ready").status == 503).then_some(())
    });
    let began = Instant::now();
    node.terminate();
    let status = node.wait(PATIENCE);
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert!(!status.success(), "not a clean end: {status}");
}

#[test]
fn sigint_leaves_as_sigterm_does() {
    let mut node = Node::dev().go();
    node.process.signal(rustix::process::Signal::INT);
    assert!(node.wait(PATIENCE).success());
}

#[test]
fn one_line_at_the_start_says_what_matters() {
    let redis = Redis::start();
    let node = Node::dev().redis(&redis).set("limits.max_connections", 321).go();
    let line =
        node.process.err.find(PATIENCE, |line| line.contains("\"listening\"").then(|| line.to_owned()));
    let line: Value = serde_json::from_str(&line.expect("the line is there")).expect("one line of JSON");
    let fields = line.get("fields").unwrap_or(&line);
    for key in ["version", "public", "internal", "relay", "max_connections", "tls"] {
        assert!(fields.get(key).is_some(), "no {key} in {line}");
    }
    assert_eq!(fields["max_connections"].to_string().trim_matches('"'), "321");
    for line in node.process.err.lines() {
        assert!(serde_json::from_str::<Value>(&line).is_ok(), "every line is JSON: {line}");
    }
}

#[test]
fn an_end_is_logged_once_at_debug_with_its_code() {
    let node = Node::dev().set("log.level", "debug").go();
    let sdk = Sdk::start(Kind::Js, None);
    let alice = sdk.connect("alice", &node.url());
    node.api("disconnect", &json!({"user": "", "client": alice["id"]}));
    sdk.named("alice", "disconnected");
    node.until("alice is gone", |m| m.sum("tidegate_connections") == 0.0);
    let is_end = |line: &str| line.contains("3503") && line.contains("force disconnect");
    node.process.err.find(PATIENCE, |line| is_end(line).then_some(())).expect("a line for the end");
    assert_eq!(node.process.err.lines().iter().filter(|line| is_end(line)).count(), 1);
}

#[test]
fn a_taken_port_is_said_plainly() {
    let node = Node::dev().go();
    let mut command = std::process::Command::new(tidegate_tests::node::binary());
    command.args(["--dev", "--set", "listen.internal=127.0.0.1:0", "--set"]);
    command.arg(format!("listen.public={}", node.public()));
    let said = tidegate_tests::process::run(&mut command);
    assert_ne!(said.status.code(), Some(0));
    assert!(said.err.contains(&node.public().to_string()), "names the address: {said:?}");
    assert!(said.err.contains("listen.public"), "names the key: {said:?}");
    assert!(!said.err.contains("panicked"), "{said:?}");
}

#[test]
fn health_answers_with_and_without_the_public_port_being_busy() {
    let node = Node::dev().go();
    for path in ["/health/live", "/health/ready"] {
        assert_eq!(node.get(path).status, 200, "{path}");
    }
    assert_eq!(node.get("/health/nothing").status, 404);
    // The two ports serve different things.
    for path in ["/health/live", "/metrics", "/api/info"] {
        let answer = door::get(&format!("http://{}{path}", node.public())).expect("an answer");
        assert_eq!(answer.status, 404, "{path} is not on the public port");
    }
    assert_eq!(node.get("/connection/websocket").status, 404, "clients are not served on the internal port");
}
