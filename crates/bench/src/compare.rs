//! The gateway and the baseline through the same scenarios in one run: medians and their ratios.
//!
//! Absolute figures are those of one machine on one day; ratios of the same run are what can be compared elsewhere.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use crate::channels;
use crate::error::Error;
use crate::progress::Progress;
use crate::scenario::delivery::Load;
use crate::scenario::setup::Setup;
use crate::scenario::{Rows, connect, fanout, idle};
use crate::started::{self, Started};

/// Options.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// The gateway, built for release; by default `tidegate` beside this program: target/release/tidegate
    #[arg(long, value_name = "FILE")]
    pub(crate) gateway: Option<PathBuf>,
    /// Bytes of each publication's data
    #[arg(long, value_name = "BYTES", default_value_t = 128)]
    pub(crate) size: usize,
    /// In a flood: publications that the publisher may be ahead of the deliveries
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub(crate) window: u32,
    /// How often all is done; odd numbers have a median that was measured
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub(crate) repetitions: u32,
    /// Connections of idle, connect and the flood
    #[arg(long, short = 'n', value_name = "N", default_value_t = 5_000)]
    pub(crate) connections: u32,
    /// Seconds in which heartbeats are watched; 0 leaves it out
    #[arg(long, value_name = "SECONDS", default_value_t = 25)]
    pub(crate) watch: u64,
    /// Publications of the burst; 0 leaves it out
    #[arg(long, value_name = "N", default_value_t = 2_000)]
    pub(crate) burst: u32,
    /// Seconds that a server has to give memory back
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub(crate) settle: u64,
    /// Publications of the flood
    #[arg(long, value_name = "N", default_value_t = 400)]
    pub(crate) flood: u32,
    /// Subscribers when the pace is given
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    pub(crate) paced_connections: u32,
    /// Publications when the pace is given
    #[arg(long, value_name = "N", default_value_t = 200)]
    pub(crate) paced: u32,
    /// The pace, in publications a second
    #[arg(long, value_name = "PER_SECOND", default_value_t = 20.0)]
    pub(crate) rate: f64,
}

/// What was seen.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Outcome {
    scenario: &'static str,
    repetitions: u32,
    figures: Vec<Figure>,
}

/// One figure of both servers.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Figure {
    name: &'static str,
    unit: &'static str,
    gateway: f64,
    baseline: f64,
    /// Gateway to baseline; none where the baseline's figure is nothing.
    ratio: Option<f64>,
    /// All that was measured, in order.
    gateway_all: Vec<f64>,
    baseline_all: Vec<f64>,
}

/// (name, unit) in the order of the table.
const FIGURES: [(&str, &str); 13] = [
    ("a connection, idle", "B"),
    ("a connection, after the burst", "B"),
    ("left by a former connection", "B"),
    ("heartbeats", "% of a processor"),
    ("connect, CPU each", "ms"),
    ("connect, rate", "/s"),
    ("paced, CPU a million deliveries", "s"),
    ("paced, p50", "ms"),
    ("paced, p99", "ms"),
    ("flood, CPU a million deliveries", "s"),
    ("flood, rate", "deliveries/s"),
    ("lost or duplicated, of everything", "deliveries"),
    ("connections that ended by themselves", ""),
];

/// Runs it.
pub(crate) fn run(options: &Options, shown: &mut Progress) -> Result<Outcome, Error> {
    let program = started::gateway_program(options.gateway.as_deref())?;
    let mut seen: BTreeMap<(&str, &str), Vec<f64>> = BTreeMap::new();
    for repetition in 1..=options.repetitions.max(1) {
        for who in ["gateway", "baseline"] {
            let start =
                || if who == "gateway" { started::gateway(&program, &[]) } else { started::baseline(&[]) };
            shown.phase(&format!("== repetition {repetition} of {}: {who}", options.repetitions));
            for (name, value) in once(options, start, shown)? {
                seen.entry((who, name)).or_default().push(value);
            }
        }
    }
    let figures = FIGURES.iter().filter_map(|&(name, unit)| {
        let gateway_all = seen.remove(&("gateway", name))?;
        let baseline_all = seen.remove(&("baseline", name))?;
        let (gateway, baseline) = (median(&gateway_all), median(&baseline_all));
        let ratio = (baseline > 0.0).then(|| gateway / baseline);
        Some(Figure { name, unit, gateway, baseline, ratio, gateway_all, baseline_all })
    });
    Ok(Outcome { scenario: "compare", repetitions: options.repetitions, figures: figures.collect() })
}

