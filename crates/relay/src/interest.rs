//! The node's interest: which channels it must hear, for which workers, and how far Redis has confirmed that.
//!
//! Pure bookkeeping, told of every event and asked what to do next. Not here: connections and commands (`redis::hear`).
//!
//! A channel's life on the pub/sub connection:
//!
//! ```text
//!             join              confirmed            idle for `linger`           confirmed
//!   Silent ----------> Asked ---------------> Heard ------------------> Leaving ----------> forgotten
//!     ^                                         |                          | a worker joined meanwhile
//!     +------------- interruption --------------+                          +----------> Asked
//! ```

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ahash::AHashMap;
use tidegate_protocol::ChannelName;

use crate::sink::{WorkerId, WorkerSet};

/// How far a channel's subscription in Redis is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Wanted, not asked for on this connection.
    Silent,
    /// To be asked for, or asked and not confirmed.
    Asked,
    /// Confirmed.
    Heard,
    /// Being given up.
    Leaving,
}

#[derive(Debug)]
struct Entry {
    stage: Stage,
    /// Workers that were told that they hear the channel.
    joined: WorkerSet,
    /// Workers that wait for the confirmation.
    waiting: WorkerSet,
    /// The command that asked for the channel last.
    batch: u32,
    /// Since when nobody wants the channel.
    idle: Option<Instant>,
    /// Whether the channel stands in the `lingering` queue: at most once.
    lingers: bool,
}

/// What to tell a worker that wants to join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Join {
    /// It hears the channel already.
    Heard,
    /// It will be told when Redis confirmed.
    Later,
}

/// Whom a refusal of Redis concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Refused {
    /// Workers whose join fails.
    pub(crate) waiting: WorkerSet,
    /// Workers that joined on an earlier connection and hear nothing more: the rights were changed under them.
    pub(crate) joined: WorkerSet,
}

/// The channels of the node.
#[derive(Debug)]
pub(crate) struct Interest {
    channels: AHashMap<ChannelName, Entry>,
    /// Channels to be subscribed next; each is `Asked`.
    to_ask: VecDeque<ChannelName>,
    /// Channels that nobody wants, by the time at which they may be given up.
    lingering: VecDeque<(Instant, ChannelName)>,
    linger: Duration,
    /// How many channels a worker hears or waits for; told to whoever counts.
    wanted: Arc<AtomicUsize>,
}

impl Entry {
    const fn is_wanted(&self) -> bool {
        !self.joined.is_empty() || !self.waiting.is_empty()
    }
}

impl Interest {
    pub(crate) fn new(linger: Duration) -> Self {
        Self {
            channels: AHashMap::new(),
            to_ask: VecDeque::new(),
            lingering: VecDeque::new(),
            linger,
            wanted: Arc::default(),
        }
    }

