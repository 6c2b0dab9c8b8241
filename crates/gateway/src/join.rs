//! Where hub and relay meet: what the relay hears goes to the workers' inboxes, what a shard asks goes to the relay.
//!
//! Neither crate knows the other; this file is the only place that knows both.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tidegate_hub::{Broadcast, SessionKey};
use tidegate_protocol::{ChannelName, Control, ErrorCode, Position};
use tidegate_relay::{
    Delivery, Observation, Recovered, RelayError, Report, Said, Sink, Ticket, WorkerId, WorkerSet,
};
use tokio::sync::oneshot;

use crate::inbox::{Inbox, InboxSender, Stuck, inbox};
use crate::metrics::{Metrics, Source};

/// What a worker finds in its inbox.
pub(crate) enum Inbound {
    /// A publication for the members of its channel, or somebody's join or leave.
    Said(Arc<Broadcast>, Instant),
    /// The answer to `Effect::Join`. In a box, as few of what comes are answers, and every place in an inbox is as large as
    /// the largest of these.
    Joined(ChannelName, Result<Option<Box<Position>>, ErrorCode>),
    /// `Joined` came too late to be of use.
    Unjoined(ChannelName),
    /// The answer to `Effect::Recover`.
    Recovered(Box<Recovery>),
    /// The channel is not heard any more.
    Lost(ChannelName),
    /// The answer to `Effect::Publish`.
    Published(SessionKey, u32, Result<(), ErrorCode>),
    /// A control message.
    Control(Arc<Control>),
    /// A question for the worker's channels.
    Channels(Arc<Gather>),
    /// Close everyone, spread over this time.
    Drain(Duration),
}

/// What came of a session's recovery.
pub(crate) struct Recovery {
    pub(crate) session: SessionKey,
    pub(crate) id: u32,
    pub(crate) channel: ChannelName,
    pub(crate) result: Result<tidegate_hub::Recovered, ErrorCode>,
}

/// What a worker's inbox had no room for and must not be lost: answers and losses, one of each for a channel of the
/// worker at most. The worker looks here when its inbox says that something is missing.
#[derive(Default)]
pub(crate) struct Late(Mutex<Vec<Inbound>>);

impl Late {
    fn push(&self, inbound: Inbound) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(inbound);
    }

    /// Takes what is there.
    pub(crate) fn take(&self) -> Vec<Inbound> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Channels, each with how many subscribers.
type Counts = Vec<(ChannelName, u64)>;

/// Collects the workers' answers to one question.
pub(crate) struct Gather(Mutex<Gathering>);

struct Gathering {
    /// How many workers have not answered.
    missing: usize,
    counts: Counts,
    reply: Option<oneshot::Sender<Counts>>,
}

impl Gather {
    fn new(workers: usize, reply: oneshot::Sender<Counts>) -> Self {
        Self(Mutex::new(Gathering { missing: workers, counts: Vec::new(), reply: Some(reply) }))
    }

    /// A worker's answer; the last one sends all of them on. The same channel may come from several workers.
    pub(crate) fn answer(&self, channels: Vec<(ChannelName, usize)>) {
        let mut gathering = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        gathering.missing = gathering.missing.saturating_sub(1);
        gathering.counts.extend(channels.into_iter().map(|(channel, members)| (channel, members as u64)));
        if gathering.missing == 0
            && let Some(reply) = gathering.reply.take()
        {
            let mut counts = std::mem::take(&mut gathering.counts);
            counts.sort_by(|a, b| a.0.cmp(&b.0));
            counts.dedup_by(|from, into| {
                let same = from.0 == into.0;
                if same {
                    into.1 += from.1;
                }
                same
            });
            // Whoever asked may have given up.
            let _ = reply.send(counts);
        }
    }
}

/// What a worker last said of itself; written by the worker, read for the registry.
#[derive(Default)]
pub(crate) struct WorkerStats {
    pub(crate) connections: AtomicU64,
    pub(crate) subscriptions: AtomicU64,
    pub(crate) outbox_bytes: AtomicU64,
}

