//! Who is present in which channel of this node.
//!
//! Bounded by the subscriptions of the node's sessions. Not here: who is told of it (`keeper`).

use ahash::AHashMap;
use tidegate_protocol::{ChannelName, ClientInfo};

use crate::relay::PresenceStats;

/// Everyone who is present.
#[derive(Debug, Default)]
pub(super) struct Presence {
    rooms: AHashMap<ChannelName, Room>,
}

/// Those who are present in one channel: never nobody.
#[derive(Debug, Default)]
struct Room {
    /// By session.
    clients: AHashMap<String, ClientInfo>,
    /// How many sessions each user has here.
    users: AHashMap<String, u64>,
}

impl Presence {
    /// Whether the session was not present before.
    pub(super) fn enter(&mut self, channel: ChannelName, info: ClientInfo) -> bool {
        let room = self.rooms.entry(channel).or_default();
        *room.users.entry(info.user.clone()).or_default() += 1;
        match room.clients.insert(info.client.clone(), info) {
            Some(before) => {
                room.forget_user(&before.user);
                false
            }
            None => true,
        }
    }

    /// The session that is not present any more, where it was.
    pub(super) fn exit(&mut self, channel: &ChannelName, client: &str) -> Option<ClientInfo> {
        let room = self.rooms.get_mut(channel)?;
        let info = room.clients.remove(client)?;
        room.forget_user(&info.user);
        if room.clients.is_empty() {
            self.rooms.remove(channel);
        }
        Some(info)
    }

    pub(super) fn read(&self, channel: &ChannelName) -> Vec<ClientInfo> {
        self.rooms.get(channel).map_or_else(Vec::new, |room| room.clients.values().cloned().collect())
    }

    pub(super) fn stats(&self, channel: &ChannelName) -> PresenceStats {
        self.rooms.get(channel).map_or_else(PresenceStats::default, |room| PresenceStats {
            clients: room.clients.len() as u64,
            users: room.users.len() as u64,
        })
    }
}

impl Room {
    fn forget_user(&mut self, user: &str) {
        if let Some(sessions) = self.users.get_mut(user) {
            *sessions -= 1;
            if *sessions == 0 {
                self.users.remove(user);
            }
        }
    }
}
