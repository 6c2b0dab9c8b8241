//! What happened in a run, entry by entry: one JSON object a line.
//!
//! Entries of one subscriber are in the order in which it was told; an attempt stands before everything that follows
//! from it. Otherwise the order is that of the recorder's clock, which is one for all.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::judge::Judge;

/// Something that happened, and when.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Microseconds since the run began.
    pub at: u64,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// A position in a channel's history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Of the last publication; 0 before the first.
    pub offset: u64,
    /// Which history it belongs to.
    pub epoch: String,
}

/// A publication as a subscriber got it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heard {
    /// What is in its payload: unique in the run, the same for every try of one publication.
    pub id: u64,
    /// Its offset; 0: it has none.
    #[serde(default)]
    pub offset: u64,
}

/// What can happen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum What {
    /// What the run is: the seed, the topology, for who reads the file.
    Run {
        /// What its schedule follows from.
        seed: u64,
        /// What its Redis is.
        topology: String,
    },
    /// A channel, and what is promised of it.
    Channel {
        /// Its name.
        channel: String,
        /// How many publications are kept; 0: none, it is delivered at most once.
        size: u64,
        /// How long they are kept after the last of them, in seconds.
        ttl: u64,
    },
    /// A publisher is about to publish. Comes again where it tries again under the same idempotency key.
    Attempt {
        /// Where.
        channel: String,
        /// What.
        id: u64,
        /// Through what.
        door: String,
    },
    /// It was told that its publication is taken.
    Acknowledged {
        /// Where.
        channel: String,
        /// What.
        id: u64,
        /// As which position, if it was told.
        position: Option<Position>,
    },
    /// It was told that its publication is not taken, in words that leave no doubt.
    Failed {
        /// Where.
        channel: String,
        /// What.
        id: u64,
        /// The words.
        why: String,
    },
    /// It was told nothing, or that it may have been taken.
    Unknown {
        /// Where.
        channel: String,
        /// What.
        id: u64,
        /// What it was told.
        why: String,
    },
    /// A subscriber subscribes.
    Asked {
        /// Who.
        who: String,
        /// Where.
        channel: String,
        /// The last it has seen, if it wants what followed.
        since: Option<Position>,
    },
    /// It is subscribed.
    Subscribed {
        /// Who.
        who: String,
        /// Where.
        channel: String,
        /// The position it was told; `None`: the channel has none.
        position: Option<Position>,
        /// Whether it was answered as one who asked for what it missed.
        #[serde(default)]
        was_recovering: bool,
        /// Whether it has, with this, all that it missed.
        #[serde(default)]
        recovered: bool,
        /// What was in the reply; `None`: the SDK hands it over one by one, as if it came live.
        publications: Option<Vec<Heard>>,
    },
    /// Its wish was refused for now or for good.
    Refused {
        /// Who.
        who: String,
        /// Where.
        channel: String,
        /// The error's code.
        code: u64,
    },
    /// It got a publication.
    Delivered {
        /// Who.
        who: String,
        /// Where.
        channel: String,
        /// What.
        #[serde(flatten)]
        heard: Heard,
    },
    /// It was told that it is not subscribed any more.
    Unsubscribed {
        /// Who.
        who: String,
        /// Where.
        channel: String,
        /// Why.
        code: u64,
    },
    /// Its connection is gone, and all its subscriptions with it.
    Disconnected {
        /// Who.
        who: String,
        /// Why, in words.
        why: String,
    },
    /// A fault begins, or ends.
    Fault {
        /// Which, in words.
        fault: String,
        /// What Redis loses by it.
        #[serde(default)]
        loses: Loss,
    },
    /// The last publication of a channel: whoever is subscribed at the end must have it, or have been told of a gap that
    /// ends behind it.
    Last {
        /// Where.
        channel: String,
        /// What.
        id: u64,
    },
}

/// What Redis loses by a fault.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// Nothing.
    #[default]
    Nothing,
    /// What it took last: it is back where it was a moment ago, as after a failover.
    Latest,
    /// Everything.
    Everything,
}

/// Writes a history while a judge looks on. Shared by everyone who acts in a run.
#[derive(Debug)]
pub struct Recorder {
    began: Instant,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    file: BufWriter<File>,
    judge: Judge,
    /// Why the file is not whole, if it is not.
    broken: Option<io::Error>,
}

impl Recorder {
    /// Writes into a new file.
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = BufWriter::new(File::create(path)?);
        let state = State { file, judge: Judge::default(), broken: None };
        Ok(Self { began: Instant::now(), state: Mutex::new(state) })
    }

    /// Writes down that something happened, now.
    pub fn note(&self, what: What) {
        let mut state = self.lock();
        // Under the lock, so that the order in the file is that of the times.
        let at = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        let entry = Entry { at, what };
        let line = serde_json::to_string(&entry).expect("an entry is JSON");
        if let Err(error) = writeln!(state.file, "{line}") {
            state.broken.get_or_insert(error);
        }
        state.judge.take(entry);
    }

    /// What the judge says of what it has seen so far.
    pub fn ask<T>(&self, question: impl FnOnce(&Judge) -> T) -> T {
        question(&self.lock().judge)
    }

    /// Ends the file, and gives the judge out.
    pub fn finish(&self) -> io::Result<Judge> {
        let mut state = self.lock();
        state.file.flush()?;
        match state.broken.take() {
            Some(error) => Err(error),
            None => Ok(std::mem::take(&mut state.judge)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads a history from a file and shows it to a judge.
pub fn read(path: &Path) -> io::Result<Judge> {
    let mut judge = Judge::default();
    for (number, line) in BufReader::new(File::open(path)?).lines().enumerate() {
        let entry: Entry = serde_json::from_str(&line?)
            .map_err(|error| io::Error::other(format!("line {}: {error}", number + 1)))?;
        judge.take(entry);
    }
    Ok(judge)
}
