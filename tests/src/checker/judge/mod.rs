//! The judge: a history in, a verdict out.
//!
//! It looks on while a run is going on, or reads a file; either way it knows nothing but the history. Every channel is
//! judged by itself, every subscriber in it by itself ([`follower`], [`once`]), and then all of them together: who was
//! told different things of one position ([`channel`]).
//!
//! Not here: whether a fault was handled well, as long as nobody was told anything wrong.

mod channel;
mod follower;
mod once;
#[cfg(test)]
mod tests;
mod verdict;

use std::collections::BTreeMap;

use super::history::{Entry, Loss, What};
use channel::Channel;

pub use verdict::{Breach, Counts, Finding, Verdict};

/// Looks at one entry after the other.
#[derive(Debug, Default)]
pub struct Judge {
    channels: BTreeMap<String, Channel>,
    losses: Losses,
    verdict: Verdict,
    now: u64,
}

/// When Redis lost something.
#[derive(Debug, Default)]
struct Losses {
    times: Vec<(u64, Loss)>,
}

impl Losses {
    /// How often so far.
    fn count(&self) -> usize {
        self.times.len()
    }

    /// Whether what was published at that time may have been lost together with all knowledge of it.
    fn may_hide(&self, attempted: u64) -> bool {
        self.times.iter().any(|(at, loss)| *loss == Loss::Latest && *at > attempted)
    }

    /// Whether positions may have been given twice.
    fn rolled_back(&self) -> bool {
        self.times.iter().any(|(_, loss)| *loss == Loss::Latest)
    }
}

/// Where a finding is made and written down.
struct Bench<'a> {
    verdict: &'a mut Verdict,
    losses: &'a Losses,
    channel: &'a str,
    at: u64,
}

impl Bench<'_> {
    fn find(&mut self, breach: Breach, who: Option<&str>, text: String) {
        let finding = Finding {
            breach,
            channel: self.channel.to_owned(),
            who: who.map(str::to_owned),
            at: self.at,
            text,
        };
        self.verdict.add(finding);
    }

    fn counts(&mut self) -> &mut Counts {
        if !self.verdict.counts.contains_key(self.channel) {
            self.verdict.counts.insert(self.channel.to_owned(), Counts::default());
        }
        self.verdict.counts.get_mut(self.channel).expect("it was just put there")
    }
}

impl Judge {
    /// Takes the next entry of the history.
    pub fn take(&mut self, entry: Entry) {
        let at = entry.at;
        self.now = at;
        match entry.what {
            What::Run { .. } => {}
            What::Channel { channel, size, ttl } => {
                self.channels.entry(channel).or_insert_with(|| Channel::new(size, ttl));
            }
            What::Fault { loses, .. } => {
                if loses != Loss::Nothing {
                    self.losses.times.push((at, loses));
                }
            }
            What::Disconnected { who, .. } => {
                for channel in self.channels.values_mut() {
                    channel.away(at, &who);
                }
            }
            What::Attempt { channel, id, .. } => self.at(&channel, at, |c, bench| c.attempt(bench, id)),
            What::Acknowledged { channel, id, position } => {
                self.at(&channel, at, |c, bench| c.acknowledged(bench, id, position));
            }
            What::Failed { channel, id, .. } => self.at(&channel, at, |c, bench| c.failed(bench, id)),
            What::Unknown { channel, .. } => self.at(&channel, at, |_, bench| bench.counts().unknown += 1),
            What::Asked { who, channel, since } => self.at(&channel, at, |c, _| c.asked(&who, since)),
            What::Subscribed { who, channel, position, was_recovering, recovered, publications } => {
                let reply = Reply { position, was_recovering, recovered, publications };
                self.at(&channel, at, |c, bench| c.subscribed(bench, &who, reply));
            }
            What::Refused { who, channel, .. } => self.at(&channel, at, |c, bench| c.away(bench.at, &who)),
            What::Delivered { who, channel, heard } => {
                self.at(&channel, at, |c, bench| c.delivered(bench, &who, heard));
            }
            What::Unsubscribed { who, channel, code } => {
                self.at(&channel, at, |c, bench| c.unsubscribed(bench, &who, code));
            }
            What::Last { channel, id } => self.at(&channel, at, |c, _| c.last(id)),
        }
    }

    /// Who is not where everybody should be in the end: subscribed, and not behind the last publication.
    pub fn behind(&self) -> Vec<String> {
        let behind = |(name, channel): (&String, &Channel)| {
            let late = channel.behind(&self.losses);
            late.into_iter().map(|(who, why)| format!("{who} in {name}: {why}")).collect::<Vec<_>>()
        };
        self.channels.iter().flat_map(behind).collect()
    }

    /// What was found so far: what needs the whole history is not in it.
    pub fn so_far(&self) -> &Verdict {
        &self.verdict
    }

    /// The verdict, when the history is at its end.
    pub fn verdict(mut self) -> Verdict {
        let now = self.now;
        let channels = std::mem::take(&mut self.channels);
        for (name, channel) in &channels {
            let mut bench =
                Bench { verdict: &mut self.verdict, losses: &self.losses, channel: name, at: now };
            channel.finish(&mut bench);
        }
        self.verdict
    }

    fn at(&mut self, name: &str, at: u64, act: impl FnOnce(&mut Channel, &mut Bench<'_>)) {
        let mut bench = Bench { verdict: &mut self.verdict, losses: &self.losses, channel: name, at };
        match self.channels.get_mut(name) {
            Some(channel) => act(channel, &mut bench),
            None => bench.find(Breach::Stray, None, "a channel that nobody promised".to_owned()),
        }
    }
}

/// A reply to a subscribe command.
#[derive(Debug)]
struct Reply {
    position: Option<super::history::Position>,
    was_recovering: bool,
    recovered: bool,
    publications: Option<Vec<super::history::Heard>>,
}
