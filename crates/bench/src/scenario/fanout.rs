//! One channel, many subscribers: what a delivery costs, how long it takes, whether all arrive.

use clap::Args;
use serde::Serialize;

use super::delivery::{Delivery, Load, Publisher};
use super::{Rows, latency_row};
use crate::error::Error;
use crate::fleet::Fleet;
use crate::process::Server;
use crate::progress::Progress;
use crate::target::{Aim, Protocol};

/// Options.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) aim: Aim,
    #[command(flatten)]
    pub(crate) load: Load,
    /// Subscribers
    #[arg(long, short = 'n', value_name = "N", default_value_t = 1_000)]
    pub(crate) connections: u32,
    /// Publications
    #[arg(long, value_name = "N", default_value_t = 200)]
    pub(crate) publications: u32,
    /// Publications a second; without it, a flood
    #[arg(long, value_name = "PER_SECOND")]
    pub(crate) rate: Option<f64>,
}

/// What was seen.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Outcome {
    scenario: &'static str,
    target: String,
    connections: u32,
    /// Publications a second; none for a flood.
    rate: Option<f64>,
    /// Bytes of each one's data.
    size: usize,
    pub(crate) delivery: Delivery,
}

/// Runs it.
pub(crate) fn run(options: &Options, shown: &mut Progress) -> Result<Outcome, Error> {
    let target = options.aim.resolve()?;
    if target.protocol == Protocol::Raw {
        return Err(Error::Asked(
            "--protocol raw: fanout needs a protocol that can subscribe and publish".into(),
        ));
    }
    if options.rate.is_some_and(|rate| !rate.is_finite() || rate <= 0.0) {
        return Err(Error::Asked("--rate: write publications a second, above 0".into()));
    }
    let server = if options.aim.pid.is_empty() { None } else { Some(Server::new(&options.aim.pid)?) };
    let connections = options.connections.max(1);
    shown.phase("connecting");
    let mut fleet = Fleet::start(&target, connections, true)?;
    fleet.connect(connections, options.aim.at_once, shown)?;
    let mut publisher = Publisher::start(&target, &options.load, shown)?;
    if let Some(server) = &server {
        server.calm()?;
    }
    shown.phase("publishing");
    let load = (options.publications, options.rate);
    let delivery = publisher.run(&mut fleet, server.as_ref(), load, &options.load, shown)?;
    Ok(Outcome {
        scenario: "fanout",
        target: target.url,
        connections,
        rate: options.rate,
        size: options.load.size,
        delivery,
    })
}

impl Rows for Outcome {
    fn rows(&self) -> Vec<(String, String)> {
        let delivery = &self.delivery;
        let account = delivery.account;
        let pace = self.rate.map_or_else(|| "a flood".to_owned(), |rate| format!("{rate} a second"));
        let mut rows = vec![
            ("target".into(), self.target.clone()),
            ("subscribers".into(), self.connections.to_string()),
            ("publications".into(), format!("{} of {} B, {pace}", delivery.publications, self.size)),
            (
                "deliveries".into(),
                format!(
                    "{} in {:.2} s, {:.0} a second",
                    account.received, delivery.seconds, delivery.deliveries_per_second
                ),
            ),
            (
                "lost, duplicated, reordered".into(),
                format!("{}, {}, {}", account.lost, account.duplicated, account.reordered),
            ),
            latency_row("publish to received", delivery.latency),
        ];
        if let (Some(cpu), Some(each)) = (delivery.cpu_seconds, delivery.cpu_seconds_per_million) {
            rows.push(("server CPU".into(), format!("{cpu:.2} s, {each:.2} s a million deliveries")));
        }
        let why = delivery.broken_reason.as_deref().map(|why| format!(" ({why})")).unwrap_or_default();
        rows.push(("connections that ended by themselves".into(), format!("{}{why}", delivery.broken)));
        rows
    }
}
