//! Whether all parts of Redis can be used, out of what each part says.
//!
//! The relay is up while every part is: as soon as one is away, some channels cannot be carried. Each change is observed
//! once, whichever part it came from. The ingest streams of the parts are told as one; what a part says besides goes through
//! as it is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tidegate_protocol::{ChannelName, Control, Position};
use tokio::sync::oneshot;

use crate::relay::{RelayError, Status};
use crate::sink::{Delivery, Observation, Recovered, Report, Sink, Ticket, WorkerId};

/// What is known of the parts.
pub(super) struct Standing {
    state: Mutex<State>,
    sink: Arc<dyn Sink>,
}

struct State {
    /// By the numbers of the parts.
    up: BTreeMap<usize, bool>,
    /// Of the last part.
    last: usize,
    changed: Instant,
    /// How the ingest stream of each part stands.
    streams: BTreeMap<usize, Stream>,
}

/// How an ingest stream stands.
#[derive(Clone, Copy)]
struct Stream {
    pending: u64,
    waiting: u64,
    oldest: Duration,
}

impl Standing {
    pub(super) fn new(sink: Arc<dyn Sink>) -> Arc<Self> {
        let state = State { up: BTreeMap::new(), last: 0, changed: Instant::now(), streams: BTreeMap::new() };
        Arc::new(Self { state: Mutex::new(state), sink })
    }

    /// There is one more part, which is not up yet. Gives back its number.
    pub(super) fn add(&self) -> usize {
        let mut number = 0;
        self.change(0, |state| {
            state.last += 1;
            number = state.last;
            state.up.insert(number, false);
        });
        number
    }

    /// What has no sink of its own is up.
    pub(super) fn is_up(&self, part: usize) {
        self.change(0, |state| state.is(part, true));
    }

    /// The part is no more.
    pub(super) fn remove(&self, part: usize) {
        self.change(0, |state| {
            state.up.remove(&part);
        });
    }

    /// What the part of this number is to call.
    pub(super) fn sink(self: &Arc<Self>, part: usize) -> Arc<dyn Sink> {
        Arc::new(PartSink { part, standing: Arc::clone(self) })
    }

    pub(super) fn status(&self) -> Status {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        Status { up: state.all(), since: state.changed.elapsed() }
    }

    /// A part has looked at its ingest stream. Told is the sum, and the oldest of all.
    fn looked(&self, part: usize, stream: Stream) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.streams.insert(part, stream);
        let all = || state.streams.values();
        self.sink.observe(Observation::IngestStands {
            pending: all().map(|stream| stream.pending).sum(),
            waiting: all().map(|stream| stream.waiting).sum(),
            oldest: all().map(|stream| stream.oldest).max().unwrap_or_default(),
        });
    }

    /// The sink is told under the lock: several threads change the state, and the last thing told must be true.
    fn change(&self, missed: usize, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let before = state.all();
        change(&mut state);
        let now = state.all();
        if before != now {
            state.changed = Instant::now();
            self.sink.observe(if now { Observation::Up } else { Observation::Down { channels: missed } });
        } else if missed > 0 {
            self.sink.observe(Observation::Missed { channels: missed });
        }
    }
}

impl State {
    fn all(&self) -> bool {
        !self.up.is_empty() && self.up.values().all(|up| *up)
    }

    fn is(&mut self, part: usize, up: bool) {
        if let Some(of_part) = self.up.get_mut(&part) {
            *of_part = up;
        }
    }
}

/// One part's way to the node.
struct PartSink {
    part: usize,
    standing: Arc<Standing>,
}

impl Sink for PartSink {
    fn deliver(&self, batch: &mut Vec<Delivery>, received: Instant) {
        self.standing.sink.deliver(batch, received);
    }

    fn joined(&self, worker: WorkerId, channel: &ChannelName, result: Result<Option<Position>, RelayError>) {
        self.standing.sink.joined(worker, channel, result);
    }

    fn lost(&self, worker: WorkerId, channel: &ChannelName) {
        self.standing.sink.lost(worker, channel);
    }

    fn recovered(&self, ticket: Ticket, channel: &ChannelName, result: Result<Recovered, RelayError>) {
        self.standing.sink.recovered(ticket, channel, result);
    }

    fn published(&self, ticket: Ticket, result: Result<(), RelayError>) {
        self.standing.sink.published(ticket, result);
    }

    fn control(&self, control: Control) {
        self.standing.sink.control(control);
    }

    fn report(&self) -> Report {
        self.standing.sink.report()
    }

    fn channels(&self, reply: oneshot::Sender<Vec<(ChannelName, u64)>>) {
        self.standing.sink.channels(reply);
    }

    fn observe(&self, observation: Observation) {
        match observation {
            Observation::Up => self.standing.change(0, |state| state.is(self.part, true)),
            Observation::Down { channels } => {
                self.standing.change(channels, |state| state.is(self.part, false));
            }
            Observation::IngestStands { pending, waiting, oldest } => {
                self.standing.looked(self.part, Stream { pending, waiting, oldest });
            }
            other => self.standing.sink.observe(other),
        }
    }
}
