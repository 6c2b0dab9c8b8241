//! The relay of a single node: the promises of the Redis relay without Redis.
//!
//! One thread takes everything from one bounded queue, so joins, publications, presence and control messages keep their
//! order. Nothing leaves the process, and nothing outlives it. Not here: a registry or other nodes; the node knows itself
//! alone.

mod keeper;
mod keys;
mod log;
mod logs;
mod presence;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::Sender;
use tidegate_protocol::{ChannelName, ClientInfo, Control, Position};
use tokio::sync::oneshot;

use self::keeper::Keeper;
use crate::budget::{Budget, Claim};
use crate::relay::{
    Busy, History, HistoryQuery, Identity, NodeInfo, Outgoing, PresenceStats, Recover, RelayError, Status,
};
use crate::rules::Rules;
use crate::settings::MemorySettings;
use crate::sink::{Sink, Ticket, WorkerId};

/// How many messages may wait for the thread.
const QUEUE_ITEMS: usize = 4 * 1024;
/// How many bytes of publications and of what is said of clients may wait for the thread.
const QUEUE_BYTES: usize = 32 * 1024 * 1024;
/// How long the node may take to count its channels.
const SURVEY_DEADLINE: Duration = Duration::from_secs(2);
/// How long a caller waits for the thread.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);

type Reply<T> = oneshot::Sender<Result<T, RelayError>>;

enum Message {
    Join(WorkerId, ChannelName),
    Leave(WorkerId, ChannelName),
    Submit(Outgoing, Ticket, Claim),
    Publish(Outgoing, Reply<Option<Position>>, Claim),
    Recover(Recover),
    History(ChannelName, HistoryQuery, Reply<History>),
    HistoryRemove(ChannelName, Reply<()>),
    Enter(ChannelName, ClientInfo, Claim),
    Exit(ChannelName, String),
    Presence(ChannelName, Reply<Vec<ClientInfo>>),
    PresenceStats(ChannelName, Reply<PresenceStats>),
    Control(Control, Reply<()>),
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
    pub(crate) fn start(
        settings: MemorySettings,
        identity: Identity,
        rules: Arc<Rules>,
        sink: Arc<dyn Sink>,
    ) -> Result<Self, RelayError> {
        let (queue, messages) = crossbeam_channel::bounded(QUEUE_ITEMS);
        let heard = Arc::new(AtomicUsize::new(0));
        let keeper = Keeper::new(settings.history_bytes, rules, Arc::clone(&sink), Arc::clone(&heard));
        std::thread::Builder::new()
            .name("relay-memory".into())
            .spawn(move || keeper.run(&messages))
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

    pub(crate) fn submit(&self, outgoing: Outgoing, ticket: Ticket) -> Result<(), Busy> {
        let claim = self.budget.claim(outgoing.publication.data.len()).ok_or(Busy)?;
        self.send(Message::Submit(outgoing, ticket, claim))
    }

    pub(crate) async fn publish(&self, outgoing: Outgoing) -> Result<Option<Position>, RelayError> {
        let claim = self.budget.claim(outgoing.publication.data.len()).ok_or(RelayError::Busy)?;
        self.ask(|reply| Message::Publish(outgoing, reply, claim)).await
    }

    pub(crate) fn recover(&self, recover: Recover) -> Result<(), Busy> {
        self.send(Message::Recover(recover))
    }

    pub(crate) async fn history(
        &self,
        channel: ChannelName,
        query: HistoryQuery,
    ) -> Result<History, RelayError> {
        self.ask(|reply| Message::History(channel, query, reply)).await
    }

    pub(crate) async fn history_remove(&self, channel: ChannelName) -> Result<(), RelayError> {
        self.ask(|reply| Message::HistoryRemove(channel, reply)).await
    }

    pub(crate) fn enter(&self, channel: ChannelName, client: ClientInfo) -> Result<(), Busy> {
        let claim = self.budget.claim(client.conn_info.len() + client.chan_info.len()).ok_or(Busy)?;
        self.send(Message::Enter(channel, client, claim))
    }

    pub(crate) fn exit(&self, channel: ChannelName, client: String) -> Result<(), Busy> {
        self.send(Message::Exit(channel, client))
    }

    pub(crate) async fn presence(&self, channel: ChannelName) -> Result<Vec<ClientInfo>, RelayError> {
        self.ask(|reply| Message::Presence(channel, reply)).await
    }

    pub(crate) async fn presence_stats(&self, channel: ChannelName) -> Result<PresenceStats, RelayError> {
        self.ask(|reply| Message::PresenceStats(channel, reply)).await
    }

    pub(crate) async fn control(&self, control: Control) -> Result<(), RelayError> {
        self.ask(|reply| Message::Control(control, reply)).await
    }

    async fn ask<T>(&self, message: impl FnOnce(Reply<T>) -> Message) -> Result<T, RelayError> {
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
