//! The codecs against the sheet's vectors, against a second implementation of the wire, and against garbage.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod client;
mod decoding;
mod golden;
mod payloads;
mod round_trip;

use tidegate_protocol::codec::DecodeError;
use tidegate_protocol::{Codec, Command};

/// All commands of a message, and how it ended.
fn decoded(codec: Codec, message: &[u8]) -> (Vec<Command<'_>>, Result<(), DecodeError>) {
    let mut commands = Vec::new();
    let end = codec.commands(message, |command| {
        commands.push(command);
        true
    });
    (commands, end)
}
