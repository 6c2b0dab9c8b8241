//! `tidegate-bench`: what connections cost, on any WebSocket server, measured from outside.

mod api;
mod baseline;
mod channels;
mod check;
mod cli;
mod client;
mod clock;
mod error;
mod fleet;
mod frame;
mod kernel;
mod latency;
mod ledger;
mod process;
mod progress;
mod report;
mod resp;
mod scenario;
mod speech;
mod started;
mod suite;
mod target;
mod wire;

use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    // Each connection is a descriptor. Where it may not be raised, opening fails and says why.
    let mut files = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    files.current = files.maximum;
    let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, files);
    match cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr().lock(), "tidegate-bench: {error}");
            ExitCode::FAILURE
        }
    }
}
