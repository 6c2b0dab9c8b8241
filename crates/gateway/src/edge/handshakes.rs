//! TLS handshakes under way, and which of them makes room when there are too many.
//!
//! A handshake holds memory from its first byte on, and a client that sends some bytes and then nothing holds it until
//! the deadline. So a place can be taken from another: at once from an address that has far more than its part and far
//! more than the newcomer's, and from anyone who has had a fair time. Else newcomers wait, in the order of their coming.
//!
//! Under a lock, taken twice a handshake and by no delivery. Not here: the handshake, deadlines.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

/// An address has more than its part if it has more than one in so many of the places.
const PART: usize = 8;

/// It has far more than another if it has more than so many times as many.
const FAR: usize = 2;

/// How often who waits looks whether somebody has had a fair time.
const LOOK: Duration = Duration::from_millis(500);

/// The handshakes of a node.
pub(super) struct Handshakes {
    most: usize,
    /// How long a handshake may take before its place may be taken, whoever's it is.
    fair: Duration,
    table: Mutex<Table>,
    /// A place was given up.
    freed: Notify,
}

#[derive(Default)]
struct Table {
    count: usize,
    /// Newcomers that wait.
    waiting: usize,
    /// Counts up: the smallest is the oldest.
    next: u64,
    addresses: HashMap<IpAddr, BTreeMap<u64, Under>, ahash::RandomState>,
}

/// A handshake under way.
struct Under {
    since: Instant,
    leave: oneshot::Sender<()>,
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
    /// Room for `most` at once. After `fair`, a place may be taken from anyone.
    pub(super) fn new(most: usize, fair: Duration) -> Self {
        Self { most, fair, table: Mutex::default(), freed: Notify::new() }
    }

    /// A place for one more, another's if need be. The caller gives the deadline.
    pub(super) async fn begin(&self, address: IpAddr) -> Place<'_> {
        if let Some(place) = self.look(address, true) {
            return place;
        }
        let _waiting = Waiting::new(self);
        loop {
            // Whether notified or not, it looks.
            let _ = timeout(LOOK, self.freed.notified()).await;
            if let Some(place) = self.look(address, false) {
                return place;
            }
        }
    }

    /// A place, if there is one to have now. Who has just come does not overtake those who wait.
    fn look(&self, address: IpAddr, new: bool) -> Option<Place<'_>> {
        let mut table = self.table();
        let free = table.count < self.most && !(new && table.waiting > 0);
        if !free {
            table.take_from(address, self.most, self.fair)?;
        }
        let (leave, taken) = oneshot::channel();
        let number = table.next;
        table.next += 1;
        table.count += 1;
        let under = Under { since: Instant::now(), leave };
        table.addresses.entry(address).or_default().insert(number, under);
        Some(Place { handshakes: self, address, number, taken })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Ends the oldest handshake of those who have the most, if the newcomer may take its place.
    fn take_from(&mut self, newcomer: IpAddr, most: usize, fair: Duration) -> Option<()> {
        let rank = |(_, numbers): &(&IpAddr, &BTreeMap<u64, _>)| {
            (numbers.len(), std::cmp::Reverse(numbers.keys().next().copied()))
        };
        let (address, numbers) = self.addresses.iter().max_by_key(rank)?;
        let (number, oldest) = numbers.iter().next()?;
        let own = self.addresses.get(&newcomer).map_or(0, BTreeMap::len);
        let greedy = numbers.len() > most / PART && numbers.len() > own * FAR;
        if !greedy && oldest.since.elapsed() < fair {
            return None;
        }
        let (address, number) = (*address, *number);
        // One that has just ended by itself is as good.
        let _ = self.remove(address, number)?.leave.send(());
        Some(())
    }

    fn remove(&mut self, address: IpAddr, number: u64) -> Option<Under> {
        let numbers = self.addresses.get_mut(&address)?;
        let under = numbers.remove(&number)?;
        if numbers.is_empty() {
            self.addresses.remove(&address);
        }
        self.count -= 1;
        Some(under)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.handshakes.table().remove(self.address, self.number).is_some() {
            self.handshakes.freed.notify_one();
        }
    }
}

/// Counts who waits.
struct Waiting<'a>(&'a Handshakes);

impl<'a> Waiting<'a> {
    fn new(handshakes: &'a Handshakes) -> Self {
        handshakes.table().waiting += 1;
        Self(handshakes)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.table().waiting -= 1;
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

    fn handshakes(most: usize) -> Handshakes {
        Handshakes::new(most, Duration::from_secs(60))
    }

    /// As many as there is room for, up to `count`.
    fn begin(handshakes: &Handshakes, last: u8, count: usize) -> Vec<Place<'_>> {
        (0..count).filter_map(|_| handshakes.look(address(last), true)).collect()
    }

    #[test]
    fn who_has_far_more_than_others_makes_room_with_its_oldest() {
        let handshakes = handshakes(16);
        let mut honest = begin(&handshakes, 1, 3);
        let mut many = begin(&handshakes, 2, 100);
        assert_eq!(many.len(), 13, "nobody takes places from himself");
        honest.extend(begin(&handshakes, 3, 2));
        assert!(honest.iter_mut().all(stays));
        assert_eq!(many.iter_mut().map(stays).filter(|stays| !stays).count(), 2);
        assert!(!stays(&mut many[0]) && !stays(&mut many[1]));
    }

    #[test]
    fn among_equals_nobody_is_driven_out_before_a_fair_time() {
        let patient = handshakes(16);
        let mut places = begin(&patient, 1, 8);
        places.extend(begin(&patient, 2, 8));
        assert!(patient.look(address(1), true).is_none());
        assert!(places.iter_mut().all(stays));

        let hasty = Handshakes::new(2, Duration::ZERO);
        let mut places: Vec<_> = (1..=3).flat_map(|last| begin(&hasty, last, 1)).collect();
        assert_eq!(places.iter_mut().map(stays).collect::<Vec<_>>(), [false, true, true]);
    }

    #[actix_rt::test]
    async fn who_waits_is_next_when_a_place_is_given_up() {
        let handshakes = handshakes(1);
        let first = handshakes.begin(address(1)).await;
        let mut second = std::pin::pin!(handshakes.begin(address(1)));
        assert!(futures_util::poll!(&mut second).is_pending());
        drop(first);
        assert!(handshakes.look(address(1), true).is_none(), "not before those who wait");
        let second = second.await;
        assert_eq!(handshakes.table().waiting, 0);
        drop(second);
        assert_eq!(handshakes.table().count, 0);
        assert!(handshakes.table().addresses.is_empty());
    }
}
