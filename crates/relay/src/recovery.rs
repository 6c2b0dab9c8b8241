//! Recoveries: who waits for what was missed of a channel, and the tail of its log that answers them.
//!
//! A tail is everything behind one offset up to where the node stands. It is made by one reading of the log, grows with
//! what is heard live meanwhile, and is kept for [`KEEP`] after, so that a thousand clients that come back together are
//! answered by one reading. Everything is bounded: who waits, and what all tails hold.
//!
//! Pure bookkeeping. Not here: reading (`redis::repair`), and where the node stands (`track`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use ahash::AHashMap;
use tidegate_protocol::{ChannelName, Position, Publication};

use crate::relay::Recover;
use crate::sink::{Recovered, Ticket, WorkerSet};

/// For how long a tail serves after it was read.
pub(crate) const KEEP: Duration = Duration::from_millis(500);
/// How many recoveries may wait, of all channels.
const MOST_WAITING: usize = 64 * 1024;
/// How many bytes one tail may hold: more could not be sent to a client either.
const TAIL_BYTES: usize = 8 * 1024 * 1024;
/// How many bytes all tails may hold; beyond it none is kept for later.
const ALL_BYTES: usize = 64 * 1024 * 1024;
/// What a publication takes beside its data, about.
const OVERHEAD: usize = 128;

type Publications = Arc<[Arc<Publication>]>;

/// The recoveries of a node.
#[derive(Debug, Default)]
pub(crate) struct Recoveries {
    waiting: AHashMap<ChannelName, Vec<Waiting>>,
    count: usize,
    tails: AHashMap<ChannelName, Tail>,
    bytes: usize,
}

#[derive(Debug)]
struct Waiting {
    ticket: Ticket,
    since: Position,
    /// Whether Redis was asked since it waits: only then is it certain that its position is not of this history. It may
    /// have been seen on a node that heard more than this one.
    checked: bool,
}

#[derive(Debug)]
struct Tail {
    /// The offset that it begins behind.
    from: u64,
    /// Everything behind `from`, in order; refused ones are not among them.
    publications: Vec<Arc<Publication>>,
    /// Heard live while the log is read.
    meanwhile: Vec<Arc<Publication>>,
    bytes: usize,
    /// Until when it is kept; `None` while it is being read.
    until: Option<Instant>,
    /// Whether nothing before `from` is in the log.
    trimmed: bool,
    /// Whether it grew beyond what may be kept.
    overflown: bool,
    /// What was given out last, behind which offset.
    given: Option<(u64, Publications)>,
}

impl Recoveries {
    /// Lets a recovery wait; `false`: too many do.
    pub(crate) fn wait(&mut self, recover: Recover) -> bool {
        if self.count >= MOST_WAITING {
            return false;
        }
        self.count += 1;
        let Recover { channel, since, ticket } = recover;
        self.waiting.entry(channel).or_default().push(Waiting { ticket, since, checked: false });
        true
    }

    /// A question about the channel is on its way to Redis.
    pub(crate) fn asked(&mut self, channel: &str) {
        let waiting = self.waiting.get_mut(channel).into_iter().flatten();
        waiting.for_each(|one| one.checked = true);
    }

    /// Whoever waits for the channel waits no more.
    pub(crate) fn give_up(&mut self, channel: &ChannelName) -> Vec<Ticket> {
        let waiting = self.waiting.remove(channel).unwrap_or_default();
        self.count -= waiting.len();
        waiting.into_iter().map(|waiting| waiting.ticket).collect()
    }

    /// The same for sessions of some workers.
    pub(crate) fn give_up_of(&mut self, channel: &ChannelName, workers: WorkerSet) -> Vec<Ticket> {
        let Some(waiting) = self.waiting.get_mut(channel) else { return Vec::new() };
        let gone = waiting.extract_if(.., |one| workers.contains(one.ticket.worker));
        let gone: Vec<_> = gone.map(|one| one.ticket).collect();
        self.count -= gone.len();
        gone
    }

    /// Everyone's recovery fails: the connection is gone. Nothing is kept either.
    pub(crate) fn interrupted(&mut self) -> Vec<(ChannelName, Ticket)> {
        self.tails.clear();
        (self.bytes, self.count) = (0, 0);
        let waiting = std::mem::take(&mut self.waiting);
        waiting
            .into_iter()
            .flat_map(|(channel, all)| all.into_iter().map(move |one| (channel.clone(), one.ticket)))
            .collect()
    }

    /// Answers whom it can, given where the node stands in the channel.
    pub(crate) fn answer(&mut self, channel: &ChannelName, position: &Position) -> Vec<(Ticket, Recovered)> {
        let Some(waiting) = self.waiting.get_mut(channel) else { return Vec::new() };
        let mut tail = self.tails.get_mut(channel).filter(|tail| tail.until.is_some());
        let mut answers = Vec::new();
        waiting.retain(|Waiting { ticket, since, checked }| {
            let publications = if since.epoch != position.epoch || since.offset > position.offset {
                if !checked {
                    return true;
                }
                None
            } else if since.offset == position.offset {
                Some(Arc::default())
            } else {
                match tail.as_mut() {
                    Some(tail) if tail.overflown => None,
                    Some(tail) if since.offset >= tail.from => Some(tail.behind(since.offset)),
                    Some(tail) if tail.trimmed => None,
                    _ => return true,
                }
            };
            answers.push((*ticket, Recovered { position: position.clone(), publications }));
            false
        });
        if waiting.is_empty() {
            self.waiting.remove(channel);
        }
        self.count -= answers.len();
        answers
    }

