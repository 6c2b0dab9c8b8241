//! The table of a shard's channels: names held once, and who is in each.
//!
//! A channel exists from its first subscription until the relay need not hear it any more. It is never left while
//! the relay's answer is out: whoever goes meanwhile is taken off the list, and the answer decides what to do. So
//! at most one answer is ever outstanding per channel, and a late or repeated one cannot be taken for another's.
//!
//! Not here: what a session knows of its subscriptions, and the effects a change has (both in `membership`).

use std::collections::{HashMap, HashSet};

use ahash::RandomState;
use smallvec::SmallVec;
use tidegate_protocol::ChannelName;

use crate::table::Table;

/// How many members a channel holds without heap.
const INLINE_MEMBERS: usize = 4;

/// Member lists and the table of names give heap back beyond this length, when they have shrunk to a quarter.
const SHRINK_ABOVE: usize = 64;

/// All channels of a shard.
#[derive(Debug, Default)]
pub(crate) struct Channels {
    by_name: HashMap<ChannelName, u32, RandomState>,
    /// Slots of the channels whose newest publication alone waits for those who cannot keep up.
    latest: HashSet<u32, RandomState>,
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

/// A subscription that waits for the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Waiter {
    /// The session's index.
    pub(crate) session: u32,
    /// The id of its subscribe command; `None` for a subscription made by the server.
    pub(crate) id: Option<u32>,
}

/// Where a new subscription of a channel stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entered {
    /// It stands, at this place.
    Member(u32),
    /// It waits for the relay, at this place.
    Waiter(u32),
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

impl Channels {
    /// A channel's slot.
    pub(crate) fn find(&self, name: &str) -> Option<u32> {
        self.by_name.get(name).copied()
    }

    /// A channel's name.
    pub(crate) fn name(&self, slot: u32) -> Option<&ChannelName> {
        self.table.get(slot).map(|channel| &channel.name)
    }

    /// A new channel that waits for the relay.
    pub(crate) fn begin(&mut self, name: ChannelName, latest: bool) -> u32 {
        let channel = Channel { name: name.clone(), hearing: Hearing::Joining(Vec::new()) };
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots += 1;
            self.slots - 1
        });
        self.table.put(slot, channel);
        self.by_name.insert(name, slot);
        if latest {
            self.latest.insert(slot);
        }
        slot
    }

    /// Adds a session to the channel's members, or to those who wait for the relay.
    pub(crate) fn enter(&mut self, slot: u32, waiter: Waiter) -> Option<Entered> {
        match &mut self.table.get_mut(slot)?.hearing {
            Hearing::Joining(waiters) => {
                waiters.push(waiter);
                Some(Entered::Waiter(index(waiters.len() - 1)))
            }
            Hearing::Active(members) => {
                members.push(waiter.session);
                self.members += 1;
                Some(Entered::Member(index(members.len() - 1)))
            }
        }
    }

    /// Takes out whoever has a place in the channel's list.
    pub(crate) fn take(&mut self, slot: u32, place: u32) -> Option<Taken> {
        let place = place as usize;
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
                let left = if empty { self.forget(slot) } else { None };
                Some(Taken { waiter: None, moved, left })
            }
        }
    }

    /// The relay hears the channel: those who waited are its members now, at the same places. `None` if no answer
    /// was awaited.
    pub(crate) fn confirm(&mut self, slot: u32) -> Option<Vec<Waiter>> {
        let hearing = &mut self.table.get_mut(slot)?.hearing;
        let Hearing::Joining(waiters) = hearing else { return None };
        let waiters = std::mem::take(waiters);
        self.members += waiters.len();
        *hearing = Hearing::Active(waiters.iter().map(|waiter| waiter.session).collect());
        Some(waiters)
    }

    /// The relay cannot hear the channel: forgets it and gives back who waited. `None` if no answer was awaited.
    pub(crate) fn refuse(&mut self, slot: u32) -> Option<Vec<Waiter>> {
        let Hearing::Joining(waiters) = &mut self.table.get_mut(slot)?.hearing else { return None };
        let waiters = std::mem::take(waiters);
        self.forget(slot);
        Some(waiters)
    }

    /// The relay does not hear the channel any more: forgets it and gives back its members. `None` while the relay has
    /// not answered.
    pub(crate) fn lose(&mut self, slot: u32) -> Option<Vec<u32>> {
        let Hearing::Active(members) = &mut self.table.get_mut(slot)?.hearing else { return None };
        let members = std::mem::take(members).into_vec();
        self.members -= members.len();
        self.forget(slot);
        Some(members)
    }

    /// Forgets a channel that nobody is in.
    pub(crate) fn forget(&mut self, slot: u32) -> Option<ChannelName> {
        let channel = self.table.remove(slot)?;
        self.free.push(slot);
        self.by_name.remove(channel.name.as_str());
        if self.by_name.capacity() > SHRINK_ABOVE && self.by_name.len() < self.by_name.capacity() / 4 {
            self.by_name.shrink_to(self.by_name.len() * 2);
        }
        if !self.latest.is_empty() {
            self.latest.remove(&slot);
            if self.latest.capacity() > SHRINK_ABOVE && self.latest.len() < self.latest.capacity() / 4 {
                self.latest.shrink_to(self.latest.len() * 2);
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

    /// Whether only its newest publication waits for those who cannot keep up.
    pub(crate) fn is_latest(&self, slot: u32) -> bool {
        !self.latest.is_empty() && self.latest.contains(&slot)
    }

    /// The members of all channels together.
    pub(crate) const fn member_count(&self) -> usize {
        self.members
    }

    /// Every channel with a member, and how many it has.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (&ChannelName, usize)> {
        self.table.iter().filter_map(|(_, channel)| match &channel.hearing {
            Hearing::Active(members) => Some((&channel.name, members.len())),
            Hearing::Joining(_) => None,
        })
    }
}

/// A place as an index. Lists are bounded by the number of sessions and their subscriptions, far below 2^32.
fn index(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel(channels: &mut Channels, name: &str) -> u32 {
        channels.begin(ChannelName::parse(name).expect("a name"), false)
    }

    #[test]
    fn a_channel_that_was_large_gives_heap_back() {
        let mut channels = Channels::default();
        let slot = channel(&mut channels, "news");
        for session in 0..10_000 {
            assert!(channels.enter(slot, Waiter { session, id: None }).is_some());
        }
        assert_eq!(channels.confirm(slot).map(|waiters| waiters.len()), Some(10_000));
        for place in (10..10_000).rev() {
            assert!(channels.take(slot, place).is_some());
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
        assert_eq!(channels.take(slot, 0), None);
        assert_eq!(channels.take(slot + 1, 0), None);
        assert_eq!(channels.confirm(slot), Some(Vec::new()));
        assert_eq!(channels.confirm(slot), None);
        assert_eq!(channels.refuse(slot), None);
        assert_eq!(channels.take(slot, 0), None);
    }
}
