//! What arrives on the pub/sub connection, and where it goes.
//!
//! Called inline while the connection is read: nothing is queued here but the publications of one read, which are handed
//! over before the next. A worker that does not keep up blocks this thread in [`Sink::deliver`], the socket is read no
//! further, and TCP holds Redis back; so the bound is the worker's inbox. All calls come from the hearing thread, which
//! keeps the order of a channel and puts a join's answer before its first delivery.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ::redis::aio::{AsyncPushSender, SendError};
use ::redis::{PushInfo, PushKind, Value};
use bytes::Bytes;
use tidegate_protocol::codec::json::{payload, payload_from};
use tidegate_protocol::control::ControlError;
use tidegate_protocol::{ChannelName, Control, Publication};
use tokio::sync::Notify;

use super::cluster::Cluster;
use super::sieve::Listener;
use super::survey::{Answering, Internal, Surveys};
use crate::envelope::{self, Opened, Presence};
use crate::interest::{Astray, Hearing, Interest};
use crate::names::{Names, Origin};
use crate::recovery::Recoveries;
use crate::relay::RelayError;
use crate::settings::RedisSettings;
use crate::sink::{Delivery, Observation, Said, Sink};
use crate::sparse::{Sparse, sample, shortened};
use crate::track::Live;

/// The largest message on a control channel: a part of a survey's answer with the longest channel names fits.
const MAX_CONTROL_BYTES: usize = 2 * 1024 * 1024;

/// How many publications are handed over together at most.
const MOST_TOGETHER: usize = 512;

/// What the hearing thread knows, across connections.
pub(super) struct Ear {
    pub(super) sink: Arc<dyn Sink>,
    pub(super) names: Arc<Names>,
    /// Locked by the hearing thread alone, for a look or a change; it is a lock because the driver asks for `Sync`.
    interest: Mutex<Interest>,
    /// Locked as `interest` is, and after it.
    recoveries: Mutex<Recoveries>,
    /// Wakes the supervisor: there is something to ask Redis.
    pub(super) wake: Notify,
    pulse: Mutex<Pulse>,
    /// What the read under way has brought; locked as `interest` is.
    heard: Mutex<Heard>,
    surveys: Arc<Surveys>,
    answering: Answering,
    most: usize,
    refused: Sparse,
    /// The cluster, where channels may go to another server.
    cluster: Option<Arc<Cluster>>,
}

/// Publications on their way to the workers.
struct Heard {
    batch: Vec<Delivery>,
    /// When they were read.
    received: Instant,
    /// Whether anything was read since the last look.
    anything: bool,
}

/// Signs of life.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pulse {
    /// When a push was last done with.
    pub(super) heard: Instant,
    /// When a message was last done with. A connection may be answered, and yet get no messages.
    pub(super) told: Instant,
    /// The last probe sent, and when.
    pub(super) probe_sent: (u64, Instant),
    /// The last probe heard.
    pub(super) probe_heard: u64,
}

impl Ear {
    pub(super) fn new(
        settings: &RedisSettings,
        interest: Interest,
        names: Arc<Names>,
        sink: Arc<dyn Sink>,
        surveys: Arc<Surveys>,
        answering: Answering,
        cluster: Option<Arc<Cluster>>,
    ) -> Self {
        let now = Instant::now();
        Self {
            sink,
            names,
            interest: Mutex::new(interest),
            recoveries: Mutex::default(),
            wake: Notify::new(),
            pulse: Mutex::new(Pulse { heard: now, told: now, probe_sent: (0, now), probe_heard: 0 }),
            heard: Mutex::new(Heard { batch: Vec::new(), received: now, anything: false }),
            surveys,
            answering,
            most: settings.max_publication_bytes,
            refused: Sparse::new(Duration::from_secs(1)),
            cluster,
        }
    }

