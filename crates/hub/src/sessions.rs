//! A shard's sessions: indexes that are used again, generations that tell their users apart, due ticks
//! and the list of sessions with something new to write.

use bytes::Bytes;
use tidegate_protocol::Codec;
use tidegate_protocol::frame::Opcode;

use crate::broadcast::Run;
use crate::outbox::{Full, Outbox};
use crate::session::{Connected, Session};
use crate::shard::SessionKey;
use crate::table::Table;
use crate::tick::Tick;

/// The due tick of what is never due.
const NEVER: u32 = u32::MAX;

/// All sessions of a shard.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    table: Table<Session>,
    /// Indexes that are used again, the latest first.
    free: Vec<u32>,
    /// By index: how often it was used before.
    generations: Vec<u32>,
    /// By index: when the sweep must look at the session. Dense, so that a sweep over ten thousand sessions reads 40 KB
    /// and touches only sessions with something to do.
    due: Vec<u32>,
    /// Sessions with something new to write, each once for as long as the session's mark says so.
    dirty: Vec<u32>,
    /// Publications that were skipped since somebody asked.
    conflated: u64,
}

impl Sessions {
    pub(crate) fn insert(&mut self, session: Session, due: Tick) -> SessionKey {
        let index = self.free.pop().unwrap_or_else(|| {
            self.generations.push(0);
            self.due.push(NEVER);
            // A worker has file descriptors for far fewer than 2^32 sessions.
            u32::try_from(self.generations.len() - 1).unwrap_or(u32::MAX)
        });
        self.table.put(index, session);
        self.set_due(index, due);
        self.key(index)
    }

    /// Frees the index for a later session.
    pub(crate) fn remove(&mut self, key: SessionKey) -> Option<Session> {
        self.get(key)?;
        let at = key.index as usize;
        self.generations[at] = self.generations[at].wrapping_add(1);
        self.due[at] = NEVER;
        self.free.push(key.index);
        self.table.remove(key.index)
    }

    pub(crate) fn get(&self, key: SessionKey) -> Option<&Session> {
        self.is_current(key).then(|| self.table.get(key.index)).flatten()
    }

    pub(crate) fn get_mut(&mut self, key: SessionKey) -> Option<&mut Session> {
        self.is_current(key).then(|| self.table.get_mut(key.index)).flatten()
    }

    fn is_current(&self, key: SessionKey) -> bool {
        self.generations.get(key.index as usize) == Some(&key.generation)
    }

    /// A session by its index alone, as [`Sessions::at_mut`].
    pub(crate) fn at(&self, index: u32) -> Option<&Session> {
        self.table.get(index)
    }

    /// A session by its index alone, for those who hold indexes of living sessions only: channels and the sweep.
    pub(crate) fn at_mut(&mut self, index: u32) -> Option<&mut Session> {
        self.table.get_mut(index)
    }

    /// A connected session by its place alone.
    pub(crate) fn connected_at(&self, index: u32) -> Option<&Connected> {
        self.table.get(index)?.connected()
    }

    /// The same, to change it.
    pub(crate) fn connected_at_mut(&mut self, index: u32) -> Option<&mut Connected> {
        self.at_mut(index)?.connected_mut()
    }

    /// The key of the session in a place.
    pub(crate) fn key(&self, index: u32) -> SessionKey {
        let generation = self.generations.get(index as usize).copied().unwrap_or_default();
        SessionKey { index, generation }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (SessionKey, &Session)> {
        self.table.iter().map(|(index, session)| (self.key(index), session))
    }

    pub(crate) fn set_due(&mut self, index: u32, tick: Tick) {
        if let Some(due) = self.due.get_mut(index as usize) {
            *due = tick.0;
        }
    }

    pub(crate) fn due(&self, index: u32) -> Tick {
        Tick(self.due.get(index as usize).copied().unwrap_or(NEVER))
    }

    pub(crate) fn never_due(&mut self, index: u32) {
        self.set_due(index, Tick(NEVER));
    }

    /// The first place from `from` on whose session is due.
    pub(crate) fn next_due(&self, from: u32, now: Tick) -> Option<u32> {
        let from = from as usize;
        // What is never due must not become due when ticks saturate.
        let now = now.0.min(NEVER - 1);
        let found = self.due.get(from..)?.iter().position(|due| *due <= now)?;
        u32::try_from(from + found).ok()
    }

    /// Puts what is shared with others into an outbox: `frames` says what, for the session's codec.
    pub(crate) fn push_shared<'a>(
        &mut self,
        index: u32,
        max: usize,
        frames: impl FnOnce(Codec) -> &'a Bytes,
    ) -> Result<(), Full> {
        self.push(index, |codec, outbox| outbox.push_shared(frames(codec), max))
    }

    /// Puts publications of a channel of newest values into an outbox.
    pub(crate) fn push_latest(
        &mut self,
        index: u32,
        channel: u32,
        run: &Run<'_>,
        max: usize,
    ) -> Result<(), Full> {
        let mut skipped = 0;
        self.push(index, |codec, outbox| {
            skipped = outbox.push_latest(channel, run, codec, max)?;
            Ok(())
        })?;
        self.conflated += skipped;
        Ok(())
    }

    /// A write has left something in a session's outbox.
    pub(crate) fn fall_behind(&mut self, key: SessionKey) {
        self.conflated += self.get_mut(key).map_or(0, |session| session.outbox.fall_behind());
    }

    /// A session has left a channel.
    pub(crate) fn forget_latest(&mut self, index: u32, channel: u32) {
        if let Some(session) = self.at_mut(index) {
            session.outbox.forget(channel);
        }
    }

    /// How many publications were skipped since the last call.
    pub(crate) fn take_conflated(&mut self) -> u64 {
        std::mem::take(&mut self.conflated)
    }

    /// Puts a frame of `payload` into an outbox.
    pub(crate) fn push_own(
        &mut self,
        index: u32,
        opcode: Opcode,
        payload: &[u8],
        max: usize,
    ) -> Result<(), Full> {
        self.push(index, |_, outbox| outbox.push_own(opcode, payload, max))
    }

    /// Puts the Close frame into an outbox.
    pub(crate) fn push_close(&mut self, index: u32, code: u16, reason: &str) {
        // Never full: the Close frame has no bound.
        let _ = self.push(index, |_, outbox| {
            outbox.push_close(code, reason);
            Ok(())
        });
    }

    fn push(
        &mut self,
        index: u32,
        write: impl FnOnce(Codec, &mut Outbox) -> Result<(), Full>,
    ) -> Result<(), Full> {
        let Some(session) = self.table.get_mut(index) else { return Ok(()) };
        let was_empty = session.outbox.is_empty();
        write(session.codec, &mut session.outbox)?;
        if was_empty && !session.dirty {
            session.dirty = true;
            self.dirty.push(index);
        }
        Ok(())
    }

    /// Gives back what the list of those with something to write took in a burst, but for the room of `kept`.
    pub(crate) fn shrink(&mut self, kept: usize) {
        self.dirty.shrink_to(kept);
    }

    pub(crate) fn take_dirty(&mut self, into: &mut Vec<SessionKey>) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for index in dirty.drain(..) {
            // The place may be free by now, or have a later session, which has a mark of its own.
            if let Some(session) = self.at_mut(index)
                && std::mem::take(&mut session.dirty)
                && !session.outbox.is_empty()
            {
                into.push(self.key(index));
            }
        }
        self.dirty = dirty;
    }
}
