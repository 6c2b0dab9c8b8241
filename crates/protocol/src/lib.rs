//! What may be said between a node and its clients.
//!
//! Pure: no I/O, no clock, no async. Everything here is a function of its arguments, so every rule of the wire
//! can be tested and fuzzed without a socket.
//!
//! Not here: who hears a publication (`tidegate-hub`), how it travels between nodes (`tidegate-relay`), sockets
//! and HTTP (`tidegate-gateway`).

pub mod channel;
pub mod codec;
pub mod codes;
pub mod command;
pub mod control;
pub mod event;
pub mod frame;
pub mod position;
pub mod publication;
pub mod reply;

pub use channel::{ChannelError, ChannelName};
pub use codec::{Codec, DecodeError};
pub use codes::{BackendClose, BadClose, Disconnect, ErrorCode, UnsubscribeCode};
pub use command::{Command, Request};
pub use control::{Control, ControlError};
pub use event::{Event, EventKind, EventKinds};
pub use position::{Epoch, Position};
pub use publication::{ClientInfo, Publication};
pub use reply::{Push, Reply};
