//! What goes through Redis: notifications, latency, several workers, several nodes on one Redis, what Redis itself does.

use super::super::bench::{Aimed, Bench, Key, Who};
use super::super::call::number;
use super::super::redis_server::RedisServer;
use crate::error::Error;

const NODES: (&str, &str, &str) = ("nodes", "nodes", "deliveries/s");
const WORKERS: (&str, &str, &str) = ("workers", "workers", "deliveries/s");

fn node(bench: &mut Bench, redis: &RedisServer, more: &str) -> Result<Aimed, Error> {
    let mut settings = vec!["relay.kind=redis".to_owned(), format!("relay.redis.url={}", redis.url())];
    settings.extend((!more.is_empty()).then(|| more.to_owned()));
    bench.server(Who::Tidegate, Key::Plain, &settings)
}

/// How a scenario publishes.
fn through(redis: &RedisServer) -> String {
    format!("--redis {} --redis-pid {}", redis.url(), redis.pid())
}

/// Each connection its own channel: as fast as it goes, and at 20,000 a second.
pub(in crate::suite) fn direct(bench: &mut Bench) -> Result<(), Error> {
    let redis = RedisServer::start()?;
    let aimed = node(bench, &redis, "")?;
    let (n, flood, paced) =
        (bench.scaled(5_000.0, 100.0), bench.scaled(600_000.0, 2_000.0), bench.scaled(100_000.0, 2_000.0));
    let options = format!("-n {n} --publications {flood} {}", through(&redis));
    let before = redis.work()?;
    let result = bench.call(Who::Tidegate, "direct", &[&aimed], &options)?;
    let work = redis.work()?.since(before);
    // A quick run may use less than a tick of processor time, and then there is no such number.
    if let Ok(rate) = number(&result, "/delivery/deliveries_per_core") {
        bench.see(Who::Tidegate, "direct.rate", rate);
    }
    let size = number(&result, "/size")?;
    let around = (work.bytes_out / number(&result, "/delivery/publications")? - size).max(1.0);
    let origin = "direct: what Redis sent to a node for a publication, without its data";
    bench.coefficient("redis_overhead_bytes", around, "B", origin);

    let options = format!("-n {n} --publications {paced} --rate 20000 {}", through(&redis));
    let result = bench.call(Who::Tidegate, "direct", &[&aimed], &options)?;
    bench.see(Who::Tidegate, "direct.p50", number(&result, "/delivery/latency/p50_ms")?);
    bench.see(Who::Tidegate, "direct.p99", number(&result, "/delivery/latency/p99_ms")?);
    let each = number(&result, "/delivery/cpu_seconds_per_million")?;
    if let Some(delivery) = bench.seen(Who::Tidegate, "paced.plain")
        && each > delivery
    {
        let origin = "direct at 20,000 a second, less what a delivery costs";
        bench.coefficient("relay_cpu_us", each - delivery, "us", origin);
    }
    Ok(())
}

/// One worker and two.
pub(in crate::suite) fn workers(bench: &mut Bench) -> Result<(), Error> {
    for workers in [1_u32, 2] {
        let redis = RedisServer::start()?;
        let aimed = node(bench, &redis, &format!("workers={workers}"))?;
        scaling(bench, &redis, &[aimed], WORKERS, f64::from(workers))?;
    }
    Ok(())
}

/// One node to four.
pub(in crate::suite) fn nodes(bench: &mut Bench) -> Result<(), Error> {
    for count in 1..=4_u32 {
        let redis = RedisServer::start()?;
        let nodes = (0..count).map(|_| node(bench, &redis, "workers=1")).collect::<Result<Vec<_>, _>>()?;
        scaling(bench, &redis, &nodes, NODES, f64::from(count))?;
    }
    Ok(())
}

fn scaling(
    bench: &mut Bench,
    redis: &RedisServer,
    nodes: &[Aimed],
    series: (&str, &str, &str),
    x: f64,
) -> Result<(), Error> {
    let (n, count) = (bench.scaled(4_000.0, 100.0), bench.scaled(300_000.0, 2_000.0));
    let options = format!("-n {n} --publications {count} {}", through(redis));
    let nodes: Vec<_> = nodes.iter().collect();
    let result = bench.call(Who::Tidegate, "direct", &nodes, &options)?;
    let rate = number(&result, "/delivery/deliveries_per_second")?;
    bench.point(series, "a second", (x, rate.round()));
    if let Ok(rate) = number(&result, "/delivery/deliveries_per_core") {
        bench.point(series, "a second of the nodes' CPU", (x, rate.round()));
    }
    Ok(())
}

/// What Redis does for a publication that one node hears, and that four hear.
pub(in crate::suite) fn redis(bench: &mut Bench) -> Result<(), Error> {
    let redis = RedisServer::start()?;
    let nodes = (0..4).map(|_| node(bench, &redis, "workers=1")).collect::<Result<Vec<_>, _>>()?;
    let count = bench.scaled(200_000.0, 2_000.0);
    let mut each = Vec::new();
    for hearing in [1, 4] {
        let before = redis.work()?;
        let options = format!("-n {hearing} --publications {count} --redis {}", redis.url());
        let nodes: Vec<_> = nodes.iter().take(hearing).collect();
        bench.call(Who::Tidegate, "fanout", &nodes, &options)?;
        let work = redis.work()?.since(before);
        each.push(1e6 * work.cpu_seconds / count);
        let commands = work.commands / count;
        bench.see(
            Who::Tidegate,
            if hearing == 1 { "redis.commands" } else { "redis.commands_four" },
            commands,
        );
        let sent = work.bytes_out / count;
        bench.see(Who::Tidegate, if hearing == 1 { "redis.bytes" } else { "redis.bytes_four" }, sent);
    }
    let [one, four] = each[..] else { return Ok(()) };
    bench.see(Who::Tidegate, "redis.cpu", one);
    let push = (four - one) / 3.0;
    if push > 0.0 && one > push {
        let origin = "fanout through Redis: CPU of Redis with one node and with four";
        bench.coefficient("redis_push_cpu_us", push, "us", origin);
        bench.coefficient("redis_publish_cpu_us", one - push, "us", origin);
    }
    Ok(())
}
