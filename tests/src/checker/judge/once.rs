//! A subscriber in a channel without history: at most once, in order, within one subscription.
//!
//! Between two subscriptions nothing is promised: a connection to another node may hear again what the first one told.

use std::collections::HashSet;

use super::channel::Knowledge;
use super::{Bench, Breach, Reply};

#[derive(Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Away,
    Asked,
    Live,
}

/// A subscriber.
#[derive(Debug, Default)]
pub(super) struct Once {
    state: State,
    heard: HashSet<u64>,
    /// The latest time at which something that it has heard was tried: what had been acknowledged by then comes before.
    newest: u64,
}

impl Once {
    pub(super) fn asked(&mut self) {
        self.state = State::Asked;
    }

    pub(super) fn away(&mut self) {
        self.state = State::Away;
    }

    pub(super) fn subscribed(&mut self, bench: &mut Bench<'_>, who: &str, reply: &Reply) {
        if reply.was_recovering || reply.recovered {
            let text = "recovery in a channel without history".to_owned();
            bench.find(Breach::Hole, Some(who), text);
        }
        *self = Self { state: State::Live, ..Self::default() };
    }

    pub(super) fn delivered(&mut self, bench: &mut Bench<'_>, knowledge: &Knowledge, who: &str, id: u64) {
        if self.state != State::Live {
            bench.find(Breach::Unsubscribed, Some(who), format!("publication {id}"));
        }
        if !self.heard.insert(id) {
            bench.find(Breach::Duplicated, Some(who), format!("publication {id}"));
        }
        let Some(tried) = knowledge.tries.get(&id) else { return };
        if tried.acknowledged.is_some_and(|at| at < self.newest) {
            let text = format!("publication {id} behind one that was tried when it had been acknowledged");
            bench.find(Breach::Reordered, Some(who), text);
        }
        self.newest = self.newest.max(tried.attempted);
    }

    /// Why it is not where it should be in the end.
    pub(super) fn behind(&self, knowledge: &Knowledge) -> Option<(Breach, String)> {
        match (&self.state, knowledge.last) {
            (State::Live, Some(last)) if !self.heard.contains(&last) => {
                Some((Breach::Stranded, format!("does not hear the last publication, {last}")))
            }
            (State::Live, _) => None,
            _ => Some((Breach::Stranded, "not subscribed".to_owned())),
        }
    }
}