/// The node as the relay sees it.
pub(crate) struct Switchboard {
    workers: Vec<InboxSender<Inbound>>,
    late: Arc<[Late]>,
    stats: Arc<[WorkerStats]>,
    metrics: Arc<Metrics>,
}

impl Switchboard {
    /// A switchboard and the inboxes of its workers.
    pub(crate) fn new(workers: usize, metrics: Arc<Metrics>) -> (Self, Vec<Inbox<Inbound>>) {
        let (senders, inboxes) = (0..workers).map(|_| inbox()).unzip();
        let stats = (0..workers).map(|_| WorkerStats::default()).collect();
        let late = (0..workers).map(|_| Late::default()).collect();
        (Self { workers: senders, late, stats, metrics }, inboxes)
    }

    /// What did not fit into the workers' inboxes.
    pub(crate) fn late(&self) -> Arc<[Late]> {
        Arc::clone(&self.late)
    }

    /// The workers' own counts.
    pub(crate) fn stats(&self) -> Arc<[WorkerStats]> {
        Arc::clone(&self.stats)
    }

    /// Asks every worker to close its connections, spread over `duration`.
    pub(crate) fn drain(&self, duration: Duration) {
        for worker in 0..self.workers.len() {
            self.send(worker, Inbound::Drain(duration), "drain");
        }
    }

    /// Puts something into a worker's inbox that must not be lost; a worker that does not take it is broken.
    fn send(&self, worker: usize, inbound: Inbound, what: &'static str) {
        if let Some(sender) = self.workers.get(worker)
            && let Err(Stuck(inbound)) = sender.send(inbound, 0)
        {
            tracing::error!(worker, what, "a worker does not take what is sent to it");
            let late = match inbound {
                // What was delivered behind the position may be missing too.
                Inbound::Joined(channel, Ok(_)) => Inbound::Unjoined(channel),
                late @ (Inbound::Joined(..) | Inbound::Lost(_)) => late,
                // The worker fails the recoveries that it waits for when it hears that something is missing; whoever asked
                // for anything else is told by nobody, and gives up in time.
                _ => return,
            };
            if let Some(waiting) = self.late.get(worker) {
                waiting.push(late);
            }
        }
    }
}

impl Sink for Switchboard {
    fn deliver(&self, batch: &mut Vec<Delivery>, received: Instant) {
        let publications = batch.iter().filter(|it| matches!(it.said, Said::Publication(_))).count();
        self.metrics.published(Source::Relay, publications as u64);
        let mut concerned = WorkerSet::default();
        for Delivery { workers, said } in batch.drain(..) {
            let broadcast = Arc::new(match said {
                Said::Publication(publication) => Broadcast::new(publication),
                Said::Join(channel, info) => Broadcast::join(channel, info),
                Said::Leave(channel, info) => Broadcast::leave(channel, info),
            });
            let bytes = broadcast.bytes();
            for worker in workers.iter() {
                let Some(sender) = self.workers.get(usize::from(worker.0)) else { continue };
                concerned.insert(worker);
                // The worker learns from its inbox that something is missing.
                if sender.put(Inbound::Said(Arc::clone(&broadcast), received), bytes).is_err() {
                    self.metrics.observe(Observation::Dropped(1));
                }
            }
        }
        concerned
            .iter()
            .filter_map(|worker| self.workers.get(usize::from(worker.0)))
            .for_each(InboxSender::wake);
    }

    fn joined(&self, worker: WorkerId, channel: &ChannelName, result: Result<Option<Position>, RelayError>) {
        let result =
            result.map(|position| position.map(Box::new)).map_err(|error| temporary(&error, "subscribe"));
        self.send(usize::from(worker.0), Inbound::Joined(channel.clone(), result), "joined");
    }

    fn lost(&self, worker: WorkerId, channel: &ChannelName) {
        self.send(usize::from(worker.0), Inbound::Lost(channel.clone()), "lost");
    }