    pub(super) fn interest(&self) -> MutexGuard<'_, Interest> {
        self.interest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn recoveries(&self) -> MutexGuard<'_, Recoveries> {
        self.recoveries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn pulse(&self) -> MutexGuard<'_, Pulse> {
        self.pulse.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The largest publication that is taken.
    pub(super) const fn most(&self) -> usize {
        self.most
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn message(&self, from: &[u8], payload: &[u8], received: Instant) {
        let mut heard = self.heard();
        heard.anything = true;
        match self.names.origin(from) {
            Origin::Channel(name) => {
                // Nobody: the channel lingers, or is not confirmed for anyone yet.
                let Some(hearing) = self.interest().hears(name) else { return };
                let Hearing { channel, workers, tracked } = hearing;
                match self.said(channel, payload, tracked) {
                    Ok(Some(said)) if !workers.is_empty() => {
                        heard.received = received;
                        heard.batch.push(Delivery { workers, said });
                        if heard.batch.len() >= MOST_TOGETHER {
                            self.hand_over(&mut heard);
                        }
                    }
                    Ok(_) => {}
                    Err(reason) => self.refuse(reason, name, payload),
                }
            }
            Origin::Foreign => self.refuse("channel_name", &from.escape_ascii().to_string(), payload),
            origin => {
                // What was published before is delivered before.
                self.hand_over(&mut heard);
                drop(heard);
                match (origin, probe(payload)) {
                    (Origin::Own, Some(number)) => self.probed(number),
                    (Origin::Own, None) => self.control("own control", Bytes::copy_from_slice(payload)),
                    _ => self.control("control", Bytes::copy_from_slice(payload)),
                }
            }
        }
    }

    fn hand_over(&self, heard: &mut Heard) {
        if !heard.batch.is_empty() {
            self.sink.deliver(&mut heard.batch, heard.received);
            heard.batch.clear();
        }
    }

    /// What a payload says, in memory of its own; `None`: it waits for what is missing before it. Or why it is refused.
    fn said(
        &self,
        channel: ChannelName,
        message: &[u8],
        tracked: bool,
    ) -> Result<Option<Said>, &'static str> {
        if !envelope::is_envelope(message) {
            if message.len() > self.most {
                return Err("too_large");
            }
            let data = payload(message).map_err(|_| "not_json")?;
            let publication = Publication { channel, data, info: None, tags: Vec::new(), offset: 0 };
            return Ok(Some(Said::Publication(publication)));
        }
        let opened = envelope::open(&Bytes::copy_from_slice(message)).map_err(|_| "envelope")?;
        let Opened { data, info, tags, offset, epoch, presence } = opened;
        match presence {
            // The nodes' settings differ, or somebody writes what is not theirs.
            Some(_) if !self.interest().tells_presence(&channel) => return Ok(None),
            Some(Presence::Join(info)) => return Ok(Some(Said::Join(channel, info))),
            Some(Presence::Leave(info)) => return Ok(Some(Said::Leave(channel, info))),
            None => {}
        }
        // Who publishes with history into a namespace without has it for nobody.
        let offset = if tracked { offset } else { 0 };
        let fits = data.len() <= self.most;
        let checked = if fits { payload_from(data).map_err(|_| "not_json") } else { Err("too_large") };
        let data = match checked {
            Ok(data) => data,
            // It has a place in the stream all the same: the log says so, and there it is refused.
            Err(_) if offset > 0 => {
                self.doubt(&channel);
                return Ok(None);
            }
            Err(reason) => return Err(reason),
        };
        let publication = Publication { channel, data, info, tags, offset };
        if offset == 0 {
            return Ok(Some(Said::Publication(publication)));
        }
        Ok(self.heard_live(Live { epoch, publication }).map(Said::Publication))
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
            Err(error) => self.refuse_because("control", from, &payload, payload.len(), Some(&error)),
        }
    }

    fn probed(&self, number: u64) {
        let mut pulse = self.pulse();
        let (sent, at) = pulse.probe_sent;
        pulse.probe_heard = pulse.probe_heard.max(number);
        drop(pulse);
        if sent == number {
            self.sink.observe(Observation::Probe(at.elapsed()));
        }
    }

    pub(super) fn refuse(&self, reason: &'static str, from: &str, payload: &[u8]) {
        self.refuse_because(reason, from, payload, payload.len(), None);
    }

    /// `payload` may be no more than the beginning of the `bytes`.
    fn refuse_because(
        &self,
        reason: &'static str,
        from: &str,
        payload: &[u8],
        bytes: usize,
        why: Option<&ControlError>,
    ) {
        self.sink.observe(Observation::Refused(reason));
        if let Some(held_back) = self.refused.speak(Instant::now()) {
            let sample = sample(payload);
            let why = why.map(|why| shortened(&why.to_string()));
            tracing::warn!(reason, why, channel = from, bytes, %sample, held_back, "refused a message from redis");
        }
    }

    fn subscribed(&self, name: &[u8]) {
        let Origin::Channel(name) = self.names.origin(name) else { return };
        let confirmed = self.interest().confirmed(name);
        if let Some((channel, workers)) = confirmed {
            workers.iter().for_each(|worker| self.sink.joined(worker, &channel, Ok(None)));
        } else {
            // A channel with history: its position is to be read.
            self.recoveries().asked(name);
            self.wake.notify_one();
        }
    }

    /// A server of a cluster has given the channel's slot away: whoever waits for it is told, and the channel goes where the
    /// slot went. `false`: it was we who gave it up.
    fn taken_away(&self, name: &[u8]) -> bool {
        let Origin::Channel(name) = self.names.origin(name) else { return false };
        if self.interest().is_leaving(name) {
            return false;
        }
        self.astray(name);
        true
    }

    /// The channel is another server's. Joins under way fail; who heard it goes along to wherever it is.
    pub(super) fn astray(&self, name: &str) {
        // What was published before is delivered before.
        let mut heard = self.heard();
        self.hand_over(&mut heard);
        drop(heard);
        let astray = self.interest().astray(name);
        if let Some(Astray { channel, failed, gap }) = astray {
            let error = RelayError::Away("the channel is on its way to another server".into());
            self.refuse_recoveries(&channel, &error.to_string());
            failed.iter().for_each(|worker| self.sink.joined(worker, &channel, Err(error.clone())));
            if gap {
                self.sink.observe(Observation::Missed { channels: 1 });
            }
        }
        self.look_again();
    }

    /// Somebody was sent elsewhere: the cluster's table is old.
    pub(super) fn look_again(&self) {
        if let Some(cluster) = &self.cluster {
            cluster.look_again();
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

/// One connection's way into the [`Ear`]: as a [`Listener`] for messages, as the driver's push sender for the rest.
#[derive(Clone)]
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

    pub(super) fn is_current(&self) -> bool {
        self.current.load(Ordering::Relaxed)
    }
}

impl Router {
    pub(super) fn new(ear: Arc<Ear>, line: Arc<Line>) -> Self {
        Self { ear, line }
    }
}

impl Listener for Router {
    /// A publication in an envelope, or a control message.
    fn most_bytes(&self) -> usize {
        self.ear.most.saturating_add(2 * envelope::MAX_HEADER_BYTES).max(MAX_CONTROL_BYTES)
    }

    fn listens(&self) -> bool {
        self.line.is_current()
    }

    fn message(&self, channel: &[u8], payload: &[u8], received: Instant) {
        self.ear.message(channel, payload, received);
    }

    fn too_large(&self, channel: &[u8], beginning: &[u8], bytes: usize) {
        self.ear.heard().anything = true;
        let from = match self.ear.names.origin(channel) {
            Origin::Channel(name) => name.to_owned(),
            _ => channel.escape_ascii().to_string(),
        };
        self.ear.refuse_because("too_large", &from, beginning, bytes, None);
    }

    fn taken_away(&self, channel: &[u8]) -> bool {
        self.ear.taken_away(channel)
    }

    fn read_is_done(&self) {
        let mut heard = self.ear.heard();
        if std::mem::take(&mut heard.anything) {
            self.ear.hand_over(&mut heard);
            drop(heard);
            let mut pulse = self.ear.pulse();
            pulse.heard = Instant::now();
            pulse.told = pulse.heard;
        }
    }
}

impl AsyncPushSender for Router {
    fn send(&self, push: PushInfo) -> Result<(), SendError> {
        if !self.line.is_current() {
            return Err(SendError);
        }
        let mut data = push.data.into_iter();
        match (push.kind, data.next()) {
            (PushKind::Subscribe | PushKind::SSubscribe, Some(Value::BulkString(name))) => {
                self.ear.subscribed(&name);
            }
            (PushKind::Unsubscribe | PushKind::SUnsubscribe, Some(Value::BulkString(name))) => {
                self.ear.unsubscribed(&name);
            }
            (PushKind::Disconnection, ..) => self.line.gone.notify_one(),
            _ => {}
        }
        self.ear.pulse().heard = Instant::now();
        Ok(())
    }
}
