//! A sink that remembers everything and lets tests wait for it.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tidegate_protocol::{ChannelName, ClientInfo, Control, Position, Publication};
use tidegate_relay::{
    Delivery, Observation, Recovered, RelayError, Report, Said, Sink, Ticket, WorkerId, WorkerSet,
};
use tokio::sync::oneshot;

use super::SOON;

type Outcome<T = ()> = Result<T, String>;

#[derive(Debug, Clone)]
pub enum Event {
    Said(WorkerSet, Said),
    Joined(WorkerId, ChannelName, Outcome<Option<Position>>),
    Recovered(Ticket, ChannelName, Outcome<Recovered>),
    Lost(WorkerId, ChannelName),
    Published(Ticket, Outcome),
    Control(Control),
    Observed(Observation),
}

#[derive(Debug, Default)]
pub struct Record {
    pub events: Vec<Event>,
    /// What the node answers to surveys; `None` means never.
    pub channels: Option<Vec<(ChannelName, u64)>>,
    /// Surveys that are not answered.
    pub unanswered: Vec<oneshot::Sender<Vec<(ChannelName, u64)>>>,
    /// Whether deliveries block.
    pub stalled: bool,
    /// How long each delivery takes.
    pub slow: Option<Duration>,
}

impl Record {
    /// What arrived for the worker in the channel, as text.
    pub fn delivered(&self, worker: u8, name: &str) -> Vec<String> {
        self.publications(worker, name).map(|p| String::from_utf8_lossy(&p.data).into_owned()).collect()
    }

    pub fn publications(&self, worker: u8, name: &str) -> impl Iterator<Item = &Publication> {
        self.said(worker, name).filter_map(|said| match said {
            Said::Publication(publication) => Some(publication),
            _ => None,
        })
    }

    pub fn joins(&self, worker: u8, name: &str) -> Vec<Outcome<Option<Position>>> {
        let mine = |event: &Event| match event {
            Event::Joined(w, c, result) if w.0 == worker && c.as_str() == name => Some(result.clone()),
            _ => None,
        };
        self.events.iter().filter_map(mine).collect()
    }

    /// The answer to a recovery.
    pub fn recovered(&self, id: u32) -> Option<Outcome<Recovered>> {
        self.events.iter().find_map(|event| match event {
            Event::Recovered(ticket, _, result) if ticket.id == id => Some(result.clone()),
            _ => None,
        })
    }

    /// Who joined and who left, as the worker was told: `+client` and `-client`.
    pub fn told(&self, worker: u8, name: &str) -> Vec<String> {
        let told = |said: &Said| match said {
            Said::Join(_, info) => Some(format!("+{}", info.client)),
            Said::Leave(_, info) => Some(format!("-{}", info.client)),
            Said::Publication(_) => None,
        };
        self.said(worker, name).filter_map(told).collect()
    }

    /// What the worker was told of those who joined.
    pub fn joins_said(&self, worker: u8, name: &str) -> Vec<ClientInfo> {
        let join = |said: &Said| if let Said::Join(_, info) = said { Some(info.clone()) } else { None };
        self.said(worker, name).filter_map(join).collect()
    }

    /// What the worker was told of those who left.
    pub fn leaves_said(&self, worker: u8, name: &str) -> Vec<ClientInfo> {
        let leave = |said: &Said| if let Said::Leave(_, info) = said { Some(info.clone()) } else { None };
        self.said(worker, name).filter_map(leave).collect()
    }

    fn said(&self, worker: u8, name: &str) -> impl Iterator<Item = &Said> {
        self.events.iter().filter_map(move |event| match event {
            Event::Said(workers, said)
                if workers.contains(WorkerId(worker)) && said.channel().as_str() == name =>
            {
                Some(said)
            }
            _ => None,
        })
    }

    /// The workers that were told that they do not hear the channel any more.
    pub fn lost(&self, name: &str) -> Vec<u8> {
        let told = |event: &Event| match event {
            Event::Lost(worker, channel) if channel.as_str() == name => Some(worker.0),
            _ => None,
        };
        self.events.iter().filter_map(told).collect()
    }

    /// How many channels may have missed something, added up.
    pub fn gaps(&self) -> usize {
        let gap = |event: &Event| match event {
            Event::Observed(Observation::Down { channels } | Observation::Missed { channels }) => *channels,
            _ => 0,
        };
        self.events.iter().map(gap).sum()
    }

    pub fn published(&self, id: u32) -> Option<Outcome> {
        self.events.iter().find_map(|event| match event {
            Event::Published(ticket, result) if ticket.id == id => Some(result.clone()),
            _ => None,
        })
    }

