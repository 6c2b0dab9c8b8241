//! Hours in minutes: connections come and go and hear publications all the time, and memory is looked at.
//!
//! In each round a part leaves, as many come, and everyone is published to; memory is read when the round is over, so at
//! the same number of connections each time. The first quarter of the time is left for what a server allocates once.

use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use super::publisher::Pace;
use super::setup::{self, Setup};
use super::slope::{median, slope};
use super::{Rows, mib};
use crate::channels::Channels;
use crate::clock;
use crate::error::Error;
use crate::ledger::Account;
use crate::process::{Memory, Server, to_f64};
use crate::progress::Progress;

/// Memory may grow by this much without a verdict, however little there is: a few pages here and there are no leak.
const LEAST: f64 = 1_048_576.0;

/// Options.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) setup: Setup,
    /// How long
    #[arg(long, value_name = "MINUTES", default_value_t = 5.0)]
    pub(crate) minutes: f64,
    /// Of 100 connections, how many leave in a round, and as many come
    #[arg(long, value_name = "PERCENT", default_value_t = 20)]
    pub(crate) churn: u32,
    /// Publications of a round, to channels of ten connections in turn
    #[arg(long, value_name = "N", default_value_t = 2_000)]
    pub(crate) publications: u32,
    /// Publications a second
    #[arg(long, value_name = "PER_SECOND", default_value_t = 2_000.0)]
    pub(crate) rate: f64,
    /// Of 100 bytes, how many memory may grow by in the time that is looked at; 1 MiB is always allowed
    #[arg(long, value_name = "PERCENT", default_value_t = 5.0)]
    pub(crate) allow: f64,
}

/// What was seen.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Outcome {
    scenario: &'static str,
    target: String,
    connections: u32,
    /// How many left and came in each round.
    churn: u32,
    rounds: u32,
    /// Connections that were opened, in all.
    opened: u64,
    account: Account,
    broken: u64,
    samples: Vec<Sample>,
    pub(crate) trend: Trend,
}

/// Memory at the end of a round.
#[derive(Debug, Clone, Copy, Serialize)]
struct Sample {
    minutes: f64,
    memory: Memory,
}

/// What the samples say, without the first quarter of the time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Trend {
    /// How long the samples cover.
    minutes: f64,
    /// Anonymous memory, the median.
    median_bytes: f64,
    /// By Theil and Sen.
    bytes_per_minute: f64,
    /// What that makes in `minutes`.
    growth_bytes: f64,
    /// How much is allowed.
    allowed_bytes: f64,
    /// Whether it is more than allowed.
    pub(crate) grows: bool,
}

/// Runs it.
pub(crate) fn run(options: &Options, shown: &mut Progress) -> Result<Outcome, Error> {
    setup::rate("--rate", Some(options.rate))?;
    setup::rate("--minutes", Some(options.minutes))?;
    let setup = &options.setup;
    let server = Server::new(&setup.aim.pid)?;
    let channels = Channels::rooms(&setup.channel, 10);
    let asked = setup.connections(2_000);
    let mut held = setup.stand("soak", &channels, asked, shown)?;
    let mut publisher = held.publisher(setup, &channels, shown)?;
    // The same number in each client process, so that who comes takes the place of who left.
    let processes = held.fleet.processes();
    let churn = (asked.saturating_mul(options.churn.min(100)) / 100).div_ceil(processes) * processes;
    let churn = churn.clamp(1, asked);
    let time = Duration::try_from_secs_f64(options.minutes * 60.0)
        .map_err(|_| Error::Asked("--minutes: that is too long".into()))?;
    let (began, mut samples, mut account) = (Instant::now(), Vec::new(), Account::default());
    let (mut opened, mut broken, mut rounds) = (u64::from(asked), 0, 0);
    shown.phase("soaking");
    while began.elapsed() < time {
        held.fleet.keep(asked - churn, &mut Progress::silent())?;
        held.fleet.insist(churn, setup.aim.at_once, &mut Progress::silent())?;
        opened += u64::from(churn);
        let pace = Pace { count: options.publications, rate: Some(options.rate), stop: None };
        let delivery = publisher.run(&mut held.fleet, None, pace, &setup.load, &mut Progress::silent())?;
        account.add(delivery.account);
        broken += delivery.broken;
        rounds += 1;
        clock::pass(Duration::from_millis(200));
        let sample = Sample { minutes: began.elapsed().as_secs_f64() / 60.0, memory: server.memory()? };
        shown.say(&format!(
            "round {rounds}, {:.1} of {} minutes: {}",
            sample.minutes,
            options.minutes,
            mib(sample.memory.anonymous)
        ));
        samples.push(sample);
    }
    let points = samples.iter().map(|sample| (sample.minutes, to_f64(sample.memory.anonymous)));
    let Some(trend) = trend(&points.collect::<Vec<_>>(), options.allow) else {
        return Err(Error::Asked("--minutes: there were too few rounds to see a trend; take more".into()));
    };
    Ok(Outcome {
        scenario: "soak",
        target: held.target.url(),
        connections: asked,
        churn,
        rounds,
        opened,
        account,
        broken,
        samples,
        trend,
    })
}

