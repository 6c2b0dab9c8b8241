//! What is said to Redis of presence: calls of `lua/presence.lua`, and the parts of its answers.

use std::time::Duration;

use ::redis::{Cmd, Value};
use tidegate_protocol::ChannelName;

use super::super::script;
use super::rooms::Known;
use super::sender::Question;
use crate::names::Names;
use crate::relay::RelayError;

/// One command to Redis.
pub(super) struct Command {
    pub(super) channel: ChannelName,
    pub(super) what: What,
}

/// What it says or asks.
pub(super) enum What {
    /// A session is here; `aloud`: whoever hears the channel is told, if it is new.
    Enter {
        client: String,
        known: Known,
        change: u64,
        aloud: bool,
    },
    /// A session left.
    Exit {
        client: String,
        change: u64,
    },
    /// These are still here, each with the number of its last change.
    Refresh(Vec<(String, u64)>),
    Ask(Question),
}

impl Command {
    /// As Redis is told. `told`: joins and leaves are told; `deadline`: until which second of Redis' clock it may take out who
    /// has expired.
    pub(super) fn call(&self, names: &Names, ttl: Duration, told: bool, deadline: f64) -> Cmd {
        let what = match &self.what {
            What::Enter { aloud: true, .. } => "enter",
            What::Enter { .. } => "restore",
            What::Exit { .. } => "exit",
            What::Refresh(_) => "refresh",
            What::Ask(Question::Everyone(_)) => "read",
            What::Ask(Question::Stats(_)) => "stats",
        };
        let mut call = script::presence(names).call(&names.channel(&self.channel));
        call.arg(what).arg(ttl.as_secs_f64()).arg(u8::from(told)).arg(deadline);
        match &self.what {
            What::Enter { client, known, .. } => {
                call.arg(client).arg(&known.info[..]).arg(&known.user);
            }
            What::Exit { client, .. } => {
                call.arg(client);
            }
            What::Refresh(clients) => clients.iter().for_each(|(client, _)| {
                call.arg(client);
            }),
            What::Ask(_) => {}
        }
        call
    }
}

impl What {
    /// How many bytes it has, about.
    pub(super) const fn bytes(&self) -> usize {
        match self {
            Self::Enter { known, .. } => known.info.len(),
            _ => 0,
        }
    }

    /// Of how many sessions it speaks.
    pub(super) fn sessions(&self) -> usize {
        match self {
            Self::Refresh(clients) => clients.len().max(1),
            _ => 1,
        }
    }
}

/// Whether more have expired than the call took out.
pub(super) fn more_expired(parts: &[Value]) -> bool {
    parts.first() == Some(&Value::Int(1))
}

pub(super) fn bytes(value: &Value) -> Option<&[u8]> {
    if let Value::BulkString(bytes) = value { Some(bytes) } else { None }
}

pub(super) fn number(value: &Value) -> Option<u64> {
    std::str::from_utf8(bytes(value)?).ok()?.parse().ok()
}

pub(super) fn unexpected() -> RelayError {
    RelayError::Away("redis gave an answer of another shape".into())
}
