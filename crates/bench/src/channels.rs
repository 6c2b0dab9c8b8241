//! Which connection is in which channel, and how many publications each is to get.
//!
//! A name is made from the number when it is needed: thousands of connections keep none.

use serde::{Deserialize, Serialize};

/// The channel that everyone is in, and what the names of others begin with.
pub(crate) const NAME: &str = "bench";

/// How channels are dealt. Connections have numbers from 0, without a gap over all client processes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Channels {
    plan: Plan,
    name: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Plan {
    /// All are in one.
    One,
    /// So many are in one: with 1, each has its own.
    Rooms(u32),
}

impl Channels {
    /// All are in one.
    pub(crate) fn one(name: &str) -> Self {
        Self { plan: Plan::One, name: name.to_owned() }
    }

    /// Each has its own: `NAME:0`, `NAME:1` and so on.
    pub(crate) fn own(name: &str) -> Self {
        Self::rooms(name, 1)
    }

    /// Rooms of `size`: `NAME:0` and so on.
    pub(crate) fn rooms(name: &str, size: u32) -> Self {
        Self { plan: Plan::Rooms(size.max(1)), name: name.to_owned() }
    }

    /// The number of the channel that connection `number` is in.
    pub(crate) fn index(&self, number: u32) -> u32 {
        match self.plan {
            Plan::One => 0,
            Plan::Rooms(size) => number / size,
        }
    }

    /// Which member of its room connection `number` is, from 0.
    pub(crate) fn member(&self, number: u32) -> u32 {
        match self.plan {
            Plan::One => number,
            Plan::Rooms(size) => number % size,
        }
    }

    /// How many channels so many connections are in, at least one.
    pub(crate) fn count(&self, connections: u32) -> u32 {
        match self.plan {
            Plan::One => 1,
            Plan::Rooms(size) => connections.div_ceil(size).max(1),
        }
    }

    /// The name of channel `index`.
    pub(crate) fn name(&self, index: u32) -> String {
        match self.plan {
            Plan::One => self.name.clone(),
            Plan::Rooms(_) => format!("{}:{index}", self.name),
        }
    }
}

/// Publications that are dealt to channels in turn: publication `k` is number `k / count` of channel `k % count`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Dealt {
    /// All publications.
    pub(crate) published: u32,
    /// Channels they were dealt to, at least one.
    pub(crate) channels: u32,
}

impl Dealt {
    /// How many of them channel `index` got.
    pub(crate) fn to(self, index: u32) -> u32 {
        let channels = self.channels.max(1);
        self.published / channels + u32::from(index < self.published % channels)
    }

    /// The channel of publication `k`, and its number there.
    pub(crate) fn place(self, k: u32) -> (u32, u32) {
        let channels = self.channels.max(1);
        (k % channels, k / channels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_plan_puts_connections_where_it_says() {
        let one = Channels::one("bench");
        assert_eq!((one.index(7), one.count(10), one.name(0).as_str()), (0, 1, "bench"));
        let own = Channels::own("news");
        assert_eq!((own.index(7), own.count(10), own.name(7).as_str()), (7, 10, "news:7"));
        let rooms = Channels::rooms("chat", 50);
        assert_eq!((rooms.index(49), rooms.index(50), rooms.member(103)), (0, 1, 3));
        assert_eq!((rooms.count(100), rooms.count(101), rooms.count(0)), (2, 3, 1));
    }

    #[test]
    fn what_is_dealt_adds_up() {
        let dealt = Dealt { published: 11, channels: 4 };
        assert_eq!((0..4).map(|index| dealt.to(index)).collect::<Vec<_>>(), [3, 3, 3, 2]);
        assert_eq!((dealt.place(0), dealt.place(10)), ((0, 0), (2, 2)));
        assert_eq!(Dealt { published: 5, channels: 1 }.to(0), 5);
    }
}
