//! Surveys: one node asks all how many subscribers each channel has.
//!
//! The question goes out on the control channel of all nodes, the answers come back on the asker's own, both in
//! envelopes, so that they cannot be mistaken for the control messages of a backend. An answer may take several
//! messages; all are counted, the last one says so. Everything is bounded: channels a message, channels in all, time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore, oneshot};

use super::lane::LaneSender;
use crate::envelope;
use crate::names::Names;
use crate::relay::RelayError;
use crate::sink::Sink;

/// How long a survey takes at most.
const DEADLINE: Duration = Duration::from_secs(2);
/// How many channels one answering message carries.
const PART_CHANNELS: usize = 2000;
/// How many channels of one node an answer may name, and how many of all nodes an asker takes.
const MOST_CHANNELS: usize = 200_000;
/// How many surveys one node answers at once.
const ANSWERS: usize = 8;

/// What nodes say to each other on the control channels.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Internal {
    /// How many subscribers does each channel have?
    Survey {
        /// The asker's number for the survey.
        id: u64,
        /// The asker.
        reply_to: String,
    },
    /// So many.
    Answer {
        /// The asker's number for the survey.
        id: u64,
        /// Who answers.
        node: String,
        /// Channels of this part.
        channels: Vec<(String, u64)>,
        /// How many parts the answer has.
        parts: usize,
        /// Whether there were more channels than an answer may name.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        too_many: bool,
    },
}

impl Internal {
    fn seal(&self) -> Option<Bytes> {
        let json = serde_json::to_vec(self).ok()?;
        Some(envelope::seal(&json, None, &[]).into())
    }

    /// The message in an envelope; `None` where it is none that this version knows.
    pub(super) fn open(payload: &Bytes) -> Option<Self> {
        let opened = envelope::open(payload).ok()?;
        serde_json::from_slice(&opened.data).ok()
    }
}

#[derive(Debug, Default)]
struct Gathering {
    /// Nodes that have not answered.
    missing: BTreeSet<String>,
    /// Parts seen of nodes that have answered in part.
    parts: BTreeMap<String, usize>,
    counts: BTreeMap<String, u64>,
    too_many: bool,
}

/// The surveys that this node has under way.
#[derive(Debug)]
pub(super) struct Surveys {
    own: String,
    last: AtomicU64,
    gatherings: Mutex<BTreeMap<u64, Gathering>>,
    progress: Notify,
}

impl Surveys {
    pub(super) fn new(own: String) -> Self {
        Self { own, last: AtomicU64::new(0), gatherings: Mutex::default(), progress: Notify::new() }
    }

    fn gatherings(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Gathering>> {
        self.gatherings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks `nodes` and waits for all of them.
    pub(super) async fn ask(
        &self,
        lane: &LaneSender,
        names: &Names,
        nodes: impl Iterator<Item = String>,
    ) -> Result<Vec<(String, u64)>, RelayError> {
        let id = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        self.gatherings().insert(id, Gathering { missing: nodes.collect(), ..Gathering::default() });
        let _forget = Forget { surveys: self, id };
        let question = Internal::Survey { id, reply_to: self.own.clone() };
        let payload =
            question.seal().ok_or_else(|| RelayError::Refused("the survey cannot be written".into()))?;
        lane.say(names.control().to_owned(), payload).await?;
        let _ = tokio::time::timeout(DEADLINE, self.all_answered(id)).await;
        let Some(gathering) = self.gatherings().remove(&id) else {
            return Err(RelayError::Away("the survey was lost".into()));
        };
        if gathering.too_many {
            return Err(RelayError::Refused(format!("there are more than {MOST_CHANNELS} channels to name")));
        }
        if !gathering.missing.is_empty() {
            let missing: Vec<_> = gathering.missing.into_iter().collect();
            return Err(RelayError::Away(format!("node {} did not answer in time", missing.join(", "))));
        }
        Ok(gathering.counts.into_iter().collect())
    }

    async fn all_answered(&self, id: u64) {
        loop {
            let progress = self.progress.notified();
            let mut progress = std::pin::pin!(progress);
            progress.as_mut().enable();
            if self.gatherings().get(&id).is_none_or(|g| g.missing.is_empty() || g.too_many) {
                return;
            }
            progress.await;
        }
    }

    /// Takes one answering message.
    pub(super) fn answered(
        &self,
        id: u64,
        node: String,
        channels: Vec<(String, u64)>,
        parts: usize,
        too_many: bool,
    ) {
        if let Some(gathering) = self.gatherings().get_mut(&id) {
            if !gathering.missing.contains(&node) {
                return;
            }
            for (channel, count) in channels {
                *gathering.counts.entry(channel).or_default() += count;
            }
            gathering.too_many |= too_many || gathering.counts.len() > MOST_CHANNELS;
            let seen = gathering.parts.entry(node.clone()).or_default();
            *seen += 1;
            if *seen >= parts {
                gathering.missing.remove(&node);
            }
        }
        self.progress.notify_waiters();
    }
}

struct Forget<'a> {
    surveys: &'a Surveys,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.surveys.gatherings().remove(&self.id);
    }
}

/// Answers the surveys of others, on the saying thread.
pub(super) struct Answering {
    own: String,
    lane: LaneSender,
    names: Arc<Names>,
    sink: Arc<dyn Sink>,
    say: Handle,
    room: Arc<Semaphore>,
}

impl Answering {
    pub(super) fn new(
        surveys: &Surveys,
        lane: LaneSender,
        names: Arc<Names>,
        sink: Arc<dyn Sink>,
        say: Handle,
    ) -> Self {
        Self { own: surveys.own.clone(), lane, names, sink, say, room: Arc::new(Semaphore::new(ANSWERS)) }
    }

    /// Counts and answers, unless too many surveys are being answered: the asker is told by our silence.
    pub(super) fn answer(&self, id: u64, asker: &str) {
        let Ok(permit) = Arc::clone(&self.room).try_acquire_owned() else { return };
        let (reply, counted) = oneshot::channel();
        self.sink.channels(reply);
        let (own, lane, to) = (self.own.clone(), self.lane.clone(), self.names.control_of(asker));
        self.say.spawn(async move {
            let _permit = permit;
            let Ok(Ok(channels)) = tokio::time::timeout(DEADLINE, counted).await else {
                tracing::warn!("the workers did not count their channels in time for a survey");
                return;
            };
            let too_many = channels.len() > MOST_CHANNELS;
            let channels: Vec<_> = if too_many { Vec::new() } else { channels };
            let parts = channels.len().div_ceil(PART_CHANNELS).max(1);
            for part in 0..parts {
                let slice = channels.iter().skip(part * PART_CHANNELS).take(PART_CHANNELS);
                let channels = slice.map(|(name, count)| (name.to_string(), *count)).collect();
                let answer = Internal::Answer { id, node: own.clone(), channels, parts, too_many };
                let Some(payload) = answer.seal() else { return };
                if let Err(error) = lane.say(to.clone(), payload).await {
                    tracing::debug!(%error, "a survey's answer was not sent");
                    return;
                }
            }
        });
    }
}