    fn recovered(&self, ticket: Ticket, channel: &ChannelName, result: Result<Recovered, RelayError>) {
        let result = result
            .map(|Recovered { position, publications }| tidegate_hub::Recovered { position, publications })
            .map_err(|error| temporary(&error, "recover"));
        let recovery = Recovery { session: session(ticket), id: ticket.id, channel: channel.clone(), result };
        self.send(usize::from(ticket.worker.0), Inbound::Recovered(Box::new(recovery)), "recovered");
    }

    fn published(&self, ticket: Ticket, result: Result<(), RelayError>) {
        match &result {
            Ok(()) => self.metrics.published(Source::Client, 1),
            Err(error) => self.metrics.publish_failed(error),
        }
        let result = result.map_err(|error| temporary(&error, "publish"));
        let published = Inbound::Published(session(ticket), ticket.id, result);
        self.send(usize::from(ticket.worker.0), published, "published");
    }

    fn control(&self, control: Control) {
        let control = Arc::new(control);
        for worker in 0..self.workers.len() {
            self.send(worker, Inbound::Control(Arc::clone(&control)), "control");
        }
    }

    fn report(&self) -> Report {
        let sum = |count: fn(&WorkerStats) -> &AtomicU64| {
            self.stats.iter().map(|worker| count(worker).load(Ordering::Relaxed)).sum()
        };
        Report {
            connections: sum(|worker| &worker.connections),
            subscriptions: sum(|worker| &worker.subscriptions),
        }
    }

    fn channels(&self, reply: oneshot::Sender<Vec<(ChannelName, u64)>>) {
        let gather = Arc::new(Gather::new(self.workers.len(), reply));
        for worker in 0..self.workers.len() {
            self.send(worker, Inbound::Channels(Arc::clone(&gather)), "channels");
        }
    }

    fn observe(&self, observation: Observation) {
        self.metrics.observe(observation);
    }
}

/// Names a session's command for the relay.
pub(crate) const fn ticket(worker: WorkerId, session: SessionKey, id: u32) -> Ticket {
    Ticket { worker, session: (session.generation as u64) << 32 | session.index as u64, id }
}

/// The session that a ticket names.
const fn session(ticket: Ticket) -> SessionKey {
    SessionKey { index: ticket.session as u32, generation: (ticket.session >> 32) as u32 }
}

/// Every failure of the relay is temporary to a client: the SDK tries again by itself.
fn temporary(error: &RelayError, what: &'static str) -> ErrorCode {
    tracing::debug!(%error, what, "the relay could not do it");
    ErrorCode::Internal
}

#[cfg(test)]
mod tests {
    use tidegate_protocol::Publication;

    use super::*;

    fn said(offset: u64) -> Delivery {
        let channel = ChannelName::parse("news").expect("a name");
        let mut workers = WorkerSet::default();
        workers.insert(WorkerId(0));
        let data = vec![b'1'; 1024 * 1024].into();
        let said = Said::Publication(Publication { channel, data, info: None, tags: Vec::new(), offset });
        Delivery { workers, said }
    }

    #[test]
    fn what_a_stuck_worker_missed_is_known_to_it_before_anything_later() {
        let metrics = Arc::new(Metrics::new().expect("the metrics are right"));
        let (switchboard, inboxes) = Switchboard::new(1, metrics);
        let (late, inbox) = (switchboard.late(), &inboxes[0]);
        // As much as fits, and one more; then the answer to a join.
        switchboard.deliver(&mut (1..=34).map(said).collect(), Instant::now());
        let other = ChannelName::parse("other").expect("a name");
        switchboard.joined(WorkerId(0), &other, Ok(None));
        let mut taken = 0;
        inbox.take(usize::MAX, |_| {
            taken += 1;
            true
        });
        assert_eq!(taken, 33);
        switchboard.deliver(&mut vec![said(35)], Instant::now());
        inbox.take(usize::MAX, |inbound| {
            assert!(matches!(inbound, Inbound::Said(..)));
            assert!(inbox.missed(), "before what came behind the hole");
            true
        });
        let late = late[0].take();
        assert!(matches!(&late[..], [Inbound::Unjoined(channel)] if *channel == other), "{}", late.len());
    }
}
