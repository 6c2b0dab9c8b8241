//! What it costs to let a client in: TCP, TLS if it is asked for, the WebSocket handshake, connect and subscribe.
//!
//! TLS handshakes are full ones: clients keep no tickets.

use clap::Args;
use serde::Serialize;

use super::{Rows, latency_row, merged};
use crate::error::Error;
use crate::fleet::Fleet;
use crate::latency::Summary;
use crate::process::{Server, to_f64};
use crate::progress::Progress;
use crate::target::{Aim, Protocol};

/// Options.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) aim: Aim,
    /// Connections
    #[arg(long, short = 'n', value_name = "N", default_value_t = 5_000)]
    pub(crate) connections: u32,
}

/// What was seen.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Outcome {
    scenario: &'static str,
    target: String,
    protocol: Protocol,
    tls: bool,
    connections: u32,
    seconds: f64,
    pub(crate) handshakes_per_second: f64,
    /// From the start of TCP to the last reply; of one of `at_once` under way for each client process.
    latency: Option<Summary>,
    at_once: u32,
    /// Processor time of the server for one.
    pub(crate) cpu_ms_each: Option<f64>,
}

/// Runs it.
pub(crate) fn run(options: &Options, shown: &mut Progress) -> Result<Outcome, Error> {
    let target = options.aim.resolve()?;
    let server = if options.aim.pid.is_empty() { None } else { Some(Server::new(&options.aim.pid)?) };
    let connections = options.connections.max(1);
    let mut fleet = Fleet::start(&target, connections, true)?;
    if let Some(server) = &server {
        shown.phase("waiting until the server is calm");
        server.calm()?;
    }
    let before = server.as_ref().map(Server::cpu).transpose()?;
    shown.phase("connecting");
    let connected = fleet.connect(connections, options.aim.at_once, shown)?;
    let cpu = match (&server, before) {
        (Some(server), Some(before)) => Some(server.cpu()? - before),
        _ => None,
    };
    Ok(Outcome {
        scenario: "connect",
        protocol: target.protocol,
        tls: target.ca.is_some(),
        target: target.url,
        connections,
        seconds: connected.seconds,
        handshakes_per_second: f64::from(connections) / connected.seconds,
        latency: merged(&connected.latencies),
        at_once: options.aim.at_once,
        cpu_ms_each: cpu.map(|seconds| seconds * 1e3 / to_f64(connections.into())),
    })
}

impl Rows for Outcome {
    fn rows(&self) -> Vec<(String, String)> {
        let what = match (self.protocol, self.tls) {
            (Protocol::Raw, false) => "WebSocket",
            (Protocol::Raw, true) => "full TLS handshake, WebSocket",
            (Protocol::CentrifugeJson, false) => "WebSocket, connect, subscribe",
            (Protocol::CentrifugeJson, true) => "full TLS handshake, WebSocket, connect, subscribe",
        };
        let mut rows = vec![
            ("target".into(), self.target.clone()),
            ("each connection".into(), what.into()),
            ("connections".into(), format!("{} in {:.2} s", self.connections, self.seconds)),
            ("rate".into(), format!("{:.0} a second", self.handshakes_per_second)),
            latency_row(&format!("each, {} at once", self.at_once), self.latency),
        ];
        if let Some(cpu) = self.cpu_ms_each {
            rows.push(("server CPU each".into(), format!("{cpu:.3} ms")));
        }
        rows
    }
}
