//! Presence in channels that go to another server of a cluster: who is present there goes along.

use std::time::Instant;

use tokio::sync::oneshot;

use super::Presence;
use super::command::What;
use super::sender::{Attendee, IsKept};
use crate::relay::RelayError;

impl Presence {
    /// Channels that are another server's from now on. What was to be said of them is said there.
    pub(super) fn release(&mut self, is_kept: &IsKept, reply: oneshot::Sender<Vec<Attendee>>) {
        let attendees: Vec<_> = self.rooms.release(is_kept).into_iter().map(Attendee::new).collect();
        let away = RelayError::Away("the channel is on its way to another server".into());
        let work = std::mem::take(&mut self.work);
        for command in work {
            match command.what {
                _ if is_kept(&command.channel) => self.work.push_back(command),
                What::Ask(question) => question.fail(away.clone()),
                _ => {}
            }
        }
        if let Err(kept) = reply.send(attendees) {
            // Nobody waits for them any more: they stay until they are asked for again.
            for (channel, client, known) in kept.into_iter().map(Attendee::into_parts) {
                self.rooms.enter(&channel, client, known, Instant::now());
            }
        }
    }
}
