//! How fast connections are let in: one token bucket for the node, without a lock.
//!
//! The bucket is a GCRA: one atomic holds the time at which it will be full again (ITU-T I.371, "theoretical arrival
//! time"). Workers take from it when somebody's turn has come; see [`super::turnstile`] for who waits where. A second
//! atomic holds the same for those who were sent away: each is given a moment of its own to come back at.
//!
//! Not here: who is let in at all ([`super::admission`]), waiting.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use prometheus::IntGauge;

/// The longest that somebody is asked to stay away. Beyond, moments are given at random.
const LONGEST: Duration = Duration::from_secs(60);

/// The node's bucket.
pub(crate) struct Rate {
    started: Instant,
    /// Nanoseconds from token to token; 0 is no limit.
    interval: u64,
    /// How far ahead of the clock `full` may be, in nanoseconds: the burst but for one.
    tolerance: u64,
    /// When the bucket will be full again, in nanoseconds since `started`.
    full: AtomicU64,
    /// The moment that the next one gets who is sent away, likewise.
    comeback: AtomicU64,
    /// How long somebody may have to wait, in nanoseconds.
    patience: u64,
    waiting: AtomicUsize,
    /// The most that may wait: what `patience` lets in.
    most: usize,
    gauge: IntGauge,
}

/// A place among those who wait. Given up when dropped.
pub(super) struct Place(Arc<Rate>);

impl Rate {
    /// A full bucket: `per_second` connections a second, 0 for no limit, `burst` of them at once. Nobody is let wait
    /// for longer than about `patience`.
    pub(crate) fn new(per_second: u32, burst: u32, patience: Duration, waiting: IntGauge) -> Self {
        let interval = if per_second == 0 { 0 } else { 1_000_000_000 / u64::from(per_second) };
        let patience = nanoseconds(patience);
        Self {
            started: Instant::now(),
            interval,
            tolerance: interval * u64::from(burst.saturating_sub(1)),
            full: AtomicU64::new(0),
            comeback: AtomicU64::new(0),
            patience,
            waiting: AtomicUsize::new(0),
            most: usize::try_from(patience / interval.max(1)).unwrap_or(usize::MAX).max(1),
            gauge: waiting,
        }
    }

    /// Whether there is a limit at all.
    pub(super) const fn limits(&self) -> bool {
        self.interval > 0
    }

    /// Takes a token, or says how long there will be none.
    pub(super) fn take(&self) -> Result<(), Duration> {
        self.take_at(self.now())
    }

    fn take_at(&self, now: u64) -> Result<(), Duration> {
        let next = |full: u64| {
            let from = full.max(now);
            (from - now <= self.tolerance).then_some(from + self.interval)
        };
        match self.full.fetch_update(Ordering::AcqRel, Ordering::Acquire, next) {
            Ok(_) => Ok(()),
            Err(full) => {
                Err(Duration::from_nanos(full.saturating_sub(self.tolerance).saturating_sub(now).max(1)))
            }
        }
    }

    /// Gives a token back that was not used.
    pub(super) fn give_back(&self) {
        let less = |full: u64| Some(full.saturating_sub(self.interval));
        let _ = self.full.fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
    }

    /// How many of the tokens there are now belong to a worker where `here` wait: no worker may take what the others
    /// wait for.
    pub(super) fn share(&self, here: usize) -> usize {
        let now = self.now();
        let ahead = self.full.load(Ordering::Acquire).max(now) - now;
        let tokens = (self.tolerance + self.interval).saturating_sub(ahead) / self.interval.max(1);
        let tokens = usize::try_from(tokens).unwrap_or(usize::MAX);
        tokens.saturating_mul(here).div_ceil(self.waiting.load(Ordering::Acquire).max(here).max(1))
    }

    /// A place among those who wait, unless the wait would be too long.
    pub(super) fn wait(self: &Arc<Self>) -> Option<Place> {
        let more = |waiting: usize| (waiting < self.most).then_some(waiting + 1);
        self.waiting.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok()?;
        self.gauge.inc();
        Some(Place(Arc::clone(self)))
    }

