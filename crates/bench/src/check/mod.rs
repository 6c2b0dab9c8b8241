//! Whether anything got slower: figures that hold still on a busy machine, against the committed ones.
//!
//! Instructions are counted by callgrind, allocations by an allocator that counts, bytes a connection by the kernel: none
//! of them depends on what else the machine does. Times do; they are for `suite`, not for this.
//!
//! What is counted is in `work`, a program of its own; how in `counted` and `held`; the committed values in `committed`.

mod committed;
mod counted;
mod held;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;

use clap::Args;

use crate::error::Error;
use crate::progress::Progress;
use committed::{Committed, Compiler, Entry, Verdict};

/// Options.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// The committed values
    #[arg(long, value_name = "FILE", default_value = "crates/bench/check.json")]
    pub(crate) committed: PathBuf,
    /// Take what is measured now as the committed values
    #[arg(long)]
    pub(crate) update: bool,
    /// Only the figures whose name begins so
    #[arg(long, value_name = "PREFIX", default_value = "")]
    pub(crate) only: String,
    /// The gateway, built for release; by default `tidegate` beside this program
    #[arg(long, value_name = "FILE")]
    pub(crate) gateway: Option<PathBuf>,
}

/// How a figure is got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Instructions of one unit of an operation; so many rounds, and then twice as many.
    Instructions(&'static str, u32),
    /// Allocations and reallocations of one unit, likewise.
    Allocations(&'static str, u32),
    /// Heap that a unit leaves behind, of so many.
    Heap(&'static str, u32),
    /// Anonymous bytes of a real node for each of so many idle connections with a subscription.
    Connection(u32),
}

/// A figure that is checked.
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    /// Of what.
    pub(crate) unit: &'static str,
    pub(crate) kind: Kind,
}

/// A figure of instructions.
const fn instructions(
    name: &'static str,
    unit: &'static str,
    operation: &'static str,
    rounds: u32,
) -> Figure {
    Figure { name, unit, kind: Kind::Instructions(operation, rounds) }
}

/// A figure of allocations.
const fn allocations(name: &'static str, unit: &'static str, operation: &'static str, rounds: u32) -> Figure {
    Figure { name, unit, kind: Kind::Allocations(operation, rounds) }
}

/// All figures. Rounds are so many that an operation has ten million instructions: what varies beside it is far less.
const FIGURES: [Figure; 18] = [
    instructions("encode JSON", "instructions a publication", "encode-json", 8_000),
    instructions("encode Protobuf", "instructions a publication", "encode-protobuf", 8_000),
    instructions("parse JSON", "instructions a publish command", "parse-json", 4_000),
    instructions("parse Protobuf", "instructions a publish command", "parse-protobuf", 8_000),
    instructions("fan-out, one publication", "instructions a delivery", "fanout-one", 20),
    allocations("fan-out, one publication, heap", "allocations a delivery", "fanout-one", 20),
    instructions("fan-out, a run of 16", "instructions a delivery", "fanout-run", 4),
    allocations("fan-out, a run of 16, heap", "allocations a delivery", "fanout-run", 4),
    instructions("fan-out, newest values, all behind", "instructions a delivery", "fanout-latest", 20),
    instructions("direct, a channel each", "instructions a delivery", "direct", 5),
    allocations("direct, a channel each, heap", "allocations a delivery", "direct", 5),
    instructions("publish, command to reply", "instructions a command", "publish", 2_000),
    instructions("connect and subscribe", "instructions a session", "connect", 1_000),
    instructions("heartbeat", "instructions a ping and its pong", "heartbeat", 10),
    instructions("sweep, nobody due", "instructions a sweep of 10,000 sessions", "sweep", 500),
    Figure { name: "session, heap in the hub", unit: "bytes a session", kind: Kind::Heap("hold", 10_000) },
    allocations("connect and subscribe, heap", "allocations a session", "connect", 1_000),
    Figure {
        name: "connection, idle",
        unit: "anonymous bytes of a node, a connection",
        kind: Kind::Connection(5_000),
    },
];

/// Runs it: measures, prints the table, and fails if a figure is worse than it may be.
pub(crate) fn run(options: &Options, shown: &mut Progress) -> Result<(), Error> {
    let compiler = Compiler::here()?;
    let mut committed = Committed::read(&options.committed, options.update)?;
    let mut measured = Vec::new();
    let mut work = counted::Work::default();
    for figure in FIGURES.iter().filter(|figure| figure.name.starts_with(&options.only)) {
        shown.phase(&format!("counting: {}", figure.name));
        let value = match figure.kind {
            Kind::Instructions(operation, rounds) => work.instructions(operation, rounds)?,
            Kind::Allocations(operation, rounds) => work.allocations(operation, rounds)?,
            Kind::Heap(operation, rounds) => work.held(operation, rounds)?,
            Kind::Connection(connections) => {
                held::bytes_per_connection(options.gateway.as_deref(), connections)?
            }
        };
        measured.push((figure, value));
    }
    shown.phase("");

    let other = committed.compiler.as_ref().filter(|theirs| **theirs != compiler);
    let mut text = String::new();
    if let Some(theirs) = other.filter(|_| !options.update) {
        let _ = writeln!(
            text,
            "The committed values were made with {theirs}; this is {compiler}. Other code comes out of another \
             compiler, so instructions may differ {} times as much as with the same one.",
            committed::OTHER_COMPILER
        );
    }
    let (mut worse, mut better) = (Vec::new(), false);
    for &(figure, value) in &measured {
        let was = committed.figures.get(figure.name);
        let (line, verdict) = row(figure, value, was, other.is_some());
        better |= verdict == Verdict::Better;
        let _ = writeln!(text, "{line}");
        if verdict == Verdict::Worse {
            worse.push(line);
        }
    }
    print(&text)?;

    if options.update {
        for (figure, value) in measured {
            committed.set(figure, value);
        }
        committed.figures.retain(|name, _| FIGURES.iter().any(|figure| figure.name == name));
        committed.compiler = Some(compiler);
        committed.write(&options.committed)?;
        return print(&format!("written to {}\n", options.committed.display()));
    }
    if better {
        print(
            "Some figures are better than committed: make bench-check ARGS=--update keeps what was gained.\n",
        )?;
    }
    if worse.is_empty() { Ok(()) } else { Err(Error::Slower { figures: worse }) }
}

/// A line of the table. A figure that is not committed yet is as bad as a worse one.
fn row(figure: &Figure, value: f64, was: Option<&Entry>, other_compiler: bool) -> (String, Verdict) {
    let width = FIGURES.iter().map(|figure| figure.name.len()).max().unwrap_or(0);
    let (name, unit) = (figure.name, figure.unit);
    let Some(was) = was else {
        return (format!("{name:<width$}  is {value:>10.3}  NEW  {unit}"), Verdict::Worse);
    };
    let tolerance = was.tolerance(figure.kind, other_compiler);
    let verdict = was.judge(value, tolerance);
    let change = 100.0 * (value - was.value) / was.value.max(0.001);
    let word = match verdict {
        Verdict::Same => "",
        Verdict::Better => "  better",
        Verdict::Worse => "  WORSE",
    };
    let line = format!(
        "{name:<width$}  is {value:>10.3}  was {:>10.3}  {change:>+6.1} % of {tolerance} %  {unit}{word}",
        was.value
    );
    (line, verdict)
}

fn print(text: &str) -> Result<(), Error> {
    std::io::stdout().lock().write_all(text.as_bytes()).map_err(Error::io("write the result"))
}
