//! A calculator: from a load to nodes, memory, processors and Redis, with what the suite measured.
//!
//! It measures nothing. What it says is as good as the coefficients, which it shows, and leaves the headroom it is told.

mod model;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::Serialize;

use self::model::{Because, Costs};
use super::Rows;
use super::coefficients::{Coefficients, Value};
use crate::error::Error;

/// The share of a processor that Redis may use before it must be several.
const REDIS_MOST: f64 = 0.6;

/// How clients connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Tls {
    /// Plain: TLS ends before the node
    None,
    /// TLS with the record layer of rustls
    Stock,
    /// TLS with the compact record layer
    Compact,
}

/// The key of the certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Certificate {
    /// ECDSA on P-256
    Ecdsa,
    /// RSA with 2,048 bits
    Rsa,
}

/// Options.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct Options {
    /// Connections, of all nodes
    #[arg(long, short = 'n', value_name = "N")]
    pub(crate) connections: u32,
    /// Subscriptions of each connection
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) subscriptions: u32,
    /// Publications a second, of all channels
    #[arg(long, value_name = "PER_SECOND", default_value_t = 0.0)]
    pub(crate) publications: f64,
    /// Connections that get each of them, on average
    #[arg(long, value_name = "N", default_value_t = 1.0)]
    pub(crate) fan_out: f64,
    /// Bytes of each one's data
    #[arg(long, value_name = "BYTES", default_value_t = 128)]
    pub(crate) message_bytes: u64,
    /// How clients connect
    #[arg(long, value_enum, default_value = "stock")]
    pub(crate) tls: Tls,
    /// The key of the certificate
    #[arg(long, value_enum, default_value = "ecdsa")]
    pub(crate) certificate: Certificate,
    /// Of 100 handshakes in a storm, how many resume a session
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0)]
    pub(crate) resumed: f64,
    /// Seconds in which everyone is to be back after a storm
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0)]
    pub(crate) storm_seconds: f64,
    /// Seconds between two pings of a connection
    #[arg(long, value_name = "SECONDS", default_value_t = 25.0)]
    pub(crate) heartbeat: f64,
    /// Processors of a node
    #[arg(long, value_name = "N", default_value_t = 2.0)]
    pub(crate) node_cores: f64,
    /// Bytes of memory of a node, kernel's included
    #[arg(long, value_name = "BYTES", default_value_t = 2_147_483_648)]
    pub(crate) node_memory: u64,
    /// The most connections of a node: its file descriptors, or how many you want to lose with one
    #[arg(long, value_name = "N", default_value_t = 500_000)]
    pub(crate) node_connections: u32,
    /// Of 100 of a node's processors, memory and connections, how many stay free
    #[arg(long, value_name = "PERCENT", default_value_t = 40.0)]
    pub(crate) headroom: f64,
    /// Nodes beyond those that carry the load, so that as many may be lost
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) spare: u32,
    /// Reckon with the coefficients of this file, as the suite writes it
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub(crate) coefficients: Option<PathBuf>,
}

/// What it takes.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Outcome {
    scenario: &'static str,
    load: Options,
    /// With the spare ones.
    nodes: u32,
    nodes_that_carry: u32,
    /// What asks for so many: processors, memory, connections, or nothing.
    because: &'static str,
    deliveries_per_second: f64,
    /// The rest of a node is when the spare ones are lost.
    connections_per_node: f64,
    node_user_space_bytes: f64,
    node_kernel_bytes: f64,
    node_processors_calm: f64,
    node_processors_storm: f64,
    node_bytes_out_per_second: f64,
    /// Processors of all nodes, each by what it is for.
    processors_heartbeats: f64,
    processors_deliveries: f64,
    processors_relay: f64,
    processors_storm: f64,
    redis_processors: f64,
    redis_bytes_in_per_second: f64,
    redis_bytes_out_per_second: f64,
    /// How many independent Redis servers, so that none uses more than 60 % of a processor.
    redis_servers: u32,
    coefficients: Coefficients,
}

/// Reckons.
pub(crate) fn run(options: &Options) -> Result<Outcome, Error> {
    check(options)?;
    let coefficients = Coefficients::load(options.coefficients.as_deref())?;
    let costs = Costs::new(options, &coefficients)?;
    let Some((carry, because)) = model::nodes(options, &costs) else {
        return Err(Error::Asked(
            "no number of such nodes up to 10000 carries this: every node hears publications that its own clients \
             share with others; give nodes more processors, or publish less"
                .into(),
        ));
    };
    let cost = model::cost(options, &costs, carry);
    let of = f64::from(carry);
    let calm = cost.heartbeats + cost.deliveries + cost.relay;
    // No fewer than none and no more than fits: the rate is bounded by `check`.
    let redis_servers = ((cost.redis / REDIS_MOST).ceil() as u32).max(1);
    Ok(Outcome {
        scenario: "size",
        nodes: carry.saturating_add(options.spare),
        nodes_that_carry: carry,
        because: match because {
            Because::Processors => "processors",
            Because::Memory => "memory",
            Because::Connections => "connections",
            Because::Nothing => "nothing",
        },
        deliveries_per_second: options.publications * options.fan_out,
        connections_per_node: f64::from(options.connections) / of,
        node_user_space_bytes: cost.user_space,
        node_kernel_bytes: cost.kernel,
        node_processors_calm: calm / of,
        node_processors_storm: cost.processors() / of,
        node_bytes_out_per_second: cost.out / of,
        processors_heartbeats: cost.heartbeats,
        processors_deliveries: cost.deliveries,
        processors_relay: cost.relay,
        processors_storm: cost.storm,
        redis_processors: cost.redis,
        redis_bytes_in_per_second: cost.redis_in,
        redis_bytes_out_per_second: cost.redis_out,
        redis_servers,
        load: options.clone(),
        coefficients,
    })
}

