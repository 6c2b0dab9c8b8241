//! Idempotency keys: which publications were made already, for a while.
//!
//! Bounded in number and bytes: beyond that the oldest are forgotten before their time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ahash::AHashMap;
use tidegate_protocol::{ChannelName, Position};

/// For how long a key is remembered.
const LIFE: Duration = Duration::from_secs(5 * 60);
/// How many are remembered at most.
const MOST: usize = 64 * 1024;
/// How many bytes they may take.
const MOST_BYTES: usize = 16 * 1024 * 1024;
/// What a key takes besides its text and its channel's name.
const KEY_BYTES: usize = 160;

/// A key belongs to its channel.
type Key = Arc<(ChannelName, String)>;

/// The keys of all channels.
#[derive(Debug, Default)]
pub(super) struct Keys {
    known: AHashMap<Key, Position>,
    /// By the time at which they were given.
    order: VecDeque<(Instant, Key)>,
    bytes: usize,
}

impl Keys {
    /// The position of the publication that was made with this key.
    pub(super) fn get(&mut self, channel: &ChannelName, key: &str, now: Instant) -> Option<Position> {
        self.forget(now);
        self.known.get(&(channel.clone(), key.to_owned())).cloned()
    }

    /// Remembers a key that is not known.
    pub(super) fn insert(&mut self, channel: ChannelName, key: String, position: Position, now: Instant) {
        let key: Key = Arc::new((channel, key));
        self.bytes += weight(&key);
        self.known.insert(Arc::clone(&key), position);
        self.order.push_back((now, key));
        while self.order.len() > MOST || self.bytes > MOST_BYTES {
            self.forget_oldest();
        }
    }

    /// Forgets those whose time is over.
    pub(super) fn forget(&mut self, now: Instant) {
        while self.order.front().is_some_and(|(given, _)| now.saturating_duration_since(*given) >= LIFE) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, key)) = self.order.pop_front() {
            self.bytes -= weight(&key);
            self.known.remove(&key);
        }
    }
}

fn weight(key: &Key) -> usize {
    KEY_BYTES + key.0.as_str().len() + key.1.len()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use tidegate_protocol::Epoch;

    use super::*;

    fn position(offset: u64) -> Position {
        Position { offset, epoch: Epoch::new("e") }
    }

    #[test]
    fn a_key_is_known_for_five_minutes_in_its_channel_alone() {
        let (news, other) = (ChannelName::parse("news").unwrap(), ChannelName::parse("other").unwrap());
        let (mut keys, start) = (Keys::default(), Instant::now());
        keys.insert(news.clone(), "k".into(), position(3), start);
        assert_eq!(keys.get(&other, "k", start), None);
        assert_eq!(keys.get(&news, "k", start + LIFE - Duration::from_millis(1)), Some(position(3)));
        assert_eq!(keys.get(&news, "k", start + LIFE), None);
        assert_eq!((keys.order.len(), keys.known.len(), keys.bytes), (0, 0, 0));
    }

    #[test]
    fn keys_are_bounded_in_number_and_in_bytes() {
        let news = ChannelName::parse("news").unwrap();
        let (mut keys, now) = (Keys::default(), Instant::now());
        for n in 0..MOST as u64 + 10 {
            keys.insert(news.clone(), n.to_string(), position(n), now);
        }
        assert_eq!((keys.order.len(), keys.known.len()), (MOST, MOST));
        assert_eq!(keys.get(&news, "9", now), None, "the oldest are forgotten first");
        assert_eq!(keys.get(&news, "10", now), Some(position(10)));
        for n in 0..40 {
            keys.insert(news.clone(), format!("{n}{}", "x".repeat(1 << 20)), position(n), now);
        }
        assert!(keys.bytes <= MOST_BYTES && keys.order.len() < 16, "{} bytes", keys.bytes);
    }
}
