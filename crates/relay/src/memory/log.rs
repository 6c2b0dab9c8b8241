//! The history of one channel: its newest publications, and the position they lead up to.
//!
//! Not here: when it expires and how much all of them may take (`logs`).

use std::collections::VecDeque;
use std::sync::Arc;

use tidegate_protocol::{Epoch, Position, Publication};

use crate::relay::HistoryQuery;

/// What a publication takes besides its texts: the struct, its reference counts and its place in the log.
const ENTRY_BYTES: usize = 192;

/// A run of publications without a hole, up to `offset`.
#[derive(Debug)]
pub(super) struct Log {
    epoch: Epoch,
    /// The newest; 0 before the first.
    offset: u64,
    entries: VecDeque<Arc<Publication>>,
    /// What the entries take.
    bytes: usize,
    /// The last answer to a recovery and the offset it begins behind: who comes back together shares it.
    answer: Option<(u64, Arc<[Arc<Publication>]>)>,
}

impl Log {
    /// An empty log of an epoch that never was.
    pub(super) fn new() -> Self {
        let epoch = Epoch::new(&format!("{:016x}", fastrand::u64(..)));
        Self { epoch, offset: 0, entries: VecDeque::new(), bytes: 0, answer: None }
    }

    pub(super) fn position(&self) -> Position {
        Position { offset: self.offset, epoch: self.epoch.clone() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many bytes the publications take, about.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Gives the publication the next offset and keeps it, with the newest `size` in all.
    pub(super) fn append(&mut self, mut publication: Publication, size: u32) -> Publication {
        self.answer = None;
        self.offset += 1;
        publication.offset = self.offset;
        while self.entries.len() >= size as usize {
            self.drop_oldest();
        }
        self.bytes += weight(&publication);
        self.entries.push_back(Arc::new(publication.clone()));
        publication
    }

    /// Everything behind the position, where all of it is still there.
    pub(super) fn since(&mut self, since: &Position) -> Option<Arc<[Arc<Publication>]>> {
        if since.epoch != self.epoch || since.offset > self.offset || since.offset < self.floor() {
            return None;
        }
        if let Some((from, answer)) = &self.answer
            && *from == since.offset
        {
            return Some(Arc::clone(answer));
        }
        let missed = self.behind(since.offset);
        let answer: Arc<[_]> = self.entries.range(missed..).map(Arc::clone).collect();
        self.answer = Some((since.offset, Arc::clone(&answer)));
        Some(answer)
    }

    /// A part of the history; `None` where the query names another epoch.
    pub(super) fn read(&self, query: &HistoryQuery) -> Option<Vec<Publication>> {
        let since = query.since.as_ref();
        if since.and_then(|since| since.epoch.as_ref()).is_some_and(|epoch| *epoch != self.epoch) {
            return None;
        }
        let most = query.limit.unwrap_or(usize::MAX);
        let owned = |entry: &Arc<Publication>| Publication::clone(entry);
        Some(if query.reverse {
            let before =
                since.map_or(self.entries.len(), |since| self.behind(since.offset.saturating_sub(1)));
            self.entries.range(..before).rev().take(most).map(owned).collect()
        } else {
            let behind = since.map_or(0, |since| self.behind(since.offset));
            self.entries.range(behind..).take(most).map(owned).collect()
        })
    }

    /// Forgets the publications. Offsets go on.
    pub(super) fn clear(&mut self) {
        self.entries = VecDeque::new();
        self.answer = None;
        self.bytes = 0;
    }

    /// Forgets the oldest publication.
    pub(super) fn drop_oldest(&mut self) {
        if let Some(oldest) = self.entries.pop_front() {
            self.answer = None;
            self.bytes -= weight(&oldest);
        }
    }

    /// The offset behind which everything is there.
    fn floor(&self) -> u64 {
        self.offset - self.entries.len() as u64
    }

    /// The index of the first entry behind the offset.
    fn behind(&self, offset: u64) -> usize {
        let index = offset.saturating_sub(self.floor());
        usize::try_from(index).map_or(self.entries.len(), |index| index.min(self.entries.len()))
    }
}

/// How many bytes a publication takes in the log, about.
fn weight(publication: &Publication) -> usize {
    let info = publication
        .info
        .as_ref()
        .map_or(0, |info| info.user.len() + info.client.len() + info.conn_info.len() + info.chan_info.len());
    let tags: usize = publication.tags.iter().map(|(name, value)| name.len() + value.len() + 48).sum();
    ENTRY_BYTES + publication.data.len() + info + tags
}
