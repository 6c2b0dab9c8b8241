//! A subscriber in a channel with history: everything once, in order, without a hole, or told.
//!
//! What it hears falls into spans: from one position on, one offset after the other. A span ends when the subscriber is
//! told of a gap, or asks for none of what it missed. An interruption that ends in a recovery is within the span.

use std::collections::HashMap;
use std::sync::Arc;

use super::channel::Knowledge;
use super::{Bench, Breach, Losses, Reply};
use crate::checker::history::{Heard, Position};

#[derive(Debug, Default)]
enum State {
    #[default]
    Away,
    Asked(Option<Position>),
    Live,
}

/// One offset after the other, from a position on.
#[derive(Debug)]
struct Span {
    epoch: Arc<str>,
    /// The offset before the first.
    from: u64,
    /// What was heard, by offset.
    ids: Vec<u64>,
    /// When the subscriber was told the position.
    began: u64,
    /// Whether its end was told. Only the last span may go on.
    over: bool,
}

impl Span {
    fn offset(&self) -> u64 {
        self.from + self.ids.len() as u64
    }

    fn positions(&self) -> impl Iterator<Item = (&Arc<str>, u64, u64)> {
        self.ids.iter().zip(self.from + 1..).map(|(id, offset)| (&self.epoch, offset, *id))
    }
}

/// A subscriber.
#[derive(Debug, Default)]
pub(super) struct Follower {
    state: State,
    spans: Vec<Span>,
    /// In which span each publication was heard.
    heard: HashMap<u64, usize>,
    /// When it was last subscribed no more.
    left: u64,
    /// Gaps that it was told of and that what Redis lost may explain.
    pardoned: usize,
}

impl Follower {
    pub(super) fn asked(&mut self, since: Option<Position>) {
        if since.is_none() {
            self.end();
        }
        self.state = State::Asked(since);
    }

    pub(super) fn away(&mut self, at: u64) {
        if let State::Live = self.state {
            self.left = at;
        }
        self.state = State::Away;
    }

    pub(super) fn subscribed(
        &mut self,
        bench: &mut Bench<'_>,
        knowledge: &Knowledge,
        who: &str,
        reply: Reply,
    ) {
        let State::Asked(since) = std::mem::replace(&mut self.state, State::Live) else {
            bench.find(Breach::Unsubscribed, Some(who), "a reply that nobody waits for".to_owned());
            return;
        };
        let Some(position) = reply.position else {
            bench.find(Breach::Hole, Some(who), "subscribed without a position".to_owned());
            self.end();
            return;
        };
        let Some(since) = since else {
            self.begin(bench.at, &position);
            return;
        };
        if !reply.was_recovering {
            if since != position {
                let text = format!("asked for what followed {}, and was not answered", since.offset);
                bench.find(Breach::Hole, Some(who), text);
            }
            self.end();
            self.begin(bench.at, &position);
            return;
        }
        if !reply.recovered {
            bench.counts().gaps += 1;
            self.needless(bench, knowledge, who, &since, &position);
            if reply.publications.is_some_and(|publications| !publications.is_empty()) {
                let text = "publications together with recovered: false".to_owned();
                bench.find(Breach::Hole, Some(who), text);
            }
            self.end();
            self.begin(bench.at, &position);
            return;
        }
        bench.counts().recovered += 1;
        if position.epoch != since.epoch {
            let text = format!("recovered from {} into {}", since.epoch, position.epoch);
            bench.find(Breach::Hole, Some(who), text);
            self.end();
            self.begin(bench.at, &position);
            return;
        }
        let Some(publications) = reply.publications else { return };
        for heard in &publications {
            self.next(bench, who, *heard);
        }
        let reached = self.spans.last().map_or(0, Span::offset);
        if position.offset != since.offset && position.offset != reached {
            let text = format!("recovered up to {reached} and told to be at {}", position.offset);
            bench.find(Breach::Hole, Some(who), text);
        }
    }

    pub(super) fn delivered(&mut self, bench: &mut Bench<'_>, who: &str, heard: Heard) {
        match self.state {
            State::Live => self.next(bench, who, heard),
            State::Away | State::Asked(_) => {
                let text = format!("publication {} at {}", heard.id, heard.offset);
                bench.find(Breach::Unsubscribed, Some(who), text);
            }
        }
    }

    /// Takes the next publication, live or recovered.
    fn next(&mut self, bench: &mut Bench<'_>, who: &str, heard: Heard) {
        let Heard { id, offset } = heard;
        let now = self.spans.len().saturating_sub(1);
        // Of the subscription itself it was found that it has no position.
        let Some(span) = self.spans.last_mut().filter(|span| !span.over) else { return };
        let expected = span.offset() + 1;
        let before = self.heard.get(&id).copied();
        if offset < expected {
            let breach = if before.is_some() { Breach::Duplicated } else { Breach::Reordered };
            bench.find(breach, Some(who), format!("publication {id} at {offset}, behind {}", expected - 1));
            return;
        }
        if offset > expected {
            let text = format!("publication {id} at {offset}, right after {}", expected - 1);
            bench.find(Breach::Hole, Some(who), text);
            let position = Position { offset: offset - 1, epoch: span.epoch.to_string() };
            self.end();
            self.begin(bench.at, &position);
            self.next(bench, who, heard);
            return;
        }
        span.ids.push(id);
        let epoch = Arc::clone(&span.epoch);
        if let Some(before) = before {
            // Tried again by its publisher after Redis had forgotten it: taken twice, in two epochs.
            let other = self.spans.get(before).is_some_and(|span| span.epoch != epoch);
            if !(other && bench.losses.count() > 0) {
                bench.find(Breach::Duplicated, Some(who), format!("publication {id}, again at {offset}"));
            }
        }
        self.heard.insert(id, now);
    }

