//! Latencies: recorded by each client process, carried as text, merged without loss.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::process::to_f64;

/// Latencies in microseconds, to three significant digits, up to ten minutes; what is longer counts as ten minutes.
#[derive(Debug, Clone)]
pub(crate) struct Latencies {
    histogram: Histogram<u64>,
}

const LONGEST: u64 = 600_000_000;

/// How latencies cross a process boundary: (value in microseconds, how often).
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Counted(Vec<(u64, u64)>);

/// What is shown of them, in milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Summary {
    /// Half are at most this.
    pub(crate) p50_ms: f64,
    /// 99 of 100 are at most this.
    pub(crate) p99_ms: f64,
    /// 999 of 1,000 are at most this.
    pub(crate) p999_ms: f64,
    /// The longest.
    pub(crate) max_ms: f64,
}

impl Latencies {
    pub(crate) fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, LONGEST, 3).expect("the bounds are in order");
        Self { histogram }
    }

    /// Records one, in nanoseconds.
    pub(crate) fn record(&mut self, nanoseconds: u64) {
        self.histogram.saturating_record((nanoseconds / 1_000).clamp(1, LONGEST));
    }

    /// Everything that was recorded, to be sent elsewhere.
    pub(crate) fn counted(&self) -> Counted {
        let counts = self.histogram.iter_recorded();
        Counted(counts.map(|bucket| (bucket.value_iterated_to(), bucket.count_at_value())).collect())
    }

    /// Adds what another process recorded.
    pub(crate) fn merge(&mut self, counted: &Counted) {
        for &(value, count) in &counted.0 {
            self.histogram.saturating_record_n(value.clamp(1, LONGEST), count);
        }
    }

    /// How many were recorded.
    #[cfg(test)]
    fn len(&self) -> u64 {
        self.histogram.len()
    }

    /// None if nothing was recorded.
    pub(crate) fn summary(&self) -> Option<Summary> {
        let at = |quantile| to_f64(self.histogram.value_at_quantile(quantile)) / 1_000.0;
        (!self.histogram.is_empty()).then(|| Summary {
            p50_ms: at(0.50),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: to_f64(self.histogram.max()) / 1_000.0,
        })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failing test is what should happen")]
    use super::*;

    #[test]
    fn what_two_processes_recorded_is_what_one_would_have_recorded() {
        let (mut left, mut right, mut one) = (Latencies::new(), Latencies::new(), Latencies::new());
        for step in 0..20_000_u64 {
            let nanoseconds = step * step * 7 + 300;
            if step % 3 == 0 { &mut left } else { &mut right }.record(nanoseconds);
            one.record(nanoseconds);
        }
        let text = serde_json::to_string(&right.counted()).unwrap();
        left.merge(&serde_json::from_str(&text).unwrap());
        assert_eq!(left.len(), 20_000);
        for quantile in [0.0, 0.1, 0.5, 0.9, 0.99, 0.999, 1.0] {
            let merged = left.histogram.value_at_quantile(quantile);
            assert_eq!(merged, one.histogram.value_at_quantile(quantile), "{quantile}");
        }
        assert_eq!(left.histogram.max(), one.histogram.max());
    }

    #[test]
    fn a_summary_is_in_milliseconds() {
        let mut latencies = Latencies::new();
        assert!(latencies.summary().is_none());
        for _ in 0..98 {
            latencies.record(2_000_000);
        }
        latencies.record(50_000_000);
        latencies.record(u64::MAX);
        let summary = latencies.summary().unwrap();
        assert!((summary.p50_ms - 2.0).abs() < 0.01, "{summary:?}");
        assert!((summary.p99_ms - 50.0).abs() < 0.1, "{summary:?}");
        assert!(summary.max_ms >= 600_000.0, "{summary:?}");
    }
}
