//! The same updates by HTTP polling, by HTTP long polling and by WebSocket: what WebSocket is chosen for.
//!
//! HTTP is served by the baseline, as a team would write it with actix-web; WebSocket by the baseline and by the server
//! that is aimed at. Bytes are those that the clients' sockets carry: requests, answers and frames with all their
//! headers. What TCP and IP put around them is not in it: each packet has at least 40 bytes more, and polling needs more
//! packets. It speaks no TLS: its records would add about the same to each message of each way.

mod client;
mod http;
mod run;

use std::fmt;

use clap::Args;
use serde::Serialize;

use self::http::Headers;
use self::run::Seen;
use super::Rows;
use crate::error::Error;
use crate::latency::Summary;
use crate::ledger::Account;
use crate::process::{Server, to_f64};
use crate::progress::Progress;
use crate::started;
use crate::target::Aim;

/// The channel of the updates.
const CHANNEL: &str = "bench";

/// Updates that the baseline keeps for who polls.
const KEPT: u64 = 256;

/// Options.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Measure WebSocket on this server too: ws://HOST:PORT/PATH
    #[arg(long, value_name = "URL", requires = "pid")]
    pub(crate) target: Option<String>,
    /// Its process, on this machine; repeat it if there are several
    #[arg(long, value_name = "PID", requires = "target")]
    pub(crate) pid: Vec<u32>,
    /// Clients
    #[arg(long, short = 'n', value_name = "N", default_value_t = 1_000)]
    pub(crate) connections: u32,
    /// Milliseconds from one update to the next
    #[arg(long, value_name = "MS", default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(1..=600_000))]
    pub(crate) every: u64,
    /// Milliseconds from one poll of a client to its next; repeat it for several
    #[arg(long, value_name = "MS", default_values_t = [1_000, 5_000], value_parser = clap::value_parser!(u64).range(1..=600_000))]
    pub(crate) interval: Vec<u64>,
    /// Seconds that are counted, for each way
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub(crate) seconds: u64,
    /// Bytes of each update's data
    #[arg(long, value_name = "BYTES", default_value_t = 128)]
    pub(crate) size: usize,
    /// What clients say of themselves with each request
    #[arg(long, value_enum, default_value = "browser")]
    pub(crate) headers: Headers,
}

impl Options {
    /// How many clients.
    fn clients(&self) -> usize {
        self.connections.max(1) as usize
    }

    /// How many updates.
    fn count(&self) -> u32 {
        u32::try_from((self.seconds * 1_000 / self.every).max(1)).unwrap_or(u32::MAX)
    }
}

/// How updates come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Way {
    /// The client asks again and again.
    Polling {
        /// Milliseconds.
        interval: u64,
    },
    /// The client asks, and the answer waits for something to say.
    LongPolling,
    /// The server says it.
    WebSocket,
}

impl fmt::Display for Way {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Polling { interval } => write!(out, "polling every {interval} ms"),
            Self::LongPolling => out.write_str("long polling"),
            Self::WebSocket => out.write_str("WebSocket"),
        }
    }
}

/// What was seen.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Outcome {
    scenario: &'static str,
    connections: u32,
    every_ms: u64,
    updates: u32,
    size: usize,
    headers: Headers,
    ways: Vec<Row>,
}

/// What was seen of one way on one server.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    way: Way,
    /// The way in words.
    name: String,
    /// `baseline` or `target`.
    server: &'static str,
    seconds: f64,
    account: Account,
    latency: Option<Summary>,
    requests: u64,
    reconnects: u64,
    /// From the clients, in the window, over all of them.
    bytes_sent: u64,
    /// To the clients.
    bytes_received: u64,
    /// Both, for each update that each client should have got.
    bytes_per_update: f64,
    /// Both, for a client that stays for an hour.
    bytes_per_client_hour: f64,
    /// Both, until a client is ready to get updates.
    bytes_to_join: f64,
    cpu_seconds: f64,
    /// Processor time of the server for an update to a client.
    cpu_us_per_update: f64,
    /// Of one processor.
    cpu_percent: f64,
}

