//! Pings, pongs and deadlines: what the sweep does to a session that is due.

use tidegate_protocol::Disconnect;

use crate::session::{Heart, State};
use crate::shard::{Shard, ordinal};
use crate::tally::SENT_PING;
use crate::tick::Tick;

/// Which of the shard's ping frames is the native one.
const NATIVE: usize = 2;

impl Shard {
    /// The first ping comes at a random point in the second half of the interval, so that sessions that connected
    /// together are not pinged together.
    pub(crate) fn first_ping(&mut self, index: u32, now: Tick) {
        let interval = self.policy.ping_interval;
        let wait = self.random.u32(interval / 2..=interval);
        self.sessions.set_due(index, now.after(wait));
    }

    /// A session is due: pings it, or ends it if it is past its deadline.
    pub(crate) fn due(&mut self, index: u32, now: Tick) {
        let key = self.sessions.key(index);
        let Some(session) = self.sessions.at_mut(index) else { return };
        match &mut session.state {
            State::Opening | State::Connecting(_) => self.end(key, Disconnect::Stale),
            State::Connected(connected) => match connected.heart {
                Heart::Resting => {
                    connected.heart = Heart::Awaiting;
                    let ping = if session.native_ping { NATIVE } else { ordinal(session.codec) };
                    self.ping(index, ping, now);
                }
                Heart::Awaiting => {
                    self.tally.heartbeat_timeouts += 1;
                    self.end(key, Disconnect::NoPong);
                }
            },
            State::Ended => {}
        }
    }

    fn ping(&mut self, index: u32, ping: usize, now: Tick) {
        // Before the push, which may end the session.
        self.sessions.set_due(index, now.after(self.policy.pong_timeout));
        let (max, frame) = (self.policy.outbox_max_bytes, &self.pings[ping]);
        match self.sessions.push_shared(index, max, |_| frame) {
            Ok(()) => self.tally.sent[SENT_PING] += 1,
            Err(_) => self.overflow(index),
        }
    }

    /// A pong came; one that nobody asked for is ignored.
    pub(crate) fn pong(&mut self, index: u32) {
        let Some(connected) = self.sessions.connected_at_mut(index) else { return };
        if connected.heart == Heart::Awaiting {
            connected.heart = Heart::Resting;
            // The ping left `pong_timeout` before the deadline; the next leaves an interval after it.
            let sent = self.sessions.due(index).0.saturating_sub(self.policy.pong_timeout);
            self.sessions.set_due(index, Tick(sent).after(self.policy.ping_interval));
        }
    }
}