    fn begin(&mut self, at: u64, position: &Position) {
        let epoch = Arc::from(position.epoch.as_str());
        self.spans.push(Span { epoch, from: position.offset, ids: Vec::new(), began: at, over: false });
    }

    fn end(&mut self) {
        if let Some(span) = self.spans.last_mut() {
            span.over = true;
        }
    }

    /// Whether a gap that it was told of was one.
    fn needless(
        &mut self,
        bench: &mut Bench<'_>,
        knowledge: &Knowledge,
        who: &str,
        since: &Position,
        top: &Position,
    ) {
        let expired = knowledge.expired(bench.at) || knowledge.fresh > self.left;
        // The top that is told may be behind the one of Redis: a gap is needless where that makes no difference.
        let trimmed = top.offset.checked_sub(since.offset).is_none_or(|missed| missed > knowledge.size / 2);
        let other = since.epoch != top.epoch;
        // A gap has its reason: trimmed, expired, or (another epoch) lost by Redis.
        if !other && (trimmed || expired) {
            return;
        }
        // Once for what is gone, once more where a node found a new history in vain.
        if self.pardoned < bench.losses.count() * 2 {
            self.pardoned += 1;
            return;
        }
        let text = format!("at {} of {}, top {} of {}", since.offset, since.epoch, top.offset, top.epoch);
        bench.find(Breach::Needless, Some(who), text);
    }

    /// Why it is not where it should be in the end.
    pub(super) fn behind(&self, knowledge: &Knowledge) -> Option<(Breach, String)> {
        let State::Live = self.state else { return Some((Breach::Stranded, "not subscribed".to_owned())) };
        let last = knowledge.last?;
        let Some(span) = self.spans.last().filter(|span| !span.over) else {
            return Some((Breach::Stranded, "has no position".to_owned()));
        };
        let heard = self.heard.get(&last) == Some(&(self.spans.len() - 1));
        let told = knowledge.tries.get(&last).is_some_and(|tried| {
            tried
                .positions
                .iter()
                .any(|position| *position.epoch == *span.epoch && position.offset <= span.from)
        });
        if heard || told {
            return None;
        }
        Some((
            Breach::Lost,
            format!("at {} of {}, without the last publication, {last}", span.offset(), span.epoch),
        ))
    }

    /// Why it is not where it should be in the end, or what it still must hear.
    pub(super) fn waits(&self, knowledge: &Knowledge, losses: &Losses) -> Option<String> {
        let behind = self.behind(knowledge).map(|(_, why)| why);
        let hidden = |id: &u64| knowledge.tries.get(id).is_some_and(|tried| losses.may_hide(tried.attempted));
        let due = || self.missed(knowledge).into_iter().find(|id| !hidden(id));
        behind.or_else(|| due().map(|id| format!("has not heard {id}")))
    }

    /// What was acknowledged, tried after its last span began, and not heard in it.
    pub(super) fn missed(&self, knowledge: &Knowledge) -> Vec<u64> {
        // Of one that is not subscribed nothing more can be said.
        let State::Live = self.state else { return Vec::new() };
        let Some(span) = self.spans.last().filter(|span| !span.over) else { return Vec::new() };
        let now = self.spans.len() - 1;
        let due = |tried: &super::channel::Try| tried.acknowledged.is_some() && tried.attempted > span.began;
        let missed = knowledge
            .tries
            .iter()
            .filter(|(id, tried)| due(tried) && self.heard.get(id) != Some(&now))
            .map(|(id, _)| *id);
        let mut missed: Vec<u64> = missed.collect();
        missed.sort_unstable();
        missed
    }

    /// Everything it heard.
    pub(super) fn everything(&self) -> impl Iterator<Item = u64> {
        self.heard.keys().copied()
    }

    /// Everything it heard, with the positions it believes them at.
    pub(super) fn positions(&self) -> impl Iterator<Item = (&Arc<str>, u64, u64)> {
        self.spans.iter().flat_map(Span::positions)
    }

    /// Whether what it heard there is, as far as it knows, of the history it follows.
    pub(super) fn rests_on(&self, epoch: &Arc<str>, offset: u64) -> bool {
        let Some(span) = self.spans.last().filter(|span| !span.over) else { return false };
        span.epoch == *epoch && span.from < offset && offset <= span.offset()
    }
}
