//! A circuit breaker: a backend that fails is left alone for a while, then tried with one request at a time.
//!
//! ```text
//!  closed --half of 20 or more failed within 10 s--> open --its pause is over--> half open
//!  half open --3 successes in a row--> closed        half open --a failure--> open, the pause doubled
//! ```
//!
//! Knows neither a clock nor what a failure is: both are the caller's.

use std::time::{Duration, Instant};

/// How long a result counts.
const WINDOW: usize = 10;

/// How many results there must be before they say anything.
const LEAST: u32 = 20;

/// How many probes must succeed before the breaker closes.
const PROBES: u32 = 3;

/// The first pause, and the longest: it doubles with each probe that fails.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The state of one endpoint, shared by all workers.
#[derive(Debug)]
pub(super) struct Breaker {
    state: State,
    /// Counts up with each change of state: results of requests from before do not count.
    era: u64,
    started: Instant,
}

#[derive(Debug)]
enum State {
    /// Requests go through.
    Closed(Window),
    /// None do.
    Open {
        /// When the first probe may go.
        until: Instant,
        /// How long it was closed to all.
        pause: Duration,
    },
    /// One at a time does.
    HalfOpen {
        pause: Duration,
        /// Whether one is out.
        probing: bool,
        /// How many have succeeded.
        succeeded: u32,
    },
}

/// The results of the last seconds.
#[derive(Debug, Default)]
struct Window([Second; WINDOW]);

#[derive(Debug, Default, Clone, Copy)]
struct Second {
    at: u64,
    succeeded: u32,
    failed: u32,
}

/// The right to make one request. Its result must be reported, or that there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pass {
    era: u64,
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The backend answered.
    Succeeded,
    /// It did not, or in vain.
    Failed,
    /// Nobody will know.
    Unknown,
}

impl Breaker {
    pub(super) fn new(now: Instant) -> Self {
        Self { state: State::Closed(Window::default()), era: 0, started: now }
    }

    /// Whether requests are held back: open or half open.
    pub(super) const fn is_open(&self) -> bool {
        !matches!(self.state, State::Closed(_))
    }

    /// Whether [`Breaker::admit`] would let nothing through, as things stand.
    pub(super) fn holds_back(&self, now: Instant) -> bool {
        match self.state {
            State::Closed(_) => false,
            State::Open { until, .. } => now < until,
            State::HalfOpen { probing, .. } => probing,
        }
    }

    /// Lets a request through, or not.
    pub(super) fn admit(&mut self, now: Instant) -> Option<Pass> {
        match &mut self.state {
            State::Closed(_) => {}
            State::Open { until, .. } if now < *until => return None,
            State::Open { pause, .. } => {
                let pause = *pause;
                self.enter(State::HalfOpen { pause, probing: true, succeeded: 0 });
            }
            State::HalfOpen { probing: true, .. } => return None,
            State::HalfOpen { probing, .. } => *probing = true,
        }
        Some(Pass { era: self.era })
    }

    /// Takes a result. `jitter` is from 0 to 1: nodes that lost the same backend should not probe it together.
    pub(super) fn report(&mut self, pass: Pass, outcome: Outcome, now: Instant, jitter: f64) {
        if pass.era != self.era {
            return;
        }
        match (&mut self.state, outcome) {
            (State::Closed(_), Outcome::Unknown) | (State::Open { .. }, _) => {}
            (State::Closed(window), outcome) => {
                window.add(now.saturating_duration_since(self.started).as_secs(), outcome);
                if outcome == Outcome::Failed && window.is_bad() {
                    self.open(FIRST_PAUSE, now, jitter);
                }
            }
            (State::HalfOpen { probing, .. }, Outcome::Unknown) => *probing = false,
            (State::HalfOpen { pause, .. }, Outcome::Failed) => {
                let pause = (*pause * 2).min(LONGEST_PAUSE);
                self.open(pause, now, jitter);
            }
            (State::HalfOpen { probing, succeeded, .. }, Outcome::Succeeded) => {
                *probing = false;
                *succeeded += 1;
                if *succeeded == PROBES {
                    self.enter(State::Closed(Window::default()));
                }
            }
        }
    }

    fn open(&mut self, pause: Duration, now: Instant, jitter: f64) {
        // From three quarters to five quarters of it.
        let until = now + pause.mul_f64(0.75 + jitter.clamp(0.0, 1.0) / 2.0);
        self.enter(State::Open { until, pause });
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        self.era += 1;
    }
}

impl Window {
    fn add(&mut self, second: u64, outcome: Outcome) {
        let place = &mut self.0[(second % WINDOW as u64) as usize];
        if place.at != second {
            *place = Second { at: second, ..Second::default() };
        }
        match outcome {
            Outcome::Failed => place.failed += 1,
            Outcome::Succeeded => place.succeeded += 1,
            Outcome::Unknown => {}
        }
        // Places that were not written in time hold what is older than the window.
        for place in &mut self.0 {
            if place.at + WINDOW as u64 <= second {
                *place = Second::default();
            }
        }
    }

