//! Replies and pushes: what a node tells a client.

use crate::codes::{Disconnect, ErrorCode, UnsubscribeCode};
use crate::publication::{ClientInfo, Publication};

/// The answer to one command.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply<'a> {
    /// The command failed.
    Error(ErrorCode),
    /// The session is open.
    Connect(ConnectResult<'a>),
    /// The subscription stands.
    Subscribe(SubscribeResult),
    /// The subscription is gone.
    Unsubscribe,
    /// The publication was handed to the relay, which acknowledged it.
    Publish,
    /// The answer to a client's application ping.
    Ping,
}

/// What a client learns when its session opens.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ConnectResult<'a> {
    /// The session's id (a UUID).
    pub client: &'a str,
    /// The node's version.
    pub version: &'a str,
    /// Whether the session ends at `ttl` unless refreshed.
    pub expires: bool,
    /// Seconds until the session expires.
    pub ttl: u32,
    /// Seconds between pings; 0 where native WebSocket pings are used.
    pub ping: u32,
    /// Whether the client must answer pings.
    pub pong: bool,
    /// Server-side subscriptions: channel and result.
    pub subs: Vec<(&'a str, SubscribeResult)>,
    /// The node's id, for emulated transports only.
    pub node: &'a str,
}

/// What a client learns when a subscription stands. History fields come with history.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SubscribeResult {
    /// Whether the subscription expires at `ttl` unless refreshed.
    pub expires: bool,
    /// Seconds until the subscription expires.
    pub ttl: u32,
}

/// Something a node tells a client unasked. Each belongs to a channel but `Message` and `Disconnect`.
#[derive(Debug, Clone, PartialEq)]
pub enum Push<'a> {
    /// A publication.
    Publication(&'a Publication),
    /// Somebody joined.
    Join(&'a str, &'a ClientInfo),
    /// Somebody left.
    Leave(&'a str, &'a ClientInfo),
    /// The server ended a subscription.
    Unsubscribe(&'a str, UnsubscribeCode),
    /// The server made a subscription.
    Subscribe(&'a str),
    /// A payload for this client alone.
    Message(&'a [u8]),
    /// The connection is about to be closed (unidirectional transports).
    Disconnect(Disconnect),
}
