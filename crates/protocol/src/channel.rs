//! Channel names and the namespace each belongs to.

use std::fmt;
use std::sync::Arc;

/// The longest channel name, in bytes.
pub const MAX_CHANNEL_BYTES: usize = 255;

/// The namespace of a channel whose name has no `:`.
pub const DEFAULT_NAMESPACE: &str = "default";

/// A valid channel name: 1 to 255 bytes of UTF-8 without white space, control characters, `{`, `}` or `*`.
///
/// Braces are refused because they delimit the name inside a Redis key (`tg:{news}`), `*` so that no name looks
/// like a pattern. Cloning shares the text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelName(Arc<str>);

/// Why a channel name was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChannelError {
    /// The name has no characters.
    #[error("a channel name may not be empty")]
    Empty,
    /// The name has more than [`MAX_CHANNEL_BYTES`] bytes.
    #[error("a channel name may have {MAX_CHANNEL_BYTES} bytes at most")]
    TooLong,
    /// The name has a character that is not allowed.
    #[error("a channel name may not contain {0:?}")]
    Forbidden(char),
}

impl ChannelName {
    /// Checks `name` and takes a copy of it.
    pub fn parse(name: &str) -> Result<Self, ChannelError> {
        Self::check(name)?;
        Ok(Self(Arc::from(name)))
    }

    /// Checks `name` without taking a copy.
    pub fn check(name: &str) -> Result<(), ChannelError> {
        if name.is_empty() {
            return Err(ChannelError::Empty);
        }
        if name.len() > MAX_CHANNEL_BYTES {
            return Err(ChannelError::TooLong);
        }
        let forbidden = |c: &char| c.is_whitespace() || c.is_control() || matches!(c, '{' | '}' | '*');
        match name.chars().find(forbidden) {
            Some(c) => Err(ChannelError::Forbidden(c)),
            None => Ok(()),
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part before the first `:`, or [`DEFAULT_NAMESPACE`] where there is none.
    pub fn namespace(&self) -> &str {
        match memchr::memchr(b':', self.0.as_bytes()) {
            Some(at) => &self.0[..at],
            None => DEFAULT_NAMESPACE,
        }
    }
}

impl std::borrow::Borrow<str> for ChannelName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}
