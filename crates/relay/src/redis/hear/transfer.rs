//! The hearing side of a cluster: answers that say a channel is elsewhere, channels that go to another part and that come
//! from one.
//!
//! Not here: when channels move, and where to (`masters`).

use ::redis::{RedisResult, Value};
use tidegate_protocol::ChannelName;
use tokio::sync::oneshot;

use super::{Hear, IsKept};
use crate::interest::Moved;
use crate::redis::server;
use crate::redis::watching::{Batch, Watch};
use crate::relay::RelayError;
use crate::sink::Observation;

impl Hear {
    /// The channels of nodes that are heard here: with sharded channels only the one for the probe, as the others are
    /// heard by one part for all.
    pub(super) fn controls(&self) -> Vec<String> {
        let names = &self.ear.names;
        let own = names.own().to_owned();
        if names.are_sharded() { vec![own] } else { vec![names.control().to_owned(), own] }
    }

    /// Subscriptions to sharded channels were answered, each for itself. An error ends the connection.
    pub(super) fn each_subscribed(
        &self,
        watch: &mut Watch,
        batch: Batch,
        result: RedisResult<Vec<Value>>,
    ) -> Result<(), String> {
        let Batch { number, channels, asked } = batch;
        watch.subscribing -= 1;
        self.ear.sink.observe(Observation::Command("subscribe", asked.elapsed()));
        let values = result.map_err(|error| error.to_string())?;
        for (channel, value) in channels.iter().zip(values) {
            if server::is_elsewhere(&value) {
                self.ear.astray(channel.as_str());
                continue;
            }
            match server::answer(&value) {
                Ok(()) if self.ear.interest().is_settled(channel, number) => {}
                Ok(()) => return Err(format!("redis did not confirm the subscription of {channel:?}")),
                Err(error @ RelayError::Refused(_)) => self.refused(channel, &error),
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(())
    }

    /// Gives away the channels that are not kept. What was taken away and is kept is subscribed again.
    pub(super) fn release(&self, is_kept: &IsKept, reply: oneshot::Sender<Vec<Moved>>) {
        let moved = self.ear.interest().release(&|channel: &ChannelName| is_kept(channel));
        for moved in &moved {
            self.ear.refuse_recoveries(moved.channel(), "the channel is on its way to another server");
        }
        if let Err(moved) = reply.send(moved) {
            // Nobody waits for them any more: they stay until they are asked for again.
            self.ear.interest().adopt(moved);
        }
        self.ear.interest().restore();
    }

    /// Takes over channels of another part, and subscribes them.
    pub(super) fn adopt(&self, moved: Vec<Moved>) {
        let gaps = moved.iter().filter(|moved| moved.has_gap()).count();
        let lost = self.ear.interest().adopt(moved);
        if gaps > 0 {
            self.ear.sink.observe(Observation::Missed { channels: gaps });
        }
        for (channel, workers) in lost {
            self.ear.refuse_recoveries(&channel, "the channel is on its way to another server");
            workers.iter().for_each(|worker| self.ear.sink.lost(worker, &channel));
        }
        self.ear.interest().restore();
        self.tell_missed();
    }
}
