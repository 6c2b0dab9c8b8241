//! Time as the sweep sees it.

use std::time::Duration;

/// How long a tick lasts: the precision of every heartbeat and deadline of a session.
pub const TICK: Duration = Duration::from_millis(250);

/// A moment, counted in [`TICK`]s since the worker started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Tick(pub u32);

impl Tick {
    /// The moment `ticks` later.
    #[must_use]
    pub const fn after(self, ticks: u32) -> Self {
        Self(self.0.saturating_add(ticks))
    }

    /// How many whole ticks `duration` has, at least one.
    pub fn count(duration: Duration) -> u32 {
        let ticks = duration.as_millis().div_ceil(TICK.as_millis());
        u32::try_from(ticks).unwrap_or(u32::MAX).max(1)
    }
}
