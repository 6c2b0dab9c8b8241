//! What it costs to let a client in: TCP, TLS if it is asked for, the WebSocket handshake, connect and subscribe.
//!
//! A TLS handshake is full, or resumes a session with a ticket of an earlier connection; with several targets, of one to
//! another node.

use clap::Args;
use serde::Serialize;

use super::{Rows, latency_row, merged};
use crate::channels::{self, Channels};
use crate::error::Error;
use crate::fleet::{Fleet, Kind};
use crate::latency::Summary;
use crate::process::{Cpu, Server, to_f64};
use crate::progress::Progress;
use crate::target::{Aim, Handshakes, Protocol};

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
    /// None for plain `ws`.
    tls: Option<Handshakes>,
    connections: u32,
    /// How many of them resumed a TLS session.
    resumed: u64,
    seconds: f64,
    pub(crate) handshakes_per_second: f64,
    /// From the start of TCP to the last reply; of one of `at_once` under way for each client process.
    latency: Option<Summary>,
    at_once: u32,
    /// Processor time of the server for one.
    pub(crate) cpu_ms_each: Option<f64>,
    /// For all, in its own code and in the kernel.
    cpu: Option<Cpu>,
}

/// Runs it.
pub(crate) fn run(options: &Options, shown: &mut Progress) -> Result<Outcome, Error> {
    let Options { aim, .. } = options;
    let target = aim.resolve()?;
    let server = aim.server()?;
    let connections = options.connections.max(1);
    let mut fleet = Fleet::start(&target, connections, &Kind::hears(&Channels::one(channels::NAME)))?;
    let tls = target.ca.as_ref().map(|_| target.tls);
    if tls == Some(Handshakes::Resumed) {
        // Every node gives enough tickets for those that are under way at once; each connection brings new ones.
        shown.phase("collecting tickets");
        let nodes = u32::try_from(target.nodes.len()).unwrap_or(1);
        let collectors = fleet.processes() * aim.at_once.max(1) * nodes * 2;
        fleet.collect(collectors, aim.at_once, shown)?;
        fleet.lose(shown)?;
    }
    if let Some(server) = &server {
        shown.phase("waiting until the server is calm");
        server.calm()?;
    }
    let before = server.as_ref().map(Server::times).transpose()?;
    shown.phase("connecting");
    let connected = fleet.connect(connections, aim.at_once, shown)?;
    let cpu = match (&server, before) {
        (Some(server), Some(before)) => Some(server.times()? - before),
        _ => None,
    };
    Ok(Outcome {
        scenario: "connect",
        protocol: target.protocol,
        tls,
        target: target.url(),
        connections,
        resumed: connected.all.resumed,
        seconds: connected.seconds,
        handshakes_per_second: f64::from(connections) / connected.seconds,
        latency: merged(&connected.latencies),
        at_once: aim.at_once,
        cpu_ms_each: cpu.map(|cpu| cpu.all() * 1e3 / to_f64(connections.into())),
        cpu,
    })
}

impl Rows for Outcome {
    fn rows(&self) -> Vec<(String, String)> {
        let tls = match self.tls {
            None => "",
            Some(Handshakes::Full) => "full TLS handshake, ",
            Some(Handshakes::Resumed) => "resumed TLS handshake, ",
        };
        let said = match self.protocol {
            Protocol::Raw => "",
            Protocol::Pusher => ", subscribe",
            Protocol::CentrifugeJson | Protocol::CentrifugeProtobuf => ", connect, subscribe",
        };
        let mut rows = vec![
            ("target".into(), self.target.clone()),
            ("each connection".into(), format!("{tls}WebSocket{said}")),
            ("connections".into(), format!("{} in {:.2} s", self.connections, self.seconds)),
            ("rate".into(), format!("{:.0} a second", self.handshakes_per_second)),
            latency_row(&format!("each, {} at once", self.at_once), self.latency),
        ];
        if self.tls.is_some() {
            rows.push(("TLS sessions resumed".into(), format!("{} of {}", self.resumed, self.connections)));
        }
        if let (Some(each), Some(cpu)) = (self.cpu_ms_each, self.cpu) {
            let text = format!("{each:.3} ms ({:.2} s user, {:.2} s system in all)", cpu.user, cpu.system);
            rows.push(("server CPU each".into(), text));
        }
        rows
    }
}
