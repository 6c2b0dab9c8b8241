//! One batch of the lane: what was taken from the queue becomes one pipeline, and its answers find their way back.
//!
//! Not here: the queue and the connection (`lane`), how a publication is said (`publish`).

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ::redis::aio::ConnectionLike;
use ::redis::{Pipeline, ServerErrorKind, Value};
use deadpool_redis::Connection;
use tidegate_protocol::ChannelName;

use super::lane::{Item, Lane, MAYBE, What, unanswered};
use super::{log, publish, script, server};
use crate::relay::RelayError;
use crate::settings::RedisSettings;
use crate::sink::Observation;

/// At how many bytes a batch takes no further message.
const BATCH_BYTES: usize = 1024 * 1024;
/// For how many seconds a probe leaves a trace.
const TRACE: u64 = 60;

/// How replicas confirm publications that are kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wait {
    replicas: usize,
    most: Duration,
}

/// A message under way.
struct Sent {
    item: Item,
    /// Whether the answer is a position.
    kept: bool,
}

/// What stands in a pipeline beside its messages.
#[derive(Debug, Clone, Copy, Default)]
struct Beside {
    /// Before the first publication with history Redis is told the script.
    load: bool,
    /// At the end replicas are waited for.
    wait: Option<Wait>,
}

impl Wait {
    /// `None`: nobody is waited for.
    pub(super) fn new(settings: &RedisSettings) -> Option<Self> {
        (settings.wait_replicas > 0)
            .then_some(Self { replicas: settings.wait_replicas, most: settings.wait_timeout })
    }
}

impl Sent {
    fn channel(&self) -> Option<&ChannelName> {
        match &self.item.what {
            What::Publication(outgoing) => Some(&outgoing.publication.channel),
            What::Raw { .. } | What::Probe { .. } => None,
        }
    }

    /// How many commands it is.
    const fn commands(&self) -> usize {
        if matches!(self.item.what, What::Probe { .. }) { 2 } else { 1 }
    }
}

impl Lane {
    /// Sends one pipeline from what was taken. An error means that the connection is not to be used again.
    pub(super) async fn send(&mut self, connection: &mut Connection) -> Result<(), RelayError> {
        let mut pipeline = Pipeline::with_capacity(self.taken.len());
        let mut sent = Vec::with_capacity(self.taken.len());
        let mut beside = Beside::default();
        let mut bytes = 0;
        let now = Instant::now();
        while bytes < BATCH_BYTES
            && let Some(item) = self.taken.pop_front()
        {
            if now > item.deadline {
                let late = format!("not sent within {:?}", self.timeout);
                self.answer(item.answer, Err(RelayError::Away(late)));
                continue;
            }
            let mut kept = false;
            match &item.what {
                What::Publication(outgoing) => {
                    let length = outgoing.publication.data.len();
                    if length > self.most {
                        let error = format!(
                            "a publication of {length} bytes; relay.redis.max_publication_bytes is {}",
                            self.most
                        );
                        self.answer(item.answer, Err(RelayError::Refused(error)));
                        continue;
                    }
                    bytes += length;
                    let kept_at_all = self.keeps && !outgoing.skip_history;
                    match kept_at_all
                        .then(|| self.rules.of(&outgoing.publication.channel).retention)
                        .flatten()
                    {
                        Some(retention) => {
                            kept = true;
                            if !self.loaded && !beside.load {
                                beside.load = true;
                                pipeline.add_command(script::publishing(&self.names).load());
                            }
                            pipeline.add_command(publish::kept(outgoing, retention, &self.names));
                            beside.wait = self.wait;
                        }
                        None => drop(pipeline.add_command(publish::plain(outgoing, &self.names))),
                    }
                }
                What::Raw { channel, payload } => {
                    bytes += payload.len();
                    pipeline.cmd("PUBLISH").arg(channel).arg(&payload[..]);
                }
                What::Probe { channel, number } => {
                    pipeline.cmd("SET").arg(self.names.probe()).arg(number).arg("EX").arg(TRACE);
                    pipeline.cmd("PUBLISH").arg(channel).arg(format!("probe {number}"));
                }
            }
            sent.push(Sent { item, kept });
        }
        if sent.is_empty() {
            return Ok(());
        }
        if let Some(Wait { replicas, most }) = beside.wait {
            pipeline.cmd("WAIT").arg(replicas).arg(u64::try_from(most.as_millis()).unwrap_or(u64::MAX));
        }
        let result = connection.send_packed_commands(&pipeline, 0, pipeline.len()).await;
        self.sink.observe(Observation::Command("publish", now.elapsed()));
        match result {
            Ok(values) => {
                let demoted =
                    values.iter().any(|value| server::failed(value) == Some(ServerErrorKind::ReadOnly));
                if let Some(cluster) = &self.cluster
                    && values.iter().any(server::is_elsewhere)
                {
                    cluster.look_again();
                }
                self.answered(sent, values, beside);
                if demoted {
                    self.renewal.demotions.fetch_add(1, Ordering::Relaxed);
                    return Err(read_only());
                }
                Ok(())
            }
            Err(error) => {
                let lost = if error.is_timeout() {
                    unanswered(self.timeout)
                } else {
                    RelayError::Away(format!("{error}; {MAYBE}"))
                };
                sent.into_iter().for_each(|sent| self.answer(sent.item.answer, Err(lost.clone())));
                Err(lost)
            }
        }
    }

