//! Publications: one message in a channel.

use bytes::Bytes;

use crate::channel::ChannelName;

/// One message in a channel. `data` is valid JSON text without a literal newline (see [`crate::codec::json::payload`]).
#[derive(Debug, Clone, PartialEq)]
pub struct Publication {
    /// The channel it belongs to.
    pub channel: ChannelName,
    /// The payload.
    pub data: Bytes,
    /// Who published it, where a client did.
    pub info: Option<ClientInfo>,
    /// Tags given by the publisher: a JSON object of strings, as pairs; empty where none.
    pub tags: Vec<(String, String)>,
    /// Its place in the channel's history, counted from 1; 0 where the channel has none.
    pub offset: u64,
}

/// Who a client is, as told to other clients.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientInfo {
    /// The user's id, empty for anonymous.
    pub user: String,
    /// The session's id.
    pub client: String,
    /// JSON given by the connection token, or empty.
    pub conn_info: Bytes,
    /// JSON given by the subscription token, or empty.
    pub chan_info: Bytes,
}