    /// Behind which offset the log must be read for whoever waits, and can be helped by it; the position's own where a look
    /// is enough.
    pub(crate) fn wanted(&self, channel: &ChannelName, position: &Position) -> Option<u64> {
        let wanted = |one: &Waiting| {
            let ours = one.since.epoch == position.epoch;
            if ours { one.since.offset.min(position.offset) } else { position.offset }
        };
        self.waiting.get(channel)?.iter().map(wanted).min()
    }

    /// A tail is read from here on.
    pub(crate) fn begin(&mut self, channel: &ChannelName, from: u64) {
        self.forget(channel);
        let tail = Tail {
            from,
            publications: Vec::new(),
            meanwhile: Vec::new(),
            bytes: 0,
            until: None,
            trimmed: false,
            overflown: false,
            given: None,
        };
        self.tails.insert(channel.clone(), tail);
    }

    /// The log has nothing between where the tail begins and this offset.
    pub(crate) fn trimmed(&mut self, channel: &ChannelName, from: u64) {
        let Some(tail) = self.tails.get_mut(channel).filter(|tail| tail.until.is_none()) else { return };
        self.bytes -= std::mem::take(&mut tail.bytes);
        tail.publications.clear();
        tail.from = from;
        tail.trimmed = true;
    }

    /// An entry of the log; `missed`: it is passed on to workers only now.
    pub(crate) fn read(&mut self, channel: &ChannelName, publication: Arc<Publication>, missed: bool) {
        let Some(tail) = self.tails.get_mut(channel).filter(|tail| missed || tail.until.is_none()) else {
            return;
        };
        self.bytes += tail.account(&publication);
        if !tail.overflown {
            tail.publications.push(publication);
        }
    }

    /// Passed on to workers. `false`: there is no tail to keep it in.
    pub(crate) fn heard(&mut self, channel: &ChannelName, publication: &Publication) -> bool {
        let Some(tail) = self.tails.get_mut(channel) else { return false };
        self.bytes += tail.account(publication);
        if !tail.overflown {
            let list = if tail.until.is_some() { &mut tail.publications } else { &mut tail.meanwhile };
            list.push(Arc::new(publication.clone()));
        }
        if tail.overflown || self.bytes > ALL_BYTES {
            // One that is being read is wanted; it is bounded by itself.
            if tail.until.is_some() {
                self.forget(channel);
                return false;
            }
        }
        true
    }

    /// The log is read up to where the node stands.
    pub(crate) fn complete(&mut self, channel: &ChannelName, now: Instant) {
        let Some(tail) = self.tails.get_mut(channel).filter(|tail| tail.until.is_none()) else { return };
        let last = tail.publications.last().map_or(tail.from, |last| last.offset);
        let meanwhile = std::mem::take(&mut tail.meanwhile);
        tail.publications.extend(meanwhile.into_iter().filter(|publication| publication.offset > last));
        tail.until = Some(now + KEEP);
    }

    /// Nothing is kept of the channel any more.
    pub(crate) fn forget(&mut self, channel: &ChannelName) {
        if let Some(tail) = self.tails.remove(channel) {
            self.bytes -= tail.bytes;
        }
    }

    /// Forgets what has been kept long enough; at once, where too much is kept.
    pub(crate) fn sweep(&mut self, now: Instant) {
        let crowded = self.bytes > ALL_BYTES;
        let bytes = &mut self.bytes;
        self.tails.retain(|_, tail| {
            let kept = tail.until.is_none_or(|until| until > now && !crowded && !tail.overflown);
            if !kept {
                *bytes -= tail.bytes;
            }
            kept
        });
    }
}

impl Tail {
    /// Counts a publication; what it takes. Beyond the bound the tail is of no use and holds nothing.
    fn account(&mut self, publication: &Publication) -> usize {
        let size = publication.data.len() + OVERHEAD;
        self.bytes += size;
        if self.bytes > TAIL_BYTES && !self.overflown {
            self.overflown = true;
            (self.publications, self.meanwhile) = Default::default();
        }
        size
    }

    /// Everything behind the offset; who asks for the same shares it.
    fn behind(&mut self, offset: u64) -> Publications {
        let start = self.publications.partition_point(|publication| publication.offset <= offset);
        let count = self.publications.len() - start;
        if let Some((since, given)) = &self.given
            && *since == offset
            && given.len() == count
        {
            return Arc::clone(given);
        }
        let given: Publications = self.publications[start..].into();
        self.given = Some((offset, Arc::clone(&given)));
        given
    }
}

#[cfg(test)]
mod tests;
