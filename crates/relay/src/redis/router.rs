//! What arrives on the pub/sub connection, and where it goes.
//!
//! Called inline by the connection's driver: nothing is queued here. A worker that does not keep up blocks this thread
//! in [`Sink::deliver`], the socket is read no further, and TCP holds Redis back; so the bound is the worker's inbox.
//! All calls come from the hearing thread, which keeps the order of a channel and puts a join's answer before its first
//! delivery.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ::redis::aio::{AsyncPushSender, SendError};
use ::redis::{PushInfo, PushKind, Value};
use bytes::Bytes;
use tidegate_protocol::codec::json::payload_from;
use tidegate_protocol::control::ControlError;
use tidegate_protocol::{ChannelName, Control, Publication};
use tokio::sync::Notify;

use super::survey::{Answering, Internal, Surveys};
use crate::envelope::{self, Opened};
use crate::interest::Interest;
use crate::names::{Names, Origin};
use crate::settings::RedisSettings;
use crate::sink::{Observation, Sink};
use crate::sparse::{Sparse, sample, shortened};

/// The largest message on a control channel: a part of a survey's answer with the longest channel names fits.
const MAX_CONTROL_BYTES: usize = 2 * 1024 * 1024;

/// What the hearing thread knows, across connections.
pub(super) struct Ear {
    pub(super) sink: Arc<dyn Sink>,
    pub(super) names: Arc<Names>,
    /// Locked by the hearing thread alone, for a look or a change; it is a lock because the driver asks for `Sync`.
    interest: Mutex<Interest>,
    pulse: Mutex<Pulse>,
    surveys: Arc<Surveys>,
    answering: Answering,
    most: usize,
    refused: Sparse,
}

/// Signs of life.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pulse {
    /// When a push was last done with.
    pub(super) heard: Instant,
    /// The last probe sent, and when.
    pub(super) probe_sent: (u64, Instant),
    /// The last probe heard.
    pub(super) probe_heard: u64,
}

impl Ear {
    pub(super) fn new(
        settings: &RedisSettings,
        names: Arc<Names>,
        sink: Arc<dyn Sink>,
        surveys: Arc<Surveys>,
        answering: Answering,
    ) -> Self {
        let now = Instant::now();
        Self {
            sink,
            names,
            interest: Mutex::new(Interest::new(settings.linger)),
            pulse: Mutex::new(Pulse { heard: now, probe_sent: (0, now), probe_heard: 0 }),
            surveys,
            answering,
            most: settings.max_publication_bytes,
            refused: Sparse::new(Duration::from_secs(1)),
        }
    }

    pub(super) fn interest(&self) -> MutexGuard<'_, Interest> {
        self.interest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn pulse(&self) -> MutexGuard<'_, Pulse> {
        self.pulse.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn message(&self, from: &[u8], payload: Vec<u8>, received: Instant) {
        match self.names.origin(from) {
            Origin::Channel(name) => {
                // Nobody: the channel lingers, or is not confirmed for anyone yet.
                let Some((channel, workers)) = self.interest().hears(name) else { return };
                match self.publication(channel, payload.into()) {
                    Ok(publication) => self.sink.deliver(workers, publication, received),
                    Err((reason, payload)) => self.refuse(reason, name, &payload),
                }
            }
            Origin::Control => self.control("control", payload.into()),
            Origin::Own => match probe(&payload) {
                Some(number) => self.probed(number),
                None => self.control("own control", payload.into()),
            },
            Origin::Foreign => self.refuse("channel_name", &from.escape_ascii().to_string(), &payload),
        }
    }

    fn publication(
        &self,
        channel: ChannelName,
        payload: Bytes,
    ) -> Result<Publication, (&'static str, Bytes)> {
        let too_large = |payload: &Bytes| payload.len() > self.most;
        let Opened { data, info, tags } = if envelope::is_envelope(&payload) {
            envelope::open(&payload).map_err(|_| ("envelope", payload))?
        } else {
            Opened { data: payload, info: None, tags: Vec::new() }
        };
        if too_large(&data) {
            return Err(("too_large", data));
        }
        match payload_from(data.clone()) {
            Ok(data) => Ok(Publication { channel, data, info, tags }),
            Err(_) => Err(("not_json", data)),
        }
    }

