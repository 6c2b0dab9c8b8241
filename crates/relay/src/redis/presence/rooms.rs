//! Which sessions of this node are present where, and how far Redis knows: bookkeeping, no I/O.
//!
//! A session that left stays here until Redis has taken it out, so that an outage loses no leave. Each channel is due once
//! in a period, with all its sessions; the channels are spread over it. Not here: what is said to Redis (`presence`).

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use ahash::AHashMap;
use bytes::Bytes;
use tidegate_protocol::ChannelName;

/// The sessions of this node.
#[derive(Debug)]
pub(super) struct Rooms {
    rooms: AHashMap<ChannelName, Room>,
    /// When each channel is to be refreshed next.
    due: BTreeSet<(Instant, ChannelName)>,
    /// Between two refreshes of a channel, at most.
    period: Duration,
    /// The number of the last change.
    changes: u64,
}

/// The sessions of one channel: never none.
#[derive(Debug)]
struct Room {
    clients: AHashMap<String, Client>,
    due: Instant,
}

#[derive(Debug)]
struct Client {
    wish: Wish,
    /// The number of its last change.
    change: u64,
    /// When it was last sent to Redis and taken; `None`: not since its last change.
    settled: Option<Instant>,
}

#[derive(Debug)]
enum Wish {
    /// Present, as Redis is to know it.
    Here(Known),
    /// Not any more.
    Gone,
}

/// What Redis is told of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    /// All of it, as JSON.
    pub(super) info: Bytes,
    pub(super) user: String,
}

/// What to say to Redis of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Word {
    /// It is here: to be said once.
    Enter(Known),
    /// It left.
    Exit,
    /// It is still here.
    Refresh,
}

/// What to say of the sessions of one channel, each with the number of its last change.
pub(super) type Words = Vec<(String, u64, Word)>;

impl Rooms {
    pub(super) fn new(period: Duration) -> Self {
        Self { rooms: AHashMap::new(), due: BTreeSet::new(), period, changes: 0 }
    }

    /// A session is present. The number of the change is what [`Rooms::settled`] wants.
    pub(super) fn enter(&mut self, channel: &ChannelName, client: String, known: Known, now: Instant) -> u64 {
        if !self.rooms.contains_key(channel) {
            let due = now + self.spread();
            self.due.insert((due, channel.clone()));
            self.rooms.insert(channel.clone(), Room { clients: AHashMap::new(), due });
        }
        self.changes += 1;
        if let Some(room) = self.rooms.get_mut(channel) {
            let change = self.changes;
            room.clients.insert(client, Client { wish: Wish::Here(known), change, settled: None });
        }
        self.changes
    }

    /// A session is not present any more; `None`: it was not. With the number of the change, whether Redis knew of it for
    /// sure.
    pub(super) fn exit(&mut self, channel: &ChannelName, client: &str) -> Option<(u64, bool)> {
        let client = self.rooms.get_mut(channel)?.clients.get_mut(client)?;
        if matches!(client.wish, Wish::Gone) {
            return None;
        }
        let known = client.settled.is_some();
        self.changes += 1;
        *client = Client { wish: Wish::Gone, change: self.changes, settled: None };
        Some((self.changes, known))
    }

    /// Redis has taken what it was sent of the session at that time; something may have changed since.
    pub(super) fn settled(&mut self, channel: &ChannelName, client: &str, change: u64, sent: Instant) {
        let Some(room) = self.rooms.get_mut(channel) else { return };
        let Some(found) = room.clients.get_mut(client).filter(|found| found.change == change) else { return };
        match found.wish {
            Wish::Here(_) => found.settled = Some(sent),
            Wish::Gone => {
                room.clients.remove(client);
                if room.clients.is_empty() {
                    self.due.remove(&(room.due, channel.clone()));
                    self.rooms.remove(channel);
                }
            }
        }
    }

    /// What is to be said of a session that Redis does not know, though it was told, and when that was; `None`: nothing,
    /// it left or is being told of.
    pub(super) fn missing(&self, channel: &ChannelName, client: &str) -> Option<(Known, u64, Instant)> {
        let client = self.rooms.get(channel)?.clients.get(client)?;
        match (&client.wish, client.settled) {
            (Wish::Here(known), Some(settled)) => Some((known.clone(), client.change, settled)),
            _ => None,
        }
    }

