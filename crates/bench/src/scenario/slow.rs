//! A share of readers stalls: what the others notice, what the server keeps for the stalled, and how those end.
//!
//! A stalled reader holds its connection open and reads nothing, not even pings. When the publications are over it reads
//! on, and tells what it got and how it was ended.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::delivery::{Delivery, Load, summed};
use super::publisher::{PATIENCE_MS, Pace};
use super::setup::{self, Setup};
use super::{Rows, latency_row, mib};
use crate::channels::{Channels, Dealt};
use crate::clock;
use crate::error::Error;
use crate::fleet::{Fleet, Kind};
use crate::process::Server;
use crate::progress::Progress;
use crate::wire::Order;

/// Options.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) setup: Setup,
    /// Of 100 connections, how many stall
    #[arg(long, value_name = "PERCENT", default_value_t = 10)]
    pub(crate) stalled: u32,
    /// Publications a second, all in one channel
    #[arg(long, value_name = "PER_SECOND", default_value_t = 40.0)]
    pub(crate) rate: f64,
    /// Seconds that they stall
    #[arg(long, value_name = "SECONDS", default_value_t = 15)]
    pub(crate) seconds: u32,
    /// Seconds that it is measured before, while all read
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    pub(crate) calm: u32,
    /// Bytes of the receive buffer that the kernel keeps for a stalled reader
    #[arg(long, value_name = "BYTES", default_value_t = 4_096)]
    pub(crate) receive_buffer: u32,
}

/// What was seen.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Outcome {
    scenario: &'static str,
    target: String,
    /// Connections that read all the time.
    readers: u32,
    rate: f64,
    size: usize,
    /// To the readers, while all read.
    pub(crate) calm: Delivery,
    /// To the readers, while the others stall.
    pub(crate) others: Delivery,
    /// 99 of 100 took at most so many times what they took while all read.
    pub(crate) p99_ratio: Option<f64>,
    /// Anonymous memory of the server before.
    memory_before: Option<u64>,
    /// The most while they stalled.
    memory_most: Option<u64>,
    pub(crate) stalled: Stalled,
}

/// What became of those who stalled.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Stalled {
    pub(crate) connections: u32,
    /// How many were ended.
    pub(crate) ended: u64,
    /// How, and how often.
    pub(crate) ends: BTreeMap<String, u64>,
    /// Publications that they got in the end.
    pub(crate) received: u64,
    /// Publications that they did not get.
    pub(crate) skipped: u64,
    /// How many of them stand and got the newest publication.
    pub(crate) newest: u64,
}

/// Runs it.
pub(crate) fn run(options: &Options, shown: &mut Progress) -> Result<Outcome, Error> {
    setup::rate("--rate", Some(options.rate))?;
    let setup = &options.setup;
    let all = setup.connections(200);
    let stalling = (all.saturating_mul(options.stalled.min(100)) / 100).clamp(1, all);
    let readers = (all - stalling).max(1);
    let channels = Channels::one(&setup.channel);
    let load = Load { size: Some(setup.load.size.unwrap_or(16_384)), ..setup.load.clone() };
    let mut held = setup.stand("slow", &channels, readers, shown)?;
    let kind = Kind { receive_buffer: Some(options.receive_buffer), ..Kind::hears(&channels) };
    let mut slow = Fleet::start(&held.target, stalling, &kind)?;
    slow.connect(stalling, setup.aim.at_once, shown)?;
    let mut publisher = held.publisher(setup, &channels, shown)?;

    shown.phase("all read");
    let pace = |seconds| Pace::lasting(options.rate, seconds);
    let calm = publisher.run(&mut held.fleet, held.server.as_ref(), pace(options.calm), &load, shown)?;

    shown.phase(&format!("{stalling} of {all} stall"));
    slow.ask(&Order::Begin { run: publisher.next_run() }, |_| ())?;
    slow.ask(&Order::Stall(true), |_| ())?;
    let memory_before = held.server.as_ref().map(Server::memory).transpose()?;
    let done = AtomicBool::new(false);
    let (others, memory_most) = std::thread::scope(|scope| {
        let watched = held.server.clone();
        let most = scope.spawn(|| watched.map(|server| most(&server, &done)));
        let others =
            publisher.run(&mut held.fleet, held.server.as_ref(), pace(options.seconds), &load, shown);
        done.store(true, Ordering::Relaxed);
        (others, most.join().unwrap_or_default())
    });
    let others = others?;

    shown.phase("they read on");
    slow.ask(&Order::Stall(false), |_| ())?;
    let dealt = Dealt { published: others.publications, channels: 1 };
    let reports = slow.ask(&Order::Finish { dealt, patience_ms: PATIENCE_MS }, |_| ())?;
    let theirs = summed(others.publications, reports, None);
    Ok(Outcome {
        scenario: "slow",
        target: held.target.url(),
        readers,
        rate: options.rate,
        size: load.size(),
        p99_ratio: others.p99_to(&calm),
        calm,
        others,
        memory_before: memory_before.map(|memory| memory.anonymous),
        memory_most,
        stalled: Stalled {
            connections: stalling,
            ended: theirs.broken,
            ends: theirs.ends,
            received: theirs.account.received,
            skipped: theirs.account.lost,
            newest: theirs.newest,
        },
    })
}

/// The most anonymous memory until it is done.
fn most(server: &Server, done: &AtomicBool) -> u64 {
    let mut most = 0;
    while !done.load(Ordering::Relaxed) {
        most = server.memory().map_or(most, |memory| most.max(memory.anonymous));
        clock::pass(Duration::from_millis(100));
    }
    most
}

impl Rows for Outcome {
    fn rows(&self) -> Vec<(String, String)> {
        let stalled = &self.stalled;
        let mut rows = vec![
            ("target".into(), self.target.clone()),
            ("connections".into(), format!("{} read, {} stall", self.readers, stalled.connections)),
            (
                "publications".into(),
                format!("{} of {} B, {} a second", self.others.publications, self.size, self.rate),
            ),
            latency_row("publish to received, all read", self.calm.latency),
            latency_row("publish to received, some stall", self.others.latency),
        ];
        if let Some(ratio) = self.p99_ratio {
            rows.push(("p99 while some stall to all read".into(), format!("{ratio:.2}")));
        }
        if let (Some(before), Some(most)) = (self.memory_before, self.memory_most) {
            let text = format!("{} before, {} at most", mib(before), mib(most));
            rows.push(("memory (anonymous)".into(), text));
        }
        let account = self.others.account;
        rows.push((
            "to those who read: lost, duplicated".into(),
            format!("{}, {} of {}", account.lost, account.duplicated, account.received + account.lost),
        ));
        rows.push((
            "stalled, ended by the server".into(),
            format!("{} of {}", stalled.ended, stalled.connections),
        ));
        for (how, count) in &stalled.ends {
            rows.push((format!("  {how}"), count.to_string()));
        }
        rows.push((
            "stalled, when they read on".into(),
            format!(
                "{} received, {} skipped, {} have the newest",
                stalled.received, stalled.skipped, stalled.newest
            ),
        ));
        rows
    }
}
