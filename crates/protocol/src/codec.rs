//! The two codecs of Centrifuge v2 and what they share.

use crate::command::Command;
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
        _message: &'a [u8],
        _each: impl FnMut(Command<'a>) -> bool,
    ) -> Result<(), DecodeError> {
        todo!()
    }

    /// Appends the encoded reply, without the joint to a following one.
    pub fn reply(self, _id: u32, _reply: &Reply<'_>, _out: &mut Vec<u8>) {
        todo!()
    }

    /// Appends the encoded push.
    pub fn push(self, _push: &Push<'_>, _out: &mut Vec<u8>) {
        todo!()
    }

    /// The application ping: the empty reply.
    pub const fn ping(self) -> &'static [u8] {
        match self {
            Self::Json => b"{}",
            Self::Protobuf => &[0],
        }
    }
}
