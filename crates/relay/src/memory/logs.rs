//! The histories of all channels: who keeps what, for how long, and how much in all.
//!
//! Beyond the bound in bytes, the channel that was used least recently loses its history. Where no worker hears it, its
//! epoch goes with it; where one does, it has a position in that epoch, and only the publications go. What has expired
//! is never seen, whenever the sweep gives its memory back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ahash::AHashMap;
use tidegate_protocol::{ChannelName, Position, Publication};

use super::keys::Keys;
use super::log::Log;
use crate::relay::{History, HistoryQuery, Outgoing, RelayError};
use crate::rules::{Retention, Rules};
use crate::sink::Recovered;

/// How long an epoch outlives the last use of its channel, at least; and how many times its history's time to live.
const LEAST_EPOCH_LIFE: Duration = Duration::from_secs(24 * 60 * 60);
const EPOCH_LIVES: u32 = 10;
/// What a channel takes besides its publications and twice its name: its places in three tables.
const CHANNEL_BYTES: usize = 384;
/// How many channels one sweep looks at.
const MOST_SWEPT: usize = 1024;

/// All histories.
#[derive(Debug)]
pub(super) struct Logs {
    rules: Arc<Rules>,
    /// How many bytes all of them may take.
    most: usize,
    bytes: usize,
    kept: AHashMap<ChannelName, Kept>,
    /// Channels that can lose something, by their last use.
    uses: BTreeMap<u64, ChannelName>,
    /// The number of the last use.
    last_use: u64,
    /// When each channel is to be looked at next.
    due: BTreeSet<(Instant, ChannelName)>,
    keys: Keys,
}

#[derive(Debug)]
struct Kept {
    log: Log,
    retention: Retention,
    /// Whether a worker hears the channel.
    heard: bool,
    /// The number of its last use, while it stands in `uses`.
    used: Option<u64>,
    /// When it was used last.
    touched: Instant,
    /// When the publications expire.
    expires: Instant,
    /// Its time in `due`.
    due: Instant,
}

/// What became of a publication that was to be made.
#[derive(Debug)]
pub(super) struct Taken {
    /// Where it stands in the channel's history, if there.
    pub(super) position: Option<Position>,
    /// To be delivered; `None`: that was done already, under the same key.
    pub(super) publication: Option<Publication>,
}

impl Logs {
    pub(super) fn new(rules: Arc<Rules>, most: usize) -> Self {
        Self {
            rules,
            most,
            bytes: 0,
            kept: AHashMap::new(),
            uses: BTreeMap::new(),
            last_use: 0,
            due: BTreeSet::new(),
            keys: Keys::default(),
        }
    }

    /// Takes a publication in, where its channel keeps any.
    pub(super) fn take(&mut self, outgoing: Outgoing, now: Instant) -> Taken {
        let Outgoing { mut publication, idempotency_key: key, skip_history } = outgoing;
        publication.offset = 0;
        let channel = publication.channel.clone();
        let kept = self.rules.of(&channel).retention.is_some();
        if !kept || skip_history {
            return Taken { position: None, publication: Some(publication) };
        }
        if !key.is_empty()
            && let Some(position) = self.keys.get(&channel, &key, now)
        {
            return Taken { position: Some(position), publication: None };
        }
        let taken = self.open(&channel, now, |kept| {
            kept.expires = now + kept.retention.ttl;
            let publication = kept.log.append(publication, kept.retention.size);
            (kept.log.position(), publication)
        });
        let (position, publication) = taken.unzip();
        if let Some(position) = position.clone().filter(|_| !key.is_empty()) {
            self.keys.insert(channel, key, position, now);
        }
        Taken { position, publication }
    }

    /// A worker hears the channel from now on: the position it begins behind.
    pub(super) fn joined(&mut self, channel: &ChannelName, now: Instant) -> Option<Position> {
        self.open(channel, now, |kept| {
            kept.heard = true;
            kept.log.position()
        })
    }

    /// No worker hears the channel any more.
    pub(super) fn left(&mut self, channel: &ChannelName, now: Instant) {
        self.open(channel, now, |kept| kept.heard = false);
    }

    /// What is behind the position; `None`: the channel has no history.
    pub(super) fn recover(
        &mut self,
        channel: &ChannelName,
        since: &Position,
        now: Instant,
    ) -> Option<Recovered> {
        self.open(channel, now, |kept| Recovered {
            position: kept.log.position(),
            publications: kept.log.since(since),
        })
    }

