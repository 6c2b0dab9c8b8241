//! A session's bounded queue of frames to write.
//!
//! Shared frames (publications, pings) are held by reference count; a session's own small frames (replies) are
//! copied together, so that many of them cost neither an allocation nor a slice of a vectored write each.
//!
//! Not here: channels of newest values (`latest`), what happens to a session whose outbox is full (`Shard` ends it), and writing itself.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::iter;

use bytes::Bytes;
use tidegate_protocol::frame::{self, MAX_HEADER_BYTES, Opcode};

use crate::latest::Newest;

/// Own frames are copied together up to this size.
const TOGETHER_BYTES: usize = 4096;

/// Frames waiting for the socket, oldest first. The bound is bytes. No heap while empty.
#[derive(Debug, Default)]
pub struct Outbox {
    pub(crate) queue: Option<Box<Queue>>,
}

/// The frame did not fit; nothing was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

/// What a non-empty outbox holds. The first chunk is in place, so that the usual single frame is one allocation.
#[derive(Debug)]
pub(crate) struct Queue {
    pub(crate) first: Chunk,
    pub(crate) rest: VecDeque<Chunk>,
    /// How much of `first` the socket took already; less than its length.
    pub(crate) written: usize,
    /// What is left of all chunks together.
    pub(crate) bytes: usize,
    /// Which chunks are of channels of newest values; none while there is nothing to know.
    pub(crate) newest: Option<Box<Newest>>,
}

/// One whole frame or several: never a part of one, so the start of a chunk is a place where the stream can be cut.
#[derive(Debug)]
pub(crate) enum Chunk {
    Shared(Bytes),
    Own(Vec<u8>),
}

impl Chunk {
    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Shared(bytes) => bytes,
            Self::Own(bytes) => bytes,
        }
    }
}

impl Queue {
    const fn new(first: Chunk) -> Self {
        Self { first, rest: VecDeque::new(), written: 0, bytes: 0, newest: None }
    }

    fn last_mut(&mut self) -> &mut Chunk {
        self.rest.back_mut().unwrap_or(&mut self.first)
    }
}

impl Outbox {
    /// Bytes waiting.
    pub fn bytes(&self) -> usize {
        self.queue.as_ref().map_or(0, |queue| queue.bytes)
    }

    /// Whether nothing waits.
    pub const fn is_empty(&self) -> bool {
        self.queue.is_none()
    }

    /// Lends the oldest frames to a vectored write; returns how many of `into` were filled.
    pub fn slices<'a>(&'a self, into: &mut [IoSlice<'a>]) -> usize {
        let Some(queue) = &self.queue else { return 0 };
        let first = queue.first.as_slice().get(queue.written..).unwrap_or_default();
        let chunks = iter::once(first).chain(queue.rest.iter().map(Chunk::as_slice));
        let mut filled = 0;
        for (slice, chunk) in into.iter_mut().zip(chunks) {
            *slice = IoSlice::new(chunk);
            filled += 1;
        }
        filled
    }

    /// All that waits, if it is one piece.
    pub fn single(&self) -> Option<&[u8]> {
        let queue = self.queue.as_ref().filter(|queue| queue.rest.is_empty())?;
        queue.first.as_slice().get(queue.written..)
    }

    /// Drops `written` bytes from the front: what the socket took.
    pub fn advance(&mut self, written: usize) {
        let Some(queue) = &mut self.queue else { return };
        if written >= queue.bytes {
            self.queue = None;
            return;
        }
        queue.bytes -= written;
        queue.written += written;
        while queue.written >= queue.first.as_slice().len() {
            let Some(next) = queue.rest.pop_front() else { break };
            queue.written -= queue.first.as_slice().len();
            queue.first = next;
            if let Some(newest) = &mut queue.newest {
                newest.first_went();
            }
        }
    }