/// Runs it.
pub(crate) fn run(options: &Options, shown: &mut Progress) -> Result<Outcome, Error> {
    if let Some(interval) = options.interval.iter().find(|interval| *interval / options.every > KEPT) {
        let why = format!(
            "--interval {interval}: the baseline keeps {KEPT} updates, and more would come between two polls"
        );
        return Err(Error::Asked(why));
    }
    if options.size > 16 * 1024 {
        return Err(Error::Asked(format!("--size {}: write at most 16384", options.size)));
    }
    let mut ways: Vec<_> = options.interval.iter().map(|&interval| Way::Polling { interval }).collect();
    ways.extend([Way::LongPolling, Way::WebSocket]);
    let mut rows = Vec::new();
    for way in ways {
        // A new server for each, so that none carries what another left.
        let baseline = started::baseline(&[])?;
        let (target, server) = (baseline.aim().resolve()?, Server::new(&[baseline.pid()])?);
        rows.push(row(way, "baseline", options, &run::run(way, &target, &server, options, shown)?));
    }
    if let Some(url) = &options.target {
        let pid = options.pid.first().copied().unwrap_or_default();
        let target = Aim::at(url.clone(), pid).resolve()?;
        let seen = run::run(Way::WebSocket, &target, &Server::new(&options.pid)?, options, shown)?;
        rows.push(row(Way::WebSocket, "target", options, &seen));
    }
    Ok(Outcome {
        scenario: "polling",
        connections: options.connections.max(1),
        every_ms: options.every,
        updates: options.count(),
        size: options.size,
        headers: options.headers,
        ways: rows,
    })
}

fn row(way: Way, server: &'static str, options: &Options, seen: &Seen) -> Row {
    let clients = f64::from(options.connections.max(1));
    let updates = clients * f64::from(options.count());
    let bytes = to_f64(seen.count.sent + seen.count.received);
    Row {
        way,
        name: way.to_string(),
        server,
        seconds: seen.seconds,
        account: seen.account,
        latency: seen.latency,
        requests: seen.count.requests,
        reconnects: seen.count.reconnects,
        bytes_sent: seen.count.sent,
        bytes_received: seen.count.received,
        bytes_per_update: bytes / updates,
        bytes_per_client_hour: bytes / clients / seen.seconds * 3_600.0,
        bytes_to_join: to_f64(seen.joining.sent + seen.joining.received) / clients,
        cpu_seconds: seen.cpu_seconds,
        cpu_us_per_update: 1e6 * seen.cpu_seconds / updates,
        cpu_percent: 100.0 * seen.cpu_seconds / seen.seconds,
    }
}

impl Rows for Outcome {
    fn rows(&self) -> Vec<(String, String)> {
        let head = format!(
            "{:>9} {:>9} {:>10} {:>10} {:>10} {:>9} {:>9} {:>5}",
            "B sent", "B got", "B a client", "CPU us an", "CPU % of", "p50 ms", "p99 ms", "lost"
        );
        let head2 = format!(
            "{:>9} {:>9} {:>10} {:>10} {:>10} {:>9} {:>9} {:>5}",
            "an update", "an update", "and hour", "update", "a proc.", "", "", ""
        );
        let mut rows = vec![
            ("clients".into(), self.connections.to_string()),
            (
                "updates".into(),
                format!("{} of {} B, one every {} ms", self.updates, self.size, self.every_ms),
            ),
            (String::new(), head),
            (String::new(), head2),
        ];
        for row in &self.ways {
            let updates = f64::from(self.connections) * f64::from(self.updates);
            let (p50, p99) = row.latency.map_or((f64::NAN, f64::NAN), |it| (it.p50_ms, it.p99_ms));
            let line = format!(
                "{:>9.0} {:>9.0} {:>10.0} {:>10.1} {:>10.2} {p50:>9.2} {p99:>9.2} {:>5}",
                to_f64(row.bytes_sent) / updates,
                to_f64(row.bytes_received) / updates,
                row.bytes_per_client_hour,
                row.cpu_us_per_update,
                row.cpu_percent,
                row.account.lost,
            );
            rows.push((format!("{}, {}", row.name, row.server), line));
        }
        rows
    }
}
