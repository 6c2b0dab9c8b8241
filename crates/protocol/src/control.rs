//! Control messages: what a backend or another node asks of every node.

use serde::{Deserialize, Serialize};

/// A control message, as JSON on the relay's control channel: `{"disconnect":{"user":"42"}}`.
///
/// `user` selects every session of the user; `client`, where given, narrows it to one session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Control {
    /// Ends connections.
    Disconnect(DisconnectControl),
    /// Ends subscriptions.
    Unsubscribe(SubscriptionControl),
    /// Makes subscriptions.
    Subscribe(SubscriptionControl),
}

/// Which connections to end, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DisconnectControl {
    /// The user whose sessions are meant.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// One session's id.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub client: String,
    /// Whether the SDK should connect again: 3011 instead of 3503.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reconnect: bool,
}

/// Which subscriptions to make or end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubscriptionControl {
    /// The user whose sessions are meant.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// One session's id.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub client: String,
    /// The channel.
    pub channel: String,
}
