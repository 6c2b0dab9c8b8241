//! Channels that go from one part of the relay to another, with all that is known of them.
//!
//! Not here: which part has which channel, and when that changes (`redis::masters`).

use std::sync::atomic::Ordering;

use tidegate_protocol::ChannelName;

use super::{Entry, Interest, Stage};
use crate::sink::WorkerSet;

/// A channel on its way.
#[derive(Debug)]
pub(crate) struct Moved {
    channel: ChannelName,
    entry: Entry,
    gap: bool,
}

/// What a server's word that it does not have a channel leads to.
#[derive(Debug)]
pub(crate) struct Astray {
    pub(crate) channel: ChannelName,
    /// Whose joins fail.
    pub(crate) failed: WorkerSet,
    /// Whether somebody heard it who may miss something that cannot be had any more.
    pub(crate) gap: bool,
}

impl Moved {
    pub(crate) const fn channel(&self) -> &ChannelName {
        &self.channel
    }

    /// Whether somebody hears it who may miss something that cannot be had any more, and that was not counted yet.
    pub(crate) const fn has_gap(&self) -> bool {
        self.gap
    }
}

impl Entry {
    /// Not subscribed, wherever it was. Says whether that is a gap.
    fn silence(&mut self) -> bool {
        self.stage = Stage::Silent;
        self.batch = 0;
        match &mut self.track {
            Some(track) => {
                track.interrupted();
                false
            }
            None => !std::mem::replace(&mut self.missed, true) && !self.joined.is_empty(),
        }
    }
}

impl Interest {
    /// Whether the channel's subscription is being given up.
    pub(crate) fn is_leaving(&self, channel: &str) -> bool {
        self.channels.get(channel).is_some_and(|entry| entry.stage == Stage::Leaving)
    }

    /// The server does not have the channel, or not any more. Whoever heard it is kept.
    pub(crate) fn astray(&mut self, channel: &str) -> Option<Astray> {
        let name = self.channels.get_key_value(channel)?.0.clone();
        let entry = self.channels.get_mut(channel)?;
        let was_wanted = entry.is_wanted();
        let failed = std::mem::take(&mut entry.waiting);
        entry.joined.0 &= !failed.0;
        let mut gap = false;
        if entry.joined.is_empty() {
            self.channels.remove(channel);
            self.wanted.fetch_sub(usize::from(was_wanted), Ordering::Relaxed);
        } else {
            gap = entry.silence();
        }
        Some(Astray { channel: name, failed, gap })
    }

    /// Takes out the channels that are not kept, with all that is known of them. Those that nobody wants are forgotten.
    pub(crate) fn release(&mut self, is_kept: &dyn Fn(&ChannelName) -> bool) -> Vec<Moved> {
        let gone: Vec<ChannelName> =
            self.channels.keys().filter(|channel| !is_kept(channel)).cloned().collect();
        let mut moved = Vec::with_capacity(gone.len());
        for channel in gone {
            let Some(mut entry) = self.channels.remove(&channel) else { continue };
            if entry.is_wanted() {
                self.wanted.fetch_sub(1, Ordering::Relaxed);
                let gap = entry.silence();
                entry.lingers = false;
                entry.idle = None;
                moved.push(Moved { channel, entry, gap });
            }
        }
        let known = &self.channels;
        self.to_ask.retain(|channel| known.contains_key(channel));
        moved
    }

    /// Takes over channels, to be subscribed by the next [`Interest::restore`]. Says who is to be told that they have missed
    /// something: they heard a channel that others have joined here already, further on in its history.
    pub(crate) fn adopt(&mut self, moved: Vec<Moved>) -> Vec<(ChannelName, WorkerSet)> {
        let mut lost = Vec::new();
        for Moved { channel, entry, .. } in moved {
            let Some(here) = self.channels.get_mut(&channel) else {
                self.wanted.fetch_add(1, Ordering::Relaxed);
                self.channels.insert(channel, entry);
                continue;
            };
            if !here.is_wanted() {
                self.wanted.fetch_add(1, Ordering::Relaxed);
            }
            here.idle = None;
            here.missed |= entry.missed;
            here.waiting.0 |= entry.waiting.0 & !here.joined.0;
            let brought = entry.track.as_ref().and_then(|track| track.position());
            match (&mut here.track, brought) {
                (Some(track), Some(position)) if track.position().is_none() => {
                    track.place(position.clone());
                    here.joined.0 |= entry.joined.0;
                }
                (Some(_), Some(_)) => {
                    lost.push((channel, WorkerSet(entry.joined.0 & !here.joined.0)));
                }
                _ => here.joined.0 |= entry.joined.0,
            }
            if here.stage == Stage::Heard {
                // Whoever waits is told by the confirmation: it is asked for once more.
                if !here.waiting.is_empty() {
                    here.stage = Stage::Silent;
                }
            } else if here.stage == Stage::Leaving {
                // Once it is given up it is asked for again only for who waits.
                here.waiting.0 |= here.joined.0;
            }
        }
        lost
    }
}
