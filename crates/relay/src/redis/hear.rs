//! The supervisor of the pub/sub connection: connect, subscribe, watch, and again, for ever.
//!
//! ```text
//!   connecting --> restoring --> standing
//!       ^              |             |
//!       +--- back-off <+-------------+   closed, silent or deaf
//! ```
//!
//! Joins are taken only while the connection stands; before that they are answered with a temporary error at once. What
//! workers heard before an interruption is subscribed again, in batches, before the relay counts as up. Where channels
//! with history stand, and what was missed of them, is asked on the same connection (`repair`).
//!
//! The connection is watched in two ways. A PING on it finds a dead link or a stopped server. A probe, written and published
//! through the lane and expected here, finds a connection that is alive and yet hears nothing, and a master that is none any
//! more. Neither counts as missing while other messages still arrive: a thread that a slow worker held back has the answers
//! in its socket, unread.
//!
//! Not here: what happens to messages (`router`), which channels are wanted (`crate::interest`), the commands (`watching`).

mod losses;
mod transfer;

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::redis::{RedisResult, ServerErrorKind, Value};
use futures_util::StreamExt;
use tidegate_protocol::ChannelName;
use tokio::sync::{mpsc, oneshot, watch};

use super::backoff::Backoff;
use super::health::Health;
use super::lane::LaneSender;
use super::log::{self, Paging};
use super::registry::Registry;
use super::router::{Ear, Line};
use super::server::{self, Listening, Server};
use super::stopped;
use super::watching::{Batch, Done, Questions, Watch};
use crate::interest::{Join, Moved};
use crate::relay::{Recover, RelayError};
use crate::rules::Rules;
use crate::settings::RedisSettings;
use crate::sink::{Observation, WorkerId};
use crate::sparse::Sparse;

/// How many channels one SUBSCRIBE or UNSUBSCRIBE names.
const MOST_CHANNELS: usize = 1000;
/// How many SUBSCRIBEs are under way at once.
const PIPELINED: usize = 4;
/// How many questions about positions go together, and how many such batches are under way at once.
const MOST_LOOKS: usize = 500;
const LOOKS_AT_ONCE: usize = 4;
/// How many batches of questions about logs are under way at once.
const READS_AT_ONCE: usize = 2;
/// How many joins and leaves are taken in one turn.
const TURN: usize = 4096;
/// How often the supervisor looks around.
const TICK: Duration = Duration::from_millis(200);

/// What a worker asks, and what becomes of channels in a cluster.
pub(super) enum Request {
    Join(WorkerId, ChannelName),
    Leave(WorkerId, ChannelName),
    Recover(Recover),
    /// The channels that are not kept are another server's.
    Release {
        is_kept: Box<IsKept>,
        reply: oneshot::Sender<Vec<Moved>>,
    },
    /// Channels of another part are this one's from now on.
    Adopt(Vec<Moved>),
}

/// Which channels stay.
pub(super) type IsKept = dyn Fn(&ChannelName) -> bool + Send;

/// Why a connection is not used any more.
enum End {
    /// The relay stops.
    Stop,
    /// The connection failed.
    Lost(String),
}

/// The supervisor.
pub(super) struct Hear {
    server: Arc<Server>,
    ear: Arc<Ear>,
    lane: LaneSender,
    health: Arc<Health>,
    registry: Arc<Registry>,
    rules: Arc<Rules>,
    paging: Paging,
    requests: mpsc::Receiver<Request>,
    stop: watch::Receiver<bool>,
    probe_interval: Duration,
    /// After how long a probe counts as lost: with the interval that it waited for, less than two of them.
    probe_deadline: Duration,
    probes: u64,
    /// Whether a connection has ever stood.
    was_up: bool,
    complaint: Sparse,
    /// Of subscriptions that Redis refuses: clients choose their names.
    refusals: Sparse,
}