    /// How many channels a worker hears or waits for, each counted once however many workers do.
    pub(crate) fn wanted(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.wanted)
    }

    /// A worker wants to hear the channel, while the connection stands.
    pub(crate) fn join(&mut self, worker: WorkerId, channel: &ChannelName) -> Join {
        let Some(entry) = self.channels.get_mut(channel) else {
            let mut waiting = WorkerSet::default();
            waiting.insert(worker);
            let entry = Entry {
                stage: Stage::Asked,
                joined: WorkerSet::default(),
                waiting,
                batch: 0,
                idle: None,
                lingers: false,
            };
            self.wanted.fetch_add(1, Ordering::Relaxed);
            self.channels.insert(channel.clone(), entry);
            self.to_ask.push_back(channel.clone());
            return Join::Later;
        };
        entry.idle = None;
        if !entry.is_wanted() {
            self.wanted.fetch_add(1, Ordering::Relaxed);
        }
        match entry.stage {
            Stage::Heard => {
                entry.joined.insert(worker);
                Join::Heard
            }
            Stage::Asked | Stage::Leaving => {
                entry.waiting.insert(worker);
                Join::Later
            }
            Stage::Silent => {
                entry.waiting.insert(worker);
                entry.stage = Stage::Asked;
                self.to_ask.push_back(channel.clone());
                Join::Later
            }
        }
    }

    /// A worker does not want to hear the channel any more, or was told that it cannot.
    pub(crate) fn leave(&mut self, worker: WorkerId, channel: &ChannelName, now: Instant) {
        let Some(entry) = self.channels.get_mut(channel) else { return };
        let was_wanted = entry.is_wanted();
        entry.joined.remove(worker);
        entry.waiting.remove(worker);
        if entry.is_wanted() {
            return;
        }
        if was_wanted {
            self.wanted.fetch_sub(1, Ordering::Relaxed);
        }
        if entry.stage == Stage::Silent {
            self.channels.remove(channel);
        } else if entry.idle.is_none() {
            entry.idle = Some(now);
            if !entry.lingers {
                entry.lingers = true;
                self.lingering.push_back((now + self.linger, channel.clone()));
            }
        }
    }

    /// Redis confirmed the subscription: the workers to be told.
    pub(crate) fn confirmed(&mut self, channel: &str) -> Option<(ChannelName, WorkerSet)> {
        let name = self.channels.get_key_value(channel)?.0.clone();
        let entry = self.channels.get_mut(channel)?;
        if entry.stage != Stage::Asked {
            return None;
        }
        entry.stage = Stage::Heard;
        let told = std::mem::take(&mut entry.waiting);
        entry.joined.0 |= told.0;
        Some((name, told))
    }

    /// Whether what the command asked for this channel is confirmed.
    pub(crate) fn is_settled(&self, channel: &ChannelName, batch: u32) -> bool {
        self.channels.get(channel).is_none_or(|entry| entry.stage != Stage::Asked || entry.batch != batch)
    }

    /// Redis confirmed that the channel is given up.
    pub(crate) fn given_up(&mut self, channel: &str) {
        let Some(entry) = self.channels.get_mut(channel) else { return };
        if entry.stage != Stage::Leaving {
            return;
        }
        if entry.waiting.is_empty() {
            self.channels.remove(channel);
            return;
        }
        entry.stage = Stage::Asked;
        if let Some((name, _)) = self.channels.get_key_value(channel) {
            self.to_ask.push_back(name.clone());
        }
    }

    /// Redis refuses the channel: the workers to be told so. The channel is forgotten.
    pub(crate) fn refused(&mut self, channel: &ChannelName) -> Refused {
        let Some(entry) = self.channels.remove(channel) else { return Refused::default() };
        if entry.is_wanted() {
            self.wanted.fetch_sub(1, Ordering::Relaxed);
        }
        let Entry { mut joined, waiting, .. } = entry;
        // Whoever waits has its answer by that.
        joined.0 &= !waiting.0;
        Refused { waiting, joined }
    }

    /// Who hears the channel.
    pub(crate) fn hears(&self, channel: &str) -> Option<(ChannelName, WorkerSet)> {
        let (name, entry) = self.channels.get_key_value(channel)?;
        (!entry.joined.is_empty()).then(|| (name.clone(), entry.joined))
    }

    /// The next channels to subscribe, `most` at most, by the command `batch` (not 0).
    pub(crate) fn next_to_ask(&mut self, most: usize, batch: u32) -> Vec<ChannelName> {
        let count = self.to_ask.len().min(most);
        let asked: Vec<_> = self.to_ask.drain(..count).collect();
        for channel in &asked {
            if let Some(entry) = self.channels.get_mut(channel) {
                entry.batch = batch;
            }
        }
        asked
    }

    /// Gives channels of a command to another one.
    pub(crate) fn ask_again(&mut self, channels: &[ChannelName], batch: u32) {
        for channel in channels {
            if let Some(entry) = self.channels.get_mut(channel) {
                entry.batch = batch;
            }
        }
    }

    /// Whether channels wait to be subscribed.
    pub(crate) fn has_to_ask(&self) -> bool {
        !self.to_ask.is_empty()
    }

    /// The next channels to unsubscribe, `most` at most: idle for the linger time.
    pub(crate) fn next_to_give_up(&mut self, now: Instant, most: usize) -> Vec<ChannelName> {
        let mut batch = Vec::new();
        while batch.len() < most && self.lingering.front().is_some_and(|(at, _)| *at <= now) {
            let Some((_, channel)) = self.lingering.pop_front() else { break };
            let Some(entry) = self.channels.get_mut(&channel) else { continue };
            let Some(idle) = entry.idle else {
                entry.lingers = false;
                continue;
            };
            if entry.stage == Stage::Heard && now >= idle + self.linger {
                entry.lingers = false;
                entry.idle = None;
                entry.stage = Stage::Leaving;
                batch.push(channel);
            } else {
                // Wanted again in between, or not confirmed yet: a second round.
                let at = (idle + self.linger).max(now + Duration::from_millis(100));
                self.lingering.push_back((at, channel));
            }
        }
        batch
    }

    /// The connection is gone. Says how many channels were heard for somebody, and whose joins are lost.
    pub(crate) fn interrupted(&mut self) -> (usize, Vec<(ChannelName, WorkerSet)>) {
        self.to_ask.clear();
        self.lingering.clear();
        let mut lost = Vec::new();
        let mut heard = 0;
        self.channels.retain(|channel, entry| {
            if !entry.waiting.is_empty() {
                let workers = std::mem::take(&mut entry.waiting);
                // A worker whose join failed has no interest, also where an earlier one had succeeded.
                entry.joined.0 &= !workers.0;
                lost.push((channel.clone(), workers));
            }
            entry.stage = Stage::Silent;
            entry.lingers = false;
            entry.idle = None;
            let kept = !entry.joined.is_empty();
            heard += usize::from(kept);
            kept
        });
        self.wanted.store(heard, Ordering::Relaxed);
        (heard, lost)
    }

    /// A new connection stands: everything that is wanted is to be asked for.
    pub(crate) fn restore(&mut self) {
        for (channel, entry) in &mut self.channels {
            if entry.stage == Stage::Silent {
                entry.stage = Stage::Asked;
                self.to_ask.push_back(channel.clone());
            }
        }
    }

    /// How many channels are known.
    pub(crate) fn len(&self) -> usize {
        self.channels.len()
    }
}

#[cfg(test)]
mod tests;
