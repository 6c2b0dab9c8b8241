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
}

impl Interest {
    pub(crate) fn new(linger: Duration) -> Self {
        Self { channels: AHashMap::new(), to_ask: VecDeque::new(), lingering: VecDeque::new(), linger }
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
            self.channels.insert(channel.clone(), entry);
            self.to_ask.push_back(channel.clone());
            return Join::Later;
        };
        entry.idle = None;
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
        entry.joined.remove(worker);
        entry.waiting.remove(worker);
        if !entry.joined.is_empty() || !entry.waiting.is_empty() {
            return;
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
        let Some(Entry { mut joined, waiting, .. }) = self.channels.remove(channel) else {
            return Refused::default();
        };
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
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    const LINGER: Duration = Duration::from_secs(5);

    fn set(workers: &[u8]) -> WorkerSet {
        let mut set = WorkerSet::default();
        workers.iter().for_each(|w| set.insert(WorkerId(*w)));
        set
    }

    fn news() -> ChannelName {
        ChannelName::parse("news").unwrap()
    }

    #[test]
    fn a_join_waits_for_redis_and_a_second_one_does_not() {
        let mut interest = Interest::new(LINGER);
        assert_eq!(interest.join(WorkerId(0), &news()), Join::Later);
        assert_eq!(interest.join(WorkerId(1), &news()), Join::Later);
        assert_eq!(interest.next_to_ask(10, 1), [news()]);
        assert_eq!(interest.hears("news"), None, "nobody was told yet");
        assert_eq!(interest.confirmed("news"), Some((news(), set(&[0, 1]))));
        assert_eq!(interest.hears("news"), Some((news(), set(&[0, 1]))));
        assert_eq!(interest.join(WorkerId(2), &news()), Join::Heard);
        assert!(!interest.has_to_ask());
    }

    #[test]
    fn a_channel_lingers_and_a_return_within_that_time_costs_nothing() {
        let mut interest = Interest::new(LINGER);
        let start = Instant::now();
        interest.join(WorkerId(0), &news());
        interest.next_to_ask(10, 1);
        interest.confirmed("news");
        interest.leave(WorkerId(0), &news(), start);
        assert!(interest.next_to_give_up(start + LINGER / 2, 10).is_empty());
        assert_eq!(interest.join(WorkerId(0), &news()), Join::Heard);
        assert!(interest.next_to_give_up(start + LINGER, 10).is_empty());
        let later = start + LINGER * 2;
        interest.leave(WorkerId(0), &news(), later);
        assert_eq!(interest.next_to_give_up(later + LINGER, 10), [news()]);
        interest.given_up("news");
        assert_eq!(interest.len(), 0);
    }

    #[test]
    fn a_join_while_redis_gives_the_channel_up_subscribes_it_again() {
        let mut interest = Interest::new(Duration::ZERO);
        let now = Instant::now();
        interest.join(WorkerId(0), &news());
        interest.next_to_ask(10, 1);
        interest.confirmed("news");
        interest.leave(WorkerId(0), &news(), now);
        assert_eq!(interest.next_to_give_up(now, 10), [news()]);
        assert_eq!(interest.join(WorkerId(3), &news()), Join::Later);
        assert_eq!(interest.confirmed("news"), None, "a late confirmation must not answer");
        interest.given_up("news");
        assert_eq!(interest.next_to_ask(10, 1), [news()]);
        assert_eq!(interest.confirmed("news"), Some((news(), set(&[3]))));
    }

    #[test]
    fn an_interruption_fails_pending_joins_and_keeps_what_was_heard() {
        let mut interest = Interest::new(LINGER);
        let other = ChannelName::parse("other").unwrap();
        interest.join(WorkerId(0), &news());
        interest.next_to_ask(10, 1);
        interest.confirmed("news");
        interest.join(WorkerId(1), &other);
        assert_eq!(interest.interrupted(), (1, vec![(other, set(&[1]))]));
        interest.restore();
        assert_eq!(interest.next_to_ask(10, 1), [news()]);
        assert_eq!(interest.confirmed("news"), Some((news(), set(&[]))));
        assert_eq!(interest.hears("news"), Some((news(), set(&[0]))));
    }

    #[test]
    fn a_channel_that_redis_refuses_is_forgotten_and_whoever_heard_it_is_known() {
        let mut interest = Interest::new(LINGER);
        interest.join(WorkerId(0), &news());
        interest.join(WorkerId(1), &news());
        interest.next_to_ask(10, 1);
        interest.confirmed("news");
        interest.interrupted();
        interest.restore();
        interest.next_to_ask(10, 1);
        interest.join(WorkerId(1), &news());
        interest.join(WorkerId(2), &news());
        assert_eq!(interest.refused(&news()), Refused { waiting: set(&[1, 2]), joined: set(&[0]) });
        assert_eq!(interest.refused(&news()), Refused::default());
        assert_eq!(interest.len(), 0);
        assert_eq!(interest.join(WorkerId(0), &news()), Join::Later);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Join(u8, u8),
        Leave(u8, u8),
        Redis,
        GiveUp,
        Interrupt,
        Wait(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..4u8, 0..3u8).prop_map(|(w, c)| Step::Join(w, c)),
            (0..4u8, 0..3u8).prop_map(|(w, c)| Step::Leave(w, c)),
            Just(Step::Redis),
            Just(Step::GiveUp),
            Just(Step::Interrupt),
            (0..20u8).prop_map(Step::Wait),
        ]
    }

