//! The node's interest: which channels it must hear, for which workers, and how far Redis has confirmed that.
//!
//! Pure bookkeeping, told of every event and asked what to do next. Not here: connections and commands (`redis::hear`).
//!
//! A channel's life on the pub/sub connection; `Placing` is only for channels with history, whose position is read:
//!
//! ```text
//!             join          confirmed            idle for `linger`           confirmed
//!   Silent ----------> Asked ----> (Placing) ----> Heard ----------> Leaving ----------> forgotten
//!     ^                                              |                  | a worker joined meanwhile
//!     +------------- interruption -------------------+                  +----------> Asked
//! ```

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ahash::AHashMap;
use tidegate_protocol::{ChannelName, Epoch, Position};

use crate::rules::{OnGap, Rules};
use crate::sink::{WorkerId, WorkerSet};
use crate::track::Track;

/// How far a channel's subscription in Redis is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Wanted, not asked for on this connection.
    Silent,
    /// To be asked for, or asked and not confirmed.
    Asked,
    /// Confirmed; where the channel stands is not known yet.
    Placing,
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
    /// Where the node stands in a channel with history.
    track: Option<Box<Track>>,
    /// Whether workers heard it before an interruption and may have missed something by it.
    missed: bool,
}

/// What to tell a worker that wants to join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Join {
    /// It hears the channel already, from behind this position on where there is history.
    Heard(Option<Position>),
    /// It will be told when Redis confirmed.
    Later,
}

/// Whoever hears a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hearing {
    pub(crate) channel: ChannelName,
    pub(crate) workers: WorkerSet,
    /// Whether the channel has history: `Interest::track` knows more.
    pub(crate) tracked: bool,
}

/// What an interruption concerns.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Interrupted {
    /// How many channels may have missed something that cannot be had any more: those without history.
    pub(crate) gaps: usize,
    /// Joins that fail.
    pub(crate) failed: Vec<(ChannelName, WorkerSet)>,
}

/// A question about a channel with history, for Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Question {
    pub(crate) channel: ChannelName,
    /// The answer counts only if the track still expects this number.
    pub(crate) number: u32,
    /// The offset up to which everything was passed on when it was asked.
    pub(crate) known: u64,
    pub(crate) ask: Ask,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ask {
    /// Where the channel stands.
    Position,
    /// That, and what is in its log behind this one.
    Log(Position),
    /// To end this epoch.
    Renew(Epoch),
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
    /// Questions about positions, and those whose answers may be long.
    looks: VecDeque<Question>,
    reads: VecDeque<Question>,
    /// Of the last question.
    number: u32,
    rules: Arc<Rules>,
    linger: Duration,
    /// How many channels a worker hears or waits for; told to whoever counts.
    wanted: Arc<AtomicUsize>,
}

impl Entry {
    const fn is_wanted(&self) -> bool {
        !self.joined.is_empty() || !self.waiting.is_empty()
    }

    /// Whoever waited hears the channel from now on, and is to be told.
    fn is_heard(&mut self) -> WorkerSet {
        self.stage = Stage::Heard;
        let told = std::mem::take(&mut self.waiting);
        self.joined.0 |= told.0;
        told
    }
}

