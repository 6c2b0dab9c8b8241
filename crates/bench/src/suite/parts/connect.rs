//! What letting somebody in costs: plain, TLS with full handshakes, and resumed ones.

use serde_json::Value;

use super::super::bench::{Bench, Key, Who};
use super::super::call::number;
use crate::error::Error;

const CONNECTIONS: f64 = 5_000.0;

pub(in crate::suite) fn plain(bench: &mut Bench) -> Result<(), Error> {
    for who in Who::BOTH {
        let result = once(bench, who, Key::Plain, "", "connect.plain")?;
        bench.see(who, "connect.rate", number(&result, "/handshakes_per_second")?);
    }
    coefficient(bench, "connect_cpu_us", "connect.plain");
    Ok(())
}

pub(in crate::suite) fn tls(bench: &mut Bench) -> Result<(), Error> {
    for who in Who::BOTH {
        once(bench, who, Key::Ecdsa, "", "connect.ecdsa")?;
    }
    coefficient(bench, "connect_cpu_us_tls_ecdsa", "connect.ecdsa");
    once(bench, Who::Tidegate, Key::Rsa, "", "connect.rsa")?;
    coefficient(bench, "connect_cpu_us_tls_rsa", "connect.rsa");
    Ok(())
}

fn once(bench: &mut Bench, who: Who, key: Key, more: &str, figure: &str) -> Result<Value, Error> {
    let aimed = bench.server(who, key, &[])?;
    let n = bench.scaled(CONNECTIONS, 100.0);
    let result = bench.call(who, "connect", &aimed, &format!("-n {n} {more}"))?;
    bench.see(who, figure, number(&result, "/cpu_ms_each")?);
    Ok(result)
}

fn coefficient(bench: &mut Bench, name: &str, figure: &str) {
    if let Some(ms) = bench.seen(Who::Tidegate, figure) {
        bench.coefficient(name, ms * 1e3, "us", &format!("connect, {CONNECTIONS} connections"));
    }
}
