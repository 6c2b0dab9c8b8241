//! The whole tool, as its user runs it, against the baseline that it brings along.

#![expect(clippy::unwrap_used, reason = "a failing test is what should happen")]

mod baseline;
mod tool;

use std::net::TcpListener;

use baseline::Baseline;
use serde_json::Value;
use tool::{bench, json};

#[test]
fn idle_says_what_fifty_connections_cost_and_loses_nothing() {
    let baseline = Baseline::start();
    let pid = baseline.process.id().to_string();
    let output = bench(&[
        "idle",
        "--json",
        "--target",
        &baseline.url,
        "--pid",
        &pid,
        "-n",
        "50",
        "--burst",
        "20",
        "--watch",
        "1",
        "--settle",
        "0",
    ]);
    let result = json(&output);
    assert_eq!((&result["scenario"], &result["connections"]), (&"idle".into(), &50.into()));
    assert_eq!((&result["broken"], &result["left"]["remaining"]), (&0.into(), &2.into()));
    let bytes = result["bytes_per_connection"].as_f64().unwrap();
    // It counts the pages a fresh process touches first, so it is far above what one of thousands costs.
    assert!(bytes > 500.0 && bytes < 200_000.0, "{bytes}");
    assert!(result["idle"]["anonymous"].as_u64() > result["before"]["anonymous"].as_u64());
    let account = &result["burst"]["delivery"]["account"];
    assert_eq!(account["received"], 1_000, "{account}");
    assert_eq!((&account["lost"], &account["duplicated"]), (&0.into(), &0.into()));
    assert!(result["heartbeats"]["cpu_percent"].as_f64().is_some());
}

#[test]
fn fanout_counts_every_delivery_at_a_pace_and_in_a_flood() {
    let baseline = Baseline::start();
    let pid = baseline.process.id().to_string();
    for pace in [&["--rate", "200"][..], &["--window", "4"]] {
        let fixed = [
            "fanout",
            "--json",
            "--target",
            &baseline.url,
            "--pid",
            &pid,
            "-n",
            "20",
            "--publications",
            "50",
        ];
        let result = json(&bench(&[&fixed[..], pace].concat()));
        let delivery = &result["delivery"];
        assert_eq!(delivery["account"]["received"], 1_000, "{result}");
        assert_eq!(delivery["account"]["lost"], 0);
        assert!(delivery["latency"]["p50_ms"].as_f64() > Some(0.0), "{result}");
        assert!(delivery["latency"]["p50_ms"].as_f64() <= delivery["latency"]["max_ms"].as_f64());
        assert!(delivery["cpu_seconds"].as_f64().is_some());
        let seconds = delivery["seconds"].as_f64().unwrap();
        assert!(pace[0] != "--rate" || seconds >= 0.2, "50 publications at 200 a second took {seconds} s");
    }
}

#[test]
fn bare_connections_are_held_without_a_word() {
    let baseline = Baseline::start();
    let result =
        json(&bench(&["connect", "--json", "--target", &baseline.url, "-n", "40", "--protocol", "raw"]));
    assert_eq!((&result["protocol"], &result["connections"]), (&"raw".into(), &40.into()));
    assert!(result["handshakes_per_second"].as_f64() > Some(0.0));
    assert_eq!(result["cpu_ms_each"], Value::Null);
}

#[test]
fn what_cannot_be_measured_is_said_and_not_guessed() {
    let baseline = Baseline::start();
    let nowhere = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
    let wrong_path = baseline.url.replace("websocket", "nothing");
    for (arguments, words) in [
        (vec!["idle", "--target", &baseline.url], "--pid is needed"),
        (
            vec!["connect", "-n", "3", "--target", &wrong_path],
            "only 0 of 3 connections were opened: the server answered",
        ),
        (vec!["connect", "-n", "3", "--target", &format!("ws://{nowhere}/")], "Connection refused"),
    ] {
        let output = bench(&arguments);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.contains(words), "{arguments:?}: {text}");
        assert!(output.stdout.is_empty());
    }
}
