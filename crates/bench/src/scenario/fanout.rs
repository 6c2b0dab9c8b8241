//! One channel, many subscribers: what a delivery costs, how long it takes, whether all arrive.

use clap::Args;
use serde::Serialize;

use super::Rows;
use super::delivery::Delivery;
use super::publisher::Pace;
use super::setup::{self, Setup};
use crate::channels::Channels;
use crate::error::Error;
use crate::progress::Progress;

/// Options.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) setup: Setup,
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
    setup::rate("--rate", options.rate)?;
    let setup = &options.setup;
    let channels = Channels::one(&setup.channel);
    let mut held = setup.stand("fanout", &channels, setup.connections(1_000), shown)?;
    let mut publisher = held.publisher(setup, &channels, shown)?;
    shown.phase("publishing");
    let pace = Pace { count: options.publications, rate: options.rate, stop: None };
    let delivery = publisher.run(&mut held.fleet, held.server.as_ref(), pace, &setup.load, shown)?;
    Ok(Outcome {
        scenario: "fanout",
        target: held.target.url(),
        connections: held.connections,
        rate: options.rate,
        size: setup.load.size(),
        delivery,
    })
}

impl Rows for Outcome {
    fn rows(&self) -> Vec<(String, String)> {
        let pace = self.rate.map_or_else(|| "a flood".to_owned(), |rate| format!("{rate} a second"));
        let mut rows = vec![
            ("target".into(), self.target.clone()),
            ("subscribers".into(), self.connections.to_string()),
            ("publications".into(), format!("{} of {} B, {pace}", self.delivery.publications, self.size)),
        ];
        rows.extend(self.delivery.rows());
        rows
    }
}