impl Interest {
    pub(crate) fn new(linger: Duration, rules: Arc<Rules>) -> Self {
        Self {
            channels: AHashMap::new(),
            to_ask: VecDeque::new(),
            lingering: VecDeque::new(),
            looks: VecDeque::new(),
            reads: VecDeque::new(),
            number: 0,
            rules,
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
                track: self.rules.of(channel).retention.map(|_| Box::default()),
                missed: false,
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
                Join::Heard(entry.track.as_ref().and_then(|track| track.position().cloned()))
            }
            Stage::Asked | Stage::Placing | Stage::Leaving => {
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

    /// Redis confirmed the subscription: the workers to be told. In a channel with history they are told when its
    /// position is known.
    pub(crate) fn confirmed(&mut self, channel: &str) -> Option<(ChannelName, WorkerSet)> {
        let name = self.channels.get_key_value(channel)?.0.clone();
        let entry = self.channels.get_mut(channel)?;
        if entry.stage != Stage::Asked {
            return None;
        }
        if let Some(track) = &mut entry.track {
            track.confirmed();
            entry.stage = Stage::Placing;
            let ask = track.to_verify().map_or(Ask::Position, Ask::Log);
            self.ask(&name, ask);
            return None;
        }
        Some((name, entry.is_heard()))
    }

    /// The position of a channel with history is known, and so far everything is passed on: the workers to be told.
    pub(crate) fn placed(&mut self, channel: &ChannelName) -> WorkerSet {
        match self.channels.get_mut(channel) {
            Some(entry) if entry.stage == Stage::Placing => entry.is_heard(),
            _ => WorkerSet::default(),
        }
    }

    /// Where the node stands in a channel with history, and who hears it.
    pub(crate) fn track(&mut self, channel: &str) -> Option<(&mut Track, WorkerSet)> {
        let entry = self.channels.get_mut(channel)?;
        Some((entry.track.as_mut()?, entry.joined))
    }

    /// Whether the worker hears the channel, or waits to.
    pub(crate) fn is_member(&self, worker: WorkerId, channel: &ChannelName) -> bool {
        let member = |entry: &Entry| entry.joined.contains(worker) || entry.waiting.contains(worker);
        self.channels.get(channel).is_some_and(member)
    }

    /// Queues a question about a channel with history, unless one is under way.
    pub(crate) fn ask(&mut self, channel: &ChannelName, ask: Ask) {
        let Some(track) = self.channels.get_mut(channel).and_then(|entry| entry.track.as_mut()) else {
            return;
        };
        if track.is_asked() {
            return;
        }
        self.number = self.number.wrapping_add(1);
        track.ask(self.number);
        let known = track.position().map_or(0, |position| position.offset);
        let question = Question { channel: channel.clone(), number: self.number, known, ask };
        match question.ask {
            Ask::Position | Ask::Renew(_) => self.looks.push_back(question),
            Ask::Log(_) => self.reads.push_back(question),
        }
    }

    /// The next questions with short answers, `most` at most.
    pub(crate) fn next_looks(&mut self, most: usize) -> Vec<Question> {
        self.looks.drain(..self.looks.len().min(most)).collect()
    }

    /// The next questions whose answers may be long.
    pub(crate) fn next_reads(&mut self, most: usize) -> Vec<Question> {
        self.reads.drain(..self.reads.len().min(most)).collect()
    }

    /// Those who hear the channel have missed something for good, and are not told anything of it any more.
    pub(crate) fn lost(&mut self, channel: &ChannelName, now: Instant) -> WorkerSet {
        let joined = self.channels.get(channel).map_or_else(WorkerSet::default, |entry| entry.joined);
        joined.iter().for_each(|worker| self.leave(worker, channel, now));
        joined
    }

    /// Channels without history that were heard before the last interruption, whose rules say that workers are to be told.
    pub(crate) fn take_missed(&mut self) -> Vec<ChannelName> {
        let rules = Arc::clone(&self.rules);
        let missed = self.channels.iter_mut().filter_map(|(channel, entry)| {
            let missed = std::mem::take(&mut entry.missed);
            (missed && rules.of(channel).on_gap == OnGap::Notify).then(|| channel.clone())
        });
        missed.collect()
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

    /// Who hears the channel. Of one with history everything counts, whether anybody hears it or not.
    pub(crate) fn hears(&self, channel: &str) -> Option<Hearing> {
        let (name, entry) = self.channels.get_key_value(channel)?;
        let tracked = entry.track.is_some();
        (tracked || !entry.joined.is_empty()).then(|| Hearing {
            channel: name.clone(),
            workers: entry.joined,
            tracked,
        })
    }

    /// Whether subscribers of the channel are told who joins and leaves.
    pub(crate) fn tells_presence(&self, channel: &ChannelName) -> bool {
        self.rules.of(channel).join_leave
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

    /// The connection is gone.
    pub(crate) fn interrupted(&mut self) -> Interrupted {
        self.to_ask.clear();
        self.lingering.clear();
        self.looks.clear();
        self.reads.clear();
        let mut interrupted = Interrupted::default();
        let mut heard = 0;
        self.channels.retain(|channel, entry| {
            if !entry.waiting.is_empty() {
                let workers = std::mem::take(&mut entry.waiting);
                // A worker whose join failed has no interest, also where an earlier one had succeeded.
                entry.joined.0 &= !workers.0;
                interrupted.failed.push((channel.clone(), workers));
            }
            entry.stage = Stage::Silent;
            entry.lingers = false;
            entry.idle = None;
            let kept = !entry.joined.is_empty();
            heard += usize::from(kept);
            match &mut entry.track {
                Some(track) => track.interrupted(),
                None => {
                    interrupted.gaps += usize::from(kept);
                    entry.missed = true;
                }
            }
            kept
        });
        self.wanted.store(heard, Ordering::Relaxed);
        interrupted
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

mod moving;
#[cfg(test)]
mod tests;

pub(crate) use moving::{Astray, Moved};
