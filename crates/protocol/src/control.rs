//! Control messages: what a backend or another node asks of every node.

use serde::{Deserialize, Serialize};

use crate::channel::{ChannelError, ChannelName};

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

/// Why a control message was refused.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The text is not a control message.
    #[error("not a control message such as {{\"disconnect\":{{\"user\":\"42\"}}}}: {0}")]
    Shape(#[from] serde_json::Error),
    /// It would mean every session of every node.
    #[error("`{0}` names neither `user` nor `client`: give one of them")]
    NoSelector(&'static str),
    /// The channel's name is not valid.
    #[error("`channel` of `{kind}` is {channel:?}: {error}")]
    Channel {
        /// Which control message.
        kind: &'static str,
        /// The name as given.
        channel: String,
        /// What is wrong with it.
        error: ChannelError,
    },
}

impl Control {
    /// Reads a control message from JSON and checks it.
    pub fn parse(json: &[u8]) -> Result<Self, ControlError> {
        let control: Self = serde_json::from_slice(json)?;
        control.check()?;
        Ok(control)
    }

    /// Checks that somebody is selected, by user or by session, and that the channel's name is valid.
    ///
    /// Without a selector a message would mean everybody: more likely a mistake than a wish.
    pub fn check(&self) -> Result<(), ControlError> {
        let (kind, user, client, channel) = match self {
            Self::Disconnect(it) => ("disconnect", &it.user, &it.client, None),
            Self::Unsubscribe(it) => ("unsubscribe", &it.user, &it.client, Some(&it.channel)),
            Self::Subscribe(it) => ("subscribe", &it.user, &it.client, Some(&it.channel)),
        };
        if user.is_empty() && client.is_empty() {
            return Err(ControlError::NoSelector(kind));
        }
        match channel.map(|channel| (channel, ChannelName::check(channel))) {
            Some((channel, Err(error))) => {
                Err(ControlError::Channel { kind, channel: channel.clone(), error })
            }
            _ => Ok(()),
        }
    }
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
