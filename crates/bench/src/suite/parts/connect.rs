//! What letting somebody in costs: plain, TLS with full handshakes, and resumed ones.

use serde_json::Value;

use super::super::bench::{Bench, Key, Who};
use super::super::call::number;
use crate::error::Error;

const CONNECTIONS: f64 = 5_000.0;

const RESUMED: &str = "--tls resumed";

/// The key of tickets between nodes that are measured and end a moment later.
const TICKET_KEY: &str = "dGlkZWdhdGUtYmVuY2ggbWVhc3VyZXMgdGlja2V0cyE=\n";

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
    for (key, figure, name) in [
        (Key::Ecdsa, "connect.ecdsa_resumed", "connect_cpu_us_tls_ecdsa_resumed"),
        (Key::Rsa, "connect.rsa_resumed", "connect_cpu_us_tls_rsa_resumed"),
    ] {
        let result = once(bench, Who::Tidegate, key, RESUMED, figure)?;
        let (resumed, all) = (number(&result, "/resumed")?, number(&result, "/connections")?);
        if resumed < 0.99 * all {
            return Err(Error::Asked(format!("{figure}: only {resumed} of {all} handshakes were resumed")));
        }
        coefficient(bench, name, figure);
    }
    let (full, resumed) = ("connect.rsa", "connect.rsa_resumed");
    if let (Some(full), Some(resumed)) = (bench.seen(Who::Tidegate, full), bench.seen(Who::Tidegate, resumed))
    {
        bench.set(Who::Tidegate, "connect.rsa_ratio", resumed / full);
    }
    other_node(bench)
}

/// Tickets of one node, on another of the same fleet.
fn other_node(bench: &mut Bench) -> Result<(), Error> {
    let keys = bench.file("tickets.key", TICKET_KEY)?;
    let settings = [format!("tls.ticket_keys={}", keys.display())];
    let one = bench.server(Who::Tidegate, Key::Ecdsa, &settings)?;
    let other = bench.server(Who::Tidegate, Key::Ecdsa, &settings)?;
    let n = bench.scaled(2_000.0, 100.0);
    let result = bench.call(Who::Tidegate, "connect", &[&one, &other], &format!("-n {n} {RESUMED}"))?;
    let share = 100.0 * number(&result, "/resumed")? / number(&result, "/connections")?;
    bench.set(Who::Tidegate, "connect.other_node", share);
    Ok(())
}

fn once(bench: &mut Bench, who: Who, key: Key, more: &str, figure: &str) -> Result<Value, Error> {
    let aimed = bench.server(who, key, &[])?;
    let n = bench.scaled(CONNECTIONS, 100.0);
    let result = bench.call(who, "connect", &[&aimed], &format!("-n {n} {more}"))?;
    bench.see(who, figure, number(&result, "/cpu_ms_each")?);
    Ok(result)
}

fn coefficient(bench: &mut Bench, name: &str, figure: &str) {
    if let Some(ms) = bench.seen(Who::Tidegate, figure) {
        bench.coefficient(name, ms * 1e3, "us", &format!("connect, {CONNECTIONS} connections"));
    }
}
