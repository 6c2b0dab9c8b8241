//! Everyone reconnects at once, as after a lost node: what those notice who stayed, and how long it takes.
//!
//! Those who stay hear publications at a pace, first while all is calm, then while thousands of others lose their
//! connections and come back. Who is refused comes again when it was told to, as SDKs do.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::delivery::Delivery;
use super::publisher::Pace;
use super::setup::{self, Setup};
use super::{Rows, latency_row, merged};
use crate::channels::Channels;
use crate::clock;
use crate::error::Error;
use crate::fleet::{Connected, Fleet, Kind};
use crate::latency::Summary;
use crate::progress::Progress;

/// Options.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) setup: Setup,
    /// Connections that stay; -n (19000) are those that reconnect
    #[arg(long, value_name = "N", default_value_t = 500)]
    pub(crate) established: u32,
    /// Publications a second to those who stay, each of which has its own channel
    #[arg(long, value_name = "PER_SECOND", default_value_t = 2_000.0)]
    pub(crate) rate: f64,
    /// Seconds that it is measured while all is calm
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    pub(crate) calm: u32,
    /// How far those who reconnect step back for the server and those who stay (0 to 19): they share the machine
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) nice: i32,
}

/// What was seen.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Outcome {
    scenario: &'static str,
    target: String,
    tls: bool,
    established: u32,
    /// How many lost their connection and came back.
    reconnected: u32,
    rate: f64,
    /// To those who stay, before.
    pub(crate) calm: Delivery,
    /// To those who stay, from just before the others lose their connections until all are back.
    pub(crate) storm: Delivery,
    /// 99 of 100 in the storm took at most so many times what they took in the calm.
    pub(crate) p99_ratio: Option<f64>,
    /// Seconds from the loss until all were back.
    pub(crate) back_seconds: f64,
    /// How long each was away.
    away: Option<Summary>,
    /// How many of them resumed a TLS session.
    resumed: u64,
    /// Refusals by status; 0 are those that were not said in HTTP.
    pub(crate) refusals: BTreeMap<u16, u64>,
}

/// Runs it.
pub(crate) fn run(options: &Options, shown: &mut Progress) -> Result<Outcome, Error> {
    setup::rate("--rate", Some(options.rate))?;
    let setup = &options.setup;
    let channels = Channels::own(&setup.channel);
    let mut held = setup.stand("storm", &channels, options.established.max(1), shown)?;
    let others = setup.connections(19_000);
    // In the same namespace, and not in the channels of those who stay.
    let theirs = Channels::own(&format!("{}:storm", setup.channel));
    let kind = Kind { nice: options.nice.clamp(0, 19), ..Kind::hears(&theirs) };
    let mut storm = Fleet::start(&held.target, others, &kind)?;
    storm.collect(others, setup.aim.at_once, shown)?;
    let mut publisher = held.publisher(setup, &channels, shown)?;

    shown.phase("calm");
    let mut pace = Pace::lasting(options.rate, options.calm);
    let calm = publisher.run(&mut held.fleet, held.server.as_ref(), pace, &setup.load, shown)?;

    shown.phase("storm");
    let stop = AtomicBool::new(false);
    pace = Pace { count: u32::MAX, stop: Some(&stop), ..pace };
    let (during, connected) = std::thread::scope(|scope| {
        let (fleet, server) = (&mut held.fleet, held.server.as_ref());
        let publisher = &mut publisher;
        let traffic =
            scope.spawn(move || publisher.run(fleet, server, pace, &setup.load, &mut Progress::silent()));
        let connected = everyone(&mut storm, others, shown);
        stop.store(true, Ordering::Relaxed);
        let during = traffic.join().unwrap_or_else(|_| Err(Error::Asked("the publisher panicked".into())));
        (during, connected)
    });
    let (during, connected) = (during?, connected?);
    Ok(Outcome {
        scenario: "storm",
        target: held.target.url(),
        tls: held.target.ca.is_some(),
        established: held.connections,
        reconnected: others,
        rate: options.rate,
        p99_ratio: during.p99_to(&calm),
        calm,
        storm: during,
        back_seconds: connected.seconds,
        away: merged(&connected.latencies),
        resumed: connected.all.resumed,
        refusals: connected.all.refusals,
    })
}

/// All lose their connections, and all come back at once.
fn everyone(storm: &mut Fleet, connections: u32, shown: &mut Progress) -> Result<Connected, Error> {
    // The first publications are under way.
    clock::pass(Duration::from_millis(50));
    storm.lose(shown)?;
    storm.insist(connections, u32::MAX, shown)
}

impl Rows for Outcome {
    fn rows(&self) -> Vec<(String, String)> {
        let refusals: Vec<String> = self
            .refusals
            .iter()
            .map(|(status, count)| match status {
                0 => format!("{count} without an answer"),
                status => format!("{count} by {status}"),
            })
            .collect();
        let refusals = if refusals.is_empty() { "none".to_owned() } else { refusals.join(", ") };
        let mut rows = vec![
            ("target".into(), self.target.clone()),
            (
                "connections that stay".into(),
                format!("{}, {} publications a second", self.established, self.rate),
            ),
            (
                "connections that reconnect".into(),
                format!("{}, all back in {:.2} s", self.reconnected, self.back_seconds),
            ),
            latency_row("away", self.away),
            ("refusals".into(), refusals),
        ];
        if self.tls {
            rows.push(("TLS sessions resumed".into(), format!("{} of {}", self.resumed, self.reconnected)));
        }
        rows.push(latency_row("publish to received, calm", self.calm.latency));
        rows.push(latency_row("publish to received, storm", self.storm.latency));
        if let Some(ratio) = self.p99_ratio {
            rows.push(("p99 in the storm to calm".into(), format!("{ratio:.2}")));
        }
        if let Some(cpu) = self.storm.cpu {
            let text = format!("{:.2} s ({:.2} user, {:.2} system)", cpu.all(), cpu.user, cpu.system);
            rows.push(("server CPU in the storm".into(), text));
        }
        let account = self.storm.account;
        rows.push((
            "lost, duplicated in the storm".into(),
            format!("{}, {} of {}", account.lost, account.duplicated, self.storm.publications),
        ));
        let why = self.storm.broken_reason.as_deref().map(|why| format!(" ({why})")).unwrap_or_default();
        let broken = self.calm.broken + self.storm.broken;
        rows.push(("of those who stay, ended by themselves".into(), format!("{broken}{why}")));
        rows
    }
}
