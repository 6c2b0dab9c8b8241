//! The relay over Redis: of one part, or of several ([`parts`]), each over one server.
//!
//! A part has two threads with a current-thread runtime each. `relay-hear` owns the pub/sub connection and the node's interest
//! (`hear`, `sieve`, `router`); `relay-say` owns the publishing lane (`lane`), the registry (`registry`), answers surveys
//! (`survey`), says who is present (`presence`), publishes what backends put into the ingest stream (`ingest`) and writes
//! events (`events`). Hearing is apart from saying so that a slow worker, which holds the first thread back on purpose,
//! never delays a publication or a heartbeat.

mod access;
mod archive;
mod backoff;
mod batch;
mod cluster;
mod counts;
mod events;
mod ground;
mod health;
mod hear;
mod ingest;
mod lane;
mod lanes;
mod library;
mod log;
mod masters;
mod parts;
mod pool;
mod presence;
mod publish;
mod registry;
mod rendezvous;
mod repair;
mod router;
mod script;
mod sentinel;
mod server;
mod sieve;
mod slots;
mod standing;
mod stream;
mod survey;
mod watching;

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tidegate_protocol::{ChannelName, ClientInfo, Control, Event, Position};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use self::archive::Archive;
use self::events::Events;
use self::ground::{Ground, Role};
use self::health::Health;
use self::hear::{Hear, Request};
use self::ingest::Ingest;
use self::lane::{Answer, Lane, LaneSender};
use self::parts::Shared;
use self::presence::{Attendee, Presence, PresenceSender};
use self::registry::Registry;
use self::router::Ear;
use self::survey::Surveys;
use crate::interest::{Interest, Moved};
use crate::names::Names;
use crate::relay::{
    Busy, History, HistoryQuery, Identity, NodeInfo, Outgoing, PresenceStats, Recover, RelayError, Status,
};
use crate::rules::Rules;
use crate::settings::RedisSettings;
use crate::sink::{Sink, Ticket, WorkerId};

/// How many joins and leaves may wait for the hearing thread.
const REQUESTS: usize = 64 * 1024;
/// How many questions of the API (nodes, channels) are answered at once.
const QUESTIONS: usize = 32;
/// How long a hearing thread may take to give channels away or to take them.
const MOVE_DEADLINE: Duration = Duration::from_secs(5);
/// How long the end of a thread is waited for.
const STOP_DEADLINE: Duration = Duration::from_secs(3);

pub(crate) use self::parts::RedisParts;

/// A part of the Redis relay: all of it, over one server.
pub(crate) struct RedisRelay {
    requests: mpsc::Sender<Request>,
    lane: LaneSender,
    presence: PresenceSender,
    names: Arc<Names>,
    health: Arc<Health>,
    registry: Arc<Registry>,
    /// Whether this part writes the node into the registry.
    is_listed: bool,
    archive: Arc<Archive>,
    surveys: Arc<Surveys>,
    questions: Arc<Semaphore>,
    events: Option<Arc<Events>>,
    /// The runtime of the saying thread.
    say: Handle,
    stop: watch::Sender<bool>,
    /// Ends before the rest: what it has read is still published.
    ingest: Option<Consumer>,
    ended: Mutex<Vec<oneshot::Receiver<()>>>,
}

/// Channels that a part gives away.
struct Released {
    moved: Vec<Moved>,
    attendees: Vec<Attendee>,
    /// Whether the part had an answer to everything.
    is_all: bool,
}

/// Which channels stay.
type IsKept = dyn Fn(&ChannelName) -> bool + Send + Sync;

/// The way to end the consumer of the ingest stream.
struct Consumer {
    stop: watch::Sender<bool>,
    ended: Mutex<Option<JoinHandle<()>>>,
}

