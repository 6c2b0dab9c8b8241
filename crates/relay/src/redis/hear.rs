//! The supervisor of the pub/sub connection: connect, subscribe, watch, and again, for ever.
//!
//! ```text
//!   connecting --> restoring --> standing
//!       ^              |             |
//!       +--- back-off <+-------------+   closed, silent or deaf
//! ```
//!
//! Joins are taken only while the connection stands; before that they are answered with a temporary error at once. What
//! workers heard before an interruption is subscribed again, in batches, before the relay counts as up.
//!
//! The connection is watched in two ways. A PING on it finds a dead link or a stopped server. A probe, published through
//! the lane and expected here, finds a connection that is alive and yet hears nothing. Neither counts as missing while
//! other messages still arrive: a thread that a slow worker held back has the answers in its socket, unread.
//!
//! Not here: what happens to messages (`router`), which channels are wanted (`crate::interest`).

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::redis::RedisResult;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tidegate_protocol::ChannelName;
use tokio::sync::{mpsc, watch};

use super::backoff::Backoff;
use super::health::Health;
use super::lane::LaneSender;
use super::registry::Registry;
use super::router::{Ear, Line};
use super::server::{self, Listening, Server};
use super::stopped;
use crate::interest::{Join, Refused};
use crate::relay::RelayError;
use crate::settings::RedisSettings;
use crate::sink::{Observation, WorkerId};
use crate::sparse::Sparse;

/// How many channels one SUBSCRIBE or UNSUBSCRIBE names.
const MOST_CHANNELS: usize = 1000;
/// How many SUBSCRIBEs are under way at once.
const PIPELINED: usize = 4;
/// How many joins and leaves are taken in one turn.
const TURN: usize = 4096;
/// How often the supervisor looks around.
const TICK: Duration = Duration::from_millis(200);
/// How often the connection is probed.
const PROBE_EVERY: Duration = Duration::from_secs(2);

/// What a worker asks.
#[derive(Debug)]
pub(super) enum Request {
    Join(WorkerId, ChannelName),
    Leave(WorkerId, ChannelName),
}

/// A command on the pub/sub connection has been answered.
enum Done {
    Control(RedisResult<()>),
    Subscribed(Batch, RedisResult<()>),
    Unsubscribed(RedisResult<()>),
    Ping(RedisResult<()>),
}

/// What one SUBSCRIBE asked for.
struct Batch {
    number: u32,
    channels: Vec<ChannelName>,
    asked: Instant,
}

type Flying = FuturesUnordered<Pin<Box<dyn Future<Output = Done> + Send>>>;

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
    requests: mpsc::Receiver<Request>,
    stop: watch::Receiver<bool>,
    probe_deadline: Duration,
    probes: u64,
    /// Whether a connection has ever stood.
    was_up: bool,
    complaint: Sparse,
    /// Of subscriptions that Redis refuses: clients choose their names.
    refusals: Sparse,
}

