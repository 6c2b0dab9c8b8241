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
/// What is known of a client beyond this is left out: it would not fit into an envelope's header.
const MOST_INFO: usize = envelope::MAX_HEADER_BYTES - 64;

type Reply<T> = oneshot::Sender<Result<T, RelayError>>;

/// What one waits for the task to take.
pub(super) enum Message {
    Enter {
        channel: ChannelName,
        client: String,
        known: Known,
        _claim: Option<Claim>,
    },
    Exit {
        channel: ChannelName,
        client: String,
    },
    Ask {
        channel: ChannelName,
        question: Question,
    },
    /// The channels that are not kept are another server's: who is present there goes along.
    Release {
        is_kept: Box<IsKept>,
        reply: oneshot::Sender<Vec<Attendee>>,
    },
}

/// Which channels stay.
pub(in crate::redis) type IsKept = dyn Fn(&ChannelName) -> bool + Send;

/// A session of this node that is present in a channel.
pub(in crate::redis) struct Attendee {
    pub(in crate::redis) channel: ChannelName,
    client: String,
    known: Known,
}

impl Attendee {
    /// Where, who, and what is known of it.
    pub(super) fn into_parts(self) -> (ChannelName, String, Known) {
        (self.channel, self.client, self.known)
    }

    pub(super) fn new((channel, client, known): (ChannelName, String, Known)) -> Self {
        Self { channel, client, known }
    }
}

/// What is asked of a channel, and who waits for the answer: all who ask for the same share it.
pub(super) enum Question {
    Everyone(Vec<Reply<Arc<[ClientInfo]>>>),
    Stats(Vec<Reply<PresenceStats>>),
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
        let mut info = Bytes::from(envelope::write_info(&client));
        if info.len() > MOST_INFO {
            let bare = ClientInfo { conn_info: Bytes::new(), chan_info: Bytes::new(), ..client.clone() };
            info = envelope::write_info(&bare).into();
        }
        let _claim = Some(self.budget.claim(info.len()).ok_or(Busy)?);
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
        // Copied here and not by the task, which others wait for.
        self.ask(channel, |reply| Question::Everyone(vec![reply])).await.map(|everyone| everyone.to_vec())
    }

    pub(in crate::redis) async fn stats(&self, channel: ChannelName) -> Result<PresenceStats, RelayError> {
        self.ask(channel, |reply| Question::Stats(vec![reply])).await
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

    /// Takes out who is present in channels that are not kept; `None` where that is not answered in time.
    pub(in crate::redis) async fn release(&self, is_kept: Box<IsKept>) -> Option<Vec<Attendee>> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Release { is_kept, reply }).ok()?;
        tokio::time::timeout(self.timeout * 3, answer).await.ok()?.ok()
    }

    /// Takes over a session of another part.
    pub(in crate::redis) async fn adopt(&self, attendee: Attendee) {
        let Attendee { channel, client, known } = attendee;
        // Beyond the budget it is taken all the same: it was within it where it came from.
        let _claim = self.budget.claim(known.info.len());
        let message = Message::Enter { channel, client, known, _claim };
        let _ = tokio::time::timeout(self.timeout * 3, self.queue.send(message)).await;
    }

    fn send(&self, message: Message) -> Result<(), Busy> {
        self.queue.try_send(message).map_err(|_| Busy)
    }
}

impl Question {
    /// Adds those who wait for the answer to another question of the same kind.
    pub(super) fn join(&mut self, other: Self) {
        match (self, other) {
            (Self::Everyone(replies), Self::Everyone(more)) => replies.extend(more),
            (Self::Stats(replies), Self::Stats(more)) => replies.extend(more),
            (_, other) => other.fail(unexpected()),
        }
    }

    pub(super) fn fail(self, error: RelayError) {
        match self {
            Self::Everyone(replies) => tell(replies, Err(error)),
            Self::Stats(replies) => tell(replies, Err(error)),
        }
    }

    /// `parts` are those of the script's answer.
    pub(super) fn answer(self, parts: &[Value]) {
        let count = |value: &Value| if let Value::Int(n) = value { u64::try_from(*n).ok() } else { None };
        match (self, parts) {
            (Self::Everyone(replies), [_, Value::Array(found)]) => {
                let info = |value: &Value| envelope::read_info(&Bytes::copy_from_slice(bytes(value)?));
                tell(replies, Ok(found.iter().filter_map(info).collect()));
            }
            (Self::Stats(replies), [_, clients, users]) => {
                let stats =
                    count(clients).zip(count(users)).map(|(clients, users)| PresenceStats { clients, users });
                tell(replies, stats.ok_or_else(unexpected));
            }
            (question, _) => question.fail(unexpected()),
        }
    }
}

/// Whoever asked may have given up.
fn tell<T: Clone>(replies: Vec<Reply<T>>, answer: Result<T, RelayError>) {
    replies.into_iter().for_each(|reply| drop(reply.send(answer.clone())));
}
