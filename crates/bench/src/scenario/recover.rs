//! Everyone was away and comes back at once to channels with history: whether each gets exactly what it missed, how long
//! that takes, and how often Redis is asked for it.
//!
//! All connect and note where their channels stand, all are lost, publications are made and kept, all come back and ask
//! to go on from where they were. Redis counts its own commands.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::delivery::{Delivery, summed};
use super::publisher::PATIENCE_MS;
use super::setup::Setup;
use super::{Rows, latency_row, merged};
use crate::channels::{Channels, Dealt};
use crate::clock;
use crate::error::Error;
use crate::latency::Summary;
use crate::process::Server;
use crate::progress::Progress;
use crate::resp::Redis;
use crate::speech::{self, Stamp};
use crate::target::Protocol;
use crate::wire::Order;

/// How many publications are written before Redis is waited for.
const BATCH: u32 = 512;

/// Options.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) setup: Setup,
    /// How many are in each channel, -n (19000) in all
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) room: u32,
    /// Publications that each misses
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) missed: u32,
}

/// What was seen.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Outcome {
    scenario: &'static str,
    target: String,
    connections: u32,
    channels: u32,
    /// Publications that each missed.
    missed: u32,
    /// What came of them.
    pub(crate) delivery: Delivery,
    /// Seconds from the first connect until all were back and had everything.
    pub(crate) back_seconds: f64,
    /// How long each took from its connect until it had everything.
    back: Option<Summary>,
    /// Refusals by status, of those who came again.
    refusals: BTreeMap<u16, u64>,
    /// What Redis ran meanwhile, by command; of scripts each command counts, and the script.
    pub(crate) redis_commands: BTreeMap<String, u64>,
}

/// Runs it.
pub(crate) fn run(options: &Options, shown: &mut Progress) -> Result<Outcome, Error> {
    let setup = &options.setup;
    let needs = |what: &str| Error::Asked(format!("recover: {what}"));
    let Some(mut redis) = Redis::new(&setup.load.redis)? else {
        return Err(needs(
            "give --redis, through which publications are made and whose commands are counted",
        ));
    };
    if setup.aim.resolve()?.protocol != Protocol::CentrifugeJson {
        return Err(needs("only --protocol centrifuge-json"));
    }
    let channels = Channels::rooms(&setup.channel, options.room);
    let mut held = setup.stand("recover", &channels, setup.connections(19_000), shown)?;
    let count = channels.count(held.connections);
    let Some(published) = options.missed.checked_mul(count) else {
        return Err(needs("--missed is too much for so many channels"));
    };

    shown.phase("all are away; publishing");
    held.fleet.lose(shown)?;
    let dealt = Dealt { published, channels: count };
    for k in 0..published {
        let (channel, number) = dealt.place(k);
        let stamp = Stamp { run: 1, number, at: clock::now(), channel };
        redis.publish_kept(&channels.name(channel), &speech::data(stamp, setup.load.size()));
        if k % BATCH == BATCH - 1 {
            redis.flush()?;
            redis.drain(Duration::from_secs(30))?;
        }
    }
    redis.flush()?;
    redis.drain(Duration::from_secs(30))?;
    held.calm(shown)?;

    shown.phase("all come back");
    held.fleet.ask(&Order::Begin { run: 1 }, |_| ())?;
    let commands = setup.load.redis.commands()?;
    let cpu = held.server.as_ref().map(Server::times).transpose()?;
    let connected = held.fleet.insist(held.connections, u32::MAX, shown)?;
    let reports = held.fleet.ask(&Order::Finish { dealt, patience_ms: PATIENCE_MS }, |_| ())?;
    let cpu = match (&held.server, cpu) {
        (Some(server), Some(before)) => Some(server.times()? - before),
        _ => None,
    };
    let mut ran = setup.load.redis.commands()?;
    ran.retain(|name, calls| {
        *calls -= commands.get(name).copied().unwrap_or(0).min(*calls);
        *calls > 0
    });
    Ok(Outcome {
        scenario: "recover",
        target: held.target.url(),
        connections: held.connections,
        channels: count,
        missed: options.missed,
        delivery: summed(published, reports, cpu),
        back_seconds: connected.seconds,
        back: merged(&connected.latencies),
        refusals: connected.all.refusals,
        redis_commands: ran,
    })
}

impl Outcome {
    /// Errors: somebody did not get exactly what it missed.
    pub(crate) fn verdict(&self) -> Result<(), Error> {
        let account = self.delivery.account;
        if account.lost + account.duplicated + account.reordered + account.strayed == 0 {
            return Ok(());
        }
        Err(Error::Asked("not everybody got exactly what was missed".into()))
    }
}

impl Rows for Outcome {
    fn rows(&self) -> Vec<(String, String)> {
        let account = self.delivery.account;
        let commands: Vec<_> =
            self.redis_commands.iter().map(|(name, calls)| format!("{name} {calls}")).collect();
        let mut rows = vec![
            ("target".into(), self.target.clone()),
            (
                "connections".into(),
                format!("{} in {} channels, each missed {}", self.connections, self.channels, self.missed),
            ),
            ("all back with everything in".into(), format!("{:.2} s", self.back_seconds)),
            latency_row("each, from its connect", self.back),
            (
                "received, lost, duplicated, reordered".into(),
                format!(
                    "{}, {}, {}, {}",
                    account.received, account.lost, account.duplicated, account.reordered
                ),
            ),
            ("commands of Redis meanwhile".into(), commands.join(", ")),
        ];
        if let Some(cpu) = self.delivery.cpu {
            let text = format!("{:.2} s ({:.2} user, {:.2} system)", cpu.all(), cpu.user, cpu.system);
            rows.push(("server CPU".into(), text));
        }
        rows
    }
}
