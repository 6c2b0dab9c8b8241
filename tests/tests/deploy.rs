//! What is deployed, read by the tools that will read it: the image, the compose stack, Prometheus and Grafana, the chart.
//!
//! The checks themselves are in `tests/deploy`, where a person can call them too. Not here: starting containers and
//! installing into a cluster.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use tidegate_tests::backend::Act;
use tidegate_tests::node::binary;
use tidegate_tests::process::Process;
use tidegate_tests::{Backend, Node, Redis};

/// Enough for the first time, which installs tools.
const PATIENCE: Duration = Duration::from_secs(300);

#[test]
fn the_image_is_described_without_a_complaint() {
    check("image");
}

#[test]
fn the_compose_stack_fits_together() {
    check("compose");
}

#[test]
fn every_alert_fires_when_it_should_and_only_then() {
    check("alerts");
}

#[test]
fn every_panel_says_what_it_shows_in_which_unit() {
    check("dashboard");
}

#[test]
fn the_chart_renders_what_kubernetes_takes_and_refuses_nonsense() {
    check("chart");
}

#[test]
fn every_expression_has_numbers_on_a_real_prometheus() {
    let redis = Redis::start();
    let backend = Backend::start(|_| Act::grant(json!({"data": {}})));
    let endpoints = json!([backend.endpoint("main", &json!({}))]);
    let nodes = ["a", "b"].map(|name| {
        let node = Node::dev().named(name).redis(&redis).set("proxy.endpoints", &endpoints);
        node.set("proxy.rpc", "main").go()
    });
    succeeds("tests/setup/deploy.sh", &mut Command::new(root().join("tests/setup/deploy.sh")));
    let mut command = Command::new(root().join("tests/.cache/deploy/venv/bin/python"));
    command.arg(root().join("tests/deploy/dashboard.py"));
    for node in &nodes {
        command.args(["--node", &format!("{},{}", node.internal(), node.public())]);
    }
    succeeds("dashboard.py", &mut command);
}

/// Runs one part of `tests/deploy/check.sh`.
fn check(part: &str) {
    let mut command = Command::new(root().join("tests/deploy/check.sh"));
    // The chart's settings are held against the node under test.
    command.arg(part).env("TIDEGATE_BIN", binary());
    succeeds(&format!("check.sh {part}"), &mut command);
}

/// Runs it to its end; what it wrote is printed if it fails.
fn succeeds(name: &str, command: &mut Command) {
    let mut process = Process::start(name, command);
    let status = process.wait(PATIENCE);
    assert!(status.success(), "{name}: {status}");
}

/// The root of the repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
