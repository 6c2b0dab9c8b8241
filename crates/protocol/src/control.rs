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

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[test]
    fn the_documented_messages_are_understood_and_written_the_same() {
        let user = || String::from("42");
        let channel = || String::from("news");
        for (json, control) in [
            (
                r#"{"disconnect":{"user":"42"}}"#,
                Control::Disconnect(DisconnectControl { user: user(), ..DisconnectControl::default() }),
            ),
            (
                r#"{"disconnect":{"user":"42","client":"c-1","reconnect":true}}"#,
                Control::Disconnect(DisconnectControl {
                    user: user(),
                    client: "c-1".into(),
                    reconnect: true,
                }),
            ),
            (
                r#"{"unsubscribe":{"user":"42","channel":"news"}}"#,
                Control::Unsubscribe(SubscriptionControl {
                    user: user(),
                    channel: channel(),
                    ..SubscriptionControl::default()
                }),
            ),
            (
                r#"{"subscribe":{"client":"c-1","channel":"news"}}"#,
                Control::Subscribe(SubscriptionControl {
                    client: "c-1".into(),
                    channel: channel(),
                    ..SubscriptionControl::default()
                }),
            ),
        ] {
            assert_eq!(Control::parse(json.as_bytes()).unwrap(), control);
            assert_eq!(serde_json::to_string(&control).unwrap(), json);
        }
    }

    #[test]
    fn a_message_that_selects_nobody_is_refused_by_name() {
        for (json, error) in [
            (r#"{"disconnect":{}}"#, "`disconnect` names neither `user` nor `client`: give one of them"),
            (
                r#"{"disconnect":{"user":"","client":"","reconnect":true}}"#,
                "`disconnect` names neither `user` nor `client`: give one of them",
            ),
            (
                r#"{"unsubscribe":{"channel":"news"}}"#,
                "`unsubscribe` names neither `user` nor `client`: give one of them",
            ),
            (
                r#"{"subscribe":{"channel":"news"}}"#,
                "`subscribe` names neither `user` nor `client`: give one of them",
            ),
            (
                r#"{"subscribe":{"user":"42","channel":"a b"}}"#,
                "`channel` of `subscribe` is \"a b\": a channel name may not contain ' '",
            ),
            (
                r#"{"unsubscribe":{"user":"42","channel":""}}"#,
                "`channel` of `unsubscribe` is \"\": a channel name may not be empty",
            ),
        ] {
            assert_eq!(Control::parse(json.as_bytes()).unwrap_err().to_string(), error);
        }
    }

    #[test]
    fn a_message_of_another_shape_is_refused() {
        for json in [
            "",
            "{}",
            "[]",
            "\"disconnect\"",
            r#"{"disconnect":{"user":42}}"#,
            r#"{"disconnect":{"usr":"42"}}"#,
            r#"{"disconnect":{"user":"42"},"subscribe":{"user":"42","channel":"a"}}"#,
            r#"{"subscribe":{"user":"42"}}"#,
            r#"{"reboot":{"user":"42"}}"#,
            r#"{"disconnect":{"user":"42"}} {}"#,
        ] {
            let error = Control::parse(json.as_bytes()).unwrap_err();
            assert!(matches!(error, ControlError::Shape(_)), "{json}");
            assert!(
                error.to_string().starts_with("not a control message such as {\"disconnect\":{\"user\":"),
                "{error}"
            );
        }
    }
}
