//! What held connections cost: at several numbers of them, after a burst, after most have left, with heartbeats.

use serde_json::Value;

use super::super::bench::{Bench, Key, Who};
use super::super::call::number;
use crate::error::Error;

/// Connections at which memory is read. A process may commonly have 20,000 descriptors.
const COUNTS: [u32; 4] = [2_000, 5_000, 10_000, 19_000];

/// Those at which the baseline is measured under TLS too, where it takes long.
const TLS_BOTH: [u32; 2] = [5_000, 10_000];

const SLOPE: (&str, &str, &str) = ("slope", "connections", "MiB");

/// An interval of heartbeats, and a second for what is late.
const WATCH: u64 = 26;

const MIB: f64 = 1_048_576.0;

pub(in crate::suite) fn plain(bench: &mut Bench) -> Result<(), Error> {
    let mut ends = [(0.0, 0.0); 2];
    for count in COUNTS {
        let most = count == COUNTS[COUNTS.len() - 1];
        let results = if count == 5_000 {
            [burst(bench, Who::Tidegate, count)?, burst(bench, Who::Baseline, count)?]
        } else {
            let watch = if most { bench.scaled(WATCH as f64, 2.0) } else { 0.0 };
            let ours = bench.server(Who::Tidegate, Key::Plain, &[])?;
            let theirs = bench.server(Who::Baseline, Key::Plain, &[])?;
            let n = bench.scaled(f64::from(count), 100.0);
            // At once: bytes do not depend on who else computes, and heartbeats are a hundredth of a processor.
            bench.call_both(
                "idle",
                [&ours, &theirs],
                &format!("-n {n} --watch {watch} --burst 0 --settle 0"),
            )?
        };
        for (index, (who, result)) in Who::BOTH.into_iter().zip(&results).enumerate() {
            let bytes = point(bench, result, &format!("{}, plain", who.name()))?;
            if count == COUNTS[0] {
                ends[index] = bytes;
            }
            if most {
                bench.see(who, "idle.plain", number(result, "/bytes_per_connection")?);
                bench.see(
                    who,
                    "idle.further",
                    (bytes.1 - ends[index].1) / (bytes.0 - ends[index].0).max(1.0),
                );
                let percent = number(result, "/heartbeats/cpu_percent")?;
                bench.see(who, "idle.heartbeats", percent);
                if who == Who::Tidegate {
                    let each = percent / 100.0 * 25.0 / bytes.0 * 1e6;
                    let origin = format!("idle, {} connections pinged every 25 s", bytes.0);
                    bench.coefficient("heartbeat_cpu_us", each, "us", &origin);
                    let origin = format!("idle, {} connections", bytes.0);
                    let each = number(result, "/bytes_per_connection")?;
                    bench.coefficient("connection_bytes", each, "B", &origin);
                    let before = number(result, "/before/anonymous")?;
                    bench.coefficient("node_bytes", before, "B", "idle: a node before its first connection");
                }
            }
        }
    }
    Ok(())
}

/// A burst to everyone, and everyone but 5 of 100 leaves.
fn burst(bench: &mut Bench, who: Who, count: u32) -> Result<Value, Error> {
    let aimed = bench.server(who, Key::Plain, &[])?;
    let (n, burst) = (bench.scaled(f64::from(count), 100.0), bench.scaled(2_000.0, 100.0));
    let settle = bench.scaled(10.0, 1.0);
    let options = format!("-n {n} --watch 0 --burst {burst} --settle {settle}");
    let result = bench.call(who, "idle", &[&aimed], &options)?;
    let idle = number(&result, "/bytes_per_connection")?;
    let after = number(&result, "/burst/bytes_per_connection")?;
    let left = number(&result, "/left/bytes_per_former_connection")?;
    bench.see(who, "idle.burst", after);
    bench.see(who, "idle.left", left);
    if idle > 0.0 {
        bench.see(who, "idle.burst_ratio", after / idle);
        bench.see(who, "idle.left_ratio", left / idle);
    }
    // Not all versions of the tool look into the kernel, and on some machines nobody may.
    if let Ok(both_ends) = number(&result, "/kernel_bytes_per_connection")
        && both_ends > 0.0
    {
        bench.see(who, "idle.kernel", both_ends / 2.0);
        if who == Who::Tidegate {
            let origin = format!("idle, {n} connections: half of what both ends took");
            bench.coefficient("kernel_bytes", both_ends / 2.0, "B", &origin);
        }
    }
    Ok(result)
}

pub(in crate::suite) fn tls(bench: &mut Bench) -> Result<(), Error> {
    for count in COUNTS {
        let n = bench.scaled(f64::from(count), 100.0);
        let options = format!("-n {n} --watch 0 --burst 0 --settle 0");
        let ours = bench.server(Who::Tidegate, Key::Ecdsa, &[])?;
        let ours = if TLS_BOTH.contains(&count) {
            let theirs = bench.server(Who::Baseline, Key::Ecdsa, &[])?;
            let [ours, theirs] = bench.call_both("idle", [&ours, &theirs], &options)?;
            point(bench, &theirs, "baseline, TLS")?;
            if count == TLS_BOTH[1] {
                bench.see(Who::Baseline, "idle.tls", number(&theirs, "/bytes_per_connection")?);
            }
            ours
        } else {
            bench.call(Who::Tidegate, "idle", &[&ours], &options)?
        };
        point(bench, &ours, "Tidegate, TLS")?;
        // The same number of connections for both, so that the ratio is one.
        if count == TLS_BOTH[1] {
            let each = number(&ours, "/bytes_per_connection")?;
            bench.see(Who::Tidegate, "idle.tls", each);
            bench.coefficient("connection_bytes_tls", each, "B", &format!("idle, {n} connections, TLS 1.3"));
        }
    }
    Ok(())
}

/// Notes memory above the start; returns (connections, bytes).
fn point(bench: &mut Bench, result: &Value, line: &str) -> Result<(f64, f64), Error> {
    let count = number(result, "/connections")?;
    let bytes = number(result, "/bytes_per_connection")? * count;
    bench.point(SLOPE, line, (count, (bytes / MIB * 100.0).round() / 100.0));
    Ok((count, bytes))
}