    pub fn controls(&self) -> Vec<Control> {
        let control = |event: &Event| if let Event::Control(c) = event { Some(c.clone()) } else { None };
        self.events.iter().filter_map(control).collect()
    }

    pub fn count(&self, wanted: impl Fn(&Observation) -> bool) -> usize {
        self.events.iter().filter(|event| matches!(event, Event::Observed(o) if wanted(o))).count()
    }
}

#[derive(Debug, Default)]
pub struct Recorder {
    record: Mutex<Record>,
    changed: Condvar,
}

impl Recorder {
    pub fn new() -> Arc<Self> {
        let recorder = Self::default();
        recorder.record().channels = Some(Vec::new());
        Arc::new(recorder)
    }

    pub fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().expect("no test panics while recording")
    }

    fn note(&self, event: Event) {
        self.record().events.push(event);
        self.changed.notify_all();
    }

    /// Waits until `look` finds something.
    pub fn wait<T>(&self, what: &str, look: impl Fn(&Record) -> Option<T>) -> T {
        self.wait_for(SOON, look).unwrap_or_else(|| {
            let record = self.record();
            let tail: Vec<_> = record.events.iter().rev().take(20).collect();
            panic!("waited {SOON:?} in vain for: {what}; last events: {tail:#?}")
        })
    }

    pub fn wait_for<T>(&self, patience: Duration, look: impl Fn(&Record) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + patience;
        let mut record = self.record();
        loop {
            if let Some(found) = look(&record) {
                return Some(found);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            record = self.changed.wait_timeout(record, left).expect("no test panics while recording").0;
        }
    }

    /// Waits until the relay was up `times` times.
    pub fn up(&self, times: usize) {
        self.wait(&format!("up for the {times}. time"), |r| {
            (r.count(|o| *o == Observation::Up) >= times).then_some(())
        });
    }

    /// Waits until the relay was down `times` times.
    pub fn down(&self, times: usize) {
        self.wait(&format!("down for the {times}. time"), |r| {
            (r.count(|o| matches!(o, Observation::Down { .. })) >= times).then_some(())
        });
    }

    pub fn answers_to_joins(&self, worker: u8, name: &str) -> Vec<Outcome<Option<Position>>> {
        self.record().joins(worker, name)
    }

    /// Waits until the worker has been given exactly these in the channel, in order.
    pub fn hears(&self, worker: u8, name: &str, expected: &[&str]) {
        let enough = |r: &Record| (r.delivered(worker, name).len() >= expected.len()).then_some(());
        self.wait(&format!("worker {worker} hears {expected:?} in {name}"), enough);
        assert_eq!(self.record().delivered(worker, name), expected);
    }

    /// Blocks deliveries, or lets them go on.
    pub fn stall(&self, stalled: bool) {
        self.record().stalled = stalled;
        self.changed.notify_all();
    }
}

impl Sink for Recorder {
    fn deliver(&self, batch: &mut Vec<Delivery>, _received: Instant) {
        for Delivery { workers, said } in batch.drain(..) {
            let record = self.record();
            let record =
                self.changed.wait_while(record, |r| r.stalled).expect("no test panics while recording");
            if let Some(pace) = record.slow {
                drop(self.changed.wait_timeout_while(record, pace, |_| true));
            } else {
                drop(record);
            }
            self.note(Event::Said(workers, said));
        }
    }

    fn joined(&self, worker: WorkerId, channel: &ChannelName, result: Result<Option<Position>, RelayError>) {
        self.note(Event::Joined(worker, channel.clone(), result.map_err(|e| e.to_string())));
    }

    fn recovered(&self, ticket: Ticket, channel: &ChannelName, result: Result<Recovered, RelayError>) {
        self.note(Event::Recovered(ticket, channel.clone(), result.map_err(|e| e.to_string())));
    }

    fn lost(&self, worker: WorkerId, channel: &ChannelName) {
        self.note(Event::Lost(worker, channel.clone()));
    }

    fn published(&self, ticket: Ticket, result: Result<(), RelayError>) {
        self.note(Event::Published(ticket, result.map_err(|e| e.to_string())));
    }

    fn control(&self, control: Control) {
        self.note(Event::Control(control));
    }

    fn report(&self) -> Report {
        Report { connections: 3, subscriptions: 2 }
    }

    fn channels(&self, reply: oneshot::Sender<Vec<(ChannelName, u64)>>) {
        let mut record = self.record();
        match record.channels.clone() {
            Some(channels) => drop(reply.send(channels)),
            None => record.unanswered.push(reply),
        }
    }

    fn observe(&self, observation: Observation) {
        self.note(Event::Observed(observation));
    }
}