/// What points of (minutes, bytes) say; none if there are fewer than five to look at.
fn trend(points: &[(f64, f64)], allow: f64) -> Option<Trend> {
    let end = points.last()?.0;
    let looked: Vec<(f64, f64)> = points.iter().copied().filter(|(at, _)| *at >= end / 4.0).collect();
    if looked.len() < 5 {
        return None;
    }
    let minutes = end - looked.first()?.0;
    let median_bytes = median(&mut looked.iter().map(|(_, bytes)| *bytes).collect::<Vec<_>>())?;
    let bytes_per_minute = slope(&looked)?;
    let growth_bytes = bytes_per_minute * minutes;
    let allowed_bytes = (median_bytes * allow / 100.0).max(LEAST);
    let grows = growth_bytes > allowed_bytes;
    Some(Trend { minutes, median_bytes, bytes_per_minute, growth_bytes, allowed_bytes, grows })
}

impl Outcome {
    /// Errors: memory grows.
    pub(crate) fn verdict(&self) -> Result<(), Error> {
        let Trend { growth_bytes, allowed_bytes, minutes, grows, .. } = self.trend;
        if !grows {
            return Ok(());
        }
        Err(Error::Grew { growth_kib: kib(growth_bytes), allowed_kib: kib(allowed_bytes), minutes })
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "what is below zero or beyond all memory is shown as the least or the most"
)]
fn kib(bytes: f64) -> u64 {
    (bytes / 1_024.0) as u64
}

impl Rows for Outcome {
    fn rows(&self) -> Vec<(String, String)> {
        let trend = self.trend;
        let first = self.samples.first().map_or(0, |sample| sample.memory.anonymous);
        let last = self.samples.last().map_or(0, |sample| sample.memory.anonymous);
        let account = self.account;
        vec![
            ("target".into(), self.target.clone()),
            (
                "connections".into(),
                format!("{}, of which {} leave and come in each round", self.connections, self.churn),
            ),
            ("rounds".into(), format!("{}, {} connections opened", self.rounds, self.opened)),
            (
                "deliveries".into(),
                format!("{}, {} lost, {} duplicated", account.received, account.lost, account.duplicated),
            ),
            ("connections that ended by themselves".into(), self.broken.to_string()),
            ("memory (anonymous)".into(), format!("{} first, {} last", mib(first), mib(last))),
            (
                "slope".into(),
                format!(
                    "{:+.0} B a minute: {:+.0} KiB in {:.1} minutes, {:.0} KiB are allowed",
                    trend.bytes_per_minute,
                    trend.growth_bytes / 1_024.0,
                    trend.minutes,
                    trend.allowed_bytes / 1_024.0
                ),
            ),
            ("verdict".into(), if trend.grows { "it grows" } else { "it does not grow" }.into()),
        ]
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failing test is what should happen")]
    use super::*;

    const MIB: f64 = 1_048_576.0;

    fn seen(of: impl Fn(f64) -> f64) -> Trend {
        let points: Vec<_> = (1..=60).map(|step| f64::from(step) / 10.0).map(|at| (at, of(at))).collect();
        trend(&points, 5.0).unwrap()
    }

    #[test]
    fn a_leak_is_seen_and_what_is_allocated_once_is_none() {
        let leak = seen(|at| 50.0 * MIB + at * MIB);
        assert!(leak.grows && (leak.bytes_per_minute - MIB).abs() < 1.0, "{leak:?}");
        assert!(!seen(|at| if at < 1.0 { 10.0 * MIB } else { 50.0 * MIB }).grows);
        assert!(!seen(|at| 50.0 * MIB + (at * 7.0).sin() * 5.0 * MIB).grows);
        assert!(!seen(|at| 50.0 * MIB - at * MIB).grows);
    }

    #[test]
    fn little_growth_is_allowed_and_few_samples_say_nothing() {
        assert!(!seen(|at| 50.0 * MIB + at * 0.3 * MIB).grows);
        assert!(!seen(|at| MIB + at * 0.2 * MIB).grows);
        assert_eq!(trend(&[(1.0, 1.0), (2.0, 2.0)], 5.0), None);
        assert_eq!(trend(&[], 5.0), None);
    }
}
