//! Scenarios of many channels, of storms, stalls and time, against the baseline: what they count is what happened.

#![expect(clippy::unwrap_used, reason = "a failing test is what should happen")]

mod baseline;
mod tool;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use baseline::Baseline;
use serde_json::Value;
use tool::{bench, json};

/// Runs a scenario against a baseline of its own.
fn run(scenario: &str, others: &[&str]) -> Value {
    let baseline = Baseline::start();
    let pid = baseline.process.id().to_string();
    let fixed = [scenario, "--json", "--target", &baseline.url, "--pid", &pid];
    json(&bench(&[&fixed[..], others].concat()))
}

/// (received, lost, duplicated, in the wrong channel).
fn account(delivery: &Value) -> (u64, u64, u64, u64) {
    let of = |name: &str| delivery["account"][name].as_u64().unwrap();
    (of("received"), of("lost"), of("duplicated"), of("strayed"))
}

#[test]
fn direct_gives_each_connection_what_is_its_own() {
    let flood = run("direct", &["-n", "30", "--publications", "100"]);
    assert_eq!(account(&flood["delivery"]), (100, 0, 0, 0), "{flood}");
    assert!(flood["delivery"]["deliveries_per_core"].is_number() && flood["redis_cpu"].is_null());
    let paced = run("direct", &["-n", "7", "--publications", "40", "--rate", "400"]);
    assert_eq!(account(&paced["delivery"]), (40, 0, 0, 0), "{paced}");
    assert!(paced["delivery"]["seconds"].as_f64() > Some(0.08), "{paced}");
}

#[test]
fn chat_delivers_what_each_says_to_its_room_and_to_no_other() {
    // Seventeen are made twenty: four whole rooms.
    let chat = run("chat", &["-n", "17", "--room", "5", "--rate", "20", "--each", "4"]);
    assert_eq!((&chat["connections"], &chat["rooms"]), (&20.into(), &4.into()));
    assert_eq!(chat["delivery"]["publications"], 80, "{chat}");
    assert_eq!(account(&chat["delivery"]), (400, 0, 0, 0), "{chat}");
}

#[test]
fn a_storm_brings_all_back_and_says_what_those_noticed_who_stayed() {
    let storm = run("storm", &["-n", "60", "--established", "10", "--rate", "300", "--calm", "1"]);
    assert_eq!((&storm["reconnected"], &storm["established"]), (&60.into(), &10.into()));
    assert_eq!(account(&storm["calm"]), (300, 0, 0, 0), "{storm}");
    let made = storm["storm"]["publications"].as_u64().unwrap();
    assert_eq!(account(&storm["storm"]), (made, 0, 0, 0), "{storm}");
    assert!(made > 0 && storm["p99_ratio"].is_number(), "{storm}");
    assert!(storm["back_seconds"].as_f64() > Some(0.0), "{storm}");
    assert_eq!((&storm["storm"]["broken"], &storm["refusals"]), (&0.into(), &serde_json::json!({})));
}

#[test]
fn stalled_readers_are_told_apart_and_get_the_rest_when_they_read_on() {
    let arguments =
        ["-n", "20", "--stalled", "20", "--rate", "30", "--seconds", "1", "--calm", "1", "--size", "200"];
    let slow = run("slow", &arguments);
    assert_eq!((&slow["readers"], &slow["stalled"]["connections"]), (&16.into(), &4.into()));
    assert_eq!(account(&slow["others"]), (16 * 30, 0, 0, 0), "{slow}");
    // So little fits into the kernel's buffers: nobody was ended, and nothing was skipped.
    let stalled = &slow["stalled"];
    assert_eq!((&stalled["received"], &stalled["skipped"]), (&120.into(), &0.into()), "{slow}");
    assert_eq!((&stalled["newest"], &stalled["ended"]), (&4.into(), &0.into()), "{slow}");
    assert!(slow["memory_most"].as_u64() > Some(0) && slow["p99_ratio"].is_number(), "{slow}");
}

#[test]
fn a_reader_that_stalls_for_too_much_is_seen_to_miss_it() {
    // The baseline keeps 1,024 publications for a slow reader and drops the oldest: 60 MB do not fit.
    let arguments =
        ["-n", "4", "--stalled", "50", "--rate", "2000", "--seconds", "2", "--calm", "1", "--size", "16000"];
    let slow = run("slow", &arguments);
    let skipped = slow["stalled"]["skipped"].as_u64().unwrap();
    assert!(skipped > 100, "{slow}");
    let received = slow["stalled"]["received"].as_u64().unwrap();
    assert_eq!(received + skipped, 2 * slow["others"]["publications"].as_u64().unwrap(), "{slow}");
}

#[test]
fn a_soak_counts_who_came_and_went_and_sees_no_growth_where_none_is() {
    let arguments =
        ["-n", "40", "--minutes", "0.1", "--publications", "100", "--rate", "1000", "--churn", "25"];
    let soak = run("soak", &arguments);
    let rounds = soak["rounds"].as_u64().unwrap();
    assert!(rounds >= 5, "{soak}");
    assert_eq!(soak["opened"].as_u64().unwrap(), 40 + rounds * 10);
    assert_eq!(account(&soak), (rounds * 1_000, 0, 0, 0), "{soak}");
    assert_eq!((&soak["broken"], &soak["trend"]["grows"]), (&0.into(), &false.into()), "{soak}");
}

#[test]
fn a_server_whose_memory_grows_fails_its_soak() {
    let baseline = Baseline::start();
    // What is looked at is this process, in which something leaks: 5 MiB a second, for as long as it takes.
    let done = Arc::new(AtomicBool::new(false));
    let leak = std::thread::spawn({
        let done = Arc::clone(&done);
        move || {
            let mut kept = Vec::new();
            while !done.load(Ordering::Relaxed) && kept.len() < 200 {
                kept.push(vec![1_u8; 1 << 20]);
                std::thread::park_timeout(Duration::from_millis(200));
            }
        }
    });
    let pid = std::process::id().to_string();
    let output = bench(&[
        "soak",
        "--target",
        &baseline.url,
        "--pid",
        &pid,
        "-n",
        "20",
        "--minutes",
        "0.1",
        "--publications",
        "50",
        "--rate",
        "1000",
    ]);
    done.store(true, Ordering::Relaxed);
    leak.join().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{out}{err}");
    assert!(out.contains("it grows") && err.contains("the server's memory grows: by"), "{out}{err}");
}
