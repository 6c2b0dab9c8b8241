//! What the parent and its client processes tell each other: one JSON object a line.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::channels::{Channels, Dealt};
use crate::latency::Counted;
use crate::ledger::Account;
use crate::target::Target;

/// The first line: what a client process is.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Role {
    /// The server.
    pub(crate) target: Target,
    /// Which channels there are.
    pub(crate) channels: Channels,
    /// Whether its connections subscribe; one that publishes does not.
    pub(crate) subscribe: bool,
    /// How far it steps back for others that want a processor (0 to 19).
    pub(crate) nice: i32,
    /// Bytes of each connection's receive buffer in the kernel; none is what the kernel finds right.
    pub(crate) receive_buffer: Option<u32>,
    /// Which of the client processes it is, from 0, and how many there are: each has its own source addresses. Its
    /// connections have the numbers `index`, `index + of`, `index + 2 * of` and so on.
    pub(crate) index: u32,
    /// See `index`.
    pub(crate) of: u32,
}

/// What the parent asks. Each is answered by the report of the same name, before the next is asked.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Open so many more connections.
    Open {
        /// How many.
        count: u32,
        /// Handshakes under way at once.
        at_once: u32,
        /// Whether who is refused comes again, as SDKs do.
        again: bool,
        /// Whether TLS sessions may be resumed; if not, tickets are only collected.
        resume: bool,
    },
    /// Close so many connections properly. `Left`.
    Leave {
        /// How many.
        count: u32,
    },
    /// Lose all connections at once, without a word. `Left`.
    Drop,
    /// Begin a run: empty books and histogram. `Begun`.
    Begin {
        /// Its number.
        run: u32,
    },
    /// Publish, by the first connection. `Published`.
    Publish(Publish),
    /// Publish, each connection to its own room. `Published`.
    Chat(Chat),
    /// How far the publisher may go meanwhile; has no report.
    Allow {
        /// How many publications of the run, in all.
        upto: u32,
    },
    /// No more publications after those that are written; has no report but that of `Publish`.
    Stop,
    /// Stop reading, or read on. `Begun`.
    Stall(bool),
    /// The run is over: wait for what is still under way, then close the books. `Finished`.
    Finish {
        /// How many were published where.
        dealt: Dealt,
        /// How long nothing must come before the rest is taken for lost.
        patience_ms: u64,
    },
}

/// Publications to be made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Publish {
    /// The run's number.
    pub(crate) run: u32,
    /// How many, dealt to how many channels.
    pub(crate) dealt: Dealt,
    /// How many a second; none is as many as `allowed` lets.
    pub(crate) rate: Option<f64>,
    /// Bytes of each one's data.
    pub(crate) size: usize,
    /// How many may be made before the first `Allow`.
    pub(crate) allowed: u32,
}

/// Publications to be made by all connections.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Chat {
    /// The run's number.
    pub(crate) run: u32,
    /// How many each connection makes.
    pub(crate) each: u32,
    /// How many a second each makes.
    pub(crate) rate: f64,
    /// How many are in a room: publication `j` of member `m` has number `j * room + m` there.
    pub(crate) room: u32,
    /// Bytes of each one's data.
    pub(crate) size: usize,
}

/// What a client process answers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    /// Unasked, and often.
    Progress(Progress),
    /// All that were asked for are open or have failed.
    Opened(Opened),
    /// They are closed.
    Left,
    /// It is so.
    Begun,
    /// All is published and acknowledged, or refused.
    Published {
        /// How many were made.
        count: u32,
        /// The first refusal.
        refused: Option<String>,
    },
    /// The books of the run.
    Finished(Finished),
    /// It cannot go on.
    Failed(String),
}

/// How far a client process is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// Connections that are open.
    pub(crate) open: u64,
    /// Publications that came, of this run.
    pub(crate) delivered: u64,
    /// Connections that ended and were not asked to.
    pub(crate) broken: u64,
}

/// What became of the connections that were asked for.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Opened {
    /// How many stand.
    pub(crate) opened: u64,
    /// How many failed.
    pub(crate) failed: u64,
    /// Why the first one failed.
    pub(crate) reason: Option<String>,
    /// How many of them resumed a TLS session.
    pub(crate) resumed: u64,
    /// Refusals by status, 0 for those that were not said in HTTP; of those that come again.
    pub(crate) refusals: BTreeMap<u16, u64>,
    /// When the last one stood, by [`crate::clock::now`]; 0 if none does.
    pub(crate) last: u64,
    /// From the start of TCP to the last reply; with those that come again, from the first start.
    pub(crate) latencies: Counted,
}

impl Opened {
    /// Adds what another process says, but for the latencies.
    pub(crate) fn add(&mut self, other: Self) {
        self.opened += other.opened;
        self.failed += other.failed;
        self.resumed += other.resumed;
        self.last = self.last.max(other.last);
        self.reason = self.reason.take().or(other.reason);
        for (status, count) in other.refusals {
            *self.refusals.entry(status).or_default() += count;
        }
    }
}

/// The books of a run, of one client process.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Finished {
    /// What came and what did not, over all connections.
    pub(crate) account: Account,
    /// Connections that ended in the course of it.
    pub(crate) broken: u64,
    /// How the first one ended.
    pub(crate) reason: Option<String>,
    /// How they ended, and how often.
    pub(crate) ends: BTreeMap<String, u64>,
    /// Connections that stand and have the newest publication of their channel.
    pub(crate) newest: u64,
    /// When the first and the last publication came, by [`crate::clock::now`]; zeros if none did.
    pub(crate) between: (u64, u64),
    /// From the publisher's write to the subscriber's read.
    pub(crate) latencies: Counted,
}
