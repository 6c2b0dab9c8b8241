//! What a delivery costs: one frame a write, and in a flood, plain and under TLS.

use serde_json::Value;

use super::super::bench::{Bench, Key, Who};
use super::super::call::number;
use crate::error::Error;

pub(in crate::suite) fn paced(bench: &mut Bench) -> Result<(), Error> {
    for (key, figure) in [(Key::Plain, "paced.plain"), (Key::Ecdsa, "paced.tls")] {
        for who in Who::BOTH {
            let result = once(bench, who, key, paced_options(bench), figure)?;
            if key == Key::Plain {
                bench.see(who, "paced.p50", number(&result, "/delivery/latency/p50_ms")?);
                bench.see(who, "paced.p99", number(&result, "/delivery/latency/p99_ms")?);
            }
        }
    }
    for (name, figure) in [("delivery_cpu_us", "paced.plain"), ("delivery_cpu_us_tls", "paced.tls")] {
        if let Some(each) = bench.seen(Who::Tidegate, figure) {
            bench.coefficient(
                name,
                each,
                "us",
                "fanout, 1,000 subscribers, 20 publications of 128 B a second",
            );
        }
    }
    larger(bench)
}

/// 20,000 deliveries a second.
fn paced_options(bench: &Bench) -> String {
    let (n, count) = (bench.scaled(1_000.0, 100.0), bench.scaled(100.0, 20.0));
    format!("-n {n} --publications {count} --rate 20")
}

/// What larger messages cost, for the calculator.
fn larger(bench: &mut Bench) -> Result<(), Error> {
    let aimed = bench.server(Who::Tidegate, Key::Plain, &[])?;
    let options = paced_options(bench) + " --size 4224";
    let result = bench.call(Who::Tidegate, "fanout", &[&aimed], &options)?;
    let large = number(&result, "/delivery/cpu_seconds_per_million")?;
    if let Some(small) = bench.seen(Who::Tidegate, "paced.plain") {
        // 4,224 bytes are 4 KiB more than 128.
        let each = (large - small) / 4.0;
        bench.coefficient("delivery_cpu_us_per_kib", each, "us", "fanout, as before with 4,224 B");
    }
    Ok(())
}

pub(in crate::suite) fn flood(bench: &mut Bench) -> Result<(), Error> {
    for (key, figure) in [(Key::Plain, "flood.plain"), (Key::Ecdsa, "flood.tls")] {
        for who in Who::BOTH {
            let (n, count) = (bench.scaled(5_000.0, 100.0), bench.scaled(800.0, 100.0));
            let result = once(bench, who, key, format!("-n {n} --publications {count}"), figure)?;
            if key == Key::Plain {
                bench.see(who, "flood.rate", number(&result, "/delivery/deliveries_per_second")?);
            }
        }
    }
    Ok(())
}

fn once(bench: &mut Bench, who: Who, key: Key, options: String, figure: &str) -> Result<Value, Error> {
    let aimed = bench.server(who, key, &[])?;
    let result = bench.call(who, "fanout", &[&aimed], &options)?;
    bench.see(who, figure, number(&result, "/delivery/cpu_seconds_per_million")?);
    Ok(result)
}
