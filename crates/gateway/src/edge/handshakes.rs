//! TLS handshakes under way, and which of them makes room when there are too many.
//!
//! A handshake holds memory from its first byte on, and a client that sends some bytes and then nothing holds it until
//! the deadline. So nobody waits for a place: a newcomer takes that of the oldest handshake from the address that has
//! the most. Whoever fills the table makes room for himself, and others only while they have as many.
//!
//! Under a lock, taken twice a handshake and by no delivery. Not here: the handshake, deadlines.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// The handshakes of a node.
pub(super) struct Handshakes {
    most: usize,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    count: usize,
    /// Counts up: the smallest is the oldest.
    next: u64,
    addresses: HashMap<IpAddr, BTreeMap<u64, oneshot::Sender<()>>, ahash::RandomState>,
}

/// A handshake's place. Given up when dropped.
pub(super) struct Place<'a> {
    handshakes: &'a Handshakes,
    address: IpAddr,
    number: u64,
    /// Resolves when another takes the place.
    pub(super) taken: oneshot::Receiver<()>,
}

impl Handshakes {
    /// Room for `most` at once, at least one.
    pub(super) fn new(most: usize) -> Self {
        Self { most, table: Mutex::default() }
    }

    /// A place for one more, another's if need be.
    pub(super) fn begin(&self, address: IpAddr) -> Place<'_> {
        let (leave, taken) = oneshot::channel();
        let mut table = self.table();
        if table.count >= self.most {
            table.make_room();
        }
        let number = table.next;
        table.next += 1;
        table.count += 1;
        table.addresses.entry(address).or_default().insert(number, leave);
        Place { handshakes: self, address, number, taken }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Ends the oldest of those who have the most.
    fn make_room(&mut self) {
        let rank = |(_, numbers): &(&IpAddr, &BTreeMap<u64, _>)| {
            (numbers.len(), std::cmp::Reverse(numbers.keys().next().copied()))
        };
        let Some(address) = self.addresses.iter().max_by_key(rank).map(|(address, _)| *address) else {
            return;
        };
        let oldest = self.addresses.get(&address).and_then(|numbers| numbers.keys().next().copied());
        if let Some(leave) = oldest.and_then(|number| self.remove(address, number)) {
            // One that has just ended by itself is as good.
            let _ = leave.send(());
        }
    }

    fn remove(&mut self, address: IpAddr, number: u64) -> Option<oneshot::Sender<()>> {
        let numbers = self.addresses.get_mut(&address)?;
        let leave = numbers.remove(&number)?;
        if numbers.is_empty() {
            self.addresses.remove(&address);
        }
        self.count -= 1;
        Some(leave)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.handshakes.table().remove(self.address, self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn stays(place: &mut Place<'_>) -> bool {
        place.taken.try_recv() == Err(oneshot::error::TryRecvError::Empty)
    }

    #[test]
    fn who_has_the_most_makes_room_with_its_oldest() {
        let handshakes = Handshakes::new(4);
        let mut honest = handshakes.begin(address(1));
        let mut many: Vec<_> = (0..3).map(|_| handshakes.begin(address(2))).collect();
        let mut newcomer = handshakes.begin(address(3));
        assert!(stays(&mut honest) && stays(&mut newcomer));
        assert_eq!(many.iter_mut().map(stays).collect::<Vec<_>>(), [false, true, true]);
        many.extend((0..10).map(|_| handshakes.begin(address(2))));
        assert!(stays(&mut honest) && stays(&mut newcomer));
        assert_eq!(many.iter_mut().filter_map(|place| stays(place).then_some(())).count(), 2);
    }

    #[test]
    fn among_equals_the_oldest_makes_room() {
        let handshakes = Handshakes::new(2);
        let mut places: Vec<_> = (1..=3).map(|last| handshakes.begin(address(last))).collect();
        assert_eq!(places.iter_mut().map(stays).collect::<Vec<_>>(), [false, true, true]);
    }

    #[test]
    fn a_place_is_given_up_once() {
        let handshakes = Handshakes::new(1);
        let first = handshakes.begin(address(1));
        let second = handshakes.begin(address(1));
        drop(first);
        assert_eq!(handshakes.table().count, 1);
        drop(second);
        assert_eq!(handshakes.table().count, 0);
        assert!(handshakes.table().addresses.is_empty());
    }
}