/// Errors: what makes no sense, by its name.
fn check(options: &Options) -> Result<(), Error> {
    let no = |key: &str, value: &dyn std::fmt::Display, why: &str| {
        Err(Error::Asked(format!("--{key} {value}: {why}")))
    };
    if options.connections == 0 || options.connections > 100_000_000 {
        return no("connections", &options.connections, "write 1 to 100000000");
    }
    for (key, value, least, most) in [
        ("publications", options.publications, 0.0, 1e8),
        ("fan-out", options.fan_out, 0.0, 1e8),
        ("resumed", options.resumed, 0.0, 100.0),
        ("storm-seconds", options.storm_seconds, 1.0, 86_400.0),
        ("heartbeat", options.heartbeat, 1.0, 3_600.0),
        ("node-cores", options.node_cores, 0.1, 1_024.0),
        ("headroom", options.headroom, 0.0, 95.0),
    ] {
        if !(least..=most).contains(&value) {
            return no(key, &value, &format!("write {least} to {most}"));
        }
    }
    if options.fan_out > f64::from(options.connections) {
        let why = format!("no more than the {} connections can get a publication", options.connections);
        return no("fan-out", &options.fan_out, &why);
    }
    if options.subscriptions == 0 && options.publications * options.fan_out > 0.0 {
        return no("subscriptions", &0, "who is subscribed to nothing gets no publications: --fan-out 0");
    }
    if options.subscriptions > 100_000 {
        return no("subscriptions", &options.subscriptions, "write at most 100000");
    }
    if options.message_bytes > 1_048_576 {
        return no("message-bytes", &options.message_bytes, "write at most 1048576");
    }
    if options.node_memory < 64 * 1_048_576 {
        return no("node-memory", &options.node_memory, "write bytes, at least 67108864");
    }
    if options.node_connections == 0 {
        return no("node-connections", &0, "write at least 1");
    }
    if options.tls == Tls::None && options.resumed > 0.0 {
        return no("resumed", &options.resumed, "without TLS there is no session to resume");
    }
    if options.spare > 1_000 {
        return no("spare", &options.spare, "write at most 1000");
    }
    Ok(())
}

/// Bytes as people read them.
fn bytes(value: f64) -> String {
    let units = [(1_073_741_824.0, "GiB"), (1_048_576.0, "MiB"), (1_024.0, "KiB")];
    match units.iter().find(|(size, _)| value >= *size) {
        Some((size, unit)) => format!("{:.1} {unit}", value / size),
        None => format!("{value:.0} B"),
    }
}

impl Rows for Outcome {
    fn rows(&self) -> Vec<(String, String)> {
        let load = &self.load;
        let row = |what: &str, text: String| (what.to_owned(), text);
        let because = match self.because {
            "nothing" => "one is enough".to_owned(),
            other => format!("because of {other}"),
        };
        let storm = format!(
            "{:.2} of {} while all come back within {} s",
            self.node_processors_storm, load.node_cores, load.storm_seconds
        );
        let more = if self.redis_servers > 1 {
            format!("; more than one does: use {} servers or a cluster", self.redis_servers)
        } else {
            String::new()
        };
        let known = &self.coefficients;
        let mut rows = vec![
            row(
                "nodes",
                format!(
                    "{}: {} carry the load ({because}), {} spare",
                    self.nodes, self.nodes_that_carry, load.spare
                ),
            ),
            row(
                "headroom",
                format!("{} % of each node stays free when the spare ones are lost", load.headroom),
            ),
            row("connections a node", format!("{:.0}", self.connections_per_node)),
            row(
                "memory a node",
                format!(
                    "{}: {} the process, {} the kernel's sockets",
                    bytes(self.node_user_space_bytes + self.node_kernel_bytes),
                    bytes(self.node_user_space_bytes),
                    bytes(self.node_kernel_bytes)
                ),
            ),
            row(
                "processors a node, calm",
                format!("{:.2} of {}", self.node_processors_calm, load.node_cores),
            ),
            row("processors a node, storm", storm),
            row(
                "processors, all nodes",
                format!(
                    "{:.2} deliveries, {:.2} heartbeats, {:.2} relay, {:.2} storm",
                    self.processors_deliveries,
                    self.processors_heartbeats,
                    self.processors_relay,
                    self.processors_storm
                ),
            ),
            row("deliveries", format!("{:.0} a second", self.deliveries_per_second)),
            row("to clients, a node", format!("{} a second", bytes(self.node_bytes_out_per_second))),
            row("Redis, processor", format!("{:.2} of 1{more}", self.redis_processors)),
            row(
                "Redis, network",
                format!(
                    "{} a second in, {} out",
                    bytes(self.redis_bytes_in_per_second),
                    bytes(self.redis_bytes_out_per_second)
                ),
            ),
            row("measured by", known.source.clone()),
            row("measured on", format!("{}, {}, commit {}", known.date, known.machine, known.commit)),
        ];
        rows.extend(known.values.iter().map(|(name, Value { value, unit, origin })| {
            (format!("  {name}"), format!("{value} {unit} ({origin})"))
        }));
        rows
    }
}
