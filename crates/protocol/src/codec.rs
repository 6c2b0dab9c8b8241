//! The two codecs of Centrifuge v2 and what they share.
//!
//! Pure functions: a message in, commands out; a reply or push in, its bytes out. The shapes of replies and
//! pushes are said once, in `shape`, with the name and the tag of each field; `json` and `protobuf` know only
//! how a field is written.
//!
//! Not here: frames around messages ([`crate::frame`]), what a command means (`tidegate-hub`).

pub mod json;
mod payload;
mod protobuf;
mod shape;
mod wire;

use crate::command::{Command, Request};
use crate::reply::{Push, Reply};

/// Which encoding a session speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// Text messages, objects joined by newlines.
    Json,
    /// Binary messages, each item behind its length as a varint.
    Protobuf,
}

/// A message that could not be decoded; the connection ends with 3501.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DecodeError(pub &'static str);

impl Codec {
    /// Both codecs.
    pub const ALL: [Self; 2] = [Self::Json, Self::Protobuf];

    /// The metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Protobuf => "protobuf",
        }
    }

    /// Decodes the commands of one message in order, giving each to `each` until it returns false.
    ///
    /// Commands before a bad one are given before the error is returned, so that their order with the error is
    /// kept. A message without any command is an error.
    pub fn commands<'a>(
        self,
        message: &'a [u8],
        each: impl FnMut(Command<'a>) -> bool,
    ) -> Result<(), DecodeError> {
        match self {
            Self::Json => json::commands(message, each),
            Self::Protobuf => protobuf::commands(message, each),
        }
    }

    /// Appends the encoded reply, without the joint to a following one.
    pub fn reply(self, id: u32, reply: &Reply<'_>, out: &mut Vec<u8>) {
        match self {
            Self::Json => json::message(out, |fields| shape::reply(id, reply, fields)),
            Self::Protobuf => protobuf::message(out, |fields| shape::reply(id, reply, fields)),
        }
    }

    /// Appends the encoded push, without the joint to a following one.
    pub fn push(self, push: &Push<'_>, out: &mut Vec<u8>) {
        match self {
            Self::Json => json::message(out, |fields| shape::push(push, fields)),
            Self::Protobuf => protobuf::message(out, |fields| shape::push(push, fields)),
        }
    }

    /// The application ping: the empty reply.
    pub const fn ping(self) -> &'static [u8] {
        match self {
            Self::Json => b"{}",
            Self::Protobuf => &[0],
        }
    }

    /// What stands between two replies or pushes that share a message.
    pub const fn joint(self) -> &'static [u8] {
        match self {
            Self::Json => b"\n",
            Self::Protobuf => b"",
        }
    }
}

/// What a decoder found in one command, before the rules that both codecs share.
#[derive(Default)]
struct Draft<'a> {
    id: u32,
    request: Option<Request<'a>>,
    /// A second request was found.
    surplus: bool,
}

impl<'a> Draft<'a> {
    fn request(&mut self, request: Request<'a>) {
        self.surplus |= self.request.replace(request).is_some();
    }

    fn finish(self) -> Result<Command<'a>, DecodeError> {
        if self.surplus {
            return Err(DecodeError("a command with more than one request"));
        }
        match (self.id, self.request) {
            (0, None) => Ok(Command { id: 0, request: Request::Pong }),
            (_, None) => Err(DecodeError("a command with an id but no known request")),
            // Whatever id it has: no reply is ever written.
            (_, Some(request @ Request::Send { .. })) => Ok(Command { id: 0, request }),
            (0, Some(_)) => Err(DecodeError("a command that needs a reply but has no id")),
            (id, Some(request)) => Ok(Command { id, request }),
        }
    }
}
