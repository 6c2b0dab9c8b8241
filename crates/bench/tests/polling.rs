//! `polling`, as its user runs it, against the baseline that it starts.

#![expect(clippy::unwrap_used, reason = "a failing test is what should happen")]

use std::process::{Command, Output};

use serde_json::Value;

fn polling(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate-bench"));
    command.args(["polling", "--json"]).args(arguments).output().unwrap()
}

#[test]
fn the_same_updates_come_by_every_way_and_websocket_carries_least() {
    let output =
        polling(&["-n", "20", "--every", "200", "--seconds", "2", "--interval", "100", "--interval", "500"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    let ways = result["ways"].as_array().unwrap();
    let names: Vec<_> = ways.iter().map(|way| way["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["polling every 100 ms", "polling every 500 ms", "long polling", "WebSocket"]);
    for way in ways {
        let account = &way["account"];
        assert_eq!((&account["received"], &account["lost"]), (&200.into(), &0.into()), "{way}");
        assert_eq!(account["duplicated"], 0, "{way}");
        assert!(way["latency"]["p50_ms"].as_f64() > Some(0.0), "{way}");
    }
    let number = |way: usize, key: &str| ways[way][key].as_f64().unwrap();
    // Ten polls a second and client, of which every second one finds an update.
    assert!((250.0..=440.0).contains(&number(0, "requests")), "{}", ways[0]);
    assert!(number(0, "bytes_sent") > 400.0 * number(0, "requests") * 0.9, "{}", ways[0]);
    // A long poll is asked once for each update, and once before the first.
    assert!((200.0..=220.0).contains(&number(2, "requests")), "{}", ways[2]);
    assert!(number(0, "bytes_per_update") > 1.5 * number(2, "bytes_per_update"), "{result}");
    assert!(number(2, "bytes_per_update") > 3.0 * number(3, "bytes_per_update"), "{result}");
    // Who polls every half second waits a quarter of one, and a message is pushed at once.
    assert!(ways[1]["latency"]["p99_ms"].as_f64() > Some(100.0), "{}", ways[1]);
    assert!(ways[3]["latency"]["p50_ms"].as_f64() < ways[1]["latency"]["p50_ms"].as_f64(), "{result}");
}

#[test]
fn what_cannot_be_compared_is_refused_in_words() {
    for (arguments, words) in [
        (&["--interval", "60000", "--every", "10"][..], "--interval 60000: the baseline keeps 256 updates"),
        (&["--every", "0"], "0 is not in 1..=600000"),
        (&["--size", "1000000"], "--size 1000000: write at most 16384"),
        (&["--target", "ws://127.0.0.1:1/"], "--pid"),
    ] {
        let output = polling(arguments);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.contains(words), "{arguments:?}: {text}");
    }
}
