//! Replies and pushes: what a node tells a client.

use std::sync::Arc;

use crate::codes::{Disconnect, ErrorCode, UnsubscribeCode};
use crate::position::Position;
use crate::publication::{ClientInfo, Publication};

/// The answer to one command.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply<'a> {
    /// The command failed.
    Error(ErrorCode),
    /// The session is open.
    Connect(ConnectResult<'a>),
    /// The subscription stands.
    Subscribe(SubscribeResult<'a>),
    /// The subscription is gone.
    Unsubscribe,
    /// The publication was handed to the relay, which acknowledged it.
    Publish,
    /// The answer to a client's application ping.
    Ping,
    /// Who is in a channel, each under its session's id.
    Presence(&'a [ClientInfo]),
    /// How many are in a channel.
    PresenceStats {
        /// Sessions.
        clients: u32,
        /// Users.
        users: u32,
    },
    /// What was said in a channel.
    History {
        /// In the order that was asked for.
        publications: &'a [Publication],
        /// The newest of the channel.
        position: &'a Position,
    },
    /// What a backend answered to a call.
    Rpc {
        /// The payload.
        data: &'a [u8],
    },
    /// A backend refused the command with an error of its own.
    Refused {
        /// 400 to 1999: below are the protocol's own.
        code: u32,
        /// For people.
        message: &'a str,
        /// Whether the SDK should try again by itself.
        temporary: bool,
    },
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
    pub subs: Vec<(&'a str, SubscribeResult<'a>)>,
    /// A backend's payload for the client, or empty.
    pub data: &'a [u8],
    /// The node's id, for emulated transports only.
    pub node: &'a str,
}

/// What a client learns when a subscription stands.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SubscribeResult<'a> {
    /// Whether the subscription expires at `ttl` unless refreshed.
    pub expires: bool,
    /// Seconds until the subscription expires.
    pub ttl: u32,
    /// Where the subscription begins, in a channel with history: what comes next follows. With `recovered` its offset is
    /// the one that was asked for, and `publications` lead from there to where pushes begin.
    pub position: Option<&'a Position>,
    /// Whether the client may recover from here when it comes back.
    pub recoverable: bool,
    /// Whether the client asked for what it missed.
    pub was_recovering: bool,
    /// Whether it got all of it.
    pub recovered: bool,
    /// What it missed, in order.
    pub publications: &'a [Arc<Publication>],
    /// A backend's payload for the client, or empty.
    pub data: &'a [u8],
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
    Subscribe(&'a str, SubscribeResult<'a>),
    /// A payload for this client alone.
    Message(&'a [u8]),
    /// The connection is about to be closed (unidirectional transports).
    Disconnect(Disconnect),
}
