//! What the parent and its client processes tell each other: one JSON object a line.

use serde::{Deserialize, Serialize};

use crate::latency::Counted;
use crate::ledger::Account;
use crate::target::Target;

/// The first line: what a client process is.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Role {
    /// The server.
    pub(crate) target: Target,
    /// Whether its connections subscribe; one that publishes does not.
    pub(crate) subscribe: bool,
    /// Which of the client processes it is, from 0, and how many there are: each has its own source addresses.
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
    },
    /// Close so many connections properly.
    Leave {
        /// How many.
        count: u32,
    },
    /// Begin a run: empty books and histogram.
    Begin {
        /// Its number.
        run: u32,
    },
    /// Publish.
    Publish(Publish),
    /// How far the publisher may go meanwhile; has no report.
    Allow {
        /// How many publications of the run, in all.
        upto: u32,
    },
    /// The run is over: wait for what is still under way, then close the books.
    Finish {
        /// How many were published.
        published: u32,
        /// How long nothing must come before the rest is taken for lost.
        patience_ms: u64,
    },
}

/// Publications to be made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Publish {
    /// The run's number.
    pub(crate) run: u32,
    /// How many.
    pub(crate) count: u32,
    /// How many a second; none is as many as `allowed` lets.
    pub(crate) rate: Option<f64>,
    /// Bytes of each one's data.
    pub(crate) size: usize,
    /// How many may be made before the first `Allow`.
    pub(crate) allowed: u32,
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
    /// The books are empty.
    Begun,
    /// All is published and acknowledged, or refused.
    Published {
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
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Opened {
    /// How many stand.
    pub(crate) opened: u64,
    /// How many failed.
    pub(crate) failed: u64,
    /// Why the first one failed.
    pub(crate) reason: Option<String>,
    /// From the start of TCP to the last reply.
    pub(crate) latencies: Counted,
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
    /// When the first and the last publication came, by [`crate::clock::now`]; zeros if none did.
    pub(crate) between: (u64, u64),
    /// From the publisher's write to the subscriber's read.
    pub(crate) latencies: Counted,
}
