//! The parts of a run: which scenarios are called with which options, and which figures are taken from their results.

mod connect;
mod deliveries;
mod idle;
mod polling;
mod relay;
mod resubscribe;
mod storm;

use super::bench::Bench;
use crate::error::Error;

/// A part.
pub(super) struct Part {
    /// For `--only`.
    pub(super) name: &'static str,
    /// How long it takes on two processors, about.
    pub(super) seconds: f64,
    /// Whether it is done again while there is time.
    pub(super) again: bool,
    pub(super) run: fn(&mut Bench) -> Result<(), Error>,
}

const fn part(
    name: &'static str,
    seconds: f64,
    again: bool,
    run: fn(&mut Bench) -> Result<(), Error>,
) -> Part {
    Part { name, seconds, again, run }
}

/// In their order.
pub(super) const PARTS: &[Part] = &[
    part("idle", 125.0, false, idle::plain),
    part("idle-tls", 62.0, false, idle::tls),
    part("idle-compact", 14.0, false, idle::compact),
    part("connect", 16.0, true, connect::plain),
    part("connect-tls", 30.0, true, connect::tls),
    part("fanout", 40.0, true, deliveries::paced),
    part("flood", 36.0, true, deliveries::flood),
    part("direct", 22.0, true, relay::direct),
    part("redis", 12.0, true, relay::redis),
    part("resubscribe", 6.0, true, resubscribe::run),
    part("workers", 16.0, false, relay::workers),
    part("nodes", 32.0, false, relay::nodes),
    part("storm", 45.0, false, storm::storm),
    part("slow", 40.0, false, storm::slow),
    part("polling", 48.0, false, polling::run),
];