    fn is_bad(&self) -> bool {
        let failed: u32 = self.0.iter().map(|second| second.failed).sum();
        let all: u32 = failed + self.0.iter().map(|second| second.succeeded).sum::<u32>();
        all >= LEAST && failed * 2 >= all
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failing test is what should happen")]
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn ask(breaker: &mut Breaker, outcome: Outcome, now: Instant) {
        let pass = breaker.admit(now).unwrap();
        breaker.report(pass, outcome, now, 0.5);
    }

    fn opened(now: Instant) -> Breaker {
        let mut breaker = Breaker::new(now);
        for _ in 0..LEAST {
            ask(&mut breaker, Outcome::Failed, now);
        }
        assert!(breaker.is_open());
        breaker
    }

    #[test]
    fn a_few_failures_open_nothing_and_neither_does_a_small_part_of_many() {
        let now = Instant::now();
        let mut breaker = Breaker::new(now);
        for _ in 1..LEAST {
            ask(&mut breaker, Outcome::Failed, now);
        }
        assert!(!breaker.is_open());
        let mut breaker = Breaker::new(now);
        for at in 0..1000 {
            let outcome = if at % 3 == 2 { Outcome::Failed } else { Outcome::Succeeded };
            ask(&mut breaker, outcome, now);
        }
        assert!(!breaker.is_open());
    }

    #[test]
    fn failures_that_are_long_past_do_not_count() {
        let start = Instant::now();
        let mut breaker = Breaker::new(start);
        for at in 0..100 {
            ask(&mut breaker, Outcome::Failed, start + SECOND * at);
        }
        // Ten seconds of one failure each are never twenty.
        assert!(!breaker.is_open());
    }

    #[test]
    fn while_open_nothing_goes_through_until_the_pause_is_over() {
        let now = Instant::now();
        let mut breaker = opened(now);
        assert_eq!(breaker.admit(now), None);
        assert_eq!(breaker.admit(now + FIRST_PAUSE - Duration::from_millis(1)), None);
        assert!(breaker.admit(now + FIRST_PAUSE).is_some());
        assert!(breaker.holds_back(now + FIRST_PAUSE));
        assert_eq!(breaker.admit(now + FIRST_PAUSE), None, "one probe at a time");
        assert!(breaker.is_open());
    }

    #[test]
    fn three_probes_that_succeed_close_it_and_one_that_fails_doubles_the_pause() {
        let now = Instant::now();
        let mut breaker = opened(now);
        let probing = now + FIRST_PAUSE;
        for _ in 0..PROBES {
            assert!(breaker.is_open());
            ask(&mut breaker, Outcome::Succeeded, probing);
        }
        assert!(!breaker.is_open());

        let mut breaker = opened(now);
        let mut at = now;
        let mut pause = FIRST_PAUSE;
        for _ in 0..10 {
            at += pause;
            ask(&mut breaker, Outcome::Failed, at);
            pause = (pause * 2).min(LONGEST_PAUSE);
            assert_eq!(breaker.admit(at + pause - Duration::from_millis(1)), None, "{pause:?}");
        }
        assert_eq!(pause, LONGEST_PAUSE);
    }

    #[test]
    fn what_was_asked_before_the_change_says_nothing_about_the_time_after() {
        let now = Instant::now();
        let mut breaker = Breaker::new(now);
        let late: Vec<Pass> = (0..LEAST).map(|_| breaker.admit(now).unwrap()).collect();
        for pass in &late {
            breaker.report(*pass, Outcome::Failed, now, 0.5);
        }
        let probe = breaker.admit(now + FIRST_PAUSE).unwrap();
        for pass in late {
            breaker.report(pass, Outcome::Succeeded, now + FIRST_PAUSE, 0.5);
        }
        assert_eq!(breaker.admit(now + FIRST_PAUSE), None, "the probe is still out");
        breaker.report(probe, Outcome::Unknown, now + FIRST_PAUSE, 0.5);
        assert!(
            breaker.admit(now + FIRST_PAUSE).is_some(),
            "a probe without a result makes room for another"
        );
    }

    #[test]
    fn pauses_differ_between_nodes() {
        let now = Instant::now();
        for (jitter, factor) in [(0.0, 0.75), (1.0, 1.25)] {
            let mut breaker = Breaker::new(now);
            for _ in 0..LEAST {
                let pass = breaker.admit(now).unwrap();
                breaker.report(pass, Outcome::Failed, now, jitter);
            }
            let until = now + FIRST_PAUSE.mul_f64(factor);
            assert_eq!(breaker.admit(until - Duration::from_millis(1)), None);
            assert!(breaker.admit(until).is_some());
        }
    }
}
