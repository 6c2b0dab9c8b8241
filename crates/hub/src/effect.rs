//! What a shard asks of the world around it.

use bytes::Bytes;
use tidegate_protocol::{ChannelName, ClientInfo, Disconnect, Epoch, Event, Position, Publication};

use crate::backend::{Asker, Matter};
use crate::shard::SessionKey;

/// Something the gateway must do for a shard.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// The shard's first subscription of a channel: ask the relay to hear it, then call `Shard::joined`, once, whatever
    /// comes of it. Until then the shard neither leaves the channel nor asks again.
    Join(ChannelName),
    /// The shard's last subscription of a channel is gone: tell the relay. Comes only for a channel that the relay hears.
    Leave(ChannelName),
    /// A client publishes: hand it to the relay, then call `Shard::published` with the same session and id.
    Publish {
        /// Who asked.
        session: SessionKey,
        /// The command's id, which the reply must carry.
        id: u32,
        /// Where to.
        channel: ChannelName,
        /// The payload: JSON without a literal newline.
        data: Bytes,
        /// Who the publisher is, as subscribers will see it.
        info: ClientInfo,
        /// Whether it stays out of the channel's history.
        skip_history: bool,
    },
    /// A backend is to decide: ask it, then call `Shard::decided` with the same session, id and matter. Publications of one
    /// session to one channel must be decided in the order they came.
    Consult {
        /// Whose command it is.
        session: SessionKey,
        /// The command's id, which the reply must carry.
        id: u32,
        /// Who that is.
        asker: Asker,
        /// What is to be decided.
        matter: Matter,
    },
    /// A client came back: ask the relay for what it missed, then call `Shard::recovered` with the same session, id and
    /// channel, in order with what is delivered.
    Recover {
        /// Who asked.
        session: SessionKey,
        /// The command's id.
        id: u32,
        /// In which channel.
        channel: ChannelName,
        /// The last that it has seen.
        since: Position,
    },
    /// A client asks something that needs no order with anything else: find the answer, then call `Shard::answered` with
    /// the same session and id.
    Ask {
        /// Who asked.
        session: SessionKey,
        /// The command's id, which the reply must carry.
        id: u32,
        /// What is asked.
        question: Question,
    },
    /// A session is present in a channel from now on: tell the relay.
    Enter {
        /// Where.
        channel: ChannelName,
        /// Who it is.
        info: ClientInfo,
    },
    /// A session is not present in a channel any more: tell the relay. In order with `Enter`.
    Exit {
        /// Where.
        channel: ChannelName,
        /// The session's id.
        client: String,
    },
    /// A client did something that somebody wants to know: tell them. Comes only of kinds that are in `Policy::events`.
    Happened(Box<Event>),
    /// The session has ended and its Close frame is in its outbox: write it out, close the socket, then call
    /// `Shard::remove`. Comes once for each session that the shard ends.
    Ended {
        /// Which session.
        session: SessionKey,
        /// Why.
        reason: Disconnect,
    },
}

/// What a client asks of a channel.
#[derive(Debug, Clone, PartialEq)]
pub enum Question {
    /// What was said in it.
    History {
        /// The channel.
        channel: ChannelName,
        /// At most so many publications; `None`: all.
        limit: Option<usize>,
        /// From behind this offset, of this epoch where one is given; in reverse from before it.
        since: Option<(u64, Option<Epoch>)>,
        /// The newest first.
        reverse: bool,
    },
    /// Who is there.
    Presence(ChannelName),
    /// How many are there.
    PresenceStats(ChannelName),
}

/// What was found for a `Question`.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    /// What was said.
    History {
        /// In the order that was asked for.
        publications: Vec<Publication>,
        /// The newest of the channel.
        position: Position,
    },
    /// Who is there.
    Presence(Vec<ClientInfo>),
    /// How many are there.
    PresenceStats {
        /// Sessions.
        clients: u32,
        /// Users.
        users: u32,
    },
}