    pub(super) fn history(
        &mut self,
        channel: &ChannelName,
        query: &HistoryQuery,
        now: Instant,
    ) -> Result<History, RelayError> {
        let read = |kept: &mut Kept| {
            let publications = kept.log.read(query).ok_or(RelayError::Unrecoverable)?;
            Ok(History { publications, position: kept.log.position() })
        };
        self.open(channel, now, read).unwrap_or(Err(RelayError::Unavailable))
    }

    pub(super) fn remove(&mut self, channel: &ChannelName, now: Instant) -> Result<(), RelayError> {
        self.open(channel, now, |kept| kept.log.clear()).ok_or(RelayError::Unavailable)
    }

    /// When a sweep has something to do.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Gives back the memory of what has expired. Looks at a bounded number of channels.
    pub(super) fn sweep(&mut self, now: Instant) {
        self.keys.forget(now);
        for _ in 0..MOST_SWEPT {
            if self.due().is_none_or(|at| at > now) {
                break;
            }
            let Some((_, channel)) = self.due.pop_first() else { break };
            let Some(kept) = self.kept.get_mut(&channel) else { continue };
            self.bytes -= kept.expire(now);
            let life = kept.retention.ttl.saturating_mul(EPOCH_LIVES).max(LEAST_EPOCH_LIFE);
            let forgotten = kept.touched + life;
            if kept.log.is_empty() && !kept.heard && forgotten <= now {
                self.forget(&channel);
                continue;
            }
            kept.due =
                if kept.log.is_empty() { forgotten.max(now + LEAST_EPOCH_LIFE / 24) } else { kept.expires };
            self.due.insert((kept.due, channel));
        }
    }

    /// Uses a channel that has history: it is begun where it is not there, and nobody sees what has expired.
    fn open<T>(
        &mut self,
        channel: &ChannelName,
        now: Instant,
        work: impl FnOnce(&mut Kept) -> T,
    ) -> Option<T> {
        let retention = self.rules.of(channel).retention?;
        if !self.kept.contains_key(channel) {
            let due = now + retention.ttl;
            self.bytes += fixed(channel);
            self.due.insert((due, channel.clone()));
            let kept = Kept {
                log: Log::new(),
                retention,
                heard: false,
                used: None,
                touched: now,
                expires: due,
                due,
            };
            self.kept.insert(channel.clone(), kept);
        }
        let kept = self.kept.get_mut(channel)?;
        self.bytes -= kept.expire(now);
        self.bytes -= kept.log.bytes();
        let result = work(kept);
        self.bytes += kept.log.bytes();
        kept.touched = now;
        if !kept.log.is_empty() && kept.due > kept.expires {
            self.due.remove(&(kept.due, channel.clone()));
            kept.due = kept.expires;
            self.due.insert((kept.due, channel.clone()));
        }
        if let Some(before) = kept.used {
            self.uses.remove(&before);
        }
        self.last_use += 1;
        kept.used = Some(self.last_use);
        self.uses.insert(self.last_use, channel.clone());
        self.evict();
        Some(result)
    }

    /// Takes from the channels used least recently until the rest is within the bound.
    fn evict(&mut self) {
        while self.bytes > self.most {
            let alone = self.uses.len() == 1;
            let Some(oldest) = self.uses.first_entry() else { return };
            let channel = oldest.get().clone();
            let Some(kept) = self.kept.get_mut(&channel) else { return };
            let before = kept.log.bytes();
            if alone && before > 0 {
                // The one in use: its newest are worth most.
                kept.log.drop_oldest();
            } else if kept.heard {
                kept.log.clear();
                kept.used = None;
                oldest.remove();
            } else {
                self.forget(&channel);
                continue;
            }
            self.bytes -= before - kept.log.bytes();
        }
    }

    fn forget(&mut self, channel: &ChannelName) {
        if let Some(kept) = self.kept.remove(channel) {
            self.bytes -= fixed(channel) + kept.log.bytes();
            self.due.remove(&(kept.due, channel.clone()));
            if let Some(used) = kept.used {
                self.uses.remove(&used);
            }
        }
    }
}

impl Kept {
    /// Forgets publications whose time is over. Says how many bytes that gave back.
    fn expire(&mut self, now: Instant) -> usize {
        let before = self.log.bytes();
        if now >= self.expires {
            self.log.clear();
        }
        before - self.log.bytes()
    }
}

/// What a channel takes without any publication.
fn fixed(channel: &ChannelName) -> usize {
    CHANNEL_BYTES + channel.as_str().len()
}

#[cfg(test)]
mod tests;
