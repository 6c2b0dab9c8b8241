//! What the node counts, in one registry of its own.
//!
//! Every child of every family is resolved once, when the node starts: counting is an atomic addition. Labels are
//! closed sets; never a user, a channel or an address. `docs/reference/metrics.md` is held against this file by a
//! test.
//!
//! Not here: when something is counted. Shards count in plain integers (`tidegate_hub::Tally`) and hand them over
//! once a turn; gauges are set by whoever owns the one counter they mirror, so they cannot drift.

use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};
use tidegate_hub::{Tally, tally};
use tidegate_protocol::{Codec, Disconnect};
use tidegate_relay::{Observation, RelayError};

/// The media type of [`Metrics::render`].
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The node's metrics. Cloning the pieces shares them.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    /// Resident bytes when the node started; what connections cost is counted from there.
    rss_at_start: u64,
    memory_per_connection: IntGauge,

    connections: [IntGauge; Codec::ALL.len()],
    /// The most connections the node takes.
    pub connections_limit: IntGauge,
    /// Connections that reached the upgrade.
    pub connections_accepted: IntCounter,
    connections_rejected: [IntCounter; Rejection::ALL.len()],
    disconnects: Vec<IntCounter>,
    connection_age: Histogram,
    /// From accept to the 101, TLS included, in seconds.
    pub handshake_seconds: Histogram,
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
    heartbeat_timeouts: IntCounter,

    publications: [IntCounter; Source::ALL.len()],
    publication_rejected: [IntCounter; REFUSALS.len()],
    /// From the relay's read to the last socket write of a publication, in seconds.
    pub delivery_seconds: Histogram,

    relay_up: IntGauge,
    relay_reconnects: IntCounter,
    relay_gaps: IntCounter,
    relay_dropped: IntCounter,
    relay_commands: [Histogram; RELAY_COMMANDS.len()],
}

/// Why a connection did not reach the upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rejection {
    /// `limits.max_connections` is reached.
    Full,
    /// `limits.max_connections_per_ip` is reached.
    PerIp,
    /// The browser's origin is not in `auth.origins`.
    Origin,
    /// `limits.handshake_timeout` has passed.
    HandshakeTimeout,
    /// The TLS handshake failed.
    Tls,
    /// The request was not a WebSocket handshake that the node accepts.
    BadRequest,
    /// `limits.max_handshakes` is reached.
    Handshakes,
    /// The node is shutting down.
    Shutdown,
}

impl Rejection {
    /// Every reason.
    pub(crate) const ALL: [Self; 8] = [
        Self::Full,
        Self::PerIp,
        Self::Origin,
        Self::HandshakeTimeout,
        Self::Tls,
        Self::BadRequest,
        Self::Handshakes,
        Self::Shutdown,
    ];

    /// The metric label.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::PerIp => "per_ip",
            Self::Origin => "origin",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::Tls => "tls",
            Self::BadRequest => "bad_request",
            Self::Handshakes => "handshakes",
            Self::Shutdown => "shutdown",
        }
    }
}

/// Where a publication came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// A client's publish command, acknowledged by the relay.
    Client,
    /// The server API, acknowledged by the relay.
    Api,
    /// The relay: everything this node had to deliver, whoever published it.
    Relay,
}

impl Source {
    /// Every source.
    pub(crate) const ALL: [Self; 3] = [Self::Client, Self::Api, Self::Relay];

    /// The metric label.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Api => "api",
            Self::Relay => "relay",
        }
    }
}

/// Why a publication went nowhere: the relay's `Observation::Refused` reasons, then those of [`RelayError`].
const REFUSALS: [&str; 8] = [
    "not_json",
    "envelope",
    "too_large",
    "channel_name",
    "control",
    "relay_away",
    "relay_refused",
    "relay_busy",
];

