//! What the calculator says, reckoned by hand.

#![expect(clippy::unwrap_used, reason = "a failing test is what should happen")]

use clap::{Args, Command, FromArgMatches};

use super::*;

fn options(line: &str) -> Options {
    let command = Options::augment_args(Command::new("size"));
    let matches = command.get_matches_from(std::iter::once("size").chain(line.split_whitespace()));
    Options::from_arg_matches(&matches).unwrap()
}

/// Round numbers, so that a person can follow.
fn costs() -> Costs {
    Costs {
        node_bytes: 10e6,
        connection_bytes: 1_000.0,
        subscription_bytes: 100.0,
        kernel_bytes: 5_000.0,
        heartbeat: 25.0,
        delivery: 10.0,
        connect: 100.0,
        relay: 5.0,
        redis_publish: 4.0,
        redis_push: 2.0,
        delivery_overhead: 72.0,
        redis_overhead: 72.0,
    }
}

fn close(left: f64, right: f64) {
    assert!((left - right).abs() <= 1e-9 * right.abs().max(1.0), "{left} is not {right}");
}

#[test]
fn a_load_is_reckoned_as_by_hand() {
    let options = options(
        "-n 100000 --subscriptions 3 --publications 1000 --fan-out 50 --message-bytes 128 --storm-seconds 100",
    );
    let cost = model::cost(&options, &costs(), 4);
    close(cost.heartbeats, 100_000.0 / 25.0 * 25e-6);
    close(cost.deliveries, 50_000.0 * 10e-6);
    close(cost.relay, 1_000.0 * 4.0 * 5e-6);
    close(cost.storm, 1_000.0 * 100e-6);
    close(cost.user_space, 10e6 + 25_000.0 * 1_200.0);
    close(cost.kernel, 25_000.0 * 5_000.0);
    close(cost.redis, 1_000.0 * (4.0 + 8.0) * 1e-6);
    close(cost.redis_in, 1_000.0 * 200.0);
    close(cost.redis_out, 4_000.0 * 200.0);
    close(cost.out, 50_000.0 * 200.0 + 4_000.0 * 4.0);
}

#[test]
fn a_publication_for_one_goes_to_one_node() {
    let options = options("-n 100000 --publications 1000 --fan-out 1");
    close(model::cost(&options, &costs(), 8).relay, 1_000.0 * 5e-6);
}

#[test]
fn the_scarcest_thing_decides_how_many_nodes_there_are() {
    for (line, expected) in [
        ("-n 1000", (1, Because::Nothing)),
        // 1,000,000 * 6,000 B = 6 GB of 1.29 GB each, and 10 MB of its own.
        ("-n 1000000 --storm-seconds 3600", (5, Because::Memory)),
        // 100,000 deliveries/s are 1 processor, heartbeats 0.1, the storm 10: of 1.2 each.
        ("-n 100000 --publications 1000 --fan-out 100 --storm-seconds 1", (10, Because::Processors)),
        ("-n 100000 --node-connections 10000", (17, Because::Connections)),
    ] {
        assert_eq!(model::nodes(&options(line), &costs()), Some(expected), "{line}");
    }
}

#[test]
fn what_nodes_cannot_carry_however_many_is_said() {
    // Everyone hears everything: each node needs 2 processors to hear it, whatever it delivers.
    let options = options("-n 1000000 --publications 400000 --fan-out 1000000 --tls none");
    let error = run(&options).unwrap_err().to_string();
    assert!(error.contains("no number of such nodes"), "{error}");
}

#[test]
fn more_of_anything_never_takes_fewer_nodes() {
    let base = "-n 200000 --publications 5000 --fan-out 20";
    let nodes = |line: &str| run(&options(line)).unwrap().nodes;
    for more in [
        "-n 400000 --publications 5000 --fan-out 20",
        "-n 200000 --publications 50000 --fan-out 20",
        "-n 200000 --publications 5000 --fan-out 200",
        "-n 200000 --publications 5000 --fan-out 20 --storm-seconds 5",
        "-n 200000 --publications 5000 --fan-out 20 --headroom 80",
        "-n 200000 --publications 5000 --fan-out 20 --message-bytes 16384",
        "-n 200000 --publications 5000 --fan-out 20 --subscriptions 60",
        "-n 200000 --publications 5000 --fan-out 20 --spare 3",
    ] {
        assert!(nodes(more) >= nodes(base), "{more}");
    }
    assert!(nodes(base) >= nodes(&format!("{base} --tls none")));
}

#[test]
fn nonsense_is_refused_by_its_name() {
    for (line, words) in [
        ("-n 0", "--connections 0: write 1 to"),
        ("-n 10 --fan-out 11 --publications 1", "--fan-out 11: no more than the 10 connections"),
        ("-n 10 --subscriptions 0 --publications 1", "--subscriptions 0: who is subscribed to nothing"),
        ("-n 10 --publications NaN", "--publications NaN: write 0 to"),
        ("-n 10 --publications inf", "--publications inf: write 0 to"),
        ("-n 10 --publications=-1", "--publications -1: write 0 to"),
        ("-n 10 --storm-seconds 0", "--storm-seconds 0: write 1 to"),
        ("-n 10 --headroom 100", "--headroom 100: write 0 to 95"),
        ("-n 10 --resumed 50 --tls none", "--resumed 50: without TLS"),
        ("-n 10 --node-memory 1000", "--node-memory 1000: write bytes"),
        ("-n 10 --node-connections 0", "--node-connections 0"),
        ("-n 10 --message-bytes 99999999", "--message-bytes 99999999"),
    ] {
        let error = run(&options(line)).unwrap_err().to_string();
        assert!(error.contains(words), "{line}: {error}");
    }
}

#[test]
fn what_was_not_measured_is_not_guessed() {
    let mut known = Coefficients::load(None).unwrap();
    known.values.remove("connection_bytes_tls_compact");
    let error = Costs::new(&options("-n 10 --tls compact"), &known).unwrap_err().to_string();
    assert!(error.contains("have no connection_bytes_tls_compact"), "{error}");
}

#[test]
fn the_table_shows_every_coefficient_and_the_headroom() {
    let outcome = run(&options("-n 100000 --publications 2000 --fan-out 10")).unwrap();
    let text: String = outcome.rows().iter().map(|(what, value)| format!("{what} {value}\n")).collect();
    for name in outcome.coefficients.values.keys() {
        assert!(text.contains(name.as_str()), "{name} is not in\n{text}");
    }
    assert!(text.contains("40 % of each node stays free") && text.contains(&outcome.coefficients.date));
}
