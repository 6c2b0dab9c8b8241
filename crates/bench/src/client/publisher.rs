//! The connection that publishes: at a pace, or as fast as it is allowed to.

use std::time::Duration;

use super::connection::{Connection, End, Shared};
use crate::clock;
use crate::process::to_f64;
use crate::speech::{self, Stamp};
use crate::wire::Publish;

/// The most bytes that wait for the publisher's socket: a server that reads slower holds the flood back.
const MOST_WAITING: usize = 64 * 1024;

/// A run of publications.
pub(crate) struct Publisher {
    publish: Publish,
    began: u64,
    next: u32,
}

impl Publisher {
    pub(crate) fn new(publish: Publish, now: u64) -> Self {
        Self { publish, began: now, next: 0 }
    }

    /// It may go as far as this.
    pub(crate) fn allow(&mut self, upto: u32) {
        self.publish.allowed = self.publish.allowed.max(upto);
    }

    /// It may go no further.
    pub(crate) fn stop(&mut self) {
        self.publish.dealt.published = self.next;
    }

    /// How many were made.
    pub(crate) fn made(&self) -> u32 {
        self.next
    }

    /// When the next one is due, in nanoseconds of the clock.
    fn due(&self) -> u64 {
        let Some(rate) = self.publish.rate else { return 0 };
        let after = Duration::try_from_secs_f64(to_f64(u64::from(self.next)) / rate).unwrap_or(Duration::MAX);
        self.began.saturating_add(u64::try_from(after.as_nanos()).unwrap_or(u64::MAX))
    }

    /// Whether there is one that may go now.
    fn may(&self, now: u64) -> bool {
        let allowed = self.publish.rate.is_some() || self.next < self.publish.allowed;
        self.next < self.publish.dealt.published && allowed && now >= self.due()
    }

    /// How long there is nothing to write.
    pub(crate) fn rest(&self, now: u64) -> Duration {
        if self.next >= self.publish.dealt.published || self.publish.rate.is_none() {
            return Duration::from_millis(5);
        }
        Duration::from_nanos(self.due().saturating_sub(now)).min(Duration::from_millis(20))
    }

    /// Writes all that may go now. A publication's stamp is the moment of its write, not of its turn.
    pub(crate) fn write(
        &mut self,
        connection: &mut Connection,
        shared: &Shared,
        now: u64,
    ) -> Result<(), End> {
        while self.may(now) && connection.waiting() < MOST_WAITING {
            let (channel, number) = self.publish.dealt.place(self.next);
            let stamp = Stamp { run: self.publish.run, number, at: clock::now(), channel };
            let data = speech::data(stamp, self.publish.size);
            connection.publish(shared.protocol, self.next, &shared.channels.name(channel), &data);
            self.next += 1;
            // One that is paced leaves by itself; those of a flood share writes, as a busy backend's would.
            if self.publish.rate.is_some() {
                connection.send()?;
            }
        }
        connection.send()
    }

    /// Whether all are written, and answered if they are answered.
    pub(crate) fn done(&self, connection: &Connection, shared: &Shared) -> bool {
        let answered = !speech::acknowledged(shared.protocol) || shared.acknowledged >= self.next;
        self.next >= self.publish.dealt.published && answered && connection.waiting() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channels::Dealt;

    fn publisher(rate: Option<f64>, allowed: u32) -> Publisher {
        let dealt = Dealt { published: 10, channels: 1 };
        Publisher::new(Publish { run: 1, dealt, rate, size: 0, allowed }, 1_000)
    }

    #[test]
    fn a_pace_is_kept_from_the_start_and_not_from_the_last_write() {
        let mut paced = publisher(Some(1_000.0), 0);
        assert!(paced.may(1_000));
        paced.next = 5;
        assert!(!paced.may(5_000_999));
        assert!(paced.may(5_001_000));
        assert_eq!(paced.rest(4_001_000), Duration::from_millis(1));
    }

    #[test]
    fn a_flood_goes_as_far_as_it_is_allowed() {
        let mut flood = publisher(None, 3);
        flood.next = 3;
        assert!(!flood.may(u64::MAX));
        flood.allow(5);
        flood.allow(4);
        assert!(flood.may(0));
        flood.next = 5;
        assert!(!flood.may(0));
        flood.allow(100);
        flood.stop();
        assert!(!flood.may(0) && flood.made() == 5);
    }
}
