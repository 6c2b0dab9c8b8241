//! Whether the relay can carry publications now: it hears, and it can speak. Each change is observed once.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::watch;

use crate::relay::Status;
use crate::sink::{Observation, Sink};

pub(super) struct Health {
    state: Mutex<State>,
    sink: Arc<dyn Sink>,
    /// What the state says of hearing, for who waits for it.
    hears: watch::Sender<bool>,
}

#[derive(Debug)]
struct State {
    hears: bool,
    speaks: bool,
    changed: Instant,
}

impl Health {
    pub(super) fn new(sink: Arc<dyn Sink>) -> Self {
        Self {
            state: Mutex::new(State { hears: false, speaks: false, changed: Instant::now() }),
            sink,
            hears: watch::Sender::new(false),
        }
    }

    /// Everything that is wanted is subscribed.
    pub(super) fn hears(&self) {
        self.change(|state| state.hears = true, 0);
        self.hears.send_replace(true);
    }

    /// Whether everything that is wanted is subscribed.
    pub(super) fn hearing(&self) -> watch::Receiver<bool> {
        self.hears.subscribe()
    }

    /// Nothing is heard any more; so many channels were, and may miss something.
    pub(super) fn deaf(&self, channels: usize) {
        self.change(|state| state.hears = false, channels);
        self.hears.send_replace(false);
    }

    /// Publications can be sent, or not.
    pub(super) fn speaks(&self, speaks: bool) {
        self.change(|state| state.speaks = speaks, 0);
    }

    /// The sink is told under the lock: two threads change the state, and the last thing told must be true.
    fn change(&self, change: impl FnOnce(&mut State), missed: usize) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let before = state.hears && state.speaks;
        change(&mut state);
        let up = state.hears && state.speaks;
        if before != up {
            state.changed = Instant::now();
            self.sink.observe(if up { Observation::Up } else { Observation::Down { channels: missed } });
        } else if missed > 0 {
            self.sink.observe(Observation::Missed { channels: missed });
        }
    }

    pub(super) fn status(&self) -> Status {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        Status { up: state.hears && state.speaks, since: state.changed.elapsed() }
    }
}
