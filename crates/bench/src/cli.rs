//! The command line.

use clap::{Parser, Subcommand};

use crate::error::Error;
use crate::progress::Progress;
use crate::scenario::{self, chat, connect, direct, fanout, idle, polling, recover, size, slow, soak, storm};
use crate::{baseline, check, client, report, suite};

const ABOUT: &str = "Loads a WebSocket server and says what its connections cost.

Aim it at any server: memory and processor time are read from /proc/PID, so server and load run on one machine. It
speaks Centrifuge v2 (JSON, Protobuf) and as much of Pusher as subscribing needs; `--protocol raw` holds bare WebSocket
connections.";

const EXAMPLES: &str = "\
Examples:
  tidegate-bench idle --target ws://127.0.0.1:8000/connection/websocket --pid $(pidof tidegate)
  tidegate-bench fanout --target ... --pid ... -n 5000 --publications 400
  tidegate-bench fanout --target ... --pid ... -n 1000 --publications 200 --rate 20
  tidegate-bench direct --target ws://A --target ws://B --pid ... --redis redis://127.0.0.1:6379 --rate 20000
  tidegate-bench storm --target ... --pid ... -n 19000 --redis redis://127.0.0.1:6379
  tidegate-bench recover --target ... --pid ... -n 19000 --redis redis://127.0.0.1:6379
  tidegate-bench connect --target wss://localhost:8443/ --ca ca.pem --pid ... --protocol raw
  tidegate-bench polling --target ... --pid ... -n 1000 --every 2000
  tidegate-bench size -n 1000000 --publications 5000 --fan-out 20 --storm-seconds 120
  tidegate-bench baseline --listen 127.0.0.1:8100       a server to compare with
  tidegate-bench suite --data found.json                the gateway and the baseline through everything, ten minutes
  tidegate-bench suite --only connect,flood             two parts of it";

/// What was typed.
#[derive(Debug, Parser)]
#[command(name = "tidegate-bench", version, about = ABOUT, long_about = ABOUT, after_help = EXAMPLES)]
struct Typed {
    #[command(subcommand)]
    command: Command,
    /// Print the result as JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Bytes a connection, CPU of heartbeats, memory after a burst and after most have left
    Idle(idle::Options),
    /// One channel, many subscribers: CPU, latency, loss; at a pace or as a flood
    Fanout(fanout::Options),
    /// Each connection its own channel, through Redis: deliveries a second a core, latency, loss
    Direct(direct::Options),
    /// Rooms in which everyone publishes: CPU a million deliveries, latency
    Chat(chat::Options),
    /// Handshakes a second, and the server's CPU for each
    Connect(connect::Options),
    /// Thousands reconnect at once: what those who stay notice, and when all are back
    Storm(storm::Options),
    /// Thousands come back at once to channels with history: what they missed, Redis commands for it, when all have it
    Recover(recover::Options),
    /// A share of readers stalls: what the others notice, and what becomes of the stalled
    Slow(slow::Options),
    /// Come and go for a time: whether memory grows
    Soak(soak::Options),
    /// The same updates by polling, long polling and WebSocket: bytes, CPU, latency
    Polling(polling::Options),
    /// Reckon nodes, memory, processors and Redis for a load, from what was measured
    Size(size::Options),
    /// Serve with plain actix-ws, to have something to compare with
    Baseline(baseline::Options),
    /// The gateway and the baseline through everything in one run: goals, medians, ratios, a page with pictures
    Suite(suite::Options),
    /// Make the page and its pictures again from the data of a run
    Report(report::Options),
    /// Whether anything got slower: instructions, allocations and bytes against the committed values
    Check(check::Options),
    /// A client process: what the scenarios start
    #[command(hide = true)]
    Client,
}

/// Does what was typed.
pub(crate) fn run() -> Result<(), Error> {
    let typed = Typed::parse();
    let json = typed.json;
    let mut shown = Progress::new();
    match typed.command {
        Command::Idle(options) => scenario::print(&idle::run(&options, &mut shown)?, json),
        Command::Fanout(options) => scenario::print(&fanout::run(&options, &mut shown)?, json),
        Command::Direct(options) => scenario::print(&direct::run(&options, &mut shown)?, json),
        Command::Chat(options) => scenario::print(&chat::run(&options, &mut shown)?, json),
        Command::Storm(options) => scenario::print(&storm::run(&options, &mut shown)?, json),
        Command::Recover(options) => {
            let seen = recover::run(&options, &mut shown)?;
            scenario::print(&seen, json)?;
            seen.verdict()
        }
        Command::Slow(options) => scenario::print(&slow::run(&options, &mut shown)?, json),
        Command::Soak(options) => {
            let seen = soak::run(&options, &mut shown)?;
            scenario::print(&seen, json)?;
            seen.verdict()
        }
        Command::Connect(options) => scenario::print(&connect::run(&options, &mut shown)?, json),
        Command::Polling(options) => scenario::print(&polling::run(&options, &mut shown)?, json),
        Command::Size(options) => scenario::print(&size::run(&options)?, json),
        Command::Suite(options) => {
            let outcome = suite::run(&options)?;
            scenario::print(&outcome, json)?;
            outcome.complete()
        }
        Command::Report(options) => report::run(&options),
        Command::Check(options) => check::run(&options, &mut shown),
        Command::Baseline(options) => baseline::run(&options),
        Command::Client => client::main(),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Typed::command().debug_assert();
    }
}
