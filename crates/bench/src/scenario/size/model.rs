//! The arithmetic of the calculator: what a load costs a fleet of so many nodes. No I/O.
//!
//! Each delivery is taken for a write of its own, which is the dearest case; bursts share writes and cost less.

use super::{Certificate, Options, Tls};
use crate::error::Error;
use crate::scenario::coefficients::Coefficients;

/// The coefficients that this load needs, by what they are of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Costs {
    pub(super) node_bytes: f64,
    pub(super) connection_bytes: f64,
    pub(super) subscription_bytes: f64,
    pub(super) kernel_bytes: f64,
    /// CPU in microseconds from here.
    pub(super) heartbeat: f64,
    pub(super) delivery: f64,
    pub(super) connect: f64,
    pub(super) relay: f64,
    pub(super) redis_publish: f64,
    pub(super) redis_push: f64,
    /// Bytes from here.
    pub(super) delivery_overhead: f64,
    pub(super) redis_overhead: f64,
}

impl Costs {
    pub(super) fn new(options: &Options, known: &Coefficients) -> Result<Self, Error> {
        let (connection, delivery) = match options.tls {
            Tls::None => ("connection_bytes", "delivery_cpu_us"),
            Tls::Stock => ("connection_bytes_tls", "delivery_cpu_us_tls"),
            Tls::Compact => ("connection_bytes_tls_compact", "delivery_cpu_us_tls"),
        };
        let (full, resumed) = match (options.tls, options.certificate) {
            (Tls::None, _) => ("connect_cpu_us", "connect_cpu_us"),
            (_, Certificate::Ecdsa) => ("connect_cpu_us_tls_ecdsa", "connect_cpu_us_tls_ecdsa_resumed"),
            (_, Certificate::Rsa) => ("connect_cpu_us_tls_rsa", "connect_cpu_us_tls_rsa_resumed"),
        };
        let share = options.resumed / 100.0;
        let connect = known.get(full)? * (1.0 - share);
        // Of what is not used nothing need be known.
        let connect = if share > 0.0 { connect + known.get(resumed)? * share } else { connect };
        let beyond = (options.message_bytes as f64 - 128.0).max(0.0) / 1_024.0;
        Ok(Self {
            node_bytes: known.get("node_bytes")?,
            connection_bytes: known.get(connection)?,
            subscription_bytes: known.get("subscription_bytes")?,
            kernel_bytes: known.get("kernel_bytes")?,
            heartbeat: known.get("heartbeat_cpu_us")?,
            delivery: known.get(delivery)? + beyond * known.get("delivery_cpu_us_per_kib")?,
            connect,
            relay: known.get("relay_cpu_us")?,
            redis_publish: known.get("redis_publish_cpu_us")?,
            redis_push: known.get("redis_push_cpu_us")?,
            delivery_overhead: known.get("delivery_overhead_bytes")?,
            redis_overhead: known.get("redis_overhead_bytes")?,
        })
    }
}

/// What the load costs a fleet of a certain size.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cost {
    /// Processors, of all nodes.
    pub(super) heartbeats: f64,
    pub(super) deliveries: f64,
    pub(super) relay: f64,
    /// While everyone comes back.
    pub(super) storm: f64,
    /// Of one node, in bytes.
    pub(super) user_space: f64,
    pub(super) kernel: f64,
    /// Of Redis: processors, bytes a second in and out.
    pub(super) redis: f64,
    pub(super) redis_in: f64,
    pub(super) redis_out: f64,
    /// To clients, bytes a second.
    pub(super) out: f64,
}

impl Cost {
    pub(super) fn processors(&self) -> f64 {
        self.heartbeats + self.deliveries + self.relay + self.storm
    }

    pub(super) fn memory(&self) -> f64 {
        self.user_space + self.kernel
    }
}

/// Of `nodes` nodes that share the connections evenly.
pub(super) fn cost(options: &Options, costs: &Costs, nodes: u32) -> Cost {
    let (connections, rate) = (f64::from(options.connections), options.publications);
    let deliveries = rate * options.fan_out;
    // A publication goes to the nodes that have a subscriber: to as many as it has subscribers, at most to all.
    let hearing = options.fan_out.min(f64::from(nodes));
    let each = connections / f64::from(nodes);
    let further = f64::from(options.subscriptions.saturating_sub(1));
    let message = options.message_bytes as f64;
    let beats = connections / options.heartbeat;
    Cost {
        heartbeats: beats * costs.heartbeat / 1e6,
        deliveries: deliveries * costs.delivery / 1e6,
        relay: rate * hearing * costs.relay / 1e6,
        storm: connections / options.storm_seconds * costs.connect / 1e6,
        user_space: costs.node_bytes + each * (costs.connection_bytes + further * costs.subscription_bytes),
        kernel: each * costs.kernel_bytes,
        redis: rate * (costs.redis_publish + hearing * costs.redis_push) / 1e6,
        redis_in: rate * (message + costs.redis_overhead),
        redis_out: rate * hearing * (message + costs.redis_overhead),
        // A ping is 4 bytes, with TLS a record around it: next to nothing, and not left out.
        out: deliveries * (message + costs.delivery_overhead) + beats * 4.0,
    }
}

/// Why there must be so many nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Because {
    Processors,
    Memory,
    Connections,
    /// One is enough.
    Nothing,
}

/// The fewest nodes that carry the load and leave the headroom. None if no number up to 10,000 does.
pub(super) fn nodes(options: &Options, costs: &Costs) -> Option<(u32, Because)> {
    let usable = 1.0 - options.headroom / 100.0;
    let (mut count, mut because) = (1_u32, Because::Nothing);
    // More nodes hear more publications, so what is needed grows with what there is: step until it fits.
    while count <= 10_000 {
        let cost = cost(options, costs, count);
        let of = f64::from(count);
        let needed = [
            (cost.processors() / (options.node_cores * usable), Because::Processors),
            (of * cost.memory() / (options.node_memory as f64 * usable), Because::Memory),
            (
                f64::from(options.connections) / (f64::from(options.node_connections) * usable),
                Because::Connections,
            ),
        ];
        let most = needed.into_iter().max_by(|left, right| left.0.total_cmp(&right.0));
        match most {
            Some((need, why)) if need > of => {
                because = why;
                // At least one more; the need, cut to what is looked at, is no larger than the loop's end.
                count = count.saturating_add(1).max(need.min(10_001.0).ceil() as u32);
            }
            _ => return Some((count, because)),
        }
    }
    None
}
