//! What an idle connection costs.

use std::io::Write;
use std::process::{ChildStdin, Command};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use tidegate_tests::process::Process;
use tidegate_tests::{Node, eventually};

/// The most a connection with one subscription may cost the node in user space, in bytes.
const BUDGET: f64 = 1536.0;

/// What a burst may leave in the node's own queues, which keep the room they grew to: bytes in all, however many
/// connections there are.
const KEPT: f64 = (1 << 20) as f64;

/// How many connections, where descriptors allow.
const CONNECTIONS: usize = 19_000;

/// Connections of one client process.
const SHARE: usize = 9_500;

/// Connections that share a channel.
const A_CHANNEL: usize = 100;

/// Freed memory goes back to the system after the allocator's decay time, ten seconds unless set.
const DECAY: Duration = Duration::from_secs(45);

struct Holder {
    process: Process,
    stdin: ChildStdin,
}

impl Holder {
    fn new(node: &Node, count: usize, channels: usize, prefix: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hold"));
        command.arg(node.public().to_string()).args([
            count.to_string(),
            channels.to_string(),
            prefix.to_owned(),
        ]);
        let mut process = Process::start("hold", &mut command);
        let stdin = process.stdin().expect("a pipe");
        Self { process, stdin }
    }

    fn wait(&self, word: &str) {
        let found = self.process.out.take(Duration::from_secs(120), |line| (line == word).then_some(()));
        found.unwrap_or_else(|why| panic!("no {word:?}: {why}: {:?}", self.process.err.lines()));
    }

    fn tell(&mut self, line: &str) {
        writeln!(self.stdin, "{line}").expect("it reads");
    }
}

/// Tells every holder the same and waits for all.
fn all(holders: &mut [Holder], line: &str) {
    holders.iter_mut().for_each(|holder| holder.tell(line));
    holders.iter().for_each(|holder| holder.wait("done"));
}

/// Every connection receives 20 publications of 512 bytes, and sends a message of 4 KiB in two halves.
fn burst(node: &Node, holders: &mut [Holder], channels: &[String]) {
    for _ in 0..20 {
        let answer = node.api("broadcast", &json!({"channels": channels, "data": "x".repeat(512)}));
        let responses = answer["result"]["responses"].as_array().expect("a response for each channel");
        assert!(responses.iter().all(|one| one.get("error").is_none()), "{answer}");
    }
    all(holders, "hear 20");
    all(holders, "ask 4096");
}

/// The descriptors one process may have, raised as far as it goes; children inherit it.
fn descriptors() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // Where it cannot be raised, fewer connections are measured.
    let _ = setrlimit(Resource::Nofile, raised);
    getrlimit(Resource::Nofile)
        .current
        .map_or(CONNECTIONS + 1000, |n| usize::try_from(n).unwrap_or(usize::MAX))
}

/// Resident bytes once they have stopped to move by more than a part in a thousand.
fn settled(node: &Node) -> f64 {
    let mut last = Vec::new();
    eventually("resident memory settles", DECAY, || {
        last.push(node.resident_bytes() as f64);
        let recent = last.get(last.len().checked_sub(25)?..)?;
        let (low, high) =
            recent.iter().fold((f64::MAX, 0.0_f64), |(low, high), &n| (low.min(n), high.max(n)));
        (high - low < high / 1000.0).then_some(high)
    })
}

#[expect(clippy::print_stdout, reason = "the figures are worth reading when the test passes, too")]
#[test]
fn an_idle_connection_costs_no_more_than_its_budget_and_a_burst_leaves_nothing_behind() {
    let count = CONNECTIONS.min(descriptors().saturating_sub(1000));
    assert!(
        count >= 3000,
        "a process may have too few descriptors here to measure anything: raise `ulimit -Hn`"
    );
    let node = Node::dev().set("limits.max_connections", count + 100).set("heartbeat.interval", "10m").go();
    // What the first connections and the first burst make the node allocate once is not theirs.
    let mut warm = vec![Holder::new(&node, 200, 200, "warm-")];
    warm[0].wait("open");
    burst(&node, &mut warm, &(0..200).map(|n| format!("warm-{n}")).collect::<Vec<_>>());
    drop(warm);
    node.until("the warm-up is gone", |m| m.sum("tidegate_connections") == 0.0);
    let before = settled(&node);

    let mut holders = Vec::new();
    let mut left = count;
    while left > 0 {
        let share = left.min(SHARE);
        let prefix = format!("idle-{}-", holders.len());
        holders.push(Holder::new(&node, share, share.div_ceil(A_CHANNEL), &prefix));
        left -= share;
    }
    holders.iter().for_each(|holder| holder.wait("open"));
    assert_eq!(node.metrics().sum("tidegate_connections"), count as f64);
    node.until("every subscription is counted", |m| m.sum("tidegate_subscriptions") == count as f64);
    let idle = (settled(&node) - before) / count as f64;
    println!("{count} idle connections: {idle:.0} bytes each");
    // What the warm-up made the node allocate is within; see `KEPT`.
    let own = idle / 2.0..idle * 2.0 + 4.0 * KEPT / count as f64;
    node.until("the node says the same of itself", |m| {
        own.contains(&m.sum("tidegate_memory_per_connection_bytes"))
    });
    assert!(idle <= BUDGET, "{idle:.0} bytes a connection");

    let channels: Vec<String> = holders
        .iter()
        .enumerate()
        .flat_map(|(n, _)| {
            let share = SHARE.min(count - n * SHARE);
            (0..share.div_ceil(A_CHANNEL)).map(move |channel| format!("idle-{n}-{channel}"))
        })
        .collect();
    burst(&node, &mut holders, &channels);
    let limit = idle * 1.1 + KEPT / count as f64;
    eventually(&format!("a connection costs at most {limit:.0} bytes after the burst, too"), DECAY, || {
        let each = (node.resident_bytes() as f64 - before) / count as f64;
        (each <= limit).then(|| println!("after a burst: {each:.0} bytes each"))
    });

    drop(holders);
    node.until("everyone is gone", |m| m.sum("tidegate_connections") == 0.0);
    node.until("so there is nothing to say of them", |m| {
        m.sum("tidegate_memory_per_connection_bytes").is_nan()
    });
}