impl RedisRelay {
    fn start(
        settings: RedisSettings,
        rules: &Arc<Rules>,
        identity: Identity,
        sink: Arc<dyn Sink>,
        shared: &Shared,
        role: &Role,
    ) -> Result<Self, RelayError> {
        let refuse = |key: &str, what: String| RelayError::Settings(format!("relay.redis.{key}: {what}"));
        RedisSettings::check_prefix(&settings.prefix)
            .map_err(|rule| refuse("prefix", format!("{:?} {rule}", settings.prefix)))?;
        let (asked, least) = (settings.pool_size, RedisSettings::LEAST_POOL_SIZE);
        if asked < least {
            return Err(refuse("pool_size", format!("{asked} must be {least} or more")));
        }
        if settings.wait_replicas > 0 && settings.wait_timeout >= settings.command_timeout {
            let (wait, most) = (settings.wait_timeout, settings.command_timeout);
            return Err(refuse(
                "wait_timeout",
                format!("{wait:?} must be less than relay.redis.command_timeout ({most:?})"),
            ));
        }
        let ground = Ground::new(role, &settings, &identity.id)?;
        let health = Arc::new(Health::new(Arc::clone(&sink)));
        let surveys = Arc::new(Surveys::new(identity.id.clone()));
        let (stop, stopping) = watch::channel(false);
        let stopping_too = stopping.clone();
        let (requests, requested) = mpsc::channel(REQUESTS);

        let say_runtime = runtime()?;
        let say = say_runtime.handle().clone();
        let (lane_sender, lane) = Lane::new(&settings, rules, &ground, &health, &sink, stopping.clone());
        let Ground { server, pool, names, cluster, is_listed } = ground;
        let (presence_sender, presence) = Presence::new(
            &settings,
            pool.clone(),
            Arc::clone(&names),
            Arc::clone(rules),
            Arc::clone(&sink),
            stopping.clone(),
            health.hearing(),
        );
        let events = settings.events.map(|most| {
            let pool = pool.of(names.events());
            Arc::new(Events::new(most, &identity.id, &names, pool, &sink, settings.command_timeout))
        });
        let ingest = settings.ingest.map(|ingest| {
            let (stop, stopping) = watch::channel(false);
            let parts = ingest::Parts {
                settings: &settings,
                ingest,
                node: &identity.id,
                names: &names,
                pool: &pool,
                rules,
                sink: &sink,
            };
            let consumer = Ingest::new(&parts, lane_sender.clone(), shared.lanes.clone(), stopping);
            Consumer { stop, ended: Mutex::new(Some(say.spawn(consumer.run()))) }
        });
        let interest = Interest::new(settings.linger, Arc::clone(rules));
        shared.counts.add(interest.wanted());
        let archive = Arc::new(Archive::new(pool.clone(), &names, rules, settings.max_publication_bytes));
        let registry = Arc::new(Registry::new(
            pool,
            Arc::clone(&names),
            identity,
            settings.heartbeat,
            settings.command_timeout,
            Arc::clone(&sink),
            shared.counts.clone(),
        ));
        let answering = survey::Answering::new(
            &surveys,
            lane_sender.clone(),
            Arc::clone(&names),
            Arc::clone(&sink),
            say.clone(),
        );
        let ear = Arc::new(Ear::new(
            &settings,
            interest,
            Arc::clone(&names),
            sink,
            Arc::clone(&surveys),
            answering,
            cluster,
        ));
        let hear = Hear::new(
            &settings,
            server,
            ear,
            lane_sender.clone(),
            &health,
            requested,
            stopping,
            &registry,
            rules,
        );

        let heartbeats = Arc::clone(&registry);
        let writing = events.clone().map(|events| say.spawn(events.run(stopping_too)));
        let said = thread("relay-say", say_runtime, async move {
            let beating = is_listed.then(|| tokio::spawn(async move { heartbeats.run().await }));
            let attending = tokio::spawn(presence.run());
            lane.run().await;
            if let Some(beating) = beating {
                beating.abort();
            }
            if let Some(writing) = writing {
                let _ = tokio::time::timeout(STOP_DEADLINE, writing).await;
            }
            let _ = tokio::time::timeout(STOP_DEADLINE, attending).await;
        })?;
        let heard = thread("relay-hear", runtime()?, hear.run())?;
        Ok(Self {
            requests,
            lane: lane_sender,
            presence: presence_sender,
            names,
            health,
            registry,
            is_listed,
            archive,
            surveys,
            questions: Arc::new(Semaphore::new(QUESTIONS)),
            events,
            say,
            stop,
            ingest,
            ended: Mutex::new(vec![said, heard]),
        })
    }