    /// Adds a frame that others hold too, unless the outbox would then hold more than `max` bytes.
    pub(crate) fn push_shared(&mut self, frame: &Bytes, max: usize) -> Result<(), Full> {
        if self.weight() + frame.len() + size_of::<Chunk>() > max {
            return Err(Full);
        }
        self.push_chunk(Chunk::Shared(frame.clone()));
        Ok(())
    }

    /// Adds a frame of this session alone, unless the outbox would then hold more than `max` bytes.
    pub(crate) fn push_own(&mut self, opcode: Opcode, payload: &[u8], max: usize) -> Result<(), Full> {
        if !self.has_room(payload.len(), max) {
            return Err(Full);
        }
        self.append(payload.len() + MAX_HEADER_BYTES, |out| frame::encode(opcode, payload, out));
        Ok(())
    }

    /// Whether a frame of a payload of so many bytes would leave the outbox with `max` bytes or fewer.
    pub(crate) fn has_room(&self, payload: usize, max: usize) -> bool {
        self.weight() + payload + MAX_HEADER_BYTES + size_of::<Chunk>() <= max
    }

    /// Adds the Close frame, whatever the outbox holds.
    pub(crate) fn push_close(&mut self, code: u16, reason: &str) {
        self.append(reason.len() + 2 + MAX_HEADER_BYTES, |out| frame::encode_close(code, reason, out));
    }

    /// Drops everything but the rest of a half-written frame, after which a Close frame can follow.
    pub(crate) fn cut(&mut self) {
        match &mut self.queue {
            Some(queue) if queue.written > 0 => {
                queue.rest = VecDeque::new();
                queue.bytes = queue.first.as_slice().len() - queue.written;
            }
            _ => self.queue = None,
        }
    }

    /// Drops everything.
    pub(crate) fn clear(&mut self) {
        self.queue = None;
    }

    /// What the bound is held against: the bytes that wait and the list that holds them, so that many tiny frames
    /// cannot hold a multiple of the bound.
    pub(crate) fn weight(&self) -> usize {
        self.queue.as_ref().map_or(0, |queue| queue.bytes + (queue.rest.len() + 1) * size_of::<Chunk>())
    }

    /// Writes a frame of about `size` bytes behind the last own ones, or into a chunk of its own.
    fn append(&mut self, size: usize, write: impl FnOnce(&mut Vec<u8>)) {
        if let Some(queue) = &mut self.queue
            && let Chunk::Own(last) = queue.last_mut()
            && last.len() + size <= TOGETHER_BYTES
        {
            let before = last.len();
            write(last);
            queue.bytes += last.len() - before;
            return;
        }
        let mut chunk = Vec::with_capacity(size);
        write(&mut chunk);
        self.push_chunk(Chunk::Own(chunk));
    }

