//! The relay of a single node: the promises of the Redis relay without Redis.
//!
//! One thread takes everything from one bounded queue, so joins, publications and control messages keep their order.
//! Nothing leaves the process. Not here: a registry or other nodes; the node knows itself alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ahash::AHashMap;
use crossbeam_channel::{Receiver, Sender};
use tidegate_protocol::{ChannelName, Control, Publication};
use tokio::sync::oneshot;

use crate::budget::{Budget, Claim};
use crate::relay::{Busy, Identity, NodeInfo, RelayError, Status};
use crate::sink::{Delivery, Observation, Said, Sink, Ticket, WorkerId, WorkerSet};

/// How many messages may wait for the thread.
const QUEUE_ITEMS: usize = 4 * 1024;
/// How many bytes of publications may wait for the thread.
const QUEUE_BYTES: usize = 32 * 1024 * 1024;
/// How long the node may take to count its channels.
const SURVEY_DEADLINE: Duration = Duration::from_secs(2);
/// How long a caller waits for the thread.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);

type Reply = oneshot::Sender<Result<(), RelayError>>;

enum Message {
    Join(WorkerId, ChannelName),
    Leave(WorkerId, ChannelName),
    Submit(Publication, Ticket, Claim),
    Publish(Publication, Reply, Claim),
    Control(Control, Reply),
    Stop(Option<oneshot::Sender<()>>),
}

/// The memory relay.
pub(crate) struct MemoryRelay {
    /// In boxes: the queue's places are touched in turn, however few are in use, and stay.
    queue: Sender<Box<Message>>,
    budget: Arc<Budget>,
    stopped: AtomicBool,
    identity: Identity,
    sink: Arc<dyn Sink>,
    /// How many channels have a worker; written by the thread.
    heard: Arc<AtomicUsize>,
}

impl MemoryRelay {
    pub(crate) fn start(identity: Identity, sink: Arc<dyn Sink>) -> Result<Self, RelayError> {
        let (queue, messages) = crossbeam_channel::bounded(QUEUE_ITEMS);
        let thread_sink = Arc::clone(&sink);
        let heard = Arc::new(AtomicUsize::new(0));
        let thread_heard = Arc::clone(&heard);
        std::thread::Builder::new()
            .name("relay-memory".into())
            .spawn(move || run(&messages, &*thread_sink, &thread_heard))
            .map_err(|error| RelayError::Settings(format!("cannot start the relay's thread: {error}")))?;
        let budget = Arc::new(Budget::new(QUEUE_BYTES));
        Ok(Self { queue, budget, stopped: AtomicBool::new(false), identity, sink, heard })
    }

    fn send(&self, message: Message) -> Result<(), Busy> {
        if self.stopped.load(Ordering::Relaxed) {
            return Err(Busy);
        }
        self.queue.try_send(Box::new(message)).map_err(|_| Busy)
    }

    pub(crate) fn join(&self, worker: WorkerId, channel: ChannelName) -> Result<(), Busy> {
        self.send(Message::Join(worker, channel))
    }

    pub(crate) fn leave(&self, worker: WorkerId, channel: ChannelName) -> Result<(), Busy> {
        self.send(Message::Leave(worker, channel))
    }

    pub(crate) fn submit(&self, publication: Publication, ticket: Ticket) -> Result<(), Busy> {
        let claim = self.budget.claim(publication.data.len()).ok_or(Busy)?;
        self.send(Message::Submit(publication, ticket, claim))
    }

    pub(crate) async fn publish(&self, publication: Publication) -> Result<(), RelayError> {
        let claim = self.budget.claim(publication.data.len()).ok_or(RelayError::Busy)?;
        self.ask(|reply| Message::Publish(publication, reply, claim)).await
    }

    pub(crate) async fn control(&self, control: Control) -> Result<(), RelayError> {
        self.ask(|reply| Message::Control(control, reply)).await
    }

    async fn ask(&self, message: impl FnOnce(Reply) -> Message) -> Result<(), RelayError> {
        let (reply, answer) = oneshot::channel();
        self.send(message(reply)).map_err(|Busy| RelayError::Busy)?;
        match tokio::time::timeout(ANSWER_DEADLINE, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(RelayError::Away("the relay has stopped".into())),
            Err(_) => Err(RelayError::Away(
                "the workers are busy with what was published before; it may still be delivered".into(),
            )),
        }
    }

    pub(crate) fn channel_count(&self) -> usize {
        self.heard.load(Ordering::Relaxed)
    }

    pub(crate) fn nodes(&self) -> Vec<NodeInfo> {
        vec![self.identity.describe(self.sink.report(), self.channel_count())]
    }

    pub(crate) async fn channels(&self) -> Result<Vec<(String, u64)>, RelayError> {
        let (reply, answer) = oneshot::channel();
        self.sink.channels(reply);
        let Ok(Ok(channels)) = tokio::time::timeout(SURVEY_DEADLINE, answer).await else {
            return Err(RelayError::Away(format!(
                "node {} did not count its channels in time",
                self.identity.id
            )));
        };
        let mut channels: Vec<_> =
            channels.into_iter().map(|(name, count)| (name.to_string(), count)).collect();
        channels.sort();
        Ok(channels)
    }

    pub(crate) fn status(&self) -> Status {
        Status { up: !self.stopped.load(Ordering::Relaxed), since: self.identity.started.elapsed() }
    }

    pub(crate) async fn stop(&self) {
        if self.stopped.swap(true, Ordering::Relaxed) {
            return;
        }
        let (done, ended) = oneshot::channel();
        if self.queue.try_send(Box::new(Message::Stop(Some(done)))).is_ok() {
            let _ = tokio::time::timeout(ANSWER_DEADLINE, ended).await;
        }
    }
}

impl Drop for MemoryRelay {
    fn drop(&mut self) {
        // Where the queue is full, the thread ends with the queue's last sender instead.
        let _ = self.queue.try_send(Box::new(Message::Stop(None)));
    }
}

fn run(messages: &Receiver<Box<Message>>, sink: &dyn Sink, heard: &AtomicUsize) {
    sink.observe(Observation::Up);
    let mut interest: AHashMap<ChannelName, WorkerSet> = AHashMap::new();
    let mut batch = Vec::with_capacity(1);
    let mut deliver = |interest: &AHashMap<ChannelName, WorkerSet>, publication: Publication| {
        if let Some(&workers) = interest.get(&publication.channel) {
            batch.push(Delivery { workers, said: Said::Publication(publication) });
            sink.deliver(&mut batch, Instant::now());
        }
    };
    for message in messages {
        match *message {
            Message::Join(worker, channel) => {
                interest.entry(channel.clone()).or_default().insert(worker);
                heard.store(interest.len(), Ordering::Relaxed);
                sink.joined(worker, &channel, Ok(None));
            }
            Message::Leave(worker, channel) => {
                if let Some(workers) = interest.get_mut(&channel) {
                    workers.remove(worker);
                    if workers.is_empty() {
                        interest.remove(&channel);
                        heard.store(interest.len(), Ordering::Relaxed);
                    }
                }
            }
            Message::Submit(publication, ticket, _claim) => {
                deliver(&interest, publication);
                sink.published(ticket, Ok(()));
            }
            Message::Publish(publication, reply, _claim) => {
                deliver(&interest, publication);
                let _ = reply.send(Ok(()));
            }
            Message::Control(control, reply) => {
                sink.control(control);
                let _ = reply.send(Ok(()));
            }
            Message::Stop(done) => {
                drop(done);
                break;
            }
        }
    }
}
