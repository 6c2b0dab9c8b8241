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
use tidegate_protocol::{Codec, frame};

use crate::broadcast::Run;
use crate::outbox::{Chunk, Full, Outbox, Queue};

/// A chunk with publications of a channel of newest values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    /// The channel's slot.
    channel: u32,
    /// The chunk's number.
    number: u32,
}

/// What an outbox knows of newest values. Chunks are numbered in their order.
#[derive(Debug, Default)]
pub(crate) struct Newest {
    /// In the order of their numbers. Some may be written already: they are told by their numbers.
    marks: SmallVec<[Mark; 2]>,
    /// The number of the queue's first chunk.
    number: u32,
    /// Whether a write has left something here.
    behind: bool,
}

impl Newest {
    /// The queue's first chunk is written.
    pub(crate) const fn first_went(&mut self) {
        self.number = self.number.wrapping_add(1);
    }

    /// The place of a chunk behind the first one. Beyond the queue's end for one that is written.
    const fn place(&self, number: u32) -> usize {
        number.wrapping_sub(self.number) as usize
    }

    fn mark(&mut self, channel: u32, place: usize) {
        let number = self.number.wrapping_add(index(place));
        self.marks.push(Mark { channel, number });
    }
}

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
        let mut behind = self.queue.as_deref().is_some_and(Queue::is_behind);
        if !behind {
            if self.push_shared(run.frames(codec), max).is_ok() {
                self.mark_last(channel);
                return Ok(0);
            }
            skipped += self.fall_behind();
            behind = self.queue.is_some();
        }
        skipped += run.len() as u64 - 1;
        let newest = run.newest(codec);
        if self.queue.as_mut().is_some_and(|queue| queue.replace(channel, newest)) {
            skipped += 1;
        } else {
            self.push_chunk(Chunk::Shared(newest.clone()));
            self.mark_last(channel);
        }
        // Dropping the oldest leaves the one that was just added.
        while behind && self.weight() > max / 2 {
            let fits = self.weight() <= max;
            let Some(queue) = &mut self.queue else { break };
            if fits && queue.newest_weight() <= max / 2 || !queue.drop_oldest(channel) {
                break;
            }
            skipped += 1;
        }
        if self.weight() > max { Err(Full) } else { Ok(skipped) }
    }

    /// A write has left bytes behind: of each channel of newest values only the newest publication stays. Says how many
    /// went.
    pub(crate) fn fall_behind(&mut self) -> u64 {
        let Some(queue) = &mut self.queue else { return 0 };
        let newest = queue.newest.get_or_insert_default();
        if std::mem::replace(&mut newest.behind, true) || newest.marks.is_empty() {
            return 0;
        }
        queue.keep_newest()
    }

    /// The session left the channel: what waits of it is as any other frame, and what comes later is not the same.
    pub(crate) fn forget(&mut self, channel: u32) {
        if let Some(queue) = &mut self.queue
            && let Some(newest) = &mut queue.newest
        {
            newest.marks.retain(|mark| mark.channel != channel);
        }
    }

    /// The last chunk is one of this channel.
    fn mark_last(&mut self, channel: u32) {
        if let Some(queue) = &mut self.queue {
            let place = queue.rest.len();
            queue.newest.get_or_insert_default().mark(channel, place);
        }
    }
}

impl Queue {
    fn is_behind(&self) -> bool {
        self.newest.as_ref().is_some_and(|newest| newest.behind)
    }

    /// A chunk by its place.
    fn chunk_mut(&mut self, place: usize) -> Option<&mut Chunk> {
        if place == 0 { Some(&mut self.first) } else { self.rest.get_mut(place - 1) }
    }

    /// Puts a frame in the place of the one that waits of its channel, if one does of which nothing is written.
    fn replace(&mut self, channel: u32, frame: &Bytes) -> bool {
        let (begun, chunks) = (usize::from(self.written > 0), self.rest.len() + 1);
        let Some(newest) = &mut self.newest else { return false };
        let number = newest.number;
        newest.marks.retain(|mark| {
            let place = mark.number.wrapping_sub(number) as usize;
            place >= begun && place < chunks
        });
        let Some(mark) = newest.marks.iter().find(|mark| mark.channel == channel) else { return false };
        let place = newest.place(mark.number);
        let Some(chunk) = self.chunk_mut(place) else { return false };
        let before = std::mem::replace(chunk, Chunk::Shared(frame.clone()));
        self.bytes = self.bytes - before.as_slice().len() + frame.len();
        true
    }

    /// What the marked chunks weigh in the outbox's bound.
    fn newest_weight(&self) -> usize {
        let Some(newest) = &self.newest else { return 0 };
        let chunk = |mark: &Mark| match newest.place(mark.number) {
            0 => Some(&self.first),
            place => self.rest.get(place - 1),
        };
        let weight = |chunk: &Chunk| chunk.as_slice().len() + size_of::<Chunk>();
        newest.marks.iter().filter_map(chunk).map(weight).sum()
    }

    /// Drops the oldest marked chunk that is not of this channel. There is another chunk beside it.
    fn drop_oldest(&mut self, channel: u32) -> bool {
        let Some(newest) = &mut self.newest else { return false };
        let Some(at) = newest.marks.iter().position(|mark| mark.channel != channel) else { return false };
        let mark = newest.marks.remove(at);
        let gone = match newest.place(mark.number) {
            0 => self.rest.pop_front().map(|next| {
                newest.first_went();
                std::mem::replace(&mut self.first, next)
            }),
            place => {
                // Those behind it move up.
                for later in newest.marks.iter_mut().skip(at) {
                    later.number = later.number.wrapping_sub(1);
                }
                self.rest.remove(place - 1)
            }
        };
        self.bytes -= gone.map_or(0, |chunk| chunk.as_slice().len());
        true
    }

    /// Keeps of each marked channel the newest frame, and what the socket has begun to take. Says how many frames went.
    fn keep_newest(&mut self) -> u64 {
        let Some(mut known) = self.newest.take() else { return 0 };
        let marks = std::mem::take(&mut known.marks);
        let mut newest = SmallVec::<[Mark; 2]>::new();
        for mark in marks.iter().rev() {
            if !newest.iter().any(|later| later.channel == mark.channel) {
                newest.push(*mark);
            }
        }
        let first = std::mem::replace(&mut self.first, Chunk::Own(Vec::new()));
        let chunks = std::iter::once(first).chain(std::mem::take(&mut self.rest));
        let mut written = std::mem::take(&mut self.written);
        let base = known.number;
        // Those of chunks that are written have numbers before the first one's.
        let mut marks = marks.iter().filter(|mark| mark.number.wrapping_sub(base) < u32::MAX / 2).peekable();
        let mut skipped = 0;
        known.number = 0;
        for (place, chunk) in chunks.enumerate() {
            let begun = std::mem::take(&mut written);
            let number = base.wrapping_add(index(place));
            let Some(mark) = marks.next_if(|mark| mark.number == number) else {
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
                known.mark(mark.channel, self.rest.len());
                self.rest.push_back(Chunk::Shared(part(&bytes, frames.last)));
            }
        }
        self.newest = Some(known);
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
            let end = bytes.len().min(at + frame::encoded_len(&bytes[at..]));
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

/// A part of a run, without holding on to the rest of it.
fn part(bytes: &Bytes, range: std::ops::Range<usize>) -> Bytes {
    if range.len() == bytes.len() { bytes.clone() } else { Bytes::copy_from_slice(&bytes[range]) }
}

/// A place as a number. A queue is bounded in bytes far below 2^32 chunks.
fn index(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}