/// What is timed at Redis; the last is for any other.
const RELAY_COMMANDS: [&str; 5] = ["publish", "subscribe", "heartbeat", "probe", "other"];

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
            rss_at_start: resident_bytes(),
            memory_per_connection: new.gauge(
                "memory_per_connection_bytes",
                "Resident memory beyond that at start, divided by open connections; 0 while there is none.",
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
            heartbeat_timeouts: new
                .counter("heartbeat_timeouts_total", "Connections ended because no pong came in time.")?,
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
                "Subscribed channels that may have missed publications while the relay was down.",
            )?,
            relay_dropped: new.counter(
                "relay_dropped_publications_total",
                "Publications dropped because a worker did not take them in time.",
            )?,
            relay_commands: new.relay_commands()?,
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
        self.slow_consumers.inc_by(tally.slow_consumers);
    }

    /// Takes in what the relay observed.
    pub(crate) fn observe(&self, observation: Observation) {
        match observation {
            Observation::Up => self.relay_up.set(1),
            Observation::Down { channels } => {
                self.relay_up.set(0);
                self.relay_gaps.inc_by(channels as u64);
            }
            Observation::Reconnected => self.relay_reconnects.inc(),
            Observation::Refused(reason) => self.refused(reason),
            Observation::Dropped(count) => self.relay_dropped.inc_by(count),
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

    /// Publications came.
    pub(crate) fn published(&self, source: Source, count: u64) {
        self.publications[source as usize].inc_by(count);
    }

    /// A publication of a client or the API was not taken by the relay.
    pub(crate) fn publish_failed(&self, error: &RelayError) {
        self.refused(match error {
            RelayError::Away(_) | RelayError::Settings(_) => "relay_away",
            RelayError::Refused(_) => "relay_refused",
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
        let open: i64 = self.connections.iter().map(IntGauge::get).sum();
        let used = resident_bytes().saturating_sub(self.rss_at_start);
        self.memory_per_connection.set(match u64::try_from(open) {
            Ok(open @ 1..) => i64::try_from(used / open).unwrap_or(i64::MAX),
            _ => 0,
        });
        match TextEncoder::new().encode_to_string(&self.registry.gather()) {
            Ok(text) => text,
            Err(error) => {
                tracing::error!(%error, "failed to encode the metrics");
                String::new()
            }
        }
    }
}

/// Makes families and registers them.
struct Families {
    registry: Registry,
}

impl Families {
    fn register<C: Collector + Clone + 'static>(&self, family: C) -> Result<C, prometheus::Error> {
        self.registry.register(Box::new(family.clone()))?;
        Ok(family)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.register(IntGauge::new(format!("tidegate_{name}"), help)?)
    }

    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        self.register(IntCounter::new(format!("tidegate_{name}"), help)?)
    }

    fn counters<const N: usize>(
        &self,
        name: &str,
        help: &str,
        label: &str,
        values: [&str; N],
    ) -> Result<[IntCounter; N], prometheus::Error> {
        let family = IntCounterVec::new(Opts::new(format!("tidegate_{name}"), help), &[label])?;
        let family = self.register(family)?;
        Ok(values.map(|value| family.with_label_values(&[value])))
    }

    fn disconnects(&self) -> Result<Vec<IntCounter>, prometheus::Error> {
        let family = self.register(IntCounterVec::new(
            Opts::new("tidegate_disconnects_total", "Client connections that ended, by close code."),
            &["code"],
        )?)?;
        Ok(Disconnect::ALL.iter().map(|reason| family.with_label_values(&[reason.label()])).collect())
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Result<Histogram, prometheus::Error> {
        let opts = HistogramOpts::new(format!("tidegate_{name}"), help).buckets(buckets.to_vec());
        self.register(Histogram::with_opts(opts)?)
    }

    fn relay_commands(&self) -> Result<[Histogram; RELAY_COMMANDS.len()], prometheus::Error> {
        let opts = HistogramOpts::new("tidegate_relay_command_seconds", "How long commands to Redis took.")
            .buckets(FAST.to_vec());
        let family = self.register(prometheus::HistogramVec::new(opts, &["command"])?)?;
        Ok(RELAY_COMMANDS.map(|command| family.with_label_values(&[command])))
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

/// The memory of this process that is in RAM; 0 where the system does not say.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.trim().strip_suffix("kB")).and_then(|n| n.trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failing test is what should happen")]
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    /// Label names, each with its values.
    type Labels = BTreeMap<String, BTreeSet<String>>;

    fn value(metrics: &Metrics, line: &str) -> String {
        let text = metrics.render();
        let found =
            text.lines().find_map(|each| each.strip_prefix(line)?.strip_prefix(' ').map(str::to_owned));
        found.unwrap_or_else(|| panic!("{line} is not in\n{text}"))
    }

    #[test]
    fn what_is_counted_is_shown_under_its_label() {
        let metrics = Metrics::new().unwrap();
        let mut tally = Tally { slow_consumers: 2, heartbeat_timeouts: 3, ..Tally::default() };
        tally.received[1] = 5;
        tally.sent[3] = 7;
        metrics.tally(&tally);
        assert_eq!(value(&metrics, "tidegate_messages_received_total{command=\"subscribe\"}"), "5");
        assert_eq!(value(&metrics, "tidegate_messages_sent_total{kind=\"ping\"}"), "7");
        assert_eq!(value(&metrics, "tidegate_slow_consumers_total"), "2");
        assert_eq!(value(&metrics, "tidegate_heartbeat_timeouts_total"), "3");
        for rejection in Rejection::ALL {
            metrics.rejected(rejection);
            let line = format!("tidegate_connections_rejected_total{{reason=\"{}\"}}", rejection.label());
            assert_eq!(value(&metrics, &line), "1");
        }
        for source in Source::ALL {
            metrics.published(source, 4);
            let line = format!("tidegate_publications_total{{source=\"{}\"}}", source.label());
            assert_eq!(value(&metrics, &line), "4");
        }
        for reason in Disconnect::ALL {
            metrics.disconnected(*reason, Duration::from_secs(1));
            let line = format!("tidegate_disconnects_total{{code=\"{}\"}}", reason.label());
            assert_eq!(value(&metrics, &line), "1");
        }
        let ended = Disconnect::ALL.len().to_string();
        assert_eq!(value(&metrics, "tidegate_connection_age_seconds_count"), ended);
    }

    #[test]
    fn the_relay_shows_when_it_is_up_and_what_it_lost() {
        let metrics = Metrics::new().unwrap();
        metrics.observe(Observation::Up);
        assert_eq!(value(&metrics, "tidegate_relay_up"), "1");
        metrics.observe(Observation::Down { channels: 12 });
        metrics.observe(Observation::Reconnected);
        metrics.observe(Observation::Dropped(9));
        for reason in ["not_json", "envelope", "too_large", "channel_name", "control"] {
            metrics.observe(Observation::Refused(reason));
            let line = format!("tidegate_publication_rejected_total{{reason=\"{reason}\"}}");
            assert_eq!(value(&metrics, &line), "1");
        }
        metrics.observe(Observation::Command("publish", Duration::from_millis(3)));
        metrics.observe(Observation::Command("something new", Duration::from_millis(3)));
        for (line, expected) in [
            ("tidegate_relay_up", "0"),
            ("tidegate_relay_gaps_total", "12"),
            ("tidegate_relay_reconnects_total", "1"),
            ("tidegate_relay_dropped_publications_total", "9"),
            ("tidegate_relay_command_seconds_count{command=\"publish\"}", "1"),
            ("tidegate_relay_command_seconds_count{command=\"other\"}", "1"),
        ] {
            assert_eq!(value(&metrics, line), expected, "{line}");
        }
    }

    #[test]
    fn memory_a_connection_is_0_while_there_is_none() {
        let mut metrics = Metrics::new().unwrap();
        assert_eq!(value(&metrics, "tidegate_memory_per_connection_bytes"), "0");
        metrics.rss_at_start = 0;
        metrics.connections(Codec::Json).set(2);
        metrics.connections(Codec::Protobuf).set(2);
        let each: u64 = value(&metrics, "tidegate_memory_per_connection_bytes").parse().unwrap();
        // A test process has more than a megabyte, four connections share it.
        assert!(each > 256 * 1024, "{each}");
    }

    #[test]
    fn the_reference_has_every_family_with_its_type_and_labels_and_no_other() {
        let metrics = Metrics::new().unwrap();
        metrics.render();
        let mut families: BTreeMap<String, (String, Labels)> = BTreeMap::new();
        for family in metrics.registry.gather() {
            let kind = format!("{:?}", family.get_field_type()).to_lowercase();
            let mut labels = Labels::new();
            for pair in family.get_metric().iter().flat_map(|metric| metric.get_label()) {
                labels.entry(pair.name().to_owned()).or_default().insert(pair.value().to_owned());
            }
            families.insert(family.name().to_owned(), (kind, labels));
        }

        let page = include_str!("../../../docs/reference/metrics.md");
        let rows =
            page.lines().filter(|line| line.starts_with("| `tidegate_") || line.starts_with("| `process_"));
        for row in rows {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let name = cells[1].trim_matches('`');
            let (kind, labels) = families.remove(name).unwrap_or_else(|| panic!("there is no family {name}"));
            assert_eq!(cells[2], kind, "{name}");
            let mut documented = Labels::new();
            for label in cells[3].split(';').map(str::trim).filter(|label| !label.is_empty()) {
                let (label, values) = label.split_once(':').unwrap();
                let label = label.trim_matches('`').to_owned();
                let listed: BTreeSet<String> = values
                    .split(',')
                    .filter_map(|value| Some(value.trim().strip_prefix('`')?.strip_suffix('`')?.to_owned()))
                    .collect();
                // A set that is described elsewhere is not listed here.
                let values =
                    if listed.is_empty() { labels.get(&label).cloned().unwrap_or_default() } else { listed };
                documented.insert(label, values);
            }
            assert_eq!(documented, labels, "{name}");
            if let Some(reasons) = labels.get("reason") {
                for reason in reasons {
                    assert!(
                        page.contains(&format!("\n| `{reason}` | ")),
                        "{name}: {reason} is not explained"
                    );
                }
            }
        }
        assert!(families.is_empty(), "not in the reference: {:?}", families.keys());
    }
}
