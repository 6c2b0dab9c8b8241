//! A message of which a part has arrived.

use super::header::DataKind;
use super::{FrameError, Limits};

/// What has arrived of a message, unmasked, and what is known about it.
#[derive(Debug)]
pub(super) struct Message {
    kind: DataKind,
    bytes: Vec<u8>,
    /// How many of `bytes` are known to be whole characters; used for text only.
    checked: usize,
    /// Frames begun.
    fragments: u32,
}

impl Message {
    /// A message whose first frame has begun.
    pub(super) fn new(kind: DataKind) -> Self {
        Self { kind, bytes: Vec::new(), checked: 0, fragments: 1 }
    }

    pub(super) fn kind(&self) -> DataKind {
        self.kind
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Heap bytes.
    pub(super) fn held_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// Counts one more frame.
    pub(super) fn begin_fragment(&mut self, limits: &Limits) -> Result<(), FrameError> {
        if self.fragments >= limits.max_fragments {
            return Err(FrameError::TooManyFragments);
        }
        self.fragments += 1;
        Ok(())
    }

    /// Adds unmasked bytes. `most` is the size that the message cannot pass: it holds growth back and never
    /// causes it. Text is refused as soon as no further byte could make it UTF-8.
    pub(super) fn append(&mut self, payload: &[u8], most: usize) -> Result<(), FrameError> {
        let needed = self.bytes.len() + payload.len();
        if needed > self.bytes.capacity() {
            let grown = (self.bytes.capacity() * 2).min(most).max(needed);
            self.bytes.reserve_exact(grown - self.bytes.len());
        }
        self.bytes.extend_from_slice(payload);
        if self.kind == DataKind::Text {
            self.check()?;
        }
        Ok(())
    }

    fn check(&mut self) -> Result<(), FrameError> {
        let unchecked = self.bytes.get(self.checked..).unwrap_or_default();
        match simdutf8::compat::from_utf8(unchecked) {
            Ok(text) => self.checked += text.len(),
            // No length: the bytes end within a character that may still become valid.
            Err(error) if error.error_len().is_none() => self.checked += error.valid_up_to(),
            Err(_) => return Err(FrameError::Utf8),
        }
        Ok(())
    }

    /// The bytes, when the last of them has arrived.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}
