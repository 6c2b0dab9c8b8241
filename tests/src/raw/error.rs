//! What a raw client can say when something did not happen.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::Response;

/// Why a raw client did not get what it waited for. `Debug` is the same sentence as `Display`, so that a failed
/// `expect` can be read.
#[derive(thiserror::Error)]
pub enum Error {
    /// TCP or TLS did not come about.
    #[error("no connection to {to}: {source}")]
    Connect {
        /// Where to.
        to: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The server answered the upgrade with something else than 101.
    #[error("the upgrade was refused: {0}")]
    Refused(Box<Response>),
    /// Something did not come in time.
    #[error("not within {within:?}: {what}{heard}")]
    Late {
        /// What was awaited.
        what: String,
        /// How long.
        within: Duration,
        /// What had arrived by then, as text.
        heard: String,
    },
    /// The server ended TCP in order while something was awaited.
    #[error("the server ended the connection instead of {what}{heard}")]
    Ended {
        /// What was awaited.
        what: String,
        /// What had arrived by then, as text.
        heard: String,
    },
    /// The server closed the WebSocket while something was awaited.
    #[error("the server closed with {code:?} {reason:?} instead of {what}")]
    Closed {
        /// What was awaited.
        what: String,
        /// The code, if there was one.
        code: Option<u16>,
        /// The reason.
        reason: String,
    },
    /// The connection broke.
    #[error("the connection broke instead of {what}: {source}")]
    Lost {
        /// What was awaited.
        what: &'static str,
        /// How.
        source: io::Error,
    },
    /// Something arrived where nothing should.
    #[error("not silent{heard}")]
    NotSilent {
        /// What arrived, as text.
        heard: String,
    },
    /// The server sent something that no server may send.
    #[error("the server broke the protocol: {0}")]
    Protocol(String),
    /// A command was answered with an error.
    #[error("{command} was answered with error {code}: {message}")]
    Command {
        /// The command as it was sent.
        command: String,
        /// The error's code.
        code: u64,
        /// The error's message.
        message: String,
    },
}

impl std::fmt::Debug for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl Error {
    pub(super) fn late(what: impl Into<String>, within: Duration, heard: &[u8]) -> Self {
        Self::Late { what: what.into(), within, heard: excerpt(heard) }
    }

    pub(super) fn eof(what: impl Into<String>, heard: &[u8]) -> Self {
        Self::Ended { what: what.into(), heard: excerpt(heard) }
    }

    pub(super) fn io(what: &'static str, source: io::Error) -> Self {
        Self::Lost { what, source }
    }

    /// The code of the error that answered a command.
    pub fn command_code(&self) -> Option<u64> {
        match self {
            Self::Command { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// The code the server closed with.
    pub fn close_code(&self) -> Option<u16> {
        match self {
            Self::Closed { code, .. } => *code,
            _ => None,
        }
    }
}

/// The first bytes of what was heard, to be read by a human, or nothing.
pub(super) fn excerpt(heard: &[u8]) -> String {
    if heard.is_empty() {
        return String::new();
    }
    let (shown, more) = heard.split_at(heard.len().min(200));
    let dots = if more.is_empty() { "" } else { "..." };
    format!("; {} bytes had arrived: {}{dots}", heard.len(), shown.escape_ascii())
}