    pub(crate) fn join(&self, worker: WorkerId, channel: ChannelName) -> Result<(), Busy> {
        self.requests.try_send(Request::Join(worker, channel)).map_err(|_| Busy)
    }

    pub(crate) fn leave(&self, worker: WorkerId, channel: ChannelName) -> Result<(), Busy> {
        self.requests.try_send(Request::Leave(worker, channel)).map_err(|_| Busy)
    }

    /// Takes out the channels that are not kept, with all that is known of them.
    async fn release(&self, is_kept: Arc<IsKept>) -> Released {
        let (heard, present) = (Arc::clone(&is_kept), is_kept);
        let attendees = self.presence.release(Box::new(move |channel| present(channel))).await;
        let moved = async {
            let (reply, answer) = oneshot::channel();
            let request = Request::Release { is_kept: Box::new(move |channel| heard(channel)), reply };
            tokio::time::timeout(MOVE_DEADLINE, self.requests.send(request)).await.ok()?.ok()?;
            tokio::time::timeout(MOVE_DEADLINE, answer).await.ok()?.ok()
        };
        let moved = moved.await;
        let is_all = moved.is_some() && attendees.is_some();
        Released { moved: moved.unwrap_or_default(), attendees: attendees.unwrap_or_default(), is_all }
    }

    /// Takes over channels of another part, and who is present in some.
    async fn adopt(&self, moved: Vec<Moved>, attendees: Vec<Attendee>) {
        for attendee in attendees {
            self.presence.adopt(attendee).await;
        }
        if moved.is_empty() {
            return;
        }
        // The thread takes requests whatever Redis does; a worker that blocks it does so within a bound.
        let sent = tokio::time::timeout(4 * MOVE_DEADLINE, self.requests.send(Request::Adopt(moved))).await;
        if !matches!(sent, Ok(Ok(()))) {
            tracing::error!(
                "channels were lost on their way to another server: the hearing thread takes nothing"
            );
        }
    }

    pub(crate) fn recover(&self, recover: Recover) -> Result<(), Busy> {
        self.requests.try_send(Request::Recover(recover)).map_err(|_| Busy)
    }

    pub(crate) fn submit(&self, outgoing: Outgoing, ticket: Ticket) -> Result<(), Busy> {
        self.lane.publish(outgoing, Answer::Ticket(ticket))
    }

    pub(crate) async fn publish(&self, outgoing: Outgoing) -> Result<Option<Position>, RelayError> {
        let (reply, answer) = oneshot::channel();
        self.lane.publish(outgoing, Answer::Reply(reply)).map_err(|Busy| RelayError::Busy)?;
        self.lane.answered(answer).await
    }

    pub(crate) async fn history(
        &self,
        channel: ChannelName,
        query: HistoryQuery,
    ) -> Result<History, RelayError> {
        let archive = Arc::clone(&self.archive);
        self.ask(async move { archive.history(&channel, query).await }).await
    }

    pub(crate) async fn history_remove(&self, channel: ChannelName) -> Result<(), RelayError> {
        let archive = Arc::clone(&self.archive);
        self.ask(async move { archive.remove(&channel).await }).await
    }

    pub(crate) fn enter(&self, channel: ChannelName, client: ClientInfo) -> Result<(), Busy> {
        self.presence.enter(channel, client)
    }

