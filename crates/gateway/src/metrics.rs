//! What the node counts, in one registry of its own.
//!
//! Every child of every family is resolved once, when the node starts: counting is an atomic addition. Labels are
//! closed sets; never a user, a channel or an address. `docs/reference/metrics.md` is held against this file by a
//! test.
//!
//! Not here: when something is counted. Shards count in plain integers (`tidegate_hub::Tally`) and hand them over
//! once a turn; gauges are set by whoever owns the one counter they mirror, so they cannot drift.

mod families;
mod labels;
mod proxy;
mod streams;
#[cfg(test)]
mod tests;

use std::time::Duration;

use prometheus::{Gauge, Histogram, IntCounter, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};
use tidegate_hub::{Tally, tally};
use tidegate_protocol::{Codec, Disconnect};
use tidegate_relay::{Observation, RelayError};

use self::families::Families;
pub(crate) use self::labels::{Handshake, Rejection, Source};
use self::labels::{REFUSALS, RELAY_COMMANDS};
use self::proxy::ProxyMetrics;
use self::streams::Streams;

/// The media type of [`Metrics::render`].
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The node's metrics. Cloning the pieces shares them.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    /// Bytes a connection; not a number while there are too few to tell.
    pub memory_per_connection: Gauge,

    connections: [IntGauge; Codec::ALL.len()],
    /// The most connections the node takes.
    pub connections_limit: IntGauge,
    /// Connections that reached the upgrade.
    pub connections_accepted: IntCounter,
    connections_rejected: [IntCounter; Rejection::ALL.len()],
    /// Connections that wait for their turn. Moved by their places alone.
    pub connections_waiting: IntGauge,
    disconnects: Vec<IntCounter>,
    connection_age: Histogram,
    /// From accept to the 101, TLS included, in seconds.
    pub handshake_seconds: Histogram,
    tls_handshakes: [IntCounter; Handshake::ALL.len()],
    /// Connections still open while the node drains.
    pub drain_remaining: IntGauge,

    /// Subscriptions of all sessions.
    pub subscriptions: IntGauge,
    /// Channels with a local subscriber.
    pub channels: IntGauge,
    /// Bytes waiting in all outboxes.
    pub outbox_bytes: IntGauge,
    messages_received: [IntCounter; tally::COMMANDS.len()],
    messages_sent: [IntCounter; tally::SENT.len()],
    /// Bytes read from upgraded sockets, after TLS.
    pub bytes_received: IntCounter,
    /// Bytes written to upgraded sockets, before TLS.
    pub bytes_sent: IntCounter,
    slow_consumers: IntCounter,
    conflated: IntCounter,
    heartbeat_timeouts: IntCounter,
    recoveries: [IntCounter; tally::RECOVERIES.len()],
    /// How late a worker's sweep was, in seconds.
    pub worker_lag: Histogram,

    publications: [IntCounter; Source::ALL.len()],
    publication_rejected: [IntCounter; REFUSALS.len()],
    /// From the relay's read to the last socket write of a publication, in seconds.
    pub delivery_seconds: Histogram,

    relay_up: IntGauge,
    relay_reconnects: IntCounter,
    relay_gaps: IntCounter,
    relay_dropped: IntCounter,
    relay_repaired: IntCounter,
    relay_probe: Histogram,
    relay_commands: [Histogram; RELAY_COMMANDS.len()],
    streams: Streams,

    /// Questions to backends.
    pub proxy: ProxyMetrics,
}

/// Buckets for what should take microseconds to seconds.
const FAST: [f64; 13] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0];

/// Buckets for the age of connections: a second to a week.
const AGES: [f64; 10] = [1.0, 10.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 43_200.0, 86_400.0, 604_800.0];

impl Metrics {
    /// Registers every family. Errors: only a mistake in this file.
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let new = Families { registry: Registry::new() };
        #[cfg(target_os = "linux")]
        new.registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        let build = IntGaugeVec::new(
            Opts::new("tidegate_build_info", "Always 1; the label says which version runs."),
            &["version"],
        )?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        new.register(build)?;
        let connections = new.register(IntGaugeVec::new(
            Opts::new("tidegate_connections", "Open client connections."),
            &["transport", "codec"],
        )?)?;

