//! Closing a worker's connections with 3001, spread over a time.

use std::time::{Duration, Instant};

use tidegate_hub::SessionKey;
use tidegate_protocol::Disconnect;

use super::worker::Worker;

/// A drain that is going on.
pub(super) struct Draining {
    began: Instant,
    duration: Duration,
    /// Who is left to close, in no order a client could guess.
    left: Vec<SessionKey>,
    total: usize,
}

impl Worker {
    /// Begins to close everyone. Admission is closed by then; who slipped in is found at the end.
    pub(super) fn drain(&mut self, duration: Duration) {
        let mut left = self.shard.sessions();
        fastrand::shuffle(&mut left);
        self.draining = Some(Draining { began: Instant::now(), duration, total: left.len(), left });
        self.sweep_drain();
    }

    /// Closes as many as are due by now.
    pub(super) fn sweep_drain(&mut self) {
        let Some(draining) = &mut self.draining else { return };
        let passed = draining.began.elapsed();
        let due = if passed >= draining.duration {
            draining.left.len()
        } else {
            let share = passed.as_secs_f64() / draining.duration.as_secs_f64();
            let closed = draining.total - draining.left.len();
            ((draining.total as f64 * share).ceil() as usize).saturating_sub(closed)
        };
        let at = draining.left.len().saturating_sub(due);
        let closing = draining.left.split_off(at);
        let over = draining.left.is_empty() && passed >= draining.duration;
        for key in closing {
            self.shard.end(key, Disconnect::Shutdown);
        }
        if over {
            // Connections whose upgrade was under way when admission closed.
            for key in self.shard.sessions() {
                self.shard.end(key, Disconnect::Shutdown);
            }
        }
    }
}
