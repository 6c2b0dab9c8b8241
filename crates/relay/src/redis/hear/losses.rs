//! What the supervisor says when something is lost: a subscription that Redis refuses, a connection, what was published
//! meanwhile.

use std::time::Instant;

use tidegate_protocol::ChannelName;

use super::Hear;
use crate::interest::{Interrupted, Refused};
use crate::relay::RelayError;
use crate::sink::Observation;

impl Hear {
    /// Those whose channels have no history, and who asked for it, are told that they may have missed something.
    pub(super) fn tell_missed(&self) {
        let missed = self.ear.interest().take_missed();
        for channel in missed {
            let workers = self.ear.interest().lost(&channel, Instant::now());
            workers.iter().for_each(|worker| self.ear.sink.lost(worker, &channel));
        }
    }

    /// Redis refuses a channel, perhaps one that it let us hear before: its rights were changed.
    pub(super) fn refused(&self, channel: &ChannelName, error: &RelayError) {
        let Refused { waiting, joined } = self.ear.interest().refused(channel);
        if let Some(held_back) = self.refusals.speak(Instant::now()) {
            let heard_before = !joined.is_empty();
            tracing::warn!(%channel, %error, heard_before, held_back, "redis refuses a subscription");
        }
        self.ear.refuse_recoveries(channel, &error.to_string());
        waiting.iter().for_each(|worker| self.ear.sink.joined(worker, channel, Err(error.clone())));
        joined.iter().for_each(|worker| self.ear.sink.lost(worker, channel));
        if !joined.is_empty() {
            self.ear.sink.observe(Observation::Missed { channels: 1 });
        }
    }

    pub(super) fn interrupted(&mut self, why: &str, stood: bool) {
        let channels = self.lose_pending(why);
        // A master may be gone for good: another one has its slots then.
        self.ear.look_again();
        // What was missed since an earlier interruption is counted already.
        self.health.deaf(if stood { channels } else { 0 });
        if stood {
            tracing::warn!(
                redis = self.server.address,
                why,
                channels,
                "the connection to hear redis is interrupted"
            );
        } else {
            self.complain(why);
        }
    }

    /// Fails the joins and recoveries under way. Says how many channels have missed something that cannot be had any more.
    pub(super) fn lose_pending(&self, why: &str) -> usize {
        let Interrupted { gaps, failed } = self.ear.interest().interrupted();
        let recoveries = self.ear.recoveries().interrupted();
        let error = RelayError::Away(why.to_owned());
        for (channel, ticket) in recoveries {
            self.ear.sink.recovered(ticket, &channel, Err(error.clone()));
        }
        for (channel, workers) in failed {
            workers.iter().for_each(|worker| self.ear.sink.joined(worker, &channel, Err(error.clone())));
        }
        gaps
    }

    pub(super) fn complain(&self, why: &str) {
        if let Some(held_back) = self.complaint.speak(Instant::now()) {
            tracing::warn!(redis = self.server.address, why, held_back, "cannot hear redis; trying again");
        }
    }
}
