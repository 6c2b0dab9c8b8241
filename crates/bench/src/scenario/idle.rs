//! What a held connection costs: memory, its heartbeats, and what is left of it after a burst and after it is gone.

use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::delivery::Delivery;
use super::publisher::{Pace, Publisher};
use super::setup::Setup;
use super::{Rows, mib};
use crate::channels::Channels;
use crate::clock;
use crate::error::Error;
use crate::fleet::{Fleet, Kind};
use crate::kernel::Kernel;
use crate::process::{Memory, Server, to_f64};
use crate::progress::Progress;
use crate::target::Protocol;

/// Options.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) setup: Setup,
    /// Seconds in which nothing but heartbeats is watched; 0 leaves it out
    #[arg(long, value_name = "SECONDS", default_value_t = 50)]
    pub(crate) watch: u64,
    /// Publications of the burst that everyone gets; 0 leaves it out
    #[arg(long, value_name = "N", default_value_t = 2_000)]
    pub(crate) burst: u32,
    /// Seconds that the server has to give memory back, after the burst and after most have left
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub(crate) settle: u64,
}

/// What was seen.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Outcome {
    scenario: &'static str,
    target: String,
    connections: u32,
    connect_seconds: f64,
    /// Before the first connection.
    before: Memory,
    /// All connected and subscribed, and calm.
    idle: Memory,
    /// Whether it was calm whenever memory was read. If not, the figures are those of a busy server.
    calm: bool,
    /// Anonymous memory above `before`, a connection.
    pub(crate) bytes_per_connection: f64,
    /// Resident memory above `before`, a connection.
    rss_bytes_per_connection: f64,
    /// The same with what it shares divided among those who share it.
    pss_bytes_per_connection: f64,
    /// Memory of the kernel above what it was, a connection: both ends of it, and all else on the machine.
    kernel_bytes_per_connection: f64,
    /// None if it was left out.
    pub(crate) heartbeats: Option<Heartbeats>,
    /// None if it was left out.
    pub(crate) burst: Option<Burst>,
    pub(crate) left: Left,
    /// Connections that ended without being asked to, in all of it.
    pub(crate) broken: u64,
}

/// Processor time while nothing is said but pings and pongs.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Heartbeats {
    seconds: u64,
    cpu_seconds: f64,
    /// Of one processor.
    pub(crate) cpu_percent: f64,
}

/// After everyone got a number of publications.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Burst {
    pub(crate) delivery: Delivery,
    settle_seconds: u64,
    memory: Memory,
    /// Anonymous memory above `before`, a connection.
    pub(crate) bytes_per_connection: f64,
}

/// After 95 of 100 have left.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Left {
    remaining: u32,
    settle_seconds: u64,
    memory: Memory,
    /// Anonymous memory above `before`, divided by all connections there were: what each leaves behind, with the
    /// share of those that stay.
    pub(crate) bytes_per_former_connection: f64,
}

