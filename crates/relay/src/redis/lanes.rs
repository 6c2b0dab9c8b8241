//! The way to the lane of whichever part has a channel, for what is published in many channels.

use std::sync::{Arc, OnceLock};

use tidegate_protocol::ChannelName;

use super::lane::{Answer, LaneSender};
use crate::relay::{Busy, Outgoing};

/// Says which lane a channel has.
type Find = dyn Fn(&ChannelName) -> LaneSender + Send + Sync;

/// All lanes; cloning shares them. Nothing can be published before all parts are there.
#[derive(Clone, Default)]
pub(super) struct Lanes(Arc<OnceLock<Box<Find>>>);

impl Lanes {
    /// All parts are there.
    pub(super) fn are(&self, find: impl Fn(&ChannelName) -> LaneSender + Send + Sync + 'static) {
        // The first word counts; there is only one.
        let _ = self.0.set(Box::new(find));
    }

    pub(super) fn publish(&self, outgoing: Outgoing, answer: Answer) -> Result<(), Busy> {
        let find = self.0.get().ok_or(Busy)?;
        find(&outgoing.publication.channel).publish(outgoing, answer)
    }
}