impl Hear {
    #[expect(clippy::too_many_arguments, reason = "the one place that puts the parts together")]
    pub(super) fn new(
        settings: &RedisSettings,
        server: Arc<Server>,
        ear: Arc<Ear>,
        lane: LaneSender,
        health: &Arc<Health>,
        requests: mpsc::Receiver<Request>,
        stop: watch::Receiver<bool>,
        registry: &Arc<Registry>,
        rules: &Arc<Rules>,
    ) -> Self {
        Self {
            server,
            ear,
            lane,
            health: Arc::clone(health),
            registry: Arc::clone(registry),
            rules: Arc::clone(rules),
            paging: Paging::new(settings.max_publication_bytes),
            requests,
            stop,
            probe_interval: settings.probe_interval,
            probe_deadline: settings
                .command_timeout
                .clamp(Duration::from_millis(500), Duration::from_secs(5))
                .min(settings.probe_interval.mul_f64(0.6)),
            probes: 0,
            was_up: false,
            complaint: Sparse::new(Duration::from_secs(10)),
            refusals: Sparse::new(Duration::from_secs(1)),
        }
    }

    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::new();
        loop {
            let line = Line::new();
            let (server, ear, heard) = (Arc::clone(&self.server), Arc::clone(&self.ear), Arc::clone(&line));
            let Some(attempt) = self.meanwhile(async move { server.listen(ear, heard).await }).await else {
                break;
            };
            match attempt {
                Ok(listening) => {
                    let began = Instant::now();
                    let (end, stood) = self.watch(listening, &line).await;
                    line.cut();
                    match end {
                        End::Stop => break,
                        End::Lost(why) => self.interrupted(&why, stood),
                    }
                    // A connection that is cut as soon as it stands is no reason to hurry.
                    if stood && began.elapsed() > self.probe_interval {
                        backoff.reset();
                    }
                }
                Err(error) => self.complain(&error.to_string()),
            }
            if self.meanwhile(tokio::time::sleep(backoff.wait())).await.is_none() {
                break;
            }
        }
        self.health.deaf(0);
        self.lose_pending("the relay is stopping");
        self.requests.close();
        while let Some(request) = self.requests.recv().await {
            self.refuse(request);
        }
    }

    /// Waits for `work`, answering joins meanwhile. `None` when the relay stops.
    async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = std::pin::pin!(work);
        let mut turn = Vec::new();
        loop {
            tokio::select! {
                biased;
                () = stopped(&mut self.stop) => return None,
                result = &mut work => return Some(result),
                count = self.requests.recv_many(&mut turn, TURN) => if count == 0 { return None },
            }
            turn.drain(..).for_each(|request| self.refuse(request));
        }
    }

    /// Looks after one connection until it fails. Says whether it ever stood.
    async fn watch(&mut self, listening: Listening, line: &Line) -> (End, bool) {
        let now = Instant::now();
        let mut watch = Watch::new(listening, self.lane.demotions(), now);
        {
            let mut pulse = self.ear.pulse();
            (pulse.heard, pulse.told) = (now, now);
            // A probe that was lost with the last connection says nothing of this one.
            pulse.probe_heard = self.probes;
        }
        // The publishing connection may be of a Redis that is gone, and an idle one would not know.
        self.lane.renew();
        self.ear.interest().restore();
        if self.rules.keep() {
            watch.load_scripts();
        }
        watch.subscribe_control(self.controls());
        watch.ping(now);
        let mut tick = tokio::time::interval(TICK.min(self.probe_interval / 8));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut turn = Vec::new();
        loop {
            self.work(&mut watch);
            tokio::select! {
                biased;
                () = stopped(&mut self.stop) => return (End::Stop, watch.standing),
                () = line.gone.notified() => {
                    return (End::Lost("redis closed the connection".into()), watch.standing);
                }
                _ = tick.tick() => if let Some(why) = self.look(&mut watch) {
                    return (End::Lost(why), watch.standing);
                },
                Some(done) = watch.flying.next() => if let Err(why) = self.done(&mut watch, done) {
                    return (End::Lost(why), watch.standing);
                },
                count = self.requests.recv_many(&mut turn, TURN) => {
                    if count == 0 {
                        return (End::Stop, watch.standing);
                    }
                    for request in turn.drain(..) {
                        if watch.standing { self.take(request) } else { self.refuse(request) }
                    }
                }
                () = self.ear.wake.notified() => {}
            }
        }
    }

    /// Sends what is to be sent, and notices when everything is subscribed.
    fn work(&mut self, watch: &mut Watch) {
        let mut interest = self.ear.interest();
        while watch.subscribing < PIPELINED && interest.has_to_ask() {
            let number = watch.next_number();
            let channels = interest.next_to_ask(MOST_CHANNELS, number);
            watch.subscribe(number, channels, &self.ear);
        }
        while watch.looking < LOOKS_AT_ONCE
            && let looks = interest.next_looks(MOST_LOOKS)
            && !looks.is_empty()
        {
            watch.ask(looks, false, self.paging, &self.rules, &self.ear);
        }
        while watch.reading < READS_AT_ONCE
            && let reads = interest.next_reads(self.paging.reads())
            && !reads.is_empty()
        {
            watch.ask(reads, true, self.paging, &self.rules, &self.ear);
        }
        if !watch.unsubscribing {
            let batch = interest.next_to_give_up(Instant::now(), MOST_CHANNELS);
            if !batch.is_empty() {
                watch.unsubscribe(&batch, &self.ear);
            }
        }
        let restored = watch.controlled && watch.subscribing == 0 && !interest.has_to_ask();
        let channels = interest.len();
        drop(interest);
        if restored && !watch.standing {
            watch.standing = true;
            tracing::info!(redis = self.server.address, channels, again = self.was_up, "hearing redis");
            self.health.hears();
            if std::mem::replace(&mut self.was_up, true) {
                self.ear.sink.observe(Observation::Reconnected);
            }
            self.registry.hurry();
            self.tell_missed();
        }
    }

    /// A command was answered. An error ends the connection.
    fn done(&mut self, watch: &mut Watch, done: Done) -> Result<(), String> {
        match done {
            Done::Control(result) => {
                result.map_err(|error| format!("cannot subscribe {}: {error}", self.ear.names.control()))?;
                watch.controlled = true;
            }
            Done::Subscribed(Batch { number, channels, asked }, result) => {
                watch.subscribing -= 1;
                self.ear.sink.observe(Observation::Command("subscribe", asked.elapsed()));
                match result.map_err(|error| server::away(&error)) {
                    Ok(()) => {
                        let interest = self.ear.interest();
                        if let Some(silent) =
                            channels.iter().find(|channel| !interest.is_settled(channel, number))
                        {
                            return Err(format!("redis did not confirm the subscription of {silent:?}"));
                        }
                    }
                    Err(error @ RelayError::Refused(_)) if channels.len() == 1 => {
                        self.refused(&channels[0], &error);
                    }
                    // One channel that the ACL forbids fails its whole batch: find it by halves.
                    Err(RelayError::Refused(_)) => {
                        let (left, right) = channels.split_at(channels.len() / 2);
                        for half in [left, right] {
                            let number = watch.next_number();
                            self.ear.interest().ask_again(half, number);
                            watch.subscribe(number, half.to_vec(), &self.ear);
                        }
                    }
                    Err(error) => return Err(error.to_string()),
                }
            }
            Done::EachSubscribed(batch, result) => self.each_subscribed(watch, batch, result)?,
            Done::Unsubscribed(result) => {
                watch.unsubscribing = false;
                result.map_err(|error| error.to_string())?;
            }
            Done::Ping(result) => {
                watch.pinged = None;
                result.map_err(|error| error.to_string())?;
            }
            Done::Loaded(result) => {
                let values = result.map_err(|error| error.to_string())?;
                let refused = values.iter().find_map(|value| server::answer(value).err());
                watch.unscripted = refused.as_ref().map(ToString::to_string);
                if let Some(error) = refused
                    && let Some(held_back) = self.complaint.speak(Instant::now())
                {
                    tracing::warn!(%error, held_back, "redis does not take the scripts that history needs");
                }
            }
            Done::Answered(questions, result) => self.answered(watch, questions, result)?,
        }
        Ok(())
    }

    /// Questions about channels with history were answered. An error ends the connection.
    fn answered(
        &self,
        watch: &mut Watch,
        questions: Questions,
        result: RedisResult<Vec<Value>>,
    ) -> Result<(), String> {
        let Questions { all, long, asked } = questions;
        *(if long { &mut watch.reading } else { &mut watch.looking }) -= 1;
        self.ear.sink.observe(Observation::Command(if long { "log" } else { "position" }, asked.elapsed()));
        let values = result.map_err(|error| error.to_string())?;
        let mut unknown = false;
        for (question, value) in all.into_iter().zip(values) {
            if server::failed(&value) == Some(ServerErrorKind::NoScript) && watch.unscripted.is_none() {
                unknown = true;
                self.ear.ask_again(question);
                continue;
            }
            if server::is_elsewhere(&value) {
                self.ear.look_again();
                watch.postponed.push(question);
                continue;
            }
            match log::page(value, &question.channel, self.ear.most()) {
                Ok(page) => self.ear.answered(question, page),
                Err(RelayError::Refused(why)) => {
                    let why = watch.unscripted.clone().unwrap_or(why);
                    self.refused(&question.channel, &RelayError::Refused(why));
                }
                Err(error) => return Err(error.to_string()),
            }
        }
        if unknown {
            watch.load_scripts();
        }
        Ok(())
    }

    /// Probes in time, and says why the connection is to be given up, where it is.
    fn look(&mut self, watch: &mut Watch) -> Option<String> {
        let now = Instant::now();
        watch.postponed.drain(..).for_each(|question| self.ear.ask_again(question));
        self.ear.recoveries().sweep(now);
        let pulse = *self.ear.pulse();
        let over = |since: Instant| now.saturating_duration_since(since) > self.probe_deadline;
        if watch.pinged.is_some_and(over) && over(pulse.heard) {
            return Some(format!("no sign of life for {:?}", self.probe_deadline));
        }
        if self.lane.demotions() != watch.demotions {
            return Some("redis is read-only: it is no master any more".into());
        }
        let taken = self.lane.last_probe();
        if taken > pulse.probe_heard && pulse.probe_sent.0 == taken {
            let (number, since) = watch.taken.unwrap_or((taken, now));
            // Answers do not count here: they may come on a connection that gets no messages.
            if number == taken && over(since) && over(pulse.told) {
                return Some(format!(
                    "redis took a probe, and it was not heard here for {:?}",
                    self.probe_deadline
                ));
            }
            watch.taken = Some((taken, if number == taken { since } else { now }));
        } else {
            watch.taken = None;
        }
        // The next one waits for the answer to this one, or nothing would ever be late.
        let open = watch.pinged.is_some() || watch.taken.is_some();
        if !open && watch.controlled && now.saturating_duration_since(watch.last_probe) >= self.probe_interval
        {
            watch.ping(now);
            #[cfg(feature = "sabotage")]
            if crate::sabotage::skips_probes() {
                return None;
            }
            self.probes += 1;
            self.ear.pulse().probe_sent = (self.probes, now);
            self.lane.probe(self.ear.names.own().to_owned(), self.probes);
        }
        None
    }

    /// A join or a leave while the connection stands.
    fn take(&self, request: Request) {
        match request {
            Request::Join(worker, channel) => {
                let join = self.ear.interest().join(worker, &channel);
                if let Join::Heard(position) = join {
                    self.ear.sink.joined(worker, &channel, Ok(position));
                }
            }
            Request::Leave(worker, channel) => self.ear.interest().leave(worker, &channel, Instant::now()),
            Request::Recover(recover) => self.ear.recover(recover),
            Request::Release { is_kept, reply } => self.release(&*is_kept, reply),
            Request::Adopt(moved) => self.adopt(moved),
        }
    }

    /// The same while it does not.
    fn refuse(&self, request: Request) {
        let error = RelayError::Away("redis cannot be reached to subscribe".into());
        match request {
            Request::Join(worker, channel) => {
                self.ear.interest().leave(worker, &channel, Instant::now());
                self.ear.sink.joined(worker, &channel, Err(error));
            }
            Request::Leave(worker, channel) => self.ear.interest().leave(worker, &channel, Instant::now()),
            Request::Recover(Recover { channel, ticket, .. }) => {
                self.ear.sink.recovered(ticket, &channel, Err(error));
            }
            Request::Release { is_kept, reply } => self.release(&*is_kept, reply),
            Request::Adopt(moved) => self.adopt(moved),
        }
    }
}
