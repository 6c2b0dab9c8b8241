//! What a judge finds, and how it says so.

use std::collections::BTreeMap;
use std::fmt;

/// How many findings are kept; beyond it they are only counted.
const KEPT: usize = 200;

/// A way to break the promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Breach {
    /// Acknowledged, never delivered to a subscriber that was told of no gap.
    Lost,
    /// Delivered twice to one subscriber, or taken twice.
    Duplicated,
    /// Delivered behind one that follows it.
    Reordered,
    /// Offsets jump, or the position a subscriber is given does not follow from its own, and nobody said so.
    Hole,
    /// Two different publications at one position, or one publication at two.
    Conflict,
    /// Delivered and never published, or after its publisher was told that it is not taken.
    Stray,
    /// Delivered before the subscription it belongs to was confirmed, or without one.
    Unsubscribed,
    /// Told of a gap where there was none.
    Needless,
    /// At the end, with every fault healed: not subscribed, or deaf.
    Stranded,
}

impl Breach {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Lost,
        Self::Duplicated,
        Self::Reordered,
        Self::Hole,
        Self::Conflict,
        Self::Stray,
        Self::Unsubscribed,
        Self::Needless,
        Self::Stranded,
    ];

    /// In a word or a few.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Duplicated => "duplicated",
            Self::Reordered => "reordered",
            Self::Hole => "undeclared hole",
            Self::Conflict => "two at one position",
            Self::Stray => "never published",
            Self::Unsubscribed => "push before its reply",
            Self::Needless => "needless gap",
            Self::Stranded => "stranded",
        }
    }
}

/// One breach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How.
    pub breach: Breach,
    /// Where.
    pub channel: String,
    /// Whose; `None`: everybody's.
    pub who: Option<String>,
    /// When, in microseconds since the run began.
    pub at: u64,
    /// What exactly.
    pub text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = self.who.as_deref().unwrap_or("everybody");
        let seconds = self.at as f64 / 1e6;
        write!(f, "{seconds:9.3} s  {}: {} for {who}: {}", self.channel, self.breach.name(), self.text)
    }
}

/// How much of what happened in a channel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Tries to publish.
    pub attempts: u64,
    /// Of these, taken.
    pub acknowledged: u64,
    /// Of these, not taken.
    pub failed: u64,
    /// Of these, nobody knows.
    pub unknown: u64,
    /// Publications that subscribers got, live or recovered.
    pub delivered: u64,
    /// Subscriptions that were made, the first included.
    pub subscribed: u64,
    /// Of these, with everything that was missed.
    pub recovered: u64,
    /// Of these, told of a gap.
    pub gaps: u64,
    /// Subscribers told to subscribe again (2500 and up).
    pub interrupted: u64,
    /// Acknowledged and then lost with what Redis lost, before anybody heard it: nobody can know.
    pub gone: u64,
}

/// What was found in a history.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    /// The first of the findings, in the order in which they were made.
    pub findings: Vec<Finding>,
    /// How many there were of each kind.
    pub breaches: BTreeMap<Breach, u64>,
    /// By channel.
    pub counts: BTreeMap<String, Counts>,
}

impl Verdict {
    /// Whether the promise was kept.
    pub fn good(&self) -> bool {
        self.breaches.is_empty()
    }

    /// How many of a kind.
    pub fn of(&self, breach: Breach) -> u64 {
        self.breaches.get(&breach).copied().unwrap_or_default()
    }

    pub(super) fn add(&mut self, finding: Finding) {
        *self.breaches.entry(finding.breach).or_default() += 1;
        if self.findings.len() < KEPT {
            self.findings.push(finding);
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<10} {:>8} {:>8} {:>7} {:>7} {:>6} {:>9} {:>10} {:>9} {:>6} {:>11}",
            "channel",
            "attempts",
            "acked",
            "failed",
            "unknown",
            "gone",
            "delivered",
            "subscribed",
            "recovered",
            "gaps",
            "interrupted"
        )?;
        for (channel, c) in &self.counts {
            writeln!(
                f,
                "{channel:<10} {:>8} {:>8} {:>7} {:>7} {:>6} {:>9} {:>10} {:>9} {:>6} {:>11}",
                c.attempts,
                c.acknowledged,
                c.failed,
                c.unknown,
                c.gone,
                c.delivered,
                c.subscribed,
                c.recovered,
                c.gaps,
                c.interrupted
            )?;
        }
        for finding in &self.findings {
            writeln!(f, "{finding}")?;
        }
        let all: u64 = self.breaches.values().sum();
        if all > self.findings.len() as u64 {
            writeln!(f, "... {} more", all - self.findings.len() as u64)?;
        }
        if self.good() {
            return write!(f, "verdict: the promise was kept");
        }
        let kinds: Vec<_> =
            self.breaches.iter().map(|(breach, count)| format!("{} {}", count, breach.name())).collect();
        write!(f, "verdict: BROKEN: {}", kinds.join(", "))
    }
}
