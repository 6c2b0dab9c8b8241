//! Newest values only: what an outbox does with publications of channels that say `delivery: latest` while its socket
//! cannot take everything.
//!
//! A session keeps up while every write empties its outbox: it gets each publication, like any other. When a write
//! leaves bytes behind, of each such channel only the newest publication stays, and each later one takes the place of
//! the one that waits. So a slow reader is told what is, not what was; a channel keeps its turn, and never runs
//! backwards. A frame that the socket has begun to take is finished.
//!
//! An outbox in that state holds one frame a channel, and the sum of them is bounded too: by half of its bound, so that
//! replies, pings and publications of other channels have the other half. Beyond it the oldest goes.
//!
//! Not here: which channels these are (`channels`), and who says that a write left something (the gateway).

use bytes::Bytes;
use smallvec::SmallVec;
use tidegate_protocol::Codec;

use crate::broadcast::Run;
use crate::outbox::{Chunk, Full, Outbox, Queue};

/// A chunk with publications of a channel of newest values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// The channel's slot.
    channel: u32,
    /// The chunk's number: that of the queue's first one plus its place behind it.
    number: u32,
}

/// The list of them, in the order of their numbers. Some may be written already: they are told by their numbers.
pub(crate) type Newest = SmallVec<[Waiting; 2]>;

impl Outbox {
    /// Adds publications of a channel of newest values: all of them, or the last alone if the socket is behind or the
    /// outbox has no room for all. Says how many publications will not be written because of it, these or others.
    ///
    /// It is full only if what fills it are frames that may not be skipped.
    pub(crate) fn push_latest(
        &mut self,
        channel: u32,
        run: &Run<'_>,
        codec: Codec,
        max: usize,
    ) -> Result<u64, Full> {
        let mut skipped = 0;
        if !self.queue.as_ref().is_some_and(|queue| queue.behind) {
            if self.push_shared(run.frames(codec), max).is_ok() {
                self.mark_last(channel);
                return Ok(0);
            }
            skipped += self.fall_behind();
        }
        skipped += run.len() as u64 - 1;
        let newest = run.newest(codec);
        let waiting = self.queue.as_mut().and_then(|queue| {
            queue.forget_written();
            let waiting = queue.latest.iter().find(|waiting| waiting.channel == channel)?;
            let chunk = queue.chunk_mut(waiting.number)?;
            let before = chunk.as_slice().len();
            *chunk = Chunk::Shared(newest.clone());
            queue.bytes = queue.bytes - before + newest.len();
            Some(())
        });
        if waiting.is_some() {
            skipped += 1;
        } else {
            let behind = self.queue.is_some();
            self.push_chunk(Chunk::Shared(newest.clone()));
            self.mark_last(channel);
            if let Some(queue) = &mut self.queue {
                queue.behind = behind;
            }
        }
        while self.weight() > max / 2 {
            let Some(queue) = &mut self.queue else { break };
            let held: usize = queue.latest.iter().map(|waiting| queue.weight_of(waiting.number)).sum();
            if held <= max / 2 && self.weight() <= max {
                break;
            }
            let Some(queue) = &mut self.queue else { break };
            let Some(oldest) = queue.latest.iter().position(|waiting| waiting.channel != channel) else {
                return if self.weight() <= max { Ok(skipped) } else { Err(Full) };
            };
            queue.drop_waiting(oldest);
            skipped += 1;
        }
        Ok(skipped)
    }

    /// A write has left bytes behind: of each channel of newest values only the newest publication stays. Says how many
    /// went.
    pub(crate) fn fall_behind(&mut self) -> u64 {
        let Some(queue) = &mut self.queue else { return 0 };
        if std::mem::replace(&mut queue.behind, true) || queue.latest.is_empty() {
            return 0;
        }
        queue.keep_newest()
    }

    /// The session left the channel: what waits of it is as any other frame, and what comes later is not the same.
    pub(crate) fn forget(&mut self, channel: u32) {
        if let Some(queue) = &mut self.queue {
            queue.latest.retain(|waiting| waiting.channel != channel);
        }
    }

    /// The last chunk is one of this channel.
    fn mark_last(&mut self, channel: u32) {
        if let Some(queue) = &mut self.queue {
            let number = queue.number.wrapping_add(index(queue.rest.len()));
            queue.latest.push(Waiting { channel, number });
        }
    }
}

impl Queue {
    /// A chunk's place, if it is not written yet.
    fn place(&self, number: u32) -> Option<usize> {
        let place = number.wrapping_sub(self.number) as usize;
        (place <= self.rest.len()).then_some(place)
    }

    /// A chunk that nothing of is written.
    fn chunk_mut(&mut self, number: u32) -> Option<&mut Chunk> {
        match self.place(number)? {
            0 if self.written > 0 => None,
            0 => Some(&mut self.first),
            place => self.rest.get_mut(place - 1),
        }
    }