        Ok(Self {
            memory_per_connection: new.unknown(
                "memory_per_connection_bytes",
                "Anonymous memory beyond that without connections, divided by them; NaN below a thousand.",
            )?,
            connections: Codec::ALL.map(|codec| connections.with_label_values(&["websocket", codec.label()])),
            connections_limit: new.gauge(
                "connections_limit",
                "Most client connections the node takes (limits.max_connections).",
            )?,
            connections_accepted: new
                .counter("connections_accepted_total", "Client connections that reached the upgrade.")?,
            connections_rejected: new.counters(
                "connections_rejected_total",
                "Client connections that did not reach the upgrade.",
                "reason",
                Rejection::ALL.map(Rejection::label),
            )?,
            connections_waiting: new.gauge(
                "connections_waiting",
                "Connections that wait until limits.accept_rate lets them in.",
            )?,
            disconnects: new.disconnects()?,
            connection_age: new.histogram(
                "connection_age_seconds",
                "Age of client connections when they ended.",
                &AGES,
            )?,
            handshake_seconds: new.histogram(
                "handshake_seconds",
                "From accept to the WebSocket upgrade, TLS included.",
                &FAST,
            )?,
            tls_handshakes: new.counters(
                "tls_handshakes_total",
                "TLS handshakes completed.",
                "kind",
                Handshake::ALL.map(Handshake::label),
            )?,
            drain_remaining: new.gauge(
                "drain_remaining_connections",
                "Connections still open while the node drains; 0 while it does not.",
            )?,
            subscriptions: new.gauge("subscriptions", "Subscriptions of all sessions.")?,
            channels: new.gauge("channels", "Channels with a subscriber on this node.")?,
            outbox_bytes: new.gauge("outbox_bytes", "Bytes waiting to be written to clients.")?,
            messages_received: new.counters(
                "messages_received_total",
                "Commands received from clients.",
                "command",
                tally::COMMANDS,
            )?,
            messages_sent: new.counters(
                "messages_sent_total",
                "Frames put into outboxes.",
                "kind",
                tally::SENT,
            )?,
            bytes_received: new
                .counter("bytes_received_total", "Bytes read from upgraded sockets, without TLS.")?,
            bytes_sent: new.counter("bytes_sent_total", "Bytes written to upgraded sockets, without TLS.")?,
            slow_consumers: new.counter(
                "slow_consumers_total",
                "Connections ended because their outbox passed its bound.",
            )?,
            conflated: new.counter(
                "publications_conflated_total",
                "Publications put into outboxes that a newer one of their channel replaced: delivery: latest.",
            )?,
            recoveries: new.counters(
                "recoveries_total",
                "Subscriptions that asked for what they missed, by what came of it.",
                "result",
                tally::RECOVERIES,
            )?,
            heartbeat_timeouts: new
                .counter("heartbeat_timeouts_total", "Connections ended because no pong came in time.")?,
            worker_lag: new.histogram(
                "worker_lag_seconds",
                "How late the sweeps of the workers were: what their connections waited at most.",
                &FAST,
            )?,
            publications: new.counters(
                "publications_total",
                "Publications, by where they came from.",
                "source",
                Source::ALL.map(Source::label),
            )?,
            publication_rejected: new.counters(
                "publication_rejected_total",
                "Publications that went nowhere.",
                "reason",
                REFUSALS,
            )?,
            delivery_seconds: new.histogram(
                "delivery_seconds",
                "From the relay's read of a publication to its last socket write.",
                &FAST,
            )?,
            relay_up: new.gauge("relay_up", "Whether the relay can carry publications: 1 or 0.")?,
            relay_reconnects: new
                .counter("relay_reconnects_total", "Connections to Redis that were made again.")?,
            relay_gaps: new.counter(
                "relay_gaps_total",
                "Subscribed channels that may have missed publications: the relay was down, or Redis refuses them now.",
            )?,
            relay_dropped: new.counter(
                "relay_dropped_publications_total",
                "Publications dropped because a worker did not take them in time.",
            )?,
            relay_repaired: new.counter(
                "relay_repaired_publications_total",
                "Publications that were missed live, read from their channels' history and delivered.",
            )?,
            relay_probe: new.histogram(
                "relay_probe_seconds",
                "From a probe's way into Redis until it was heard on the connection to hear.",
                &FAST,
            )?,
            relay_commands: new.relay_commands()?,
            streams: Streams::new(&new)?,
            proxy: ProxyMetrics::new(&new)?,
            registry: new.registry,
        })
    }

    /// The gauge of open connections of a codec. Moved by the permits alone.
    pub(crate) const fn connections(&self, codec: Codec) -> &IntGauge {
        match codec {
            Codec::Json => &self.connections[0],
            Codec::Protobuf => &self.connections[1],
        }
    }

    /// Adds what a shard counted.
    pub(crate) fn tally(&self, tally: &Tally) {
        add(&self.messages_received, &tally.received);
        add(&self.messages_sent, &tally.sent);
        self.heartbeat_timeouts.inc_by(tally.heartbeat_timeouts);
        add(&self.recoveries, &tally.recoveries);
        self.slow_consumers.inc_by(tally.slow_consumers);
        self.conflated.inc_by(tally.conflated);
    }

    /// Takes in what the relay observed.
    pub(crate) fn observe(&self, observation: Observation) {
        match observation {
            Observation::Up => self.relay_up.set(1),
            Observation::Down { channels } => {
                self.relay_up.set(0);
                self.relay_gaps.inc_by(channels as u64);
            }
            Observation::Missed { channels } => self.relay_gaps.inc_by(channels as u64),
            Observation::Reconnected => self.relay_reconnects.inc(),
            Observation::Repaired(count) => self.relay_repaired.inc_by(count),
            Observation::Probe(took) => self.relay_probe.observe(took.as_secs_f64()),
            Observation::Refused(reason) => self.refused(reason),
            Observation::Dropped(count) => self.relay_dropped.inc_by(count),
            Observation::Ingested(what, count) => self.streams.ingested(what, count),
            Observation::IngestStands { pending, waiting, oldest } => {
                self.streams.stands(pending, waiting, oldest);
            }
            Observation::EventsWritten(count) => self.streams.written.inc_by(count),
            Observation::EventsDropped(count) => self.streams.dropped.inc_by(count),
            Observation::Command(command, took) => {
                let at = RELAY_COMMANDS.iter().position(|known| *known == command);
                self.relay_commands[at.unwrap_or(RELAY_COMMANDS.len() - 1)].observe(took.as_secs_f64());
            }
        }
    }

    /// A connection ended.
    pub(crate) fn disconnected(&self, reason: Disconnect, age: Duration) {
        // The variants have no numbers of their own, so they count up as `Disconnect::ALL` does.
        if let Some(counter) = self.disconnects.get(reason as usize) {
            counter.inc();
        }
        self.connection_age.observe(age.as_secs_f64());
    }

    /// A connection did not reach the upgrade.
    pub(crate) fn rejected(&self, rejection: Rejection) {
        self.connections_rejected[rejection as usize].inc();
    }

    /// A TLS handshake was completed.
    pub(crate) fn tls_handshake(&self, kind: Handshake) {
        self.tls_handshakes[kind as usize].inc();
    }

    /// Publications came.
    pub(crate) fn published(&self, source: Source, count: u64) {
        self.publications[source as usize].inc_by(count);
    }

    /// A publication of a client or the API was not taken by the relay.
    pub(crate) fn publish_failed(&self, error: &RelayError) {
        self.refused(match error {
            RelayError::Away(_) | RelayError::Settings(_) => "relay_away",
            RelayError::Refused(_) | RelayError::Unavailable | RelayError::Unrecoverable => "relay_refused",
            RelayError::Busy => "relay_busy",
        });
    }

    fn refused(&self, reason: &'static str) {
        match REFUSALS.iter().position(|known| *known == reason) {
            Some(at) => self.publication_rejected[at].inc(),
            None => tracing::warn!(reason, "a publication was refused for a reason that has no metric"),
        }
    }

    /// All metrics in Prometheus' text format.
    pub(crate) fn render(&self) -> String {
        match TextEncoder::new().encode_to_string(&self.registry.gather()) {
            Ok(text) => text,
            Err(error) => {
                tracing::error!(%error, "failed to encode the metrics");
                String::new()
            }
        }
    }
}

fn add<const N: usize>(counters: &[IntCounter; N], counts: &[u64; N]) {
    for (counter, count) in counters.iter().zip(counts) {
        if *count > 0 {
            counter.inc_by(*count);
        }
    }
}

/// A gauge's value for a count.
pub(crate) fn gauge_value(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
