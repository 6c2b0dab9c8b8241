//! Commands: what a client asks. Borrowed from the message they came in.

use std::borrow::Cow;

/// One command of a client.
#[derive(Debug, Clone, PartialEq)]
pub struct Command<'a> {
    /// The number the reply must carry; 0 where the command wants none (`send`, pong).
    pub id: u32,
    /// What is asked.
    pub request: Request<'a>,
}

/// What a command asks. Payloads (`data`) are raw: JSON text in the JSON codec, bytes in Protobuf.
#[derive(Debug, Clone, PartialEq)]
pub enum Request<'a> {
    /// The empty command: the answer to a ping.
    Pong,
    /// Opens the session; the first command of a connection.
    Connect(Connect<'a>),
    /// Joins a channel.
    Subscribe(Subscribe<'a>),
    /// Leaves a channel.
    Unsubscribe {
        /// The channel's name, unchecked.
        channel: Cow<'a, str>,
    },
    /// Publishes to a channel.
    Publish {
        /// The channel's name, unchecked.
        channel: Cow<'a, str>,
        /// The payload.
        data: &'a [u8],
    },
    /// Who is in a channel.
    Presence {
        /// The channel's name, unchecked.
        channel: Cow<'a, str>,
    },
    /// How many are in a channel.
    PresenceStats {
        /// The channel's name, unchecked.
        channel: Cow<'a, str>,
    },
    /// What was said in a channel.
    History(History<'a>),
    /// An application ping by the client.
    Ping,
    /// A message to the backend without a reply.
    Send {
        /// The payload.
        data: &'a [u8],
    },
    /// A call to the backend.
    Rpc {
        /// The method, possibly empty.
        method: Cow<'a, str>,
        /// The payload.
        data: &'a [u8],
    },
    /// A new connection token.
    Refresh {
        /// The token.
        token: Cow<'a, str>,
    },
    /// A new subscription token.
    SubRefresh {
        /// The channel's name, unchecked.
        channel: Cow<'a, str>,
        /// The token.
        token: Cow<'a, str>,
    },
}

/// The history request.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct History<'a> {
    /// The channel's name, unchecked.
    pub channel: Cow<'a, str>,
    /// At most so many publications; 0: none, only the position; below 0: all.
    pub limit: i32,
    /// From behind this offset of this epoch (empty: of any) on; in reverse from before it.
    pub since: Option<(u64, Cow<'a, str>)>,
    /// The newest first.
    pub reverse: bool,
}

/// The connect request.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Connect<'a> {
    /// The connection token, or empty.
    pub token: Cow<'a, str>,
    /// The client's payload for the backend, or empty.
    pub data: &'a [u8],
    /// The client's name, such as `js`.
    pub name: Cow<'a, str>,
    /// The client's version.
    pub version: Cow<'a, str>,
    /// How many server-side subscriptions the client asks to recover.
    pub subs: usize,
}

/// The subscribe request.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Subscribe<'a> {
    /// The channel's name, unchecked.
    pub channel: Cow<'a, str>,
    /// The subscription token, or empty.
    pub token: Cow<'a, str>,
    /// The client's payload for the backend, or empty.
    pub data: &'a [u8],
    /// Whether the client asks to be given what it missed since (`offset`, `epoch`).
    pub recover: bool,
    /// The epoch of the client's position, or empty.
    pub epoch: Cow<'a, str>,
    /// The offset of the client's position.
    pub offset: u64,
    /// Whether the client asks for a positioned subscription.
    pub positioned: bool,
    /// Whether the client asks for a recoverable subscription.
    pub recoverable: bool,
    /// Whether the client asks for join and leave pushes.
    pub join_leave: bool,
}
