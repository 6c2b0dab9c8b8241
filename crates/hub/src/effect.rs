//! What a shard asks of the world around it.

use bytes::Bytes;
use tidegate_protocol::{ChannelName, ClientInfo, Disconnect};

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
    },
    /// The session has ended and its Close frame is in its outbox: write it out, close the socket, then call
    /// `Shard::remove`. Comes once for each session that the shard ends.
    Ended {
        /// Which session.
        session: SessionKey,
        /// Why.
        reason: Disconnect,
    },
}
