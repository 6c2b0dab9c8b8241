//! Each connection its own channel, published to in turn: the notification pattern, where nothing is shared.
//!
//! With `--redis` it is what a backend does, through as many nodes as there are targets. Each publication is one delivery.

use clap::Args;
use serde::Serialize;

use super::Rows;
use super::delivery::Delivery;
use super::publisher::Pace;
use super::setup::{self, Setup};
use crate::channels::Channels;
use crate::error::Error;
use crate::process::{Cpu, Server, to_f64};
use crate::progress::Progress;

/// Options.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) setup: Setup,
    /// Publications, dealt to all channels in turn
    #[arg(long, value_name = "N", default_value_t = 200_000)]
    pub(crate) publications: u32,
    /// Publications a second over all channels; without it, a flood
    #[arg(long, value_name = "PER_SECOND")]
    pub(crate) rate: Option<f64>,
    /// Processes of Redis, on this machine, whose CPU is shown too
    #[arg(long, value_name = "PID")]
    pub(crate) redis_pid: Vec<u32>,
}

/// What was seen.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Outcome {
    scenario: &'static str,
    target: String,
    nodes: usize,
    connections: u32,
    /// Publications a second; none for a flood.
    rate: Option<f64>,
    /// Bytes of each one's data.
    size: usize,
    pub(crate) delivery: Delivery,
    /// Processor time of Redis, if its processes were named.
    pub(crate) redis_cpu: Option<Cpu>,
    /// The same in seconds, for a million publications.
    pub(crate) redis_cpu_per_million: Option<f64>,
}

/// Runs it.
pub(crate) fn run(options: &Options, shown: &mut Progress) -> Result<Outcome, Error> {
    setup::rate("--rate", options.rate)?;
    let setup = &options.setup;
    let redis = if options.redis_pid.is_empty() { None } else { Some(Server::new(&options.redis_pid)?) };
    let channels = Channels::own(&setup.channel);
    let mut held = setup.stand("direct", &channels, setup.connections(5_000), shown)?;
    let mut publisher = held.publisher(setup, &channels, shown)?;
    shown.phase("publishing");
    let pace = Pace { count: options.publications, rate: options.rate, stop: None };
    let before = redis.as_ref().map(Server::times).transpose()?;
    let delivery = publisher.run(&mut held.fleet, held.server.as_ref(), pace, &setup.load, shown)?;
    let redis_cpu = match (&redis, before) {
        (Some(redis), Some(before)) => Some(redis.times()? - before),
        _ => None,
    };
    let publications = to_f64(delivery.publications.into()).max(1.0);
    Ok(Outcome {
        scenario: "direct",
        target: held.target.url(),
        nodes: held.target.nodes.len(),
        connections: held.connections,
        rate: options.rate,
        size: setup.load.size(),
        delivery,
        redis_cpu,
        redis_cpu_per_million: redis_cpu.map(|cpu| cpu.all() * 1e6 / publications),
    })
}

impl Rows for Outcome {
    fn rows(&self) -> Vec<(String, String)> {
        let pace = self.rate.map_or_else(|| "a flood".to_owned(), |rate| format!("{rate} a second"));
        let mut rows = vec![
            ("target".into(), self.target.clone()),
            ("connections, each its own channel".into(), self.connections.to_string()),
            ("publications".into(), format!("{} of {} B, {pace}", self.delivery.publications, self.size)),
        ];
        rows.extend(self.delivery.rows());
        if let Some(per_core) = self.delivery.deliveries_per_core {
            rows.push(("deliveries a second a core".into(), format!("{per_core:.0}")));
        }
        if let (Some(cpu), Some(each)) = (self.redis_cpu, self.redis_cpu_per_million) {
            let text = format!("{:.2} s, {each:.2} s a million publications", cpu.all());
            rows.push(("Redis CPU".into(), text));
        }
        rows
    }
}
