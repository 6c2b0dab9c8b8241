//! `tidegate-bench-work`: does one operation of the hub or the protocol so often, for whoever counts instructions.
//!
//! `tidegate-bench check` runs it under callgrind with two counts; the difference is the operation alone, for start and
//! preparation are the same in both. It counts allocations by itself. The operations are in `operations`, the sessions
//! they are done with in `crowd`. Not here: what the figures are held against.

mod crowd;
mod operations;

use std::alloc::System;
use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

/// Counts what is allocated: some ten instructions an allocation, in every figure alike.
#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// What was typed.
#[derive(Debug, Parser)]
#[command(name = "tidegate-bench-work")]
struct Typed {
    /// Which operation
    #[arg(value_parser = operations::NAMES)]
    operation: String,
    /// How many rounds of it
    rounds: u64,
}

fn main() -> ExitCode {
    let typed = Typed::parse();
    let Some(mut operation) = operations::prepare(&typed.operation) else { return fail("no such operation") };
    let region = Region::new(ALLOCATOR);
    let mut units = 0;
    for _ in 0..typed.rounds {
        units += operation();
    }
    let stats = region.change();
    let held = stats.bytes_allocated.saturating_sub(stats.bytes_deallocated);
    let line = format!(
        "{{\"units\":{units},\"allocations\":{},\"allocated\":{},\"held\":{held}}}\n",
        stats.allocations + stats.reallocations,
        stats.bytes_allocated
    );
    match std::io::stdout().lock().write_all(line.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error.to_string()),
    }
}

fn fail(why: &str) -> ExitCode {
    let _ = writeln!(std::io::stderr().lock(), "tidegate-bench-work: {why}");
    ExitCode::FAILURE
}
