//! What held connections cost: at several numbers of them, after a burst, after most have left, with heartbeats.

use serde_json::Value;

use super::super::bench::{Bench, Key, Who};
use super::super::call::number;
use crate::error::Error;

/// Connections at which memory is read. A process may commonly have 20,000 descriptors.
const COUNTS: [u32; 4] = [2_000, 5_000, 10_000, 19_000];

/// Those at which the baseline is measured under TLS too, where it takes long.
const TLS_BOTH: [u32; 2] = [5_000, 10_000];

/// Connections that get a burst: as many as there may be, since what a server allocates once for its first burst is
/// nothing that a connection costs.
const BURST_AT: u32 = COUNTS[COUNTS.len() - 1];

/// Seconds that servers have to give memory back, after the burst and once more after most have left: together less
/// than a minute.
const SETTLE: f64 = 25.0;

const SLOPE: (&str, &str, &str) = ("slope", "connections", "MiB");

/// An interval of heartbeats, and a second for what is late.
const WATCH: u64 = 26;

const MIB: f64 = 1_048_576.0;

pub(in crate::suite) fn plain(bench: &mut Bench) -> Result<(), Error> {
    let mut ends = [(0.0, 0.0); 2];
    for count in COUNTS {
        let most = count == COUNTS[COUNTS.len() - 1];
        let watch = if most { bench.scaled(WATCH as f64, 2.0) } else { 0.0 };
        let (publications, settle) = if count == BURST_AT {
            (bench.scaled(2_000.0, 100.0), bench.scaled(SETTLE, 1.0))
        } else {
            (0.0, 0.0)
        };
        let ours = bench.server(Who::Tidegate, Key::Plain, &[])?;
        let theirs = bench.server(Who::Baseline, Key::Plain, &[])?;
        let n = bench.scaled(f64::from(count), 100.0);
        let options = format!("-n {n} --watch {watch} --burst {publications} --settle {settle}");
        // At once: bytes do not depend on who else computes, and heartbeats are a hundredth of a processor.
        let results = bench.call_both("idle", [&ours, &theirs], &options)?;
        for (index, (who, result)) in Who::BOTH.into_iter().zip(&results).enumerate() {
            let bytes = point(bench, result, &format!("{}, plain", who.name()))?;
            if count == COUNTS[0] {
                ends[index] = bytes;
            }
            if count == BURST_AT {
                burst(bench, who, result)?;
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

/// Notes what is left of a burst to everyone, and after all but 5 of 100 have left.
fn burst(bench: &mut Bench, who: Who, result: &Value) -> Result<(), Error> {
    let idle = number(result, "/bytes_per_connection")?;
    let after = number(result, "/burst/bytes_per_connection")?;
    let left = number(result, "/left/bytes_per_former_connection")?;
    bench.see(who, "idle.burst", after);
    bench.see(who, "idle.left", left);
    if idle > 0.0 {
        bench.see(who, "idle.burst_ratio", after / idle);
        bench.see(who, "idle.left_ratio", left / idle);
    }
    Ok(())
}

/// Notes what the kernel keeps for a connection.
fn kernel(bench: &mut Bench, result: &Value) {
    // On some machines nobody may look.
    if let Ok(both_ends) = number(result, "/kernel_bytes_per_connection")
        && both_ends > 0.0
    {
        bench.see(Who::Tidegate, "idle.kernel", both_ends / 2.0);
        let origin = "idle: half of what both ends of a connection took";
        bench.coefficient("kernel_bytes", both_ends / 2.0, "B", origin);
    }
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
            let ours = bench.call(Who::Tidegate, "idle", &[&ours], &options)?;
            // Only here nobody else has sockets that come and go.
            if count == COUNTS[COUNTS.len() - 1] {
                kernel(bench, &ours);
            }
            ours
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

/// With the record layer that keeps least.
pub(in crate::suite) fn compact(bench: &mut Bench) -> Result<(), Error> {
    let aimed = bench.server(Who::Tidegate, Key::Ecdsa, &["tls.record_layer=compact".to_owned()])?;
    let n = bench.scaled(f64::from(TLS_BOTH[1]), 100.0);
    let options = format!("-n {n} --watch 0 --burst 0 --settle 0");
    let result = bench.call(Who::Tidegate, "idle", &[&aimed], &options)?;
    let each = number(&result, "/bytes_per_connection")?;
    bench.see(Who::Tidegate, "idle.tls_compact", each);
    let origin = format!("idle, {n} connections, TLS 1.3, compact record layer");
    bench.coefficient("connection_bytes_tls_compact", each, "B", &origin);
    Ok(())
}

/// Notes memory above the start; returns (connections, bytes).
fn point(bench: &mut Bench, result: &Value, line: &str) -> Result<(f64, f64), Error> {
    let count = number(result, "/connections")?;
    let bytes = number(result, "/bytes_per_connection")? * count;
    bench.point(SLOPE, line, (count, (bytes / MIB * 100.0).round() / 100.0));
    Ok((count, bytes))
}
