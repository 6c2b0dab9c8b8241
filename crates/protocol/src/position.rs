//! Where somebody stands in a channel with history.

use std::fmt;
use std::sync::Arc;

/// One life of a channel's history, by an opaque text. Offsets of different epochs have nothing to do with each other: the
/// epoch is a new one whenever the history was lost, or may have been. Cloning shares the text.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Epoch(Arc<str>);

/// The last publication that somebody has seen of a channel.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Position {
    /// Counts the publications of the epoch from 1 up without a hole; 0 before the first.
    pub offset: u64,
    /// Of which life of the history.
    pub epoch: Epoch,
}

impl Epoch {
    /// Takes a copy of the text, whatever it is: only equality means anything.
    pub fn new(text: &str) -> Self {
        Self(Arc::from(text))
    }

    /// The text, as clients are told.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
