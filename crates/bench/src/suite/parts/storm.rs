//! Everyone comes back at once; some stop to read. What the others notice.

use super::super::bench::{Bench, Key, Who};
use super::super::call::number;
use crate::error::Error;

pub(in crate::suite) fn storm(bench: &mut Bench) -> Result<(), Error> {
    // As a node runs: it lets connections in by rate.
    let aimed = bench.server(Who::Tidegate, Key::Plain, &["limits.accept_rate=auto".to_owned()])?;
    let (n, calm) = (bench.scaled(19_000.0, 200.0), bench.scaled(5.0, 1.0));
    let options = format!("-n {n} --calm {calm}");
    let result = bench.call(Who::Tidegate, "storm", &[&aimed], &options)?;
    bench.see(Who::Tidegate, "storm.p99", number(&result, "/p99_ratio")?);
    bench.see(Who::Tidegate, "storm.calm_ms", number(&result, "/calm/latency/p99_ms")?);
    bench.see(Who::Tidegate, "storm.storm_ms", number(&result, "/storm/latency/p99_ms")?);
    bench.see(Who::Tidegate, "storm.seconds", number(&result, "/back_seconds")?);
    let ended = number(&result, "/calm/broken")? + number(&result, "/storm/broken")?;
    bench.see(Who::Tidegate, "storm.broken", ended);
    Ok(())
}

pub(in crate::suite) fn slow(bench: &mut Bench) -> Result<(), Error> {
    for who in Who::BOTH {
        let aimed = bench.server(who, Key::Plain, &[])?;
        let (seconds, calm) = (bench.scaled(8.0, 2.0), bench.scaled(4.0, 1.0));
        let options = format!("--seconds {seconds} --calm {calm}");
        let result = bench.call(who, "slow", &[&aimed], &options)?;
        bench.see(who, "slow.p99", number(&result, "/p99_ratio")?);
        let grown = (number(&result, "/memory_most")? - number(&result, "/memory_before")?).max(0.0);
        bench.see(who, "slow.bytes", grown / number(&result, "/stalled/connections")?.max(1.0));
    }
    Ok(())
}
