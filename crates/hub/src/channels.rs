//! The table of a shard's channels: names held once, and who is in each.
//!
//! A channel exists from its first subscription until the relay need not hear it any more. It is never left while
//! the relay's answer is out: whoever goes meanwhile is taken off the list, and the answer decides what to do. So
//! at most one answer is ever outstanding per channel, and a late or repeated one cannot be taken for another's.
//!
//! A channel that the relay hears may have, beside its members, sessions that asked for what they missed: they are no
//! members before they have it, and hold the channel as members do.
//!
//! Not here: what a session knows of its subscriptions, and the effects a change has (both in `membership`).

use std::collections::HashMap;

use ahash::RandomState;
use smallvec::SmallVec;
use tidegate_protocol::{ChannelName, Position};

use crate::policy::{Delivery, History, Namespace, Presence};
use crate::session::Place;
use crate::table::Table;

/// How many members a channel holds without heap.
const INLINE_MEMBERS: usize = 4;

/// Member lists and the table of names give heap back beyond this length, when they have shrunk to a quarter.
const SHRINK_ABOVE: usize = 64;

/// All channels of a shard.
#[derive(Debug, Default)]
pub(crate) struct Channels {
    by_name: HashMap<ChannelName, u32, RandomState>,
    /// By slot, what sets a channel apart from most. Most have no entry, and cost nothing by it.
    natures: HashMap<u32, Nature, RandomState>,
    table: Table<Channel>,
    /// Slots that are used again, the latest first.
    free: Vec<u32>,
    /// How many slots were ever used.
    slots: u32,
    members: usize,
}

/// One channel.
#[derive(Debug)]
struct Channel {
    name: ChannelName,
    hearing: Hearing,
}

/// Whether the relay hears a channel for this shard.
#[derive(Debug)]
enum Hearing {
    /// The relay was asked and has not answered; these wait for it.
    Joining(Vec<Waiter>),
    /// The relay hears it; these sessions are its members, by index.
    Active(SmallVec<[u32; INLINE_MEMBERS]>),
}

/// What sets a channel apart from most.
#[derive(Debug)]
pub(crate) struct Nature {
    /// Whether only its newest publication waits for those who cannot keep up.
    latest: bool,
    /// Whether it is known who is there.
    pub(crate) presence: bool,
    /// Whether who comes back is given what they missed.
    recoverable: bool,
    /// Up to where everything was delivered to the members; `None` while the relay has given no position.
    pub(crate) position: Option<Position>,
    /// Who asked for what they missed and has not got it yet.
    recovering: Vec<Waiter>,
}

impl Nature {
    /// What the namespace makes of a channel; `None` if it is as most are.
    fn of(namespace: &Namespace) -> Option<Self> {
        let nature = Self {
            latest: namespace.delivery == Delivery::Latest,
            presence: namespace.presence != Presence::None,
            recoverable: namespace.history == History::Recoverable,
            position: None,
            recovering: Vec::new(),
        };
        let plain = !nature.latest && !nature.presence && namespace.history == History::None;
        (!plain).then_some(nature)
    }

    /// Whether who comes back may have what they missed.
    pub(crate) const fn recovers(&self) -> bool {
        self.recoverable && self.position.is_some()
    }
}

/// A subscription that waits for the relay: until it hears the channel, or until it says what was missed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Waiter {
    /// The session's index.
    pub(crate) session: u32,
    /// The id of its subscribe command; `None` for a subscription made by the server.
    pub(crate) id: Option<u32>,
    /// The position it asked to go on from.
    pub(crate) since: Option<Box<Position>>,
}

/// Where a new subscription of a channel stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entered {
    /// It stands, at this place.
    Member(Place),
    /// It waits until the relay hears the channel, at this place.
    Waiter(Place),
    /// It waits for what was missed, at this place.
    Recovering(Place),
}

/// What taking somebody out of a channel leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Taken {
    /// The waiter, if the subscription did not stand yet.
    pub(crate) waiter: Option<Waiter>,
    /// The session that has the free place now, if another one has.
    pub(crate) moved: Option<u32>,
    /// The channel's name, if the channel is gone and the relay need not hear it.
    pub(crate) left: Option<ChannelName>,
}

/// Who was in a channel that is gone.
#[derive(Debug, Default)]
pub(crate) struct Lost {
    /// The indexes of its members.
    pub(crate) members: Vec<u32>,
    /// Who waited for what they missed.
    pub(crate) recovering: Vec<Waiter>,
    /// Whether it was known who is there.
    pub(crate) presence: bool,
}

impl Channels {
    /// A channel's slot.
    pub(crate) fn find(&self, name: &str) -> Option<u32> {
        self.by_name.get(name).copied()
    }

    /// A channel's name.
    pub(crate) fn name(&self, slot: u32) -> Option<&ChannelName> {
        self.table.get(slot).map(|channel| &channel.name)
    }