    /// In how many seconds one who is sent away should come back: when the queue of now is through and, after it, those
    /// who were sent away before, at the same rate as everyone. So they come back over the time that the node needs.
    pub(super) fn retry_after(&self) -> u32 {
        let jitter = fastrand::f64();
        self.retry_after_at(self.now(), jitter)
    }

    fn retry_after_at(&self, now: u64, jitter: f64) -> u32 {
        let earliest = now + self.patience;
        let last = now + nanoseconds(LONGEST).max(self.patience);
        let mut moment = last;
        let next = |comeback: u64| {
            moment = comeback.max(earliest);
            (moment < last).then_some(moment + self.interval)
        };
        let after = match self.comeback.fetch_update(Ordering::AcqRel, Ordering::Acquire, next) {
            // Whole seconds would bring everyone back on the stroke; half a second to either side blurs it.
            Ok(_) => (moment - now) as f64 / 1e9 + jitter - 0.5,
            Err(_) => (self.patience as f64 + (last - earliest) as f64 * jitter) / 1e9,
        };
        (after.round() as u32).max(1)
    }

    fn now(&self) -> u64 {
        nanoseconds(self.started.elapsed())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.gauge.dec();
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 4).min(u64::MAX / 4)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failing test is what should happen")]
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn rate(per_second: u32, burst: u32) -> Arc<Rate> {
        let gauge = IntGauge::new("waiting", "waiting").unwrap();
        Arc::new(Rate::new(per_second, burst, Duration::from_secs(2), gauge))
    }

    /// How many tokens there are to take at a time.
    fn all(rate: &Rate, now: u64) -> usize {
        std::iter::from_fn(|| rate.take_at(now).ok()).take(10_000).count()
    }

    #[test]
    fn a_burst_then_the_rate_and_no_more_is_saved_than_a_burst() {
        let rate = rate(100, 20);
        assert_eq!(all(&rate, SECOND), 20);
        assert_eq!(rate.take_at(SECOND), Err(Duration::from_millis(10)));
        assert_eq!(all(&rate, SECOND + SECOND / 10), 10);
        assert_eq!(all(&rate, 9 * SECOND), 20);
        rate.give_back();
        assert_eq!(all(&rate, 9 * SECOND), 1);
    }

    #[test]
    fn workers_together_take_no_more_than_there_is() {
        let rate = rate(1, 500);
        let taken: usize = std::thread::scope(|scope| {
            let take = || (0..200).filter(|_| rate.take_at(SECOND).is_ok()).count();
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(take)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(taken, 500);
    }

    #[test]
    fn a_worker_leaves_the_others_their_part() {
        let rate = rate(1, 100);
        let places: Vec<Place> = (0..2).map(|_| rate.wait().unwrap()).collect();
        assert_eq!(rate.share(1), 50);
        drop(places);
        assert_eq!(rate.share(1), 100);
    }

    #[test]
    fn as_many_may_wait_as_patience_lets_in() {
        let rate = rate(10, 1);
        let places: Vec<Place> = std::iter::from_fn(|| rate.wait()).take(100).collect();
        assert_eq!(places.len(), 20);
        assert_eq!(rate.gauge.get(), 20);
        drop(places);
        assert_eq!(rate.gauge.get(), 0);
        assert!(rate.wait().is_some());
    }

    #[test]
    fn who_is_sent_away_comes_back_at_the_rate_when_the_queue_is_through() {
        let rate = rate(10, 1);
        let after: Vec<u32> = (0..100).map(|_| rate.retry_after_at(SECOND, 0.5)).collect();
        // Patience is two seconds, then ten a second.
        for second in 3..11 {
            assert_eq!(after.iter().filter(|&&s| s == second).count(), 10, "{after:?}");
        }
        assert_eq!(after.iter().max(), Some(&12));
        // Time goes by, and they have come.
        assert_eq!(rate.retry_after_at(100 * SECOND, 0.5), 2);
    }

    #[test]
    fn nobody_is_sent_away_for_longer_than_a_minute() {
        let rate = rate(1, 1);
        let after: Vec<u32> = (0..1000).map(|n| rate.retry_after_at(SECOND, f64::from(n) / 1000.0)).collect();
        assert!(after.iter().all(|seconds| (1..=61).contains(seconds)), "{after:?}");
        assert!(after[900..].iter().any(|&seconds| seconds > 50));
    }
}
