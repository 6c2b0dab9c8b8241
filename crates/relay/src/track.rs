//! Where the node stands in a channel with history: how one stream without holes is made of what is heard live and what
//! is read from the channel's log.
//!
//! ```text
//!            confirmed             the log is read up to where it ends
//!   Away --------------> Behind ---------------------------------------> Level
//!     ^                    ^                                               |
//!     |                    +----- a hole, another epoch, an old offset ----+
//!     +---- interruption, from anywhere: the position stays
//! ```
//!
//! Only what follows the position is ever passed on. Whatever else is heard is held, and the log decides: it knows
//! whether something is missing, was heard already, or belongs to another life of the channel.
//!
//! Pure bookkeeping. Not here: reading (`redis::repair`), and who hears the channel (`interest`).

use std::collections::VecDeque;

use ahash::RandomState;
use bytes::Bytes;
use tidegate_protocol::{Position, Publication};

/// Of the publication that was passed on last, which a history that was wound back and written anew does not have.
const WITNESS: RandomState = RandomState::with_seeds(0x74_6964_6567, 0x6174_6520, 0x7769_746e, 0x6573_7300);

/// How many publications of a channel are held while its log is read. The oldest go first: they are in the log.
const HELD_ITEMS: usize = 1024;
/// How many bytes of them.
const HELD_BYTES: usize = 1024 * 1024;

/// One channel.
#[derive(Debug, Default)]
pub(crate) struct Track {
    /// The last that was passed on; `None` before the first look into Redis.
    position: Option<Position>,
    /// What was passed on at that position, by a hash of it; `None`: nothing, or nothing that the log can be held against.
    witness: Option<u64>,
    /// Whether Redis may be another one than the witness is of, or an older one of itself.
    suspect: bool,
    stage: Stage,
    /// The number of the question that is asked, or about to be; an answer to another one is an old one.
    asked: Option<u32>,
    /// The number of the question that was answered last.
    settled: Option<u32>,
    /// What was heard and is not passed on yet, each with the question that was asked already when it was heard.
    held: VecDeque<(Option<u32>, Live)>,
    held_bytes: usize,
    /// The question that was asked already when something could not be passed on: its answer does not settle that.
    doubted: Option<u32>,
    /// Whether what is passed on is also to be kept for recoveries.
    pub(crate) kept: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The subscription is not confirmed.
    #[default]
    Away,
    /// What is heard is held until the log is read.
    Behind,
    /// What is heard follows.
    Level,
}

/// A publication heard live.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) epoch: Bytes,
    pub(crate) publication: Publication,
}

/// What a look into Redis found.
#[derive(Debug)]
pub(crate) struct Page {
    /// Where the channel stood.
    pub(crate) position: Position,
    /// What is in the log behind the offset that was asked for, in order, perhaps not all of it.
    pub(crate) entries: Vec<Entry>,
}

/// An entry of a channel's log.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) offset: u64,
    /// Or why it is refused.
    pub(crate) publication: Result<Publication, &'static str>,
}

impl Track {
    pub(crate) const fn position(&self) -> Option<&Position> {
        self.position.as_ref()
    }

    pub(crate) const fn is_level(&self) -> bool {
        matches!(self.stage, Stage::Level)
    }

    /// Whether something is missing, or may be, and the log must be read.
    pub(crate) const fn is_behind(&self) -> bool {
        matches!(self.stage, Stage::Behind)
    }

    pub(crate) const fn is_asked(&self) -> bool {
        self.asked.is_some()
    }

    /// The number of the question under way: the answer to any other is old.
    pub(crate) fn expects(&self, number: u32) -> bool {
        self.asked == Some(number)
    }

    /// The log is to be read, by the question of this number.
    pub(crate) const fn ask(&mut self, number: u32) {
        self.asked = Some(number);
    }

    /// The question is answered, or will never be.
    pub(crate) const fn answered(&mut self) {
        self.settled = self.asked.take();
    }

    /// The subscription is confirmed.
    pub(crate) const fn confirmed(&mut self) {
        self.stage = Stage::Behind;
    }

    /// The connection is gone.
    pub(crate) fn interrupted(&mut self) {
        self.suspect = self.witness.is_some();
        self.stage = Stage::Away;
        self.asked = None;
        self.kept = false;
        self.drop_held();
    }