    pub(crate) fn exit(&self, channel: ChannelName, client: String) -> Result<(), Busy> {
        self.presence.exit(channel, client)
    }

    pub(crate) async fn presence(&self, channel: ChannelName) -> Result<Vec<ClientInfo>, RelayError> {
        self.presence.everyone(channel).await
    }

    pub(crate) async fn presence_stats(&self, channel: ChannelName) -> Result<PresenceStats, RelayError> {
        self.presence.stats(channel).await
    }

    pub(crate) async fn control(&self, control: &Control) -> Result<(), RelayError> {
        let json = serde_json::to_vec(control).map_err(|error| {
            RelayError::Refused(format!("the control message cannot be written: {error}"))
        })?;
        self.lane.say(self.names.control().to_owned(), Bytes::from(json)).await
    }

    pub(crate) async fn nodes(&self) -> Result<Vec<NodeInfo>, RelayError> {
        let registry = Arc::clone(&self.registry);
        self.ask(async move { registry.nodes().await }).await
    }

    pub(crate) async fn channels(&self) -> Result<Vec<(String, u64)>, RelayError> {
        let (registry, surveys) = (Arc::clone(&self.registry), Arc::clone(&self.surveys));
        let (lane, names) = (self.lane.clone(), Arc::clone(&self.names));
        self.ask(async move {
            let nodes = registry.nodes().await?;
            surveys.ask(&lane, &names, nodes.into_iter().map(|node| node.id)).await
        })
        .await
    }

    pub(crate) fn status(&self) -> Status {
        self.health.status()
    }

    pub(crate) fn happened(&self, event: Event) {
        if let Some(events) = &self.events {
            events.push(event);
        }
    }

    pub(crate) async fn stop(&self) {
        if let Some(ingest) = &self.ingest {
            ingest.stop.send_replace(true);
            if let Some(ended) = ingest.ended.lock().await.take() {
                let _ = tokio::time::timeout(STOP_DEADLINE, ended).await;
            }
        }
        let registry = Arc::clone(&self.registry);
        if self.is_listed
            && let Err(error) = self.ask(async move { registry.remove().await }).await
        {
            tracing::warn!(%error, "the node could not be taken out of the registry; it will expire there");
        }
        self.stop.send_replace(true);
        let deadline = Instant::now() + STOP_DEADLINE;
        for ended in self.ended.lock().await.drain(..) {
            let _ = tokio::time::timeout_at(deadline.into(), ended).await;
        }
    }

    /// Answers a question on the saying thread, where the pooled connections live.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl Future<Output = Result<T, RelayError>> + Send + 'static,
    ) -> Result<T, RelayError> {
        let Ok(_permit) = self.questions.try_acquire() else { return Err(RelayError::Busy) };
        let stopped = |_| RelayError::Away("the relay has stopped".into());
        self.say.spawn(question).await.map_err(stopped)?
    }
}

impl Drop for RedisRelay {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(ingest) = &self.ingest {
            ingest.stop.send_replace(true);
        }
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, RelayError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| RelayError::Settings(format!("cannot start a runtime for the relay: {error}")))
}

/// Runs `work` on a thread of its own; the receiver learns of its end.
fn thread(
    name: &str,
    runtime: tokio::runtime::Runtime,
    work: impl Future<Output = ()> + Send + 'static,
) -> Result<oneshot::Receiver<()>, RelayError> {
    let (done, ended) = oneshot::channel();
    std::thread::Builder::new()
        .name(name.into())
        .spawn(move || {
            runtime.block_on(work);
            runtime.shutdown_background();
            drop(done);
        })
        .map_err(|error| RelayError::Settings(format!("cannot start the thread {name}: {error}")))?;
    Ok(ended)
}

/// Waits for the relay's end.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the relay itself is gone.
    let _ = stop.wait_for(|stop| *stop).await;
}