    /// When the next channel is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// A channel that is due, with what is to be said of its sessions. It is due again in a period.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<(ChannelName, Words)> {
        self.next_due().filter(|at| *at <= now)?;
        let (_, channel) = self.due.pop_first()?;
        let next = now + self.spread();
        let room = self.rooms.get_mut(&channel)?;
        room.due = next;
        self.due.insert((next, channel.clone()));
        let word = |(id, client): (&String, &Client)| {
            let word = match (&client.wish, client.settled) {
                (Wish::Here(_), Some(_)) => Word::Refresh,
                (Wish::Here(known), None) => Word::Enter(known.clone()),
                (Wish::Gone, _) => Word::Exit,
            };
            (id.clone(), client.change, word)
        };
        let words = room.clients.iter().map(word).collect();
        Some((channel, words))
    }

    /// Every channel is due: Redis may have lost any of it.
    pub(super) fn all_due(&mut self, now: Instant) {
        self.due.clear();
        for (channel, room) in &mut self.rooms {
            room.due = now;
            self.due.insert((now, channel.clone()));
        }
    }

    /// Nobody is present any more.
    pub(super) fn all_gone(&mut self, now: Instant) {
        for room in self.rooms.values_mut() {
            for client in room.clients.values_mut() {
                self.changes += 1;
                *client = Client { wish: Wish::Gone, change: self.changes, settled: None };
            }
        }
        self.all_due(now);
    }

    /// Takes out the channels that are not kept, with who is present there; who left expires in Redis.
    pub(super) fn release(
        &mut self,
        is_kept: &dyn Fn(&ChannelName) -> bool,
    ) -> Vec<(ChannelName, String, Known)> {
        let gone: Vec<ChannelName> = self.rooms.keys().filter(|channel| !is_kept(channel)).cloned().collect();
        let mut moved = Vec::new();
        for channel in gone {
            let Some(room) = self.rooms.remove(&channel) else { continue };
            self.due.remove(&(room.due, channel.clone()));
            let here = room.clients.into_iter().filter_map(|(id, client)| match client.wish {
                Wish::Here(known) => Some((channel.clone(), id, known)),
                Wish::Gone => None,
            });
            moved.extend(here);
        }
        moved
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rooms.is_empty()
    }

    /// A part of the period, the larger: what came together does not stay together.
    fn spread(&self) -> Duration {
        self.period.mul_f64(0.6 + 0.4 * fastrand::f64())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    const PERIOD: Duration = Duration::from_secs(20);

    fn channel(name: &str) -> ChannelName {
        ChannelName::parse(name).unwrap()
    }

    fn known() -> Known {
        Known { info: Bytes::from_static(b"{}"), user: "ada".into() }
    }

    fn words(rooms: &mut Rooms, now: Instant) -> Vec<(String, Word)> {
        let mut said = Vec::new();
        while let Some((channel, words)) = rooms.take_due(now) {
            said.extend(words.into_iter().map(|(id, _, word)| (format!("{channel}/{id}"), word)));
        }
        said.sort_by(|a, b| a.0.cmp(&b.0));
        said
    }

    #[test]
    fn what_redis_did_not_take_is_said_again_and_the_rest_refreshed() {
        let (mut rooms, now) = (Rooms::new(PERIOD), Instant::now());
        let a = channel("a");
        let first = rooms.enter(&a, "c1".into(), known(), now);
        rooms.settled(&a, "c1", first, now);
        rooms.enter(&a, "c2".into(), known(), now);
        let third = rooms.enter(&a, "c3".into(), known(), now);
        rooms.settled(&a, "c3", third, now);
        assert!(rooms.exit(&a, "c3").unwrap().1, "redis knows of it");
        let later = now + PERIOD;
        let expected = [("a/c1", Word::Refresh), ("a/c2", Word::Enter(known())), ("a/c3", Word::Exit)];
        assert_eq!(words(&mut rooms, later), expected.map(|(id, word)| (id.to_owned(), word)));
        assert_eq!(words(&mut rooms, later), [], "once in a period");
    }

    #[test]
    fn an_answer_to_what_has_changed_since_settles_nothing() {
        let (mut rooms, now) = (Rooms::new(PERIOD), Instant::now());
        let a = channel("a");
        let entered = rooms.enter(&a, "c1".into(), known(), now);
        let (left, told) = rooms.exit(&a, "c1").unwrap();
        assert!(!told);
        rooms.settled(&a, "c1", entered, now);
        assert_eq!(words(&mut rooms, now + PERIOD), [("a/c1".to_owned(), Word::Exit)]);
        let again = rooms.enter(&a, "c1".into(), known(), now);
        rooms.settled(&a, "c1", left, now);
        assert_eq!(words(&mut rooms, now + 2 * PERIOD), [("a/c1".to_owned(), Word::Enter(known()))]);
        rooms.settled(&a, "c1", again, now);
        assert_eq!(rooms.missing(&a, "c1"), Some((known(), again, now)));
        assert_eq!(rooms.exit(&a, "nobody"), None);
    }

    #[test]
    fn nothing_is_kept_of_who_left() {
        let (mut rooms, now) = (Rooms::new(PERIOD), Instant::now());
        for n in 0..100 {
            let (a, id) = (channel(&format!("a{}", n % 10)), n.to_string());
            rooms.enter(&a, id.clone(), known(), now);
            let (left, _) = rooms.exit(&a, &id).unwrap();
            assert_eq!(rooms.exit(&a, &id), None, "once");
            rooms.settled(&a, &id, left, now);
        }
        assert!(rooms.is_empty() && rooms.due.is_empty());
    }

    #[test]
    fn every_channel_is_due_within_a_period_and_not_all_at_once() {
        let (mut rooms, start) = (Rooms::new(PERIOD), Instant::now());
        for n in 0..1000 {
            rooms.enter(&channel(&format!("a{n}")), "c".into(), known(), start);
        }
        assert!(words(&mut rooms, start + PERIOD / 2).is_empty());
        let early = words(&mut rooms, start + PERIOD.mul_f64(0.8)).len();
        assert!((300..700).contains(&early), "{early} of 1000 at half of the spread");
        assert_eq!(early + words(&mut rooms, start + PERIOD).len(), 1000);
        rooms.all_due(start + PERIOD);
        assert_eq!(words(&mut rooms, start + PERIOD).len(), 1000, "when redis may have lost them");
    }
}
