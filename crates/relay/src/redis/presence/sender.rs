//! The way to the task of presence: changes and questions in one bounded queue.

use std::sync::Arc;
use std::time::Duration;

use ::redis::Value;
use bytes::Bytes;
use tidegate_protocol::{ChannelName, ClientInfo};
use tokio::sync::{mpsc, oneshot};

use super::super::lane::unanswered;
use super::command::{bytes, unexpected};
use super::rooms::Known;
use crate::budget::{Budget, Claim};
use crate::envelope;
use crate::relay::{Busy, PresenceStats, RelayError};

/// How many changes and questions may wait.
const QUEUE_ITEMS: usize = 16 * 1024;
/// How many bytes of what is known of clients may wait.
const QUEUE_BYTES: usize = 32 * 1024 * 1024;
type Reply<T> = oneshot::Sender<Result<T, RelayError>>;

/// What one waits for the task to take.
pub(super) enum Message {
    Enter { channel: ChannelName, client: String, known: Known, _claim: Claim },
    Exit { channel: ChannelName, client: String },
    Ask { channel: ChannelName, question: Question },
}

/// What is asked of a channel.
pub(super) enum Question {
    Everyone(Reply<Vec<ClientInfo>>),
    Stats(Reply<PresenceStats>),
}

/// The way in.
#[derive(Clone)]
pub(in crate::redis) struct PresenceSender {
    queue: mpsc::Sender<Message>,
    budget: Arc<Budget>,
    timeout: Duration,
}

impl PresenceSender {
    /// A way in, and where it leads.
    pub(super) fn new(timeout: Duration) -> (Self, mpsc::Receiver<Message>) {
        let (queue, messages) = mpsc::channel(QUEUE_ITEMS);
        (Self { queue, budget: Arc::new(Budget::new(QUEUE_BYTES)), timeout }, messages)
    }

    pub(in crate::redis) fn enter(&self, channel: ChannelName, client: ClientInfo) -> Result<(), Busy> {
        let info = Bytes::from(envelope::write_info(&client));
        let _claim = self.budget.claim(info.len()).ok_or(Busy)?;
        let known = Known { info, user: client.user };
        self.send(Message::Enter { channel, client: client.client, known, _claim })
    }

    pub(in crate::redis) fn exit(&self, channel: ChannelName, client: String) -> Result<(), Busy> {
        self.send(Message::Exit { channel, client })
    }

    pub(in crate::redis) async fn everyone(
        &self,
        channel: ChannelName,
    ) -> Result<Vec<ClientInfo>, RelayError> {
        self.ask(channel, Question::Everyone).await
    }

    pub(in crate::redis) async fn stats(&self, channel: ChannelName) -> Result<PresenceStats, RelayError> {
        self.ask(channel, Question::Stats).await
    }

    async fn ask<T>(
        &self,
        channel: ChannelName,
        question: impl FnOnce(Reply<T>) -> Question,
    ) -> Result<T, RelayError> {
        let (reply, answer) = oneshot::channel();
        let question = question(reply);
        self.send(Message::Ask { channel, question }).map_err(|Busy| RelayError::Busy)?;
        match tokio::time::timeout(self.timeout * 3, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(RelayError::Away("the relay has stopped".into())),
            Err(_) => Err(unanswered(self.timeout * 3)),
        }
    }

    fn send(&self, message: Message) -> Result<(), Busy> {
        self.queue.try_send(message).map_err(|_| Busy)
    }
}

impl Question {
    // Whoever asked may have given up.
    pub(super) fn fail(self, error: RelayError) {
        match self {
            Self::Everyone(reply) => drop(reply.send(Err(error))),
            Self::Stats(reply) => drop(reply.send(Err(error))),
        }
    }

    /// `parts` are those of the script's answer.
    pub(super) fn answer(self, parts: &[Value]) {
        let count = |value: &Value| if let Value::Int(n) = value { u64::try_from(*n).ok() } else { None };
        match (self, parts) {
            (Self::Everyone(reply), [_, Value::Array(found)]) => {
                let info = |value: &Value| envelope::read_info(&Bytes::copy_from_slice(bytes(value)?));
                drop(reply.send(Ok(found.iter().filter_map(info).collect())));
            }
            (Self::Stats(reply), [_, clients, users]) => {
                let stats =
                    count(clients).zip(count(users)).map(|(clients, users)| PresenceStats { clients, users });
                drop(reply.send(stats.ok_or_else(unexpected)));
            }
            (question, _) => question.fail(unexpected()),
        }
    }
}
