//! What a backend decides for a session, and what it may say.
//!
//! Words only. What they lead to is in `consulting`; how a backend is asked is the gateway's.

use bytes::Bytes;
use tidegate_protocol::{BackendClose, ChannelName, Codec, ErrorCode};

/// Which commands wait for a backend, besides those of namespaces with `Right::Backend`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backends {
    /// Connects: the node's own authenticator is not asked then.
    pub connect: bool,
    /// Calls. Without it they get error 108.
    pub rpc: bool,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asker {
    /// The session's id; of a connect, the one that it will have.
    pub client: String,
    /// The user's id, empty for anonymous and of a connect.
    pub user: String,
    /// What the client speaks.
    pub codec: Codec,
}

/// What a backend is to decide.
#[derive(Debug, Clone, PartialEq)]
pub enum Matter {
    /// Whether a client may come in, and as whom.
    Connect {
        /// The connection token, or empty.
        token: String,
        /// The client's name, such as `js`.
        name: String,
        /// The client's version.
        version: String,
        /// The client's payload, or empty.
        data: Bytes,
    },
    /// Whether a session may hear a channel.
    Subscribe {
        /// Which one.
        channel: ChannelName,
        /// The subscription token, or empty.
        token: String,
        /// The client's payload, or empty.
        data: Bytes,
    },
    /// Whether a session may say something in a channel.
    Publish {
        /// Which one.
        channel: ChannelName,
        /// The payload: JSON without a literal newline.
        data: Bytes,
    },
    /// What a call returns.
    Rpc {
        /// The method, possibly empty.
        method: String,
        /// The payload, or empty.
        data: Bytes,
    },
}

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// The backend agreed.
    Granted(Grant),
    /// The command fails with an error of the backend's own.
    Refused {
        /// 400 to 1999.
        code: u32,
        /// For people.
        message: String,
        /// Whether the SDK should try again by itself.
        temporary: bool,
    },
    /// The connection ends in the backend's words.
    Disconnect(BackendClose),
    /// There is no decision: the command fails with an error of the node's.
    Failed(ErrorCode),
}

/// What comes with an agreement; each matter has a use for some of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Grant {
    /// Of a connect: the user's id, empty for anonymous.
    pub user: String,
    /// Of a connect and a subscribe: JSON that other clients see beside the user, or empty.
    pub info: Bytes,
    /// The payload for the client, in its codec; of a publish: what is published instead. `None`: there is none.
    pub data: Option<Bytes>,
    /// Of a connect: channels that the client is subscribed to from the start.
    pub channels: Vec<ChannelName>,
    /// Of a publish: whether it stays out of the channel's history.
    pub skip_history: bool,
}
