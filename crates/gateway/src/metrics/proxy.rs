//! What is counted of questions to backends.

use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts};

use super::FAST;
use super::families::Families;
use crate::proxy::Kind;

/// What came of a question: what the backend decided, then why it has not.
const RESULTS: [&str; 10] = [
    "granted",
    "refused",
    "disconnect",
    "busy",
    "open",
    "unreachable",
    "broken",
    "timeout",
    "status",
    "unusable",
];

/// Questions to backends.
#[derive(Debug)]
pub(crate) struct ProxyMetrics {
    /// In the order of `Kind::ALL`, each in that of `RESULTS`.
    requests: [[IntCounter; RESULTS.len()]; Kind::ALL.len()],
    seconds: [Histogram; Kind::ALL.len()],
    /// Requests under way. Moved by the requests alone.
    pub(crate) in_flight: IntGauge,
    /// Backends that are left alone or only tried. Moved by their breakers alone.
    pub(crate) breaker_open: IntGauge,
}

impl ProxyMetrics {
    pub(super) fn new(new: &Families) -> Result<Self, prometheus::Error> {
        let requests = new.register(IntCounterVec::new(
            Opts::new("tidegate_proxy_requests_total", "Questions to backends, by what came of them."),
            &["kind", "result"],
        )?)?;
        let seconds = HistogramOpts::new(
            "tidegate_proxy_seconds",
            "From a question to a backend to its answer, with waiting and a second try.",
        );
        let seconds = new.register(HistogramVec::new(seconds.buckets(FAST.to_vec()), &["kind"])?)?;
        Ok(Self {
            requests: Kind::ALL
                .map(|kind| RESULTS.map(|result| requests.with_label_values(&[kind.label(), result]))),
            seconds: Kind::ALL.map(|kind| seconds.with_label_values(&[kind.label()])),
            in_flight: new.gauge("proxy_in_flight", "Requests to backends under way.")?,
            breaker_open: new.gauge(
                "proxy_breaker_open",
                "Backends that failed too often and are left alone, or only tried.",
            )?,
        })
    }

    /// A question was answered, or will not be.
    pub(crate) fn asked(&self, kind: Kind, result: &'static str, took: Duration) {
        self.seconds[kind as usize].observe(took.as_secs_f64());
        match RESULTS.iter().position(|known| *known == result) {
            Some(at) => self.requests[kind as usize][at].inc(),
            None => tracing::warn!(result, "a question to a backend had a result that has no metric"),
        }
    }
}