/// All scenarios once, each on a server that was just started.
fn once(
    options: &Options,
    start: impl Fn() -> Result<Started, Error>,
    shown: &mut Progress,
) -> Result<Vec<(&'static str, f64)>, Error> {
    let connections = options.connections;
    // The baseline has no server API: both are published to by a connection.
    let load = Load::by_socket(options.size, options.window);
    let setup =
        |aim, connections| Setup { aim, load: load.clone(), connections, channel: channels::NAME.to_owned() };
    let mut figures = Vec::new();
    let (mut wrong, mut broken) = (0, 0);

    let server = start()?;
    let idle = idle::run(
        &idle::Options {
            setup: setup(server.aim(), connections),
            watch: options.watch,
            burst: options.burst,
            settle: options.settle,
        },
        shown,
    )?;
    drop(server);
    figures.push(("a connection, idle", idle.bytes_per_connection));
    figures.push(("left by a former connection", idle.left.bytes_per_former_connection));
    figures.extend(idle.heartbeats.map(|it| ("heartbeats", it.cpu_percent)));
    if let Some(burst) = &idle.burst {
        figures.push(("a connection, after the burst", burst.bytes_per_connection));
        wrong += burst.delivery.account.lost + burst.delivery.account.duplicated;
    }
    broken += idle.broken;

    let server = start()?;
    let connect = connect::run(&connect::Options { aim: server.aim(), connections }, shown)?;
    drop(server);
    figures.push(("connect, rate", connect.handshakes_per_second));
    figures.extend(connect.cpu_ms_each.map(|each| ("connect, CPU each", each)));

    let paced = (options.paced_connections, options.paced, Some(options.rate));
    for (connections, publications, rate) in [paced, (connections, options.flood, None)] {
        let server = start()?;
        let setup = setup(server.aim(), connections);
        let options = fanout::Options { setup, publications, rate };
        let delivery = fanout::run(&options, shown)?.delivery;
        wrong += delivery.account.lost + delivery.account.duplicated;
        broken += delivery.broken;
        let cpu = delivery.cpu_seconds_per_million;
        if rate.is_some() {
            figures.extend(cpu.map(|cpu| ("paced, CPU a million deliveries", cpu)));
            figures.extend(delivery.latency.map(|it| ("paced, p50", it.p50_ms)));
            figures.extend(delivery.latency.map(|it| ("paced, p99", it.p99_ms)));
        } else {
            figures.extend(cpu.map(|cpu| ("flood, CPU a million deliveries", cpu)));
            figures.push(("flood, rate", delivery.deliveries_per_second));
        }
    }
    figures.push(("lost or duplicated, of everything", crate::process::to_f64(wrong)));
    figures.push(("connections that ended by themselves", crate::process::to_f64(broken)));
    Ok(figures)
}

/// The middle one; of an even number the mean of the two in the middle.
fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match (values.get(middle), values.len() % 2) {
        (Some(value), 1) => *value,
        (Some(value), _) => f64::midpoint(values[middle - 1], *value),
        (None, _) => 0.0,
    }
}

/// As many digits as mean something.
fn short(value: f64) -> String {
    if value.abs() >= 100.0 || value == 0.0 { format!("{value:.0}") } else { format!("{value:.3}") }
}

impl Rows for Outcome {
    fn rows(&self) -> Vec<(String, String)> {
        let head = format!("{:>12}  {:>12}  {:>8}", "gateway", "baseline", "ratio");
        let mut rows = vec![(format!("medians of {}", self.repetitions), head)];
        for figure in &self.figures {
            let name = if figure.unit.is_empty() {
                figure.name.to_owned()
            } else {
                format!("{} ({})", figure.name, figure.unit)
            };
            let ratio = figure.ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.3}"));
            let (gateway, baseline) = (short(figure.gateway), short(figure.baseline));
            rows.push((name, format!("{gateway:>12}  {baseline:>12}  {ratio:>8}")));
        }
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_in_the_middle() {
        for (values, expected) in [
            (&[3.0, 1.0, 2.0][..], 2.0),
            (&[4.0, 1.0], 2.5),
            (&[7.0], 7.0),
            (&[], 0.0),
            (&[-1.0, 9.0, 5.0], 5.0),
        ] {
            assert!((median(values) - expected).abs() < 1e-9, "{values:?}");
        }
    }
}