    proptest! {
        /// Against a model of Redis: whoever was told that it hears a channel does hear it after every interruption,
        /// and what nobody wants is subscribed no longer once everything settled.
        #[test]
        fn interest_and_redis_agree_when_all_is_quiet(steps in proptest::collection::vec(step(), 0..200)) {
            use std::collections::{BTreeMap, BTreeSet, VecDeque};
            let mut interest = Interest::new(LINGER);
            let mut now = Instant::now();
            let mut commands: VecDeque<(bool, ChannelName)> = VecDeque::new();
            let mut redis: BTreeSet<String> = BTreeSet::new();
            let mut wanted: BTreeMap<String, u64> = BTreeMap::new();
            let name = |c: u8| ChannelName::parse(&format!("c{c}")).unwrap();
            let mut pending: BTreeSet<(u8, u8)> = BTreeSet::new();
            let settle = |interest: &mut Interest,
                          commands: &mut VecDeque<(bool, ChannelName)>,
                          redis: &mut BTreeSet<String>,
                          pending: &mut BTreeSet<(u8, u8)>| {
                commands.extend(interest.next_to_ask(100, 1).into_iter().map(|c| (true, c)));
                while let Some((subscribe, channel)) = commands.pop_front() {
                    if subscribe {
                        redis.insert(channel.to_string());
                        let (_, told) = interest.confirmed(channel.as_str()).unwrap();
                        let c: u8 = channel.as_str()[1..].parse().unwrap();
                        for w in told.iter() {
                            assert!(pending.remove(&(w.0, c)), "told without having asked");
                        }
                    } else {
                        redis.remove(channel.as_str());
                        interest.given_up(channel.as_str());
                    }
                    commands.extend(interest.next_to_ask(100, 1).into_iter().map(|c| (true, c)));
                }
            };
            for step in steps {
                match step {
                    Step::Join(w, c) => {
                        if interest.join(WorkerId(w), &name(c)) == Join::Later {
                            pending.insert((w, c));
                        }
                        *wanted.entry(name(c).to_string()).or_default() |= 1 << w;
                    }
                    Step::Leave(w, c) => {
                        interest.leave(WorkerId(w), &name(c), now);
                        pending.remove(&(w, c));
                        *wanted.entry(name(c).to_string()).or_default() &= !(1 << w);
                    }
                    Step::Redis => settle(&mut interest, &mut commands, &mut redis, &mut pending),
                    Step::GiveUp => {
                        commands.extend(interest.next_to_give_up(now, 100).into_iter().map(|c| (false, c)));
                    }
                    Step::Interrupt => {
                        let (_, lost) = interest.interrupted();
                        commands.clear();
                        redis.clear();
                        for (channel, workers) in lost {
                            let c: u8 = channel.as_str()[1..].parse().unwrap();
                            for w in workers.iter() {
                                prop_assert!(pending.remove(&(w.0, c)));
                                *wanted.entry(channel.to_string()).or_default() &= !(1 << w.0);
                            }
                        }
                        prop_assert!(pending.is_empty(), "every pending join is answered");
                        interest.restore();
                    }
                    Step::Wait(s) => now += Duration::from_secs(s.into()),
                }
            }
            for _ in 0..3 {
                settle(&mut interest, &mut commands, &mut redis, &mut pending);
                now += LINGER * 2;
                commands.extend(interest.next_to_give_up(now, 100).into_iter().map(|c| (false, c)));
            }
            settle(&mut interest, &mut commands, &mut redis, &mut pending);
            prop_assert!(pending.is_empty());
            wanted.retain(|_, workers| *workers != 0);
            for (channel, workers) in &wanted {
                prop_assert_eq!(interest.hears(channel).map(|(_, set)| set.0), Some(*workers));
            }
            prop_assert_eq!(redis.into_iter().collect::<Vec<_>>(), wanted.into_keys().collect::<Vec<_>>());
            prop_assert!(interest.lingering.is_empty());
        }
    }
}