    /// A new channel that waits for the relay, in a namespace like this.
    pub(crate) fn begin(&mut self, name: ChannelName, namespace: Option<&Namespace>) -> u32 {
        let channel = Channel { name: name.clone(), hearing: Hearing::Joining(Vec::new()) };
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots += 1;
            self.slots - 1
        });
        self.table.put(slot, channel);
        self.by_name.insert(name, slot);
        if let Some(nature) = namespace.and_then(Nature::of) {
            self.natures.insert(slot, nature);
        }
        slot
    }

    /// Adds a session to the channel's members, or to those who wait.
    pub(crate) fn enter(&mut self, slot: u32, waiter: Waiter) -> Option<Entered> {
        if self.must_recover(slot, &waiter) {
            return self.postpone(slot, waiter).map(Entered::Recovering);
        }
        match &mut self.table.get_mut(slot)?.hearing {
            Hearing::Joining(waiters) => {
                waiters.push(waiter);
                Some(Entered::Waiter(Place::new(waiters.len() - 1)))
            }
            Hearing::Active(members) => {
                members.push(waiter.session);
                self.members += 1;
                Some(Entered::Member(Place::new(members.len() - 1)))
            }
        }
    }

    /// Whether only the relay can say what somebody missed. Who stands where the members stand missed nothing, and what
    /// belongs to another life of the history cannot be had.
    pub(crate) fn must_recover(&self, slot: u32, waiter: &Waiter) -> bool {
        let Some(since) = &waiter.since else { return false };
        self.nature(slot).filter(|nature| nature.recoverable).is_some_and(|nature| {
            let at = nature.position.as_ref();
            at.is_some_and(|at| at.epoch == since.epoch && at.offset != since.offset)
        })
    }

    /// Adds a session to those who wait for what they missed.
    pub(crate) fn postpone(&mut self, slot: u32, waiter: Waiter) -> Option<Place> {
        let recovering = &mut self.natures.get_mut(&slot)?.recovering;
        recovering.push(waiter);
        Some(Place::recovering(recovering.len() - 1))
    }

    /// Who waits at a place for what they missed.
    pub(crate) fn recovering(&self, slot: u32, place: Place) -> Option<&Waiter> {
        self.nature(slot)?.recovering.get(place.recovers()?)
    }

    /// Takes out whoever has a place in one of the channel's lists.
    pub(crate) fn take(&mut self, slot: u32, place: Place) -> Option<Taken> {
        if let Some(place) = place.recovers() {
            return self.take_recovering(slot, place);
        }
        let place = place.at();
        let held = self.is_held(slot);
        match &mut self.table.get_mut(slot)?.hearing {
            Hearing::Joining(waiters) => {
                if place >= waiters.len() {
                    return None;
                }
                let waiter = waiters.swap_remove(place);
                let moved = waiters.get(place).map(|waiter| waiter.session);
                Some(Taken { waiter: Some(waiter), moved, left: None })
            }
            Hearing::Active(members) => {
                if place >= members.len() {
                    return None;
                }
                members.swap_remove(place);
                self.members -= 1;
                let moved = members.get(place).copied();
                let empty = members.is_empty();
                if members.capacity() > SHRINK_ABOVE && members.len() < members.capacity() / 4 {
                    members.shrink_to_fit();
                }
                let left = if empty && !held { self.forget(slot) } else { None };
                Some(Taken { waiter: None, moved, left })
            }
        }
    }

    fn take_recovering(&mut self, slot: u32, place: usize) -> Option<Taken> {
        let recovering = &mut self.natures.get_mut(&slot)?.recovering;
        if place >= recovering.len() {
            return None;
        }
        let waiter = recovering.swap_remove(place);
        let moved = recovering.get(place).map(|waiter| waiter.session);
        if recovering.is_empty() {
            *recovering = Vec::new();
        }
        let empty = recovering.is_empty() && self.members(slot).is_empty();
        let left = if empty { self.forget(slot) } else { None };
        Some(Taken { waiter: Some(waiter), moved, left })
    }

    /// Whether somebody waits for what they missed.
    fn is_held(&self, slot: u32) -> bool {
        self.nature(slot).is_some_and(|nature| !nature.recovering.is_empty())
    }

    /// What sets the channel apart from most.
    pub(crate) fn nature(&self, slot: u32) -> Option<&Nature> {
        if self.natures.is_empty() { None } else { self.natures.get(&slot) }
    }

    /// The members were given everything up to here. Says whether only the newest publication is to wait for those who
    /// cannot keep up.
    pub(crate) fn advance(&mut self, slot: u32, offset: u64) -> bool {
        if self.natures.is_empty() {
            return false;
        }
        let Some(nature) = self.natures.get_mut(&slot) else { return false };
        if let Some(position) = &mut nature.position {
            position.offset = position.offset.max(offset);
        }
        nature.latest
    }

    /// The relay hears the channel, from behind this position: those who waited are its members now, at the same places.
    /// `None` if no answer was awaited.
    pub(crate) fn confirm(&mut self, slot: u32, position: Option<Position>) -> Option<Vec<Waiter>> {
        let hearing = &mut self.table.get_mut(slot)?.hearing;
        let Hearing::Joining(waiters) = hearing else { return None };
        let waiters = std::mem::take(waiters);
        self.members += waiters.len();
        *hearing = Hearing::Active(waiters.iter().map(|waiter| waiter.session).collect());
        if let Some(nature) = self.natures.get_mut(&slot) {
            nature.position = position;
        }
        Some(waiters)
    }

    /// The relay cannot hear the channel: forgets it and gives back who waited. `None` if no answer was awaited.
    pub(crate) fn refuse(&mut self, slot: u32) -> Option<Vec<Waiter>> {
        let Hearing::Joining(waiters) = &mut self.table.get_mut(slot)?.hearing else { return None };
        let waiters = std::mem::take(waiters);
        self.forget(slot);
        Some(waiters)
    }

    /// The relay does not hear the channel any more: forgets it and gives back who was in it. `None` while the relay has
    /// not answered.
    pub(crate) fn lose(&mut self, slot: u32) -> Option<Lost> {
        let Hearing::Active(members) = &mut self.table.get_mut(slot)?.hearing else { return None };
        let members = std::mem::take(members).into_vec();
        self.members -= members.len();
        let nature = self.natures.get_mut(&slot);
        let (recovering, presence) = nature
            .map(|nature| (std::mem::take(&mut nature.recovering), nature.presence))
            .unwrap_or_default();
        self.forget(slot);
        Some(Lost { members, recovering, presence })
    }

    /// The names of the channels that the relay hears from a position on.
    pub(crate) fn positioned(&self) -> Vec<ChannelName> {
        let positioned = self.natures.iter().filter(|(_, nature)| nature.position.is_some());
        positioned.filter_map(|(slot, _)| self.name(*slot)).cloned().collect()
    }

    /// Forgets a channel that nobody is in.
    pub(crate) fn forget(&mut self, slot: u32) -> Option<ChannelName> {
        let channel = self.table.remove(slot)?;
        self.free.push(slot);
        self.by_name.remove(channel.name.as_str());
        if self.by_name.capacity() > SHRINK_ABOVE && self.by_name.len() < self.by_name.capacity() / 4 {
            self.by_name.shrink_to(self.by_name.len() * 2);
        }
        if !self.natures.is_empty() {
            self.natures.remove(&slot);
            if self.natures.capacity() > SHRINK_ABOVE && self.natures.len() < self.natures.capacity() / 4 {
                self.natures.shrink_to(self.natures.len() * 2);
            }
        }
        Some(channel.name)
    }

    /// The indexes of a channel's members; empty while the relay has not answered.
    pub(crate) fn members(&self, slot: u32) -> &[u32] {
        match self.table.get(slot).map(|channel| &channel.hearing) {
            Some(Hearing::Active(members)) => members,
            Some(Hearing::Joining(_)) | None => &[],
        }
    }

    /// Whether the relay hears the channel.
    pub(crate) fn is_active(&self, slot: u32) -> bool {
        self.table.get(slot).is_some_and(|channel| matches!(channel.hearing, Hearing::Active(_)))
    }

    /// The members of all channels together.
    pub(crate) const fn member_count(&self) -> usize {
        self.members
    }

    /// Every channel with a member, and how many it has.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (&ChannelName, usize)> {
        self.table.iter().filter_map(|(_, channel)| match &channel.hearing {
            Hearing::Active(members) => Some((&channel.name, members.len())).filter(|(_, count)| *count > 0),
            Hearing::Joining(_) => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel(channels: &mut Channels, name: &str) -> u32 {
        channels.begin(ChannelName::parse(name).expect("a name"), None)
    }

    #[test]
    fn a_channel_that_was_large_gives_heap_back() {
        let mut channels = Channels::default();
        let slot = channel(&mut channels, "news");
        for session in 0..10_000 {
            assert!(channels.enter(slot, Waiter { session, id: None, since: None }).is_some());
        }
        assert_eq!(channels.confirm(slot, None).map(|waiters| waiters.len()), Some(10_000));
        for place in (10..10_000).rev() {
            assert!(channels.take(slot, Place::new(place)).is_some());
        }
        let Hearing::Active(members) = &channels.table.get(slot).expect("it is there").hearing else {
            panic!("active")
        };
        assert_eq!(members.len(), 10);
        assert!(members.capacity() <= SHRINK_ABOVE, "{}", members.capacity());
        assert_eq!(channels.member_count(), 10);
    }

    #[test]
    fn places_without_anybody_are_taken_by_nobody() {
        let mut channels = Channels::default();
        let slot = channel(&mut channels, "news");
        assert_eq!(channels.take(slot, Place::new(0)), None);
        assert_eq!(channels.take(slot, Place::recovering(0)), None);
        assert_eq!(channels.take(slot + 1, Place::new(0)), None);
        assert_eq!(channels.confirm(slot, None), Some(Vec::new()));
        assert_eq!(channels.confirm(slot, None), None);
        assert_eq!(channels.refuse(slot), None);
        assert_eq!(channels.take(slot, Place::new(0)), None);
    }
}
