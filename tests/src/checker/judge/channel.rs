//! One channel: what was published in it, and who follows it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::follower::Follower;
use super::once::Once;
use super::{Bench, Breach, Losses, Reply};
use crate::checker::history::{Heard, Position};

/// A publication, from its publisher's side.
#[derive(Debug, Default)]
pub(super) struct Try {
    /// When it was first tried.
    pub(super) attempted: u64,
    /// When it was first acknowledged.
    pub(super) acknowledged: Option<u64>,
    /// As what, each once.
    pub(super) positions: Vec<Position>,
    attempts: u32,
    failures: u32,
}

impl Try {
    /// Whether every attempt was surely refused.
    fn refused(&self) -> bool {
        self.attempts == self.failures
    }
}

/// What a subscriber's judge must know of its channel.
#[derive(Debug)]
pub(super) struct Knowledge {
    /// How many publications are kept.
    pub(super) size: u64,
    /// How long after the last, in microseconds.
    pub(super) ttl: u64,
    /// By id.
    pub(super) tries: HashMap<u64, Try>,
    /// When something was acknowledged last.
    pub(super) latest: u64,
    /// When something was acknowledged last after a silence in which what was kept may have expired.
    pub(super) fresh: u64,
    /// The last publication of all.
    pub(super) last: Option<u64>,
}

impl Knowledge {
    /// Whether what was kept may have expired by now.
    pub(super) fn expired(&self, now: u64) -> bool {
        now.saturating_sub(self.latest) > self.ttl / 2
    }
}

/// A channel.
#[derive(Debug)]
pub(super) struct Channel {
    knowledge: Knowledge,
    /// Where there is history, by name.
    followers: BTreeMap<String, Follower>,
    /// Where there is none.
    listeners: BTreeMap<String, Once>,
}

impl Channel {
    pub(super) fn new(size: u64, ttl: u64) -> Self {
        let ttl = ttl.saturating_mul(1_000_000);
        let knowledge = Knowledge { size, ttl, tries: HashMap::new(), latest: 0, fresh: 0, last: None };
        Self { knowledge, followers: BTreeMap::new(), listeners: BTreeMap::new() }
    }

    fn kept(&self) -> bool {
        self.knowledge.size > 0
    }

    pub(super) fn attempt(&mut self, bench: &mut Bench<'_>, id: u64) {
        bench.counts().attempts += 1;
        let at = bench.at;
        let tried = self.knowledge.tries.entry(id).or_insert_with(|| Try { attempted: at, ..Try::default() });
        tried.attempts += 1;
    }

    pub(super) fn acknowledged(&mut self, bench: &mut Bench<'_>, id: u64, position: Option<Position>) {
        bench.counts().acknowledged += 1;
        if self.knowledge.expired(bench.at) {
            self.knowledge.fresh = bench.at;
        }
        self.knowledge.latest = bench.at;
        let tried = self.knowledge.tries.entry(id).or_default();
        tried.acknowledged.get_or_insert(bench.at);
        let Some(position) = position.filter(|position| !tried.positions.contains(position)) else { return };
        if let Some(twin) = tried.positions.iter().find(|twin| twin.epoch == position.epoch) {
            let text = format!("publication {id} is at {} and at {}", twin.offset, position.offset);
            bench.find(Breach::Duplicated, None, text);
        }
        tried.positions.push(position);
    }

    pub(super) fn failed(&mut self, bench: &mut Bench<'_>, id: u64) {
        bench.counts().failed += 1;
        if let Some(tried) = self.knowledge.tries.get_mut(&id) {
            tried.failures += 1;
        }
    }

    pub(super) fn last(&mut self, id: u64) {
        self.knowledge.last = Some(id);
    }

    pub(super) fn asked(&mut self, who: &str, since: Option<Position>) {
        if self.kept() {
            self.follower(who).asked(since);
        } else {
            self.listener(who).asked();
        }
    }

    /// The subscriber is not subscribed any more.
    pub(super) fn away(&mut self, at: u64, who: &str) {
        if let Some(follower) = self.followers.get_mut(who) {
            follower.away(at);
        }
        if let Some(listener) = self.listeners.get_mut(who) {
            listener.away();
        }
    }

    pub(super) fn unsubscribed(&mut self, bench: &mut Bench<'_>, who: &str, code: u64) {
        if code >= 2500 {
            bench.counts().interrupted += 1;
        }
        self.away(bench.at, who);
    }

    pub(super) fn subscribed(&mut self, bench: &mut Bench<'_>, who: &str, reply: Reply) {
        bench.counts().subscribed += 1;
        let heard = reply.publications.clone().unwrap_or_default();
        for one in &heard {
            self.check(bench, who, one.id);
        }
        if self.kept() {
            let follower = self.followers.entry(who.to_owned()).or_default();
            follower.subscribed(bench, &self.knowledge, who, reply);
        } else {
            self.listener(who).subscribed(bench, who, &reply);
        }
    }

