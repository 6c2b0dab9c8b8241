//! How long to wait before the next attempt: doubling, bounded, jittered.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(50);
const LAST: Duration = Duration::from_secs(2);

/// The waits between attempts. Forever: an attempt is never the last one.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(super) const fn new() -> Self {
        Self { next: FIRST }
    }

    /// The next wait: between half of the nominal one and all of it, so that nodes that lost Redis together do not
    /// come back together.
    pub(super) fn wait(&mut self) -> Duration {
        let nominal = self.next;
        self.next = (nominal * 2).min(LAST);
        nominal.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    pub(super) const fn reset(&mut self) {
        self.next = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_two_seconds_and_no_further() {
        let mut backoff = Backoff::new();
        let mut nominal = FIRST;
        for _ in 0..20 {
            let wait = backoff.wait();
            assert!(wait >= nominal / 2 && wait <= nominal, "{wait:?} for {nominal:?}");
            nominal = (nominal * 2).min(LAST);
        }
        backoff.reset();
        assert!(backoff.wait() <= FIRST);
    }
}
