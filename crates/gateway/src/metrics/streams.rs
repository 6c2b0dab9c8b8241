//! What is counted of the streams in Redis: durable ingest and events.

use std::time::Duration;

use prometheus::{IntCounter, IntGauge};
use tidegate_relay::Ingested;

use super::families::Families;
use super::gauge_value;

/// Counters and gauges of both streams.
#[derive(Debug)]
pub(super) struct Streams {
    entries: [IntCounter; INGESTED.len()],
    pending: IntGauge,
    lag: IntGauge,
    oldest: IntGauge,
    /// Events that Redis took.
    pub(super) written: IntCounter,
    /// Events that were dropped.
    pub(super) dropped: IntCounter,
}

/// What can become of an entry, with its label.
const INGESTED: [(Ingested, &str); 6] = [
    (Ingested::Published, "published"),
    (Ingested::Control, "control"),
    (Ingested::Poison, "poison"),
    (Ingested::Deferred, "deferred"),
    (Ingested::Claimed, "claimed"),
    (Ingested::Deleted, "deleted"),
];

impl Streams {
    pub(super) fn new(new: &Families) -> Result<Self, prometheus::Error> {
        Ok(Self {
            entries: new.counters(
                "ingest_entries_total",
                "Entries of the ingest stream that this node had, by what became of them.",
                "result",
                INGESTED.map(|(_, label)| label),
            )?,
            pending: new.gauge(
                "ingest_pending",
                "Entries of the ingest stream that some node has and has not acknowledged.",
            )?,
            lag: new.gauge("ingest_lag", "Entries of the ingest stream that no node has read.")?,
            oldest: new.gauge(
                "ingest_oldest_seconds",
                "Age of the oldest entry of the ingest stream that is not done.",
            )?,
            written: new.counter("events_written_total", "Events of clients that Redis took.")?,
            dropped: new.counter(
                "events_dropped_total",
                "Events of clients that were dropped, the oldest first: Redis took them too slowly, or not at all.",
            )?,
        })
    }

    /// Entries were dealt with.
    pub(super) fn ingested(&self, what: Ingested, count: u64) {
        if let Some(at) = INGESTED.iter().position(|(known, _)| *known == what) {
            self.entries[at].inc_by(count);
        }
    }

    /// The stream was looked at.
    pub(super) fn stands(&self, pending: u64, waiting: u64, oldest: Duration) {
        let gauge = |count: u64| gauge_value(usize::try_from(count).unwrap_or(usize::MAX));
        self.pending.set(gauge(pending));
        self.lag.set(gauge(waiting));
        self.oldest.set(gauge(oldest.as_secs()));
    }
}