    /// What a chunk weighs in the outbox's bound.
    fn weight_of(&self, number: u32) -> usize {
        let chunk = match self.place(number) {
            Some(0) => Some(&self.first),
            Some(place) => self.rest.get(place - 1),
            None => None,
        };
        chunk.map_or(0, |chunk| chunk.as_slice().len() + size_of::<Chunk>())
    }

    /// Forgets the marks of chunks that are written, or begun.
    fn forget_written(&mut self) {
        let begun = usize::from(self.written > 0);
        let (number, chunks) = (self.number, self.rest.len() + 1);
        self.latest.retain(|waiting| {
            let place = waiting.number.wrapping_sub(number) as usize;
            place >= begun && place < chunks
        });
    }

    /// Takes a waiting chunk out. There is another one beside it.
    fn drop_waiting(&mut self, at: usize) {
        let waiting = self.latest.remove(at);
        let gone = match self.place(waiting.number) {
            Some(0) => {
                let Some(next) = self.rest.pop_front() else { return };
                self.number = self.number.wrapping_add(1);
                Some(std::mem::replace(&mut self.first, next))
            }
            Some(place) => {
                // Those behind it move up.
                for later in self.latest.iter_mut().skip(at) {
                    later.number = later.number.wrapping_sub(1);
                }
                self.rest.remove(place - 1)
            }
            None => None,
        };
        self.bytes -= gone.map_or(0, |chunk| chunk.as_slice().len());
    }

    /// Keeps of each marked channel the newest frame, and what the socket has begun to take. Says how many frames went.
    fn keep_newest(&mut self) -> u64 {
        let marks = std::mem::take(&mut self.latest);
        let mut newest = Newest::new();
        for waiting in marks.iter().rev() {
            if !newest.iter().any(|later| later.channel == waiting.channel) {
                newest.push(*waiting);
            }
        }
        let base = self.number;
        let first = std::mem::replace(&mut self.first, Chunk::Own(Vec::new()));
        let chunks = std::iter::once(first).chain(std::mem::take(&mut self.rest));
        let mut written = std::mem::take(&mut self.written);
        let mut marks =
            marks.iter().filter(|waiting| waiting.number.wrapping_sub(base) < u32::MAX / 2).peekable();
        let mut skipped = 0;
        self.number = 0;
        for (place, chunk) in chunks.enumerate() {
            let begun = std::mem::take(&mut written);
            let number = base.wrapping_add(index(place));
            let Some(mark) = marks.next_if(|waiting| waiting.number == number) else {
                self.written = self.written.max(begun);
                self.rest.push_back(chunk);
                continue;
            };
            let frames = Frames::of(chunk.as_slice(), begun);
            let Chunk::Shared(bytes) = chunk else { continue };
            if frames.begun.end > 0 {
                self.written = begun - frames.begun.start;
                self.rest.push_back(Chunk::Shared(part(&bytes, frames.begun)));
            }
            skipped += frames.whole;
            if newest.contains(mark) && frames.whole > 0 {
                skipped -= 1;
                self.latest.push(Waiting { channel: mark.channel, number: index(self.rest.len()) });
                self.rest.push_back(Chunk::Shared(part(&bytes, frames.last)));
            }
        }
        // There is one: of what was marked, too, the newest stayed or what was begun.
        if let Some(first) = self.rest.pop_front() {
            self.first = first;
        }
        let rest: usize = self.rest.iter().map(|chunk| chunk.as_slice().len()).sum();
        self.bytes = self.first.as_slice().len() - self.written + rest;
        skipped
    }
}

/// What the frames in a chunk are, seen from how much of it is written.
struct Frames {
    /// The one that is begun; empty if none is.
    begun: std::ops::Range<usize>,
    /// How many whole ones follow.
    whole: u64,
    /// The last of those.
    last: std::ops::Range<usize>,
}

impl Frames {
    fn of(bytes: &[u8], written: usize) -> Self {
        let mut frames = Self { begun: 0..0, whole: 0, last: 0..0 };
        let mut at = 0;
        while at < bytes.len() {
            let end = bytes.len().min(at + length(&bytes[at..]));
            if at >= written {
                frames.whole += 1;
                frames.last = at..end;
            } else if end > written {
                frames.begun = at..end;
            }
            at = end;
        }
        frames
    }
}

/// How long the frame is that bytes of ours begin with: an unmasked one (RFC 6455, 5.2).
fn length(bytes: &[u8]) -> usize {
    match bytes {
        [_, 127, a, b, c, d, e, f, g, h, ..] => {
            let payload = u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]);
            usize::try_from(payload).unwrap_or(usize::MAX).saturating_add(10)
        }
        [_, 126, a, b, ..] => usize::from(u16::from_be_bytes([*a, *b])) + 4,
        [_, payload, ..] => usize::from(*payload) + 2,
        _ => bytes.len(),
    }
}

/// A part of a run, without holding on to the rest of it.
fn part(bytes: &Bytes, range: std::ops::Range<usize>) -> Bytes {
    if range.len() == bytes.len() { bytes.clone() } else { Bytes::copy_from_slice(&bytes[range]) }
}

/// A place as a number. A queue is bounded in bytes far below 2^32 chunks.
fn index(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}