/// One connection under supervision.
struct Watch {
    listening: Listening,
    flying: Flying,
    /// Of the last SUBSCRIBE.
    number: u32,
    subscribing: usize,
    unsubscribing: bool,
    /// Whether the control channels are confirmed.
    controlled: bool,
    /// Whether joins are taken.
    standing: bool,
    last_probe: Instant,
    /// When the unanswered PING was sent.
    pinged: Option<Instant>,
    /// The probe that Redis took and that was not heard yet, and since when we know.
    taken: Option<(u64, Instant)>,
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
    ) -> Self {
        Self {
            server,
            ear,
            lane,
            health: Arc::clone(health),
            registry: Arc::clone(registry),
            requests,
            stop,
            probe_deadline: settings
                .command_timeout
                .clamp(Duration::from_millis(500), Duration::from_secs(5)),
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
                    if stood && began.elapsed() > PROBE_EVERY {
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
        let mut watch = Watch {
            listening,
            flying: Flying::new(),
            number: 0,
            subscribing: 0,
            unsubscribing: false,
            controlled: false,
            standing: false,
            last_probe: now,
            pinged: None,
            taken: None,
        };
        {
            let mut pulse = self.ear.pulse();
            pulse.heard = now;
            // A probe that was lost with the last connection says nothing of this one.
            pulse.probe_heard = self.probes;
        }
        // The publishing connection may be of a Redis that is gone, and an idle one would not know.
        self.lane.renew();
        self.ear.interest().restore();
        watch.subscribe_control([self.ear.names.control().to_owned(), self.ear.names.own().to_owned()]);
        watch.ping(now);
        let mut tick = tokio::time::interval(TICK);
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
            Done::Unsubscribed(result) => {
                watch.unsubscribing = false;
                result.map_err(|error| error.to_string())?;
            }
            Done::Ping(result) => {
                watch.pinged = None;
                result.map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    }

    /// Probes in time, and says why the connection is to be given up, where it is.
    fn look(&mut self, watch: &mut Watch) -> Option<String> {
        let now = Instant::now();
        let pulse = *self.ear.pulse();
        let over = |since: Instant| now.saturating_duration_since(since) > self.probe_deadline;
        let quiet = over(pulse.heard);
        if watch.pinged.is_some_and(over) && quiet {
            return Some(format!("no sign of life for {:?}", self.probe_deadline));
        }
        let taken = self.lane.last_probe();
        if taken > pulse.probe_heard && pulse.probe_sent.0 == taken {
            let (number, since) = watch.taken.unwrap_or((taken, now));
            if number == taken && over(since) && quiet {
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
        if !open && watch.controlled && now.saturating_duration_since(watch.last_probe) >= PROBE_EVERY {
            watch.ping(now);
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
                if join == Join::Heard {
                    self.ear.sink.joined(worker, &channel, Ok(None));
                }
            }
            Request::Leave(worker, channel) => self.ear.interest().leave(worker, &channel, Instant::now()),
        }
    }

    /// A join or a leave while it does not.
    fn refuse(&self, request: Request) {
        let (Request::Join(worker, channel) | Request::Leave(worker, channel)) = &request;
        self.ear.interest().leave(*worker, channel, Instant::now());
        if matches!(request, Request::Join(..)) {
            let error = RelayError::Away("redis cannot be reached to subscribe".into());
            self.ear.sink.joined(*worker, channel, Err(error));
        }
    }

    /// Redis refuses a channel, perhaps one that it let us hear before: its rights were changed.
    fn refused(&self, channel: &ChannelName, error: &RelayError) {
        let Refused { waiting, joined } = self.ear.interest().refused(channel);
        if let Some(held_back) = self.refusals.speak(Instant::now()) {
            let heard_before = !joined.is_empty();
            tracing::warn!(%channel, %error, heard_before, held_back, "redis refuses a subscription");
        }
        waiting.iter().for_each(|worker| self.ear.sink.joined(worker, channel, Err(error.clone())));
        joined.iter().for_each(|worker| self.ear.sink.lost(worker, channel));
        if !joined.is_empty() {
            self.ear.sink.observe(Observation::Missed { channels: 1 });
        }
    }

    fn interrupted(&mut self, why: &str, stood: bool) {
        let channels = self.lose_pending(why);
        // What was missed since an earlier interruption is counted already.
        self.health.deaf(if stood { channels } else { 0 });
        if stood {
            tracing::warn!(
                redis = self.server.address,
                why,
                channels,
                "the connection to hear redis is interrupted"
            );
        } else {
            self.complain(why);
        }
    }

    /// Fails the joins under way. Says how many channels are still wanted.
    fn lose_pending(&self, why: &str) -> usize {
        let (channels, lost) = self.ear.interest().interrupted();
        for (channel, workers) in lost {
            for worker in workers.iter() {
                self.ear.sink.joined(worker, &channel, Err(RelayError::Away(why.to_owned())));
            }
        }
        channels
    }

    fn complain(&self, why: &str) {
        if let Some(held_back) = self.complaint.speak(Instant::now()) {
            tracing::warn!(redis = self.server.address, why, held_back, "cannot hear redis; trying again");
        }
    }
}

impl Watch {
    fn fly(&mut self, command: impl Future<Output = Done> + Send + 'static) {
        self.flying.push(Box::pin(command));
    }

    fn subscribe_control(&mut self, channels: [String; 2]) {
        let mut connection = self.listening.connection.clone();
        self.fly(async move { Done::Control(connection.subscribe(&channels).await) });
    }

    /// Numbers commands of this connection, never with 0.
    const fn next_number(&mut self) -> u32 {
        self.number = if self.number == u32::MAX { 1 } else { self.number + 1 };
        self.number
    }

    fn subscribe(&mut self, number: u32, channels: Vec<ChannelName>, ear: &Ear) {
        self.subscribing += 1;
        let names: Vec<_> = channels.iter().map(|channel| ear.names.channel(channel)).collect();
        let (mut connection, asked) = (self.listening.connection.clone(), Instant::now());
        self.fly(async move {
            let result = connection.subscribe(names).await;
            Done::Subscribed(Batch { number, channels, asked }, result)
        });
    }

    fn unsubscribe(&mut self, channels: &[ChannelName], ear: &Ear) {
        self.unsubscribing = true;
        let names: Vec<_> = channels.iter().map(|channel| ear.names.channel(channel)).collect();
        let mut connection = self.listening.connection.clone();
        self.fly(async move { Done::Unsubscribed(connection.unsubscribe(names).await) });
    }

    fn ping(&mut self, now: Instant) {
        self.pinged = Some(now);
        self.last_probe = now;
        let mut connection = self.listening.connection.clone();
        self.fly(async move { Done::Ping(::redis::cmd("PING").query_async::<()>(&mut connection).await) });
    }
}