    pub(super) fn delivered(&mut self, bench: &mut Bench<'_>, who: &str, heard: Heard) {
        self.check(bench, who, heard.id);
        if self.kept() {
            self.follower(who).delivered(bench, who, heard);
        } else {
            let listener = self.listeners.entry(who.to_owned()).or_default();
            listener.delivered(bench, &self.knowledge, who, heard.id);
        }
    }

    fn check(&self, bench: &mut Bench<'_>, who: &str, id: u64) {
        bench.counts().delivered += 1;
        if !self.knowledge.tries.contains_key(&id) {
            bench.find(Breach::Stray, Some(who), format!("publication {id}"));
        }
    }

    fn follower(&mut self, who: &str) -> &mut Follower {
        self.followers.entry(who.to_owned()).or_default()
    }

    fn listener(&mut self, who: &str) -> &mut Once {
        self.listeners.entry(who.to_owned()).or_default()
    }

    /// Who is not yet where it should be in the end, and why.
    pub(super) fn behind(&self, losses: &Losses) -> Vec<(&str, String)> {
        let followers = self.followers.iter().map(|(who, one)| (who, one.waits(&self.knowledge, losses)));
        let why = |one: &Once| one.behind(&self.knowledge).map(|(_, why)| why);
        let listeners = self.listeners.iter().map(|(who, one)| (who, why(one)));
        followers.chain(listeners).filter_map(|(who, why)| Some((who.as_str(), why?))).collect()
    }

    pub(super) fn finish(&self, bench: &mut Bench<'_>) {
        let mut listed: HashSet<u64> = HashSet::new();
        for (who, follower) in &self.followers {
            for id in follower.everything() {
                listed.insert(id);
                if self.knowledge.tries.get(&id).is_some_and(Try::refused) {
                    bench.find(Breach::Stray, Some(who), format!("publication {id}, which was refused"));
                }
            }
        }
        for (who, follower) in &self.followers {
            if let Some((breach, why)) = follower.behind(&self.knowledge) {
                bench.find(breach, Some(who), why);
            }
            let missed = follower.missed(&self.knowledge);
            for id in missed {
                let hidden = |tried: &Try| bench.losses.may_hide(tried.attempted);
                let unheard = !listed.contains(&id);
                if unheard && self.knowledge.tries.get(&id).is_some_and(hidden) {
                    continue;
                }
                bench.find(Breach::Lost, Some(who), format!("publication {id}, acknowledged"));
            }
        }
        self.contested(bench);
        bench.counts().gone += self.gone(bench, &listed);
        for (who, listener) in &self.listeners {
            if let Some((breach, why)) = listener.behind(&self.knowledge) {
                bench.find(breach, Some(who), why);
            }
        }
    }

    /// How many were acknowledged and lost before anybody heard of them.
    fn gone(&self, bench: &Bench<'_>, heard: &HashSet<u64>) -> u64 {
        if !self.kept() || bench.losses.count() == 0 {
            return 0;
        }
        let tries = self.knowledge.tries.iter();
        let gone = tries.filter(|(id, tried)| tried.acknowledged.is_some() && !heard.contains(id));
        gone.count() as u64
    }

    /// Positions at which different publications were seen, and publications that were seen at another position than
    /// their publisher was told.
    fn contested(&self, bench: &mut Bench<'_>) {
        let mut known: HashMap<(Arc<str>, u64), u64> = HashMap::new();
        let mut contested: HashMap<(Arc<str>, u64), (u64, u64)> = HashMap::new();
        for follower in self.followers.values() {
            for (epoch, offset, id) in follower.positions() {
                let first = *known.entry((Arc::clone(epoch), offset)).or_insert(id);
                if first != id {
                    contested.entry((Arc::clone(epoch), offset)).or_insert((first, id));
                }
            }
        }
        let rolled_back = bench.losses.rolled_back();
        for (who, follower) in &self.followers {
            for (epoch, offset, id) in follower.positions() {
                let Some(tried) = self.knowledge.tries.get(&id) else { continue };
                let told = |position: &Position| *position.epoch == **epoch && position.offset == offset;
                let moved = !tried.positions.is_empty() && !tried.positions.iter().any(told);
                // Taken, lost with its key, and taken again when it was tried again.
                let twice = tried.attempts > 1 && bench.losses.count() > 0;
                if moved && !twice {
                    let at = &tried.positions[0];
                    let text = format!(
                        "publication {id} at {offset} of {epoch}, and its publisher was told {} of {}",
                        at.offset, at.epoch
                    );
                    bench.find(Breach::Conflict, Some(who), text);
                }
            }
        }
        for ((epoch, offset), (one, other)) in contested {
            let text = format!("publications {one} and {other} at {offset} of {epoch}");
            if !rolled_back {
                bench.find(Breach::Conflict, None, text);
                continue;
            }
            // Redis gave the position twice. Who saw it must have been told by now that its history is none.
            for (who, follower) in &self.followers {
                if follower.rests_on(&epoch, offset) {
                    bench.find(Breach::Conflict, Some(who), text.clone());
                }
            }
        }
    }
}