    pub(crate) fn push_chunk(&mut self, chunk: Chunk) {
        let bytes = chunk.as_slice().len();
        match &mut self.queue {
            Some(queue) => {
                queue.rest.push_back(chunk);
                queue.bytes += bytes;
            }
            None => self.queue.insert(Box::new(Queue::new(chunk))).bytes = bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_BOUND: usize = usize::MAX / 2;

    fn content(outbox: &Outbox) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); 64];
        let filled = outbox.slices(&mut slices);
        slices[..filled].iter().flat_map(|slice| slice.to_vec()).collect()
    }

    fn shared(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    #[test]
    fn an_outbox_costs_a_pointer_while_it_is_empty() {
        assert_eq!(size_of::<Outbox>(), size_of::<usize>());
        let mut outbox = Outbox::default();
        assert_eq!(outbox.push_shared(&shared("frame"), NO_BOUND), Ok(()));
        outbox.advance(5);
        assert!(outbox.queue.is_none());
    }

    #[test]
    fn bytes_come_out_in_order_however_they_are_taken() {
        for step in 1..40 {
            let mut outbox = Outbox::default();
            let mut expected = Vec::new();
            for number in 0..10_u8 {
                let text = format!("frame {number} ");
                if number % 3 == 0 {
                    assert_eq!(outbox.push_shared(&shared(&text), NO_BOUND), Ok(()));
                    expected.extend_from_slice(text.as_bytes());
                } else {
                    assert_eq!(outbox.push_own(Opcode::Text, text.as_bytes(), NO_BOUND), Ok(()));
                    frame::encode(Opcode::Text, text.as_bytes(), &mut expected);
                }
            }
            assert_eq!(outbox.bytes(), expected.len());
            let mut taken = Vec::new();
            while !outbox.is_empty() {
                let bytes = content(&outbox);
                assert_eq!(bytes.len(), outbox.bytes());
                let step = step.min(bytes.len());
                taken.extend_from_slice(&bytes[..step]);
                outbox.advance(step);
            }
            assert_eq!(taken, expected);
        }
    }

    #[test]
    fn own_small_frames_share_a_slice() {
        let mut outbox = Outbox::default();
        for _ in 0..100 {
            assert_eq!(outbox.push_own(Opcode::Text, b"{}", NO_BOUND), Ok(()));
        }
        let mut slices = [IoSlice::new(&[]); 8];
        assert_eq!(outbox.slices(&mut slices), 1);
        assert_eq!(outbox.bytes(), 400);
    }

    #[test]
    fn no_more_slices_are_filled_than_asked_for() {
        let mut outbox = Outbox::default();
        for text in ["a", "b", "c"] {
            assert_eq!(outbox.push_shared(&shared(text), NO_BOUND), Ok(()));
        }
        let mut slices = [IoSlice::new(&[]); 2];
        assert_eq!(outbox.slices(&mut slices), 2);
        assert_eq!(&*slices[0], b"a");
        assert_eq!(&*slices[1], b"b");
    }

    #[test]
    fn a_frame_beyond_the_bound_is_not_taken() {
        let mut outbox = Outbox::default();
        let frame = shared(&"x".repeat(400));
        assert_eq!(outbox.push_shared(&frame, 1000), Ok(()));
        assert_eq!(outbox.push_shared(&frame, 1000), Ok(()));
        assert_eq!(outbox.push_shared(&frame, 1000), Err(Full));
        assert_eq!(outbox.push_own(Opcode::Text, &frame, 1000), Err(Full));
        assert_eq!(outbox.bytes(), 800);
    }

    #[test]
    fn tiny_frames_cannot_hold_a_multiple_of_the_bound() {
        let mut outbox = Outbox::default();
        let mut held = 0;
        while outbox.push_shared(&shared("ab"), 10_000).is_ok() {
            held += 2 + size_of::<Chunk>();
        }
        assert!(held <= 10_000, "{held}");
    }

    #[test]
    fn a_cut_keeps_the_rest_of_a_half_written_frame_and_nothing_else() {
        let mut outbox = Outbox::default();
        for text in ["first", "second", "third"] {
            assert_eq!(outbox.push_shared(&shared(text), NO_BOUND), Ok(()));
        }
        outbox.advance(7);
        outbox.cut();
        assert_eq!(content(&outbox), b"cond");
        assert_eq!(outbox.bytes(), 4);
    }

    #[test]
    fn a_cut_between_two_frames_keeps_nothing() {
        let mut outbox = Outbox::default();
        for text in ["first", "second"] {
            assert_eq!(outbox.push_shared(&shared(text), NO_BOUND), Ok(()));
        }
        outbox.advance(5);
        outbox.cut();
        assert!(outbox.is_empty());
    }

    #[test]
    fn taking_more_than_there_is_empties_it() {
        let mut outbox = Outbox::default();
        assert_eq!(outbox.push_shared(&shared("abc"), NO_BOUND), Ok(()));
        outbox.advance(10);
        assert!(outbox.is_empty());
        outbox.advance(1);
        assert_eq!(outbox.bytes(), 0);
    }
}
