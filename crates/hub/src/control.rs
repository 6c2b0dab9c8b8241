//! What backends and other nodes ask of the sessions they select. Rare, so sessions are searched, not indexed.

use tidegate_protocol::control::{DisconnectControl, SubscriptionControl};
use tidegate_protocol::{ChannelName, Control, Disconnect, Push, Reply, UnsubscribeCode};
use uuid::Uuid;

use crate::channels::Waiter;
use crate::membership::Standing;
use crate::shard::{SessionKey, Shard};

impl Shard {
    pub(crate) fn obey(&mut self, control: &Control) {
        match control {
            Control::Disconnect(disconnect) => self.disconnect(disconnect),
            Control::Unsubscribe(subscription) => self.unsubscribe_selected(subscription),
            Control::Subscribe(subscription) => self.subscribe_selected(subscription),
        }
    }

    fn disconnect(&mut self, control: &DisconnectControl) {
        let reason = if control.reconnect { Disconnect::ForceReconnect } else { Disconnect::ForceDisconnect };
        for session in self.selected(&control.user, &control.client) {
            self.end(session, reason);
        }
    }

    fn unsubscribe_selected(&mut self, control: &SubscriptionControl) {
        let channel = control.channel.as_str();
        for SessionKey { index, .. } in self.selected(&control.user, &control.client) {
            self.leaves(index, channel, Some(UnsubscribeCode::Server));
            let Some(waiter) = self.leave(index, channel) else { continue };
            // An SDK ignores the push while its subscribe is unanswered, and tries again after an error: only behind a
            // success does the end count.
            if let Some(id) = waiter.and_then(|waiter| waiter.id) {
                self.send_reply(index, id, &Reply::Subscribe(Default::default()));
            }
            self.send_push(index, &Push::Unsubscribe(channel, UnsubscribeCode::Server));
        }
    }

    /// Rights are not asked, since a backend may do everything; the limit of subscriptions and the known namespaces
    /// hold all the same.
    fn subscribe_selected(&mut self, control: &SubscriptionControl) {
        let Ok(name) = ChannelName::parse(&control.channel) else { return };
        if self.policy.namespace(&name).is_none() {
            return;
        }
        for SessionKey { index, .. } in self.selected(&control.user, &control.client) {
            self.subscribe_unasked(index, name.clone());
        }
    }

    /// Subscribes a session because a backend says so, if it is not there already and has room.
    pub(crate) fn subscribe_unasked(&mut self, index: u32, name: ChannelName) {
        if self.policy.namespace(&name).is_none()
            || self.is_subscribed(index, name.as_str())
            || !self.has_room(index)
        {
            return;
        }
        let waiter = Waiter { session: index, id: None, since: None };
        if let Some(Standing::Now(told)) = self.enter(waiter, name.clone()) {
            self.send_push(index, &Push::Subscribe(name.as_str(), told.result(&[])));
        }
    }

    /// The connected sessions of a user, narrowed to one by its id where given. No user and no id: none.
    fn selected(&self, user: &str, client: &str) -> Vec<SessionKey> {
        let client = match client {
            "" if user.is_empty() => return Vec::new(),
            "" => None,
            client => match Uuid::try_parse(client) {
                Ok(client) => Some(client),
                Err(_) => return Vec::new(),
            },
        };
        self.sessions
            .iter()
            .filter(|(_, session)| {
                session.connected().is_some_and(|connected| {
                    (user.is_empty() || *connected.user == *user)
                        && client.is_none_or(|client| connected.client == client)
                })
            })
            .map(|(key, _)| key)
            .collect()
    }
}