    fn control(&self, from: &str, payload: Bytes) {
        if payload.len() > MAX_CONTROL_BYTES {
            return self.refuse("too_large", from, &payload);
        }
        if envelope::is_envelope(&payload) {
            match Internal::open(&payload) {
                Some(Internal::Survey { id, reply_to }) => self.answering.answer(id, &reply_to),
                Some(Internal::Answer { id, node, channels, parts, too_many }) => {
                    self.surveys.answered(id, node, channels, parts, too_many);
                }
                // A newer node's message is not a fault.
                None => tracing::debug!(sample = %sample(&payload), "unknown message between nodes"),
            }
            return;
        }
        match Control::parse(&payload) {
            Ok(control) => self.sink.control(control),
            Err(error) => self.refuse_because("control", from, &payload, Some(&error)),
        }
    }

    fn probed(&self, number: u64) {
        let mut pulse = self.pulse();
        let (sent, at) = pulse.probe_sent;
        pulse.probe_heard = pulse.probe_heard.max(number);
        drop(pulse);
        if sent == number {
            self.sink.observe(Observation::Command("probe", at.elapsed()));
        }
    }

    fn refuse(&self, reason: &'static str, from: &str, payload: &[u8]) {
        self.refuse_because(reason, from, payload, None);
    }

    fn refuse_because(&self, reason: &'static str, from: &str, payload: &[u8], why: Option<&ControlError>) {
        self.sink.observe(Observation::Refused(reason));
        if let Some(held_back) = self.refused.speak(Instant::now()) {
            let (sample, bytes) = (sample(payload), payload.len());
            let why = why.map(|why| shortened(&why.to_string()));
            tracing::warn!(reason, why, channel = from, bytes, %sample, held_back, "refused a message from redis");
        }
    }

    fn subscribed(&self, name: &[u8]) {
        let Origin::Channel(name) = self.names.origin(name) else { return };
        let confirmed = self.interest().confirmed(name);
        if let Some((channel, workers)) = confirmed {
            workers.iter().for_each(|worker| self.sink.joined(worker, &channel, Ok(())));
        }
    }

    fn unsubscribed(&self, name: &[u8]) {
        if let Origin::Channel(name) = self.names.origin(name) {
            self.interest().given_up(name);
        }
    }
}

/// The number in `probe <number>`.
fn probe(payload: &[u8]) -> Option<u64> {
    std::str::from_utf8(payload.strip_prefix(b"probe ")?).ok()?.parse().ok()
}

/// One connection's way into the [`Ear`].
pub(super) struct Router {
    ear: Arc<Ear>,
    line: Arc<Line>,
}

/// What a connection and its supervisor share.
#[derive(Debug)]
pub(super) struct Line {
    /// Whether the connection is still the one in use.
    current: AtomicBool,
    /// Told when the connection has ended.
    pub(super) gone: Notify,
}

impl Line {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { current: AtomicBool::new(true), gone: Notify::new() })
    }

    /// Nothing more is taken from the connection.
    pub(super) fn cut(&self) {
        self.current.store(false, Ordering::Relaxed);
    }
}

impl Router {
    pub(super) fn new(ear: Arc<Ear>, line: Arc<Line>) -> Self {
        Self { ear, line }
    }
}

impl AsyncPushSender for Router {
    fn send(&self, push: PushInfo) -> Result<(), SendError> {
        if !self.line.current.load(Ordering::Relaxed) {
            return Err(SendError);
        }
        let received = Instant::now();
        let mut data = push.data.into_iter();
        match (push.kind, data.next(), data.next()) {
            (PushKind::Message, Some(Value::BulkString(from)), Some(Value::BulkString(payload))) => {
                self.ear.message(&from, payload, received);
            }
            (PushKind::Subscribe, Some(Value::BulkString(name)), _) => self.ear.subscribed(&name),
            (PushKind::Unsubscribe, Some(Value::BulkString(name)), _) => self.ear.unsubscribed(&name),
            (PushKind::Disconnection, ..) => self.line.gone.notify_one(),
            _ => {}
        }
        self.ear.pulse().heard = Instant::now();
        Ok(())
    }
}
