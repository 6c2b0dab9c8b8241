//! Time that all processes of one machine agree on, and waiting for it to pass.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of the machine's monotonic clock: the same in every process, so a client can tell how old a publication
/// is that another process stamped.
pub(crate) fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// Seconds between two readings of [`now`].
pub(crate) fn seconds(from: u64, to: u64) -> f64 {
    Duration::from_nanos(to.saturating_sub(from)).as_secs_f64()
}

/// Lets time pass: a window in which the server is watched, or the pace of a publisher.
#[expect(
    clippy::disallowed_methods,
    reason = "nothing is waited for but time itself, on a thread of its own"
)]
pub(crate) fn pass(time: Duration) {
    std::thread::sleep(time);
}
