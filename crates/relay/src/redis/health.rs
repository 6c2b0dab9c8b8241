//! Whether the relay can carry publications now: it hears, and it can speak.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::relay::Status;

#[derive(Debug)]
pub(super) struct Health {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    hears: bool,
    speaks: bool,
    changed: Instant,
}

impl Health {
    pub(super) fn new() -> Self {
        Self { state: Mutex::new(State { hears: false, speaks: false, changed: Instant::now() }) }
    }

    /// Everything that is wanted is subscribed, or not.
    pub(super) fn hears(&self, hears: bool) {
        self.change(|state| state.hears = hears);
    }

    /// Publications can be sent, or not.
    pub(super) fn speaks(&self, speaks: bool) {
        self.change(|state| state.speaks = speaks);
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let before = state.hears && state.speaks;
        change(&mut state);
        if before != (state.hears && state.speaks) {
            state.changed = Instant::now();
        }
    }

    pub(super) fn status(&self) -> Status {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        Status { up: state.hears && state.speaks, since: state.changed.elapsed() }
    }
}
