//! Waiting for something to become so, with a deadline.

use std::time::{Duration, Instant};

/// How long a test waits for what should come at once. Generous, because the machine may be busy; a passing test
/// never waits for it.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Asks `probe` again and again until it has an answer. For what cannot be subscribed to: a metric, a file, a process.
///
/// # Panics
/// When `within` has passed; the message says `what` did not happen.
pub fn eventually<T>(what: &str, within: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(answer) = probe() {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within {within:?}: {what}");
        pause(Duration::from_millis(20));
    }
}

/// Holds that `probe` stays true for the whole of `during`: for promises that something does not happen.
///
/// # Panics
/// As soon as it is not; the message is `what`.
pub fn throughout(what: &str, during: Duration, mut probe: impl FnMut() -> bool) {
    let end = Instant::now() + during;
    while Instant::now() < end {
        assert!(probe(), "did not last {during:?}: {what}");
        pause(Duration::from_millis(20));
    }
}

/// Lets `during` pass where the passing itself is what is tested: a fault that lasts, a peer that is slow.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place: between two probes, or as the fault under test"
)]
pub fn pause(during: Duration) {
    std::thread::sleep(during);
}