/// Runs it.
pub(crate) fn run(options: &Options, shown: &mut Progress) -> Result<Outcome, Error> {
    let Options { setup, .. } = options;
    let target = setup.aim.resolve()?;
    let server = Server::new(&setup.aim.pid)?;
    let connections = setup.connections(5_000);
    let channels = Channels::one(&setup.channel);
    let mut calm = true;
    let mut measured = |server: &Server| -> Result<Memory, Error> {
        calm &= server.calm()?;
        server.memory()
    };
    shown.phase("waiting until the server is calm");
    let before = measured(&server)?;
    let kernel = Kernel::now()?;
    let each =
        |memory: Memory| (to_f64(memory.anonymous) - to_f64(before.anonymous)) / f64::from(connections);

    shown.phase("connecting");
    let mut fleet = Fleet::start(&target, connections, &Kind::hears(&channels))?;
    let connected = fleet.connect(connections, setup.aim.at_once, shown)?;
    shown.phase("connected; waiting until the server is calm");
    let idle = measured(&server)?;
    let kernel = Kernel::now()?.above(kernel);

    let heartbeats = if options.watch > 0 {
        shown.phase(&format!("watching heartbeats for {} s", options.watch));
        let from = server.cpu()?;
        clock::pass(Duration::from_secs(options.watch));
        let cpu_seconds = server.cpu()? - from;
        let cpu_percent = 100.0 * cpu_seconds / to_f64(options.watch);
        Some(Heartbeats { seconds: options.watch, cpu_seconds, cpu_percent })
    } else {
        None
    };

    let burst = if options.burst > 0 && target.protocol != Protocol::Raw {
        shown.phase("a burst");
        let mut publisher = Publisher::start(&target, &setup.load, &channels, connections, shown)?;
        let pace = Pace { count: options.burst, rate: None, stop: None };
        let delivery = publisher.run(&mut fleet, Some(&server), pace, &setup.load, shown)?;
        drop(publisher);
        shown.phase("after the burst; waiting until the server is calm");
        clock::pass(Duration::from_secs(options.settle));
        let memory = measured(&server)?;
        let bytes_per_connection = each(memory);
        Some(Burst { delivery, settle_seconds: options.settle, memory, bytes_per_connection })
    } else {
        None
    };

    let remaining = connections / 20;
    shown.phase("leaving");
    fleet.keep(remaining, shown)?;
    clock::pass(Duration::from_secs(options.settle));
    let memory = measured(&server)?;
    let left =
        Left { remaining, settle_seconds: options.settle, memory, bytes_per_former_connection: each(memory) };
    Ok(Outcome {
        scenario: "idle",
        target: target.url(),
        connections,
        connect_seconds: connected.seconds,
        before,
        idle,
        bytes_per_connection: each(idle),
        rss_bytes_per_connection: (to_f64(idle.rss) - to_f64(before.rss)) / f64::from(connections),
        pss_bytes_per_connection: (to_f64(idle.pss) - to_f64(before.pss)) / f64::from(connections),
        kernel_bytes_per_connection: to_f64(kernel) / f64::from(connections),
        heartbeats,
        burst,
        left,
        broken: fleet.broken(),
        calm,
    })
}

impl Rows for Outcome {
    fn rows(&self) -> Vec<(String, String)> {
        let mut rows = vec![
            ("target".into(), self.target.clone()),
            ("connections".into(), format!("{} in {:.1} s", self.connections, self.connect_seconds)),
            ("memory before (anonymous)".into(), mib(self.before.anonymous)),
            ("memory idle (anonymous)".into(), mib(self.idle.anonymous)),
            ("a connection, idle".into(), format!("{:.0} B", self.bytes_per_connection)),
            ("a connection, idle, resident".into(), format!("{:.0} B", self.rss_bytes_per_connection)),
            ("a connection, kernel, both ends".into(), format!("{:.0} B", self.kernel_bytes_per_connection)),
        ];
        if let Some(heartbeats) = &self.heartbeats {
            let text =
                format!("{:.2} % of a processor over {} s", heartbeats.cpu_percent, heartbeats.seconds);
            rows.push(("heartbeats".into(), text));
        }
        if let Some(burst) = &self.burst {
            let delivery = &burst.delivery;
            let text = format!(
                "{} publications, {} lost, {} duplicated",
                delivery.publications, delivery.account.lost, delivery.account.duplicated
            );
            rows.push(("burst".into(), text));
            rows.push((
                "a connection, after the burst".into(),
                format!("{:.0} B", burst.bytes_per_connection),
            ));
        }
        let left = &self.left;
        rows.push((
            format!("memory when {} are left (anonymous)", left.remaining),
            format!(
                "{}, {:.0} B a former connection",
                mib(left.memory.anonymous),
                left.bytes_per_former_connection
            ),
        ));
        rows.push(("connections that ended by themselves".into(), self.broken.to_string()));
        if !self.calm {
            rows.push(("NOTE".into(), "the server was never calm: memory is that of a busy one".into()));
        }
        rows
    }
}
