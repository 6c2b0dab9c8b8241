//! What the same updates cost by HTTP.

use serde_json::Value;

use super::super::bench::{Bench, Key, Who, words};
use super::super::call::number;
use crate::error::Error;
use crate::report::Way;

pub(in crate::suite) fn run(bench: &mut Bench) -> Result<(), Error> {
    let mut aimed = bench.server(Who::Tidegate, Key::Plain, &[])?;
    let (n, seconds) = (bench.scaled(2_000.0, 50.0), bench.scaled(6.0, 2.0));
    // It takes a target and its process, as the others do, and starts the baseline itself.
    aimed.options.extend(words(&format!("--every 2000 --interval 1000 --seconds {seconds}")));
    let result = bench.call(Who::Tidegate, "polling", &[&aimed], &format!("-n {n}"))?;
    let updates = number(&result, "/connections")? * number(&result, "/updates")?;
    let rows = result.get("ways").and_then(Value::as_array).cloned().unwrap_or_default();
    for row in rows {
        let target = row.get("server").and_then(Value::as_str) == Some("target");
        let who = if target { Who::Tidegate } else { Who::Baseline };
        let name = row.get("name").and_then(Value::as_str).unwrap_or_default();
        bench.polling.push(Way {
            name: format!("{name}, {}", who.name()),
            sent_per_update: number(&row, "/bytes_sent")? / updates,
            received_per_update: number(&row, "/bytes_received")? / updates,
            bytes_per_client_hour: number(&row, "/bytes_per_client_hour")?,
            cpu_us_per_update: number(&row, "/cpu_us_per_update")?,
            p50_ms: number(&row, "/latency/p50_ms")?,
            p99_ms: number(&row, "/latency/p99_ms")?,
            lost: number(&row, "/account/lost")?,
        });
    }
    let by = |name: &str| bench.polling.iter().find(|way| way.name == name).cloned();
    if let (Some(long), Some(ours)) = (by("long polling, baseline"), by("WebSocket, Tidegate")) {
        let bytes = |way: &Way| way.sent_per_update + way.received_per_update;
        let size = number(&result, "/size")?;
        bench.see(Who::Tidegate, "polling.bytes", bytes(&long) / bytes(&ours).max(1.0));
        if ours.cpu_us_per_update > 0.0 {
            bench.see(Who::Tidegate, "polling.cpu", long.cpu_us_per_update / ours.cpu_us_per_update);
        }
        let around = (ours.received_per_update - size).max(1.0);
        let origin = "polling: received by WebSocket for an update, without its data";
        bench.coefficient("delivery_overhead_bytes", around, "B", origin);
    }
    Ok(())
}
