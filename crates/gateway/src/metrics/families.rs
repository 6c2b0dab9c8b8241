//! Makes families and registers them. Names get the prefix `tidegate_` here.

use prometheus::core::Collector;
use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
};
use tidegate_protocol::Disconnect;

use super::FAST;
use super::labels::RELAY_COMMANDS;

/// Makes families and registers them.
pub(super) struct Families {
    pub(super) registry: Registry,
}

impl Families {
    pub(super) fn register<C: Collector + Clone + 'static>(&self, family: C) -> Result<C, prometheus::Error> {
        self.registry.register(Box::new(family.clone()))?;
        Ok(family)
    }

    pub(super) fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.register(IntGauge::new(format!("tidegate_{name}"), help)?)
    }

    /// A gauge that says nothing until it is set.
    pub(super) fn unknown(&self, name: &str, help: &str) -> Result<Gauge, prometheus::Error> {
        let gauge = self.register(Gauge::new(format!("tidegate_{name}"), help)?)?;
        gauge.set(f64::NAN);
        Ok(gauge)
    }

    pub(super) fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        self.register(IntCounter::new(format!("tidegate_{name}"), help)?)
    }

    pub(super) fn counters<const N: usize>(
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

    pub(super) fn disconnects(&self) -> Result<Vec<IntCounter>, prometheus::Error> {
        let family = self.register(IntCounterVec::new(
            Opts::new("tidegate_disconnects_total", "Client connections that ended, by close code."),
            &["code"],
        )?)?;
        Ok(Disconnect::ALL.iter().map(|reason| family.with_label_values(&[reason.label()])).collect())
    }

    pub(super) fn histogram(
        &self,
        name: &str,
        help: &str,
        buckets: &[f64],
    ) -> Result<Histogram, prometheus::Error> {
        let opts = HistogramOpts::new(format!("tidegate_{name}"), help).buckets(buckets.to_vec());
        self.register(Histogram::with_opts(opts)?)
    }

    pub(super) fn relay_commands(&self) -> Result<[Histogram; RELAY_COMMANDS.len()], prometheus::Error> {
        let opts = HistogramOpts::new("tidegate_relay_command_seconds", "How long commands to Redis took.")
            .buckets(FAST.to_vec());
        let family = self.register(HistogramVec::new(opts, &["command"])?)?;
        Ok(RELAY_COMMANDS.map(|command| family.with_label_values(&[command])))
    }
}