    /// A pipeline was answered.
    fn answered(&mut self, sent: Vec<Sent>, mut values: Vec<Value>, beside: Beside) {
        let unconfirmed = beside.wait.and_then(|wait| unconfirmed(wait, values.pop()));
        let mut values = values.into_iter();
        let (mut again, mut unloaded) = (Vec::new(), beside.load);
        for sent in sent {
            if sent.kept && std::mem::take(&mut unloaded) {
                self.loaded = true;
                if let Some(Err(error)) = values.next().map(|value| server::answer(&value)) {
                    tracing::warn!(%error, "redis does not take the script that history needs");
                }
            }
            // Of a probe only the last answer counts: a Redis that may not write, or is full, is heard all the same.
            let Some(value) = values.by_ref().take(sent.commands()).last() else {
                let error = RelayError::Away(format!("redis did not answer every command; {MAYBE}"));
                self.answer(sent.item.answer, Err(error));
                continue;
            };
            if sent.kept && !beside.load && server::failed(&value) == Some(ServerErrorKind::NoScript) {
                again.push((sent, false));
                continue;
            }
            // What is to be sent again must not come after this.
            let overtaken = |(earlier, overtaken): &mut (Sent, bool)| {
                *overtaken |= earlier.channel() == sent.channel();
            };
            again.iter_mut().for_each(overtaken);
            let result = if sent.kept {
                log::position(&value).and_then(|position| match &unconfirmed {
                    None => Ok(Some(position)),
                    Some(why) => {
                        Err(RelayError::Away(format!("written at offset {}, {why}", position.offset)))
                    }
                })
            } else {
                server::answer(&value).map(|()| None)
            };
            self.answer(sent.item.answer, result);
        }
        self.loaded &= again.is_empty();
        for (sent, overtaken) in again.into_iter().rev() {
            if overtaken {
                let error = "redis forgot the script between two publications; this one was not taken";
                self.answer(sent.item.answer, Err(RelayError::Away(error.into())));
            } else {
                self.taken.push_front(sent.item);
            }
        }
    }
}

/// Why what was written may yet be lost; `None`: enough replicas have it.
fn unconfirmed(wait: Wait, answer: Option<Value>) -> Option<String> {
    match answer {
        Some(Value::Int(count)) if usize::try_from(count).is_ok_and(|count| count >= wait.replicas) => None,
        Some(Value::Int(count)) => {
            Some(format!("but confirmed by {count} of {} replicas within {:?}", wait.replicas, wait.most))
        }
        Some(value) => {
            let error = server::answer(&value).err().map_or_else(String::new, |error| error.to_string());
            Some(format!("but redis does not say by how many replicas it is confirmed: {error}"))
        }
        None => Some("but redis does not say by how many replicas it is confirmed".into()),
    }
}

fn read_only() -> RelayError {
    RelayError::Away("redis is read-only: it is no master, or not any more".into())
}

/// Whether Redis takes writes. That it may refuse this one for other reasons, its ACL or its memory, says nothing.
pub(super) async fn is_writable(connection: &mut Connection, key: &str) -> Result<(), RelayError> {
    let mut set = ::redis::cmd("SET");
    set.arg(key).arg(0).arg("EX").arg(TRACE);
    match connection.req_packed_command(&set).await {
        Ok(value) if server::failed(&value) == Some(ServerErrorKind::ReadOnly) => Err(read_only()),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ::redis::ErrorKind::Server(ServerErrorKind::ReadOnly) => {
            Err(read_only())
        }
        Err(error) if matches!(error.kind(), ::redis::ErrorKind::Server(_)) => Ok(()),
        Err(error) => Err(server::away(&error)),
    }
}
