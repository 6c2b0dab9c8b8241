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

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[test]
    fn any_printable_name_of_up_to_255_bytes_is_valid() {
        let longest = "a".repeat(MAX_CHANNEL_BYTES);
        for name in
            ["a", "news", "chat:1", "inbox:#42", "новости", "a/b.c-d_e~f", ":", "::", "\"'\\[]$&?", &longest]
        {
            assert_eq!(ChannelName::parse(name).unwrap().as_str(), name);
        }
    }

    #[test]
    fn a_name_has_at_least_one_byte_and_at_most_255() {
        assert_eq!(ChannelName::check(""), Err(ChannelError::Empty));
        assert_eq!(ChannelName::check(&"a".repeat(256)), Err(ChannelError::TooLong));
        // 128 characters, but 256 bytes.
        assert_eq!(ChannelName::check(&"é".repeat(128)), Err(ChannelError::TooLong));
    }

    #[test]
    fn white_space_control_characters_braces_and_stars_are_refused_wherever_they_stand() {
        let forbidden = [
            ' ', '\t', '\n', '\r', '\0', '\u{7f}', '\u{85}', '\u{a0}', '\u{2003}', '\u{2028}', '\u{2029}',
            '\u{3000}', '{', '}', '*',
        ];
        for c in forbidden {
            for name in [format!("{c}"), format!("{c}a"), format!("a{c}b"), format!("é{c}")] {
                assert_eq!(ChannelName::check(&name), Err(ChannelError::Forbidden(c)), "{name:?}");
            }
        }
        assert_eq!(ChannelError::Forbidden('\n').to_string(), r"a channel name may not contain '\n'");
    }

    #[test]
    fn the_namespace_is_what_stands_before_the_first_colon() {
        for (name, namespace) in [
            ("news", "default"),
            ("chat:1", "chat"),
            ("chat:1:2", "chat"),
            ("chat:", "chat"),
            ("inbox:#42", "inbox"),
            ("é:x", "é"),
            // An empty namespace, which no settings can name.
            (":x", ""),
        ] {
            assert_eq!(ChannelName::parse(name).unwrap().namespace(), namespace);
        }
    }

    #[test]
    fn a_clone_shares_the_text_and_a_map_finds_it_by_str() {
        let name = ChannelName::parse("news").unwrap();
        assert_eq!(name.clone().as_str().as_ptr(), name.as_str().as_ptr());
        let map = std::collections::HashMap::from([(name, 1)]);
        assert_eq!(map.get("news"), Some(&1));
    }
}
