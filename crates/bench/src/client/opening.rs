//! Connections that are being opened: how many at once, and who was refused and comes again.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::connection::End;
use crate::clock;
use crate::latency::Latencies;
use crate::wire::Opened;

/// The wait after the first refusal that says nothing of a wait is up to this; it doubles with each one after.
const BACKOFF: u64 = 500_000_000;

/// The longest such wait, as official SDKs have it.
const LONGEST: u64 = 20_000_000_000;

/// What is under way.
pub(super) struct Opening {
    /// Connections that have not begun.
    left: u32,
    pub(super) under_way: u32,
    at_once: u32,
    again: bool,
    /// Whether TLS sessions may be resumed.
    pub(super) resume: bool,
    /// Those that were refused, by the time they come again.
    waiting: BinaryHeap<Reverse<Attempt>>,
    opened: Opened,
    latencies: Latencies,
    /// When something last moved, by [`clock::now`].
    pub(super) moved: u64,
}

/// One connection that is to be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Attempt {
    /// When, by [`clock::now`].
    due: u64,
    pub(super) number: u32,
    /// How often it was refused before.
    pub(super) attempt: u8,
    /// When the first attempt began; none for the first.
    pub(super) began: Option<u64>,
}

impl Opening {
    pub(super) fn new(count: u32, at_once: u32, (again, resume): (bool, bool)) -> Self {
        Self {
            left: count,
            under_way: 0,
            at_once: at_once.max(1),
            again,
            resume,
            waiting: BinaryHeap::new(),
            opened: Opened::default(),
            latencies: Latencies::new(),
            moved: clock::now(),
        }
    }

    /// The next one that may begin now; `fresh` gives numbers to those that have none.
    pub(super) fn next(&mut self, now: u64, fresh: impl FnOnce() -> u32) -> Option<Attempt> {
        if self.under_way >= self.at_once {
            return None;
        }
        let due = self.waiting.peek().is_some_and(|Reverse(attempt)| attempt.due <= now);
        let attempt = if due {
            self.waiting.pop().map(|Reverse(attempt)| attempt)
        } else if self.left > 0 {
            self.left -= 1;
            Some(Attempt { due: now, number: fresh(), attempt: 0, began: None })
        } else {
            None
        };
        self.under_way += u32::from(attempt.is_some());
        attempt
    }

    /// One stands, that began then.
    pub(super) fn stands(&mut self, began: u64, resumed: Option<bool>) {
        let now = clock::now();
        self.under_way = self.under_way.saturating_sub(1);
        self.moved = now;
        self.opened.opened += 1;
        self.opened.last = now;
        self.opened.resumed += u64::from(resumed == Some(true));
        self.latencies.record(now.saturating_sub(began));
    }

    /// One was refused. Returns its number if it does not come again.
    pub(super) fn refused(&mut self, number: u32, attempt: u8, began: u64, end: &End) -> Option<u32> {
        let now = clock::now();
        self.under_way = self.under_way.saturating_sub(1);
        self.moved = now;
        self.opened.reason.get_or_insert_with(|| end.words());
        let (status, retry_after) = match end {
            End::Refused(refusal) => (refusal.status, refusal.retry_after),
            End::Closed(..) | End::Lost(_) => (0, None),
        };
        // What is refused for another reason than that there are too many is refused again.
        let passing = matches!(status, 0 | 429 | 500..=599);
        if !self.again || !passing {
            self.opened.failed += 1;
            return Some(number);
        }
        *self.opened.refusals.entry(status).or_default() += 1;
        let due = now.saturating_add(wait(number, attempt, retry_after));
        let attempt = attempt.saturating_add(1);
        self.waiting.push(Reverse(Attempt { due, number, attempt, began: Some(began) }));
        None
    }

    /// The report, once all stand or have failed.
    pub(super) fn done(&mut self) -> Option<Opened> {
        let done = self.left == 0 && self.under_way == 0 && self.waiting.is_empty();
        done.then(|| {
            self.opened.latencies = self.latencies.counted();
            std::mem::take(&mut self.opened)
        })
    }
}

/// How long who was refused stays away, in nanoseconds: what the server says and up to a second more, so that not all
/// come back at once; or, if it says nothing, as SDKs do, up to half a second, doubled with each refusal.
fn wait(number: u32, attempt: u8, retry_after: Option<u32>) -> u64 {
    let chance = mixed(u64::from(number) << 8 | u64::from(attempt));
    match retry_after {
        Some(seconds) => u64::from(seconds) * 1_000_000_000 + chance % 1_000_000_000,
        None => chance % BACKOFF.saturating_mul(1 << attempt.min(16)).min(LONGEST),
    }
}

/// Bits that look random and are the same in every run (the finaliser of SplitMix64).
fn mixed(mut bits: u64) -> u64 {
    bits = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failing test is what should happen")]
    use super::*;
    use crate::speech::upgrade::Refusal;

    fn refusal(status: u16, retry_after: Option<u32>) -> End {
        End::Refused(Refusal { status, retry_after, why: format!("status {status}") })
    }

    #[test]
    fn who_is_refused_comes_again_when_it_was_told_to_and_not_at_once_with_the_others() {
        let mut opening = Opening::new(2, 1, (true, true));
        let first = opening.next(5, || 7).unwrap();
        assert_eq!((first.number, first.attempt, opening.next(5, || 8)), (7, 0, None));
        assert_eq!(opening.refused(7, 0, 5, &refusal(503, Some(3))), None);
        let second = opening.next(5, || 8).unwrap();
        opening.stands(5, Some(true));
        assert!(second.number == 8 && opening.done().is_none());
        let now = clock::now();
        assert_eq!(opening.next(now + 2_900_000_000, || 9), None);
        let again = opening.next(now + 4_000_000_000, || 9).unwrap();
        assert_eq!((again.number, again.attempt, again.began), (7, 1, Some(5)));
        opening.stands(5, None);
        let opened = opening.done().unwrap();
        assert_eq!((opened.opened, opened.failed, opened.resumed), (2, 0, 1));
        assert_eq!(opened.refusals.get(&503), Some(&1));
    }

    #[test]
    fn what_will_not_pass_is_a_failure() {
        let mut opening = Opening::new(1, 1, (true, true));
        opening.next(5, || 1).unwrap();
        assert_eq!(opening.refused(1, 0, 5, &refusal(403, None)), Some(1));
        assert_eq!(opening.done().unwrap().failed, 1);
        let mut once = Opening::new(1, 1, (false, true));
        once.next(5, || 1).unwrap();
        assert_eq!(once.refused(1, 0, 5, &refusal(503, None)), Some(1));
        assert_eq!(once.done().unwrap().reason.unwrap(), "status 503");
    }

    #[test]
    fn waits_grow_are_spread_and_have_an_end() {
        let spread = (0..100).map(|number| wait(number, 0, None)).collect::<Vec<_>>();
        assert!(spread.iter().all(|wait| *wait < BACKOFF) && spread.iter().any(|wait| *wait > BACKOFF / 2));
        assert!((0..100).any(|number| wait(number, 4, None) > 4 * BACKOFF));
        assert!((0..100).all(|number| wait(number, 255, None) < LONGEST));
    }
}
