//! What the baseline's channels know: who listens now, and the last publications for those who come and ask.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{broadcast, watch};

/// Publications that a WebSocket subscriber may be behind before it loses the oldest.
const BEHIND: usize = 1_024;

/// Publications that are kept for those who poll.
const KEPT: usize = 256;

/// All channels.
#[derive(Default)]
pub(super) struct Channels(Mutex<HashMap<String, Channel>>);

/// One channel.
struct Channel {
    /// Whole messages, encoded once and shared.
    live: broadcast::Sender<Arc<str>>,
    /// The number of the newest publication; 0 if there is none.
    newest: watch::Sender<u64>,
    /// The last publications' data, the newest last.
    kept: VecDeque<Arc<str>>,
}

impl Default for Channel {
    fn default() -> Self {
        Self { live: broadcast::channel(BEHIND).0, newest: watch::channel(0).0, kept: VecDeque::new() }
    }
}

impl Channels {
    fn all(&self) -> MutexGuard<'_, HashMap<String, Channel>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything that is published from now on, as messages.
    pub(super) fn subscribe(&self, channel: String) -> broadcast::Receiver<Arc<str>> {
        self.all().entry(channel).or_default().live.subscribe()
    }

    /// Publishes JSON.
    pub(super) fn publish(&self, channel: String, data: &str) {
        let push = format!("{{\"push\":{{\"channel\":\"{channel}\",\"pub\":{{\"data\":{data}}}}}}}");
        let mut channels = self.all();
        let channel = channels.entry(channel).or_default();
        if channel.kept.len() == KEPT {
            channel.kept.pop_front();
        }
        channel.kept.push_back(data.into());
        // Nobody hears it: that is no failure.
        let _ = channel.live.send(push.into());
        channel.newest.send_modify(|newest| *newest += 1);
    }

    /// The number of the newest publication, to wait for the next.
    pub(super) fn newest(&self, channel: &str) -> watch::Receiver<u64> {
        self.all().entry(channel.to_owned()).or_default().newest.subscribe()
    }

    /// What came after `since`, as far as it is kept: the number of the newest, and the data of each.
    pub(super) fn after(&self, channel: &str, since: u64) -> (u64, Vec<Arc<str>>) {
        let channels = self.all();
        let Some(channel) = channels.get(channel) else { return (0, Vec::new()) };
        let newest = *channel.newest.borrow();
        let wanted = usize::try_from(newest.saturating_sub(since)).unwrap_or(usize::MAX);
        let skipped = channel.kept.len().saturating_sub(wanted);
        (newest, channel.kept.iter().skip(skipped).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_gets_what_came_since_and_no_more_than_is_kept() {
        let channels = Channels::default();
        assert_eq!(channels.after("news", 0), (0, Vec::new()));
        for number in 1..=300 {
            channels.publish("news".into(), &number.to_string());
        }
        let (newest, data) = channels.after("news", 298);
        assert_eq!((newest, data), (300, vec!["299".into(), "300".into()]));
        assert_eq!(channels.after("news", 300), (300, Vec::new()));
        let (_, all) = channels.after("news", 0);
        assert_eq!((all.len(), &*all[0]), (KEPT, "45"));
    }
}
