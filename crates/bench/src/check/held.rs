//! What an idle connection holds of a real node, as the scenario `idle` sees it.
//!
//! The scenario is run as a user would: by its command line, its result read as JSON.

use std::path::Path;

use serde_json::Value;

use crate::error::Error;
use crate::fleet::itself;
use crate::started;

/// What decides about memory and differs from machine to machine.
const SETTINGS: [&str; 1] = ["workers=2"];

/// How often it is measured. What the allocator does beside it, a third of a megabyte this way or that, is in all but
/// the lowest: that one is taken.
const TIMES: u32 = 3;

/// Anonymous bytes above those of the empty node, for each of so many connections with a user's session and one
/// subscription.
pub(crate) fn bytes_per_connection(gateway: Option<&Path>, connections: u32) -> Result<f64, Error> {
    let mut lowest = f64::INFINITY;
    for _ in 0..TIMES {
        lowest = lowest.min(once(gateway, connections)?);
    }
    Ok(lowest)
}

fn once(gateway: Option<&Path>, connections: u32) -> Result<f64, Error> {
    let server = started::gateway(&started::gateway_program(gateway)?, &SETTINGS.map(str::to_owned))?;
    let output = itself()
        .args(["--json", "idle", "--watch", "0", "--burst", "0", "--settle", "0", "--target"])
        .arg(server.url("ws"))
        .args(["--pid", &server.pid().to_string(), "-n", &connections.to_string()])
        .output()
        .map_err(Error::io("start the scenario idle"))?;
    let failed = |why: String| Error::Start { what: "the scenario idle".into(), why };
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let why = said.lines().last().unwrap_or_default();
        return Err(failed(format!("it ended with {}: {why}", output.status)));
    }
    let outcome: Value = serde_json::from_slice(&output.stdout).map_err(|error| failed(error.to_string()))?;
    if outcome["broken"].as_u64() != Some(0) {
        return Err(failed(format!("connections ended by themselves: {}", outcome["broken"])));
    }
    outcome["bytes_per_connection"]
        .as_f64()
        .ok_or_else(|| failed("its result has no bytes_per_connection".into()))
}