    /// Heard live. Gives back what is to be passed on; `None`: it is held, and the log must be read.
    pub(crate) fn hear(&mut self, live: Live) -> Option<Publication> {
        if self.stage == Stage::Level && self.follows(&live) {
            self.pass_on(&live.publication);
            return Some(live.publication);
        }
        if self.stage != Stage::Away {
            self.stage = Stage::Behind;
            self.hold(live);
        }
        None
    }

    /// Something may be missing.
    pub(crate) const fn doubt(&mut self) {
        self.doubted = self.asked;
        if self.is_level() {
            self.stage = Stage::Behind;
        }
    }

    fn follows(&self, live: &Live) -> bool {
        self.position.as_ref().is_some_and(|position| {
            live.publication.offset == position.offset + 1 && live.epoch == position.epoch.as_str()
        })
    }

    fn pass_on(&mut self, publication: &Publication) {
        self.advance(publication.offset);
        self.witness = Some(witness(publication));
    }

    fn advance(&mut self, offset: u64) {
        if let Some(position) = &mut self.position {
            position.offset = offset;
        }
    }

    /// Behind which offset the log must be read to see, by what was passed on last, whether this is still the history that
    /// is known: its own offset and epoch may be those of another, where writes were lost and as many made since.
    pub(crate) fn to_verify(&self) -> Option<Position> {
        let position = self.position.as_ref().filter(|position| self.suspect && position.offset > 0)?;
        Some(Position { offset: position.offset - 1, epoch: position.epoch.clone() })
    }

    /// Whether an entry of the log is another one than was passed on in its place.
    pub(crate) fn contradicts(&self, entry: &Entry) -> bool {
        let here = self.position.as_ref().is_some_and(|position| position.offset == entry.offset);
        here && self.suspect && self.witness != entry.publication.as_ref().ok().map(witness)
    }

    fn hold(&mut self, live: Live) {
        self.held_bytes += live.publication.data.len();
        self.held.push_back((self.asked, live));
        while self.held.len() > HELD_ITEMS || self.held_bytes > HELD_BYTES {
            let Some((_, oldest)) = self.held.pop_front() else { break };
            self.held_bytes -= oldest.publication.data.len();
        }
    }

    fn drop_held(&mut self) {
        self.held = VecDeque::new();
        self.held_bytes = 0;
    }

    /// Stands at the position from now on, whatever was before.
    pub(crate) fn place(&mut self, position: Position) {
        self.position = Some(position);
        self.witness = None;
        self.suspect = false;
    }

    /// An entry of the log. `true`: it follows and is passed on, or skipped where it is refused.
    pub(crate) fn take(&mut self, entry: &Entry) -> bool {
        let follows = self.position.as_ref().is_some_and(|position| entry.offset == position.offset + 1);
        if follows {
            self.advance(entry.offset);
            self.witness = entry.publication.as_ref().ok().map(witness);
        }
        follows
    }

    /// The log is read to its end. Gives back what was held and follows.
    ///
    /// What was held before the question was asked is settled by its answer: if it neither follows nor was passed on, it
    /// is no part of this history. What was heard after that may be ahead of the answer: then the channel is behind again,
    /// and the log must be read once more.
    pub(crate) fn caught_up(&mut self) -> Vec<Publication> {
        self.suspect = false;
        let mut passed_on = Vec::new();
        for (asked, live) in std::mem::take(&mut self.held) {
            if self.follows(&live) {
                self.pass_on(&live.publication);
                passed_on.push(live.publication);
            } else if !self.is_known(&live) && asked.is_some() && asked == self.settled {
                self.held.push_back((None, live));
            }
        }
        self.held_bytes = self.held.iter().map(|(_, live)| live.publication.data.len()).sum();
        let doubted = self.doubted.take().is_some_and(|asked| self.settled == Some(asked));
        self.stage = if self.held.is_empty() && !doubted { Stage::Level } else { Stage::Behind };
        passed_on
    }

    /// Whether it was passed on before. Only the log's word for the epoch makes that certain, so this is asked of what was
    /// held while the log was read and of nothing else.
    fn is_known(&self, live: &Live) -> bool {
        self.position.as_ref().is_some_and(|position| {
            live.publication.offset <= position.offset && live.epoch == position.epoch.as_str()
        })
    }
}

fn witness(publication: &Publication) -> u64 {
    WITNESS.hash_one(&publication.data[..])
}

#[cfg(test)]
mod tests;
