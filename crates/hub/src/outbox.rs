//! A session's bounded queue of frames to write.

use std::io::IoSlice;

/// Frames waiting for the socket, oldest first. The bound is bytes. No heap while empty.
#[derive(Debug, Default)]
pub struct Outbox {
    _frames: (),
}

impl Outbox {
    /// Bytes waiting.
    pub fn bytes(&self) -> usize {
        todo!()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        todo!()
    }

    /// Lends the oldest frames to a vectored write; returns how many of `into` were filled.
    pub fn slices<'a>(&'a self, _into: &mut [IoSlice<'a>]) -> usize {
        todo!()
    }

    /// Drops `written` bytes from the front: what the socket took.
    pub fn advance(&mut self, _written: usize) {
        todo!()
    }
}
