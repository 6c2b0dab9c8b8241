//! Counts what `tidegate-bench-work` does: instructions by callgrind, allocations by its own allocator.
//!
//! Each figure is the difference of two runs, one with twice as many rounds: what starting and preparing cost is in both.

use std::collections::HashMap;
use std::process::Command;

use serde::Deserialize;

use crate::error::Error;
use crate::process::to_f64;

/// The program whose work is counted, and what it said already.
#[derive(Default)]
pub(crate) struct Work {
    said: HashMap<(&'static str, u32), Said>,
}

/// What the program says of its rounds, preparation left out.
#[derive(Debug, Clone, Copy, Deserialize)]
struct Said {
    /// Deliveries, sessions, whatever the operation is about.
    units: u64,
    /// Allocations and reallocations.
    allocations: u64,
    /// Bytes that were allocated and not given back.
    held: u64,
    /// Instructions of the whole process. Counted from outside.
    #[serde(default)]
    instructions: u64,
}

impl Work {
    /// Instructions of one unit.
    pub(crate) fn instructions(&mut self, operation: &'static str, rounds: u32) -> Result<f64, Error> {
        let (once, twice) = self.both(operation, rounds)?;
        let instructions = twice.instructions.saturating_sub(once.instructions);
        Ok(to_f64(instructions) / to_f64(twice.units.saturating_sub(once.units).max(1)))
    }

    /// Allocations of one unit.
    pub(crate) fn allocations(&mut self, operation: &'static str, rounds: u32) -> Result<f64, Error> {
        let (once, twice) = self.both(operation, rounds)?;
        let allocations = twice.allocations.saturating_sub(once.allocations);
        Ok(to_f64(allocations) / to_f64(twice.units.saturating_sub(once.units).max(1)))
    }

    /// Heap bytes that a unit leaves behind, of so many rounds.
    pub(crate) fn held(&mut self, operation: &'static str, rounds: u32) -> Result<f64, Error> {
        let said = run(Command::new(program()?), operation, rounds)?.0;
        Ok(to_f64(said.held) / to_f64(said.units.max(1)))
    }

    fn both(&mut self, operation: &'static str, rounds: u32) -> Result<(Said, Said), Error> {
        Ok((self.under_callgrind(operation, rounds)?, self.under_callgrind(operation, 2 * rounds)?))
    }

    fn under_callgrind(&mut self, operation: &'static str, rounds: u32) -> Result<Said, Error> {
        if let Some(said) = self.said.get(&(operation, rounds)) {
            return Ok(*said);
        }
        let mut valgrind = Command::new("valgrind");
        // The whole of it is wanted, not what each function did.
        valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(program()?);
        let (mut said, errors) = run(valgrind, operation, rounds)?;
        said.instructions = collected(&errors).ok_or_else(|| {
            failed(operation, format!("callgrind did not say what it collected: {}", errors.trim()))
        })?;
        self.said.insert((operation, rounds), said);
        Ok(said)
    }
}

/// The program lies beside this one.
fn program() -> Result<std::path::PathBuf, Error> {
    let path = std::fs::read_link("/proc/self/exe")
        .map_err(Error::io("find this program"))?
        .with_file_name("tidegate-bench-work");
    if path.is_file() {
        return Ok(path);
    }
    let why = "there is no such file; cargo build --release -p tidegate-bench makes it".into();
    Err(Error::Start { what: path.display().to_string(), why })
}

/// What the program said, and what stands on standard error.
fn run(mut command: Command, operation: &str, rounds: u32) -> Result<(Said, String), Error> {
    let what = command.get_program().to_string_lossy().into_owned();
    let output = command.arg(operation).arg(rounds.to_string()).output().map_err(|error| Error::Start {
        what: what.clone(),
        why: format!("{error}; on Debian, apt-get install -y valgrind brings callgrind"),
    })?;
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        return Err(failed(operation, format!("{what} ended with {}: {}", output.status, errors.trim())));
    }
    let said =
        serde_json::from_slice(&output.stdout).map_err(|error| failed(operation, error.to_string()))?;
    Ok((said, errors))
}

fn failed(operation: &str, why: String) -> Error {
    Error::Start { what: format!("the operation {operation}"), why }
}

/// Of callgrind's `==1234== Collected : 3245550`.
fn collected(text: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.contains("Collected"))?;
    line.rsplit(':').next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_callgrind_collected_is_found() {
        let text = "==7== Callgrind\n==7== \n==7== Events    : Ir\n==7== Collected : 3245550\n==7== I   refs:      3,245,550\n";
        assert_eq!(collected(text), Some(3_245_550));
        assert_eq!(collected("==7== Callgrind\n"), None);
    }
}
