//! Who enters and leaves channels, on the way to the relay while its queue is full.
//!
//! Each change waits for its turn, so a session that entered and left never counts as present. One that has entered here
//! and leaves before the relay knew of it is as if it had never been: what waits is bounded by the subscriptions that the
//! worker has, and by those it had when the relay last took something.

use std::collections::{BTreeMap, HashMap};

use tidegate_protocol::{ChannelName, ClientInfo};

/// One change of who is present in a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// A session is there from now on.
    Enter(ChannelName, ClientInfo),
    /// The session of this id is not there any more.
    Exit(ChannelName, String),
}

/// Changes that wait for the relay.
#[derive(Debug, Default)]
pub(super) struct Attendance {
    /// In their order.
    waiting: BTreeMap<u64, Change>,
    /// The numbers of those who enter, by channel and session.
    entering: HashMap<(ChannelName, String), u64>,
    next: u64,
}

impl Attendance {
    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Adds a change behind the others.
    pub(super) fn add(&mut self, change: Change) {
        match &change {
            Change::Enter(channel, info) => {
                self.entering.insert((channel.clone(), info.client.clone()), self.next);
            }
            Change::Exit(channel, client) => {
                if let Some(number) = self.entering.remove(&(channel.clone(), client.clone())) {
                    self.waiting.remove(&number);
                    return;
                }
            }
        }
        self.waiting.insert(self.next, change);
        self.next += 1;
    }

    /// Hands changes over, in their order, until one is not taken.
    pub(super) fn hand_over(&mut self, mut take: impl FnMut(&Change) -> bool) {
        while let Some(first) = self.waiting.first_entry() {
            if !take(first.get()) {
                return;
            }
            if let Change::Enter(channel, info) = first.remove() {
                self.entering.remove(&(channel, info.client));
            }
        }
        // What an outage made them is not needed afterwards.
        self.entering.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn news() -> ChannelName {
        ChannelName::parse("news").expect("a name")
    }

    fn enter(client: &str) -> Change {
        Change::Enter(news(), ClientInfo { client: client.to_owned(), ..ClientInfo::default() })
    }

    fn exit(client: &str) -> Change {
        Change::Exit(news(), client.to_owned())
    }

    fn all(attendance: &mut Attendance) -> Vec<Change> {
        let mut taken = Vec::new();
        attendance.hand_over(|change| {
            taken.push(change.clone());
            true
        });
        taken
    }

    #[test]
    fn changes_come_in_their_order_and_one_that_is_not_taken_stays() {
        let mut attendance = Attendance::default();
        for change in [enter("a"), exit("z"), enter("b"), exit("y")] {
            attendance.add(change);
        }
        let mut offered = 0;
        attendance.hand_over(|_| {
            offered += 1;
            offered < 3
        });
        assert_eq!(all(&mut attendance), [enter("b"), exit("y")]);
        assert!(attendance.is_empty() && attendance.entering.is_empty());
    }

    #[test]
    fn who_comes_and_goes_before_the_relay_knew_of_it_leaves_nothing_behind() {
        let mut attendance = Attendance::default();
        for _ in 0..1000 {
            attendance.add(exit("a"));
            attendance.add(enter("a"));
            attendance.add(exit("a"));
            attendance.add(enter("b"));
            attendance.add(exit("b"));
            assert!(attendance.entering.is_empty());
            assert_eq!(all(&mut attendance), [exit("a")]);
        }
    }
}
