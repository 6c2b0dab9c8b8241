//! Every figure that the suite may find: what it is called, and what it should be.

use super::Goal;
use super::Goal::{AtLeast, AtMost};

/// What a figure is.
pub(crate) struct Definition {
    pub(crate) key: &'static str,
    /// The part of the page it stands in.
    pub(crate) group: &'static str,
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) goal: Option<Goal>,
}

const fn of(
    group: &'static str,
    key: &'static str,
    name: &'static str,
    unit: &'static str,
    goal: Option<Goal>,
) -> Definition {
    Definition { key, group, name, unit, goal }
}

const MEMORY: &str = "Memory";
const DELIVERY: &str = "Deliveries";
const REDIS: &str = "Through Redis";
const ENTRY: &str = "Letting in";
const STORM: &str = "Storm and slow readers";
const POLLING: &str = "Polling";
const SOUND: &str = "Nothing lost";

/// In the order of the page.
pub(crate) const DEFINITIONS: &[Definition] = &[
    of(MEMORY, "idle.plain", "a connection, idle, plain", "B", Some(AtMost(512.0))),
    of(MEMORY, "idle.further", "each further connection, 2,000 to 19,000, plain", "B", None),
    of(MEMORY, "idle.tls", "a connection, idle, TLS 1.3", "B", Some(AtMost(3_700.0))),
    of(
        MEMORY,
        "idle.tls_compact",
        "a connection, idle, TLS 1.3, compact records",
        "B",
        Some(AtMost(1_000.0)),
    ),
    of(MEMORY, "idle.kernel", "a connection, in the kernel", "B", None),
    of(MEMORY, "idle.burst", "a connection, after 2,000 publications", "B", None),
    of(MEMORY, "idle.burst_ratio", "memory after the burst, to idle", "x", Some(AtMost(1.1))),
    of(MEMORY, "idle.left", "left by a former connection, 95 of 100 gone", "B", None),
    of(
        MEMORY,
        "idle.left_ratio",
        "memory after 95 of 100 left, to idle (0.05 are still there)",
        "x",
        Some(AtMost(0.15)),
    ),
    of(MEMORY, "idle.heartbeats", "heartbeats of 19,000 at 25 s", "% of a processor", Some(AtMost(0.75))),
    of(DELIVERY, "paced.plain", "one frame a write, CPU a million, plain", "s", Some(AtMost(5.8))),
    of(DELIVERY, "paced.tls", "one frame a write, CPU a million, TLS", "s", Some(AtMost(6.6))),
    of(DELIVERY, "paced.p50", "publish to received at 20,000 deliveries/s, p50", "ms", None),
    of(DELIVERY, "paced.p99", "publish to received at 20,000 deliveries/s, p99", "ms", None),
    of(DELIVERY, "flood.plain", "flood to 5,000, CPU a million, plain", "s", Some(AtMost(0.10))),
    of(DELIVERY, "flood.tls", "flood to 5,000, CPU a million, TLS", "s", Some(AtMost(0.15))),
    of(DELIVERY, "flood.rate", "flood to 5,000, plain", "deliveries/s", None),
    of(
        REDIS,
        "direct.rate",
        "each connection its own channel, deliveries a second and core",
        "/s",
        Some(AtLeast(150e3)),
    ),
    of(REDIS, "direct.p50", "through Redis, publish to received at 20,000 deliveries/s, p50", "ms", None),
    of(
        REDIS,
        "direct.p99",
        "through Redis, publish to received at 20,000 deliveries/s, p99",
        "ms",
        Some(AtMost(2.0)),
    ),
    of(REDIS, "redis.cpu", "Redis' CPU a million publications, one node", "s", None),
    of(REDIS, "redis.commands", "commands to Redis, a publication that one node hears", "", None),
    of(REDIS, "redis.commands_four", "commands to Redis, a publication that four nodes hear", "", None),
    of(REDIS, "redis.bytes", "bytes from Redis, a publication of 128 B that one node hears", "B", None),
    of(REDIS, "redis.bytes_four", "bytes from Redis, a publication of 128 B that four nodes hear", "B", None),
    of(
        REDIS,
        "redis.resubscribe",
        "100,000 channels subscribed again after Redis was away",
        "s",
        Some(AtMost(1.0)),
    ),
    of(ENTRY, "connect.plain", "handshake, connect, subscribe; CPU, plain", "ms", Some(AtMost(0.06))),
    of(
        ENTRY,
        "connect.ecdsa",
        "handshake, connect, subscribe; CPU, TLS full, ECDSA P-256",
        "ms",
        Some(AtMost(0.20)),
    ),
    of(
        ENTRY,
        "connect.ecdsa_resumed",
        "handshake, connect, subscribe; CPU, TLS resumed, ECDSA P-256",
        "ms",
        Some(AtMost(0.17)),
    ),
    of(ENTRY, "connect.rsa", "handshake, connect, subscribe; CPU, TLS full, RSA 2048", "ms", None),
    of(ENTRY, "connect.rsa_resumed", "handshake, connect, subscribe; CPU, TLS resumed, RSA 2048", "ms", None),
    of(ENTRY, "connect.rsa_ratio", "resumed to full, RSA 2048", "x", Some(AtMost(0.334))),
    of(ENTRY, "connect.other_node", "tickets that another node of the fleet takes", "%", Some(AtLeast(99.0))),
    of(ENTRY, "connect.rate", "handshakes, plain", "/s", None),
    of(
        STORM,
        "storm.p99",
        "established traffic while all come back, p99 to its calm value",
        "x",
        Some(AtMost(2.0)),
    ),
    of(STORM, "storm.calm_ms", "established traffic, calm, p99", "ms", None),
    of(STORM, "storm.storm_ms", "established traffic, storm, p99", "ms", None),
    of(STORM, "storm.seconds", "until everyone is back", "s", None),
    of(STORM, "storm.broken", "established connections that ended", "", Some(AtMost(0.0))),
    of(STORM, "slow.p99", "others' p99 while readers stall, to without them", "x", None),
    of(STORM, "slow.bytes", "memory that a stalled reader costs at most", "B", None),
    of(POLLING, "polling.bytes", "bytes an update, long polling to WebSocket", "x", None),
    of(POLLING, "polling.cpu", "CPU an update, long polling to WebSocket", "x", None),
    of(SOUND, "lost", "deliveries lost or duplicated, of everything above", "", Some(AtMost(0.0))),
    of(SOUND, "broken", "connections that ended by themselves, of everything above", "", Some(AtMost(0.0))),
];

/// What the baseline took on the machine for which a goal was set. Processors and kernels differ by half and more, so a
/// goal of processor time says more as a ratio.
pub(crate) fn reference(key: &str) -> Option<f64> {
    match key {
        "idle.heartbeats" => Some(1.1),
        "paced.plain" => Some(9.3),
        "paced.tls" => Some(10.3),
        "flood.plain" => Some(0.65),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_key_stands_once_and_groups_are_together() {
        let keys: BTreeSet<_> = DEFINITIONS.iter().map(|it| it.key).collect();
        assert_eq!(keys.len(), DEFINITIONS.len());
        let mut groups: Vec<_> = DEFINITIONS.iter().map(|it| it.group).collect();
        groups.dedup();
        let distinct: BTreeSet<_> = groups.iter().collect();
        assert_eq!(groups.len(), distinct.len(), "{groups:?}");
    }
}
