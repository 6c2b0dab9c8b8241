//! All of Redis, as the relay holds it: one part for each server that channels are spread over.
//!
//! A part is a whole relay over one server: its own connections, interest, lane and registry. Whatever concerns a channel
//! goes to the part that has it. What concerns all nodes goes through any one part, the first that is up: every node is
//! in the registry of each, and hears the control channels of each. In a cluster it goes through a part of its own, the
//! home, and the others have nothing but channels.
//!
//! Not here: which part has a channel (`rendezvous`, `masters`), whether all are up (`standing`), and all that a part does.

use std::sync::Arc;

use futures_util::future::join_all;
use tidegate_protocol::{ChannelName, Control, Event};
use tokio::sync::{oneshot, watch};

use super::cluster::Cluster;
use super::counts::Counts;
use super::ground::Role;
use super::lanes::Lanes;
use super::masters::Masters;
use super::standing::Standing;
use super::{RedisRelay, STOP_DEADLINE, rendezvous, runtime, thread};
use crate::names::Names;
use crate::relay::{Busy, Identity, NodeInfo, RelayError, Status};
use crate::rules::Rules;
use crate::settings::{RedisSettings, Topology};
use crate::sink::{Sink, WorkerId};

/// The parts.
pub(crate) struct RedisParts {
    /// Those that all nodes can be reached by: every server, or the home of a cluster. One at least.
    parts: Vec<Arc<RedisRelay>>,
    /// Those of a cluster that have the channels.
    masters: Option<Following>,
    standing: Arc<Standing>,
    counts: Counts,
}

/// The masters of a cluster, and the thread that follows it.
struct Following {
    masters: Arc<Masters>,
    stop: watch::Sender<bool>,
    ended: tokio::sync::Mutex<Option<oneshot::Receiver<()>>>,
}

/// What all parts share.
#[derive(Clone, Default)]
pub(super) struct Shared {
    pub(super) counts: Counts,
    pub(super) lanes: Lanes,
}

impl RedisParts {
    pub(crate) fn start(
        settings: RedisSettings,
        rules: &Arc<Rules>,
        identity: &Identity,
        sink: Arc<dyn Sink>,
    ) -> Result<Self, RelayError> {
        let servers = match &settings.topology {
            Topology::Cluster(nodes) => {
                let nodes = nodes.clone();
                return Self::cluster(settings, &nodes, rules, identity, sink);
            }
            Topology::Shards(urls) => urls.iter().map(|url| Topology::Server(url.clone())).collect(),
            one => vec![one.clone()],
        };
        if servers.is_empty() {
            return Err(RelayError::Settings("relay.redis.shards: names no server".into()));
        }
        let (standing, shared) = (Standing::new(sink), Shared::default());
        // Before any is up, so that the relay is not up before all are.
        let numbers: Vec<usize> = servers.iter().map(|_| standing.add()).collect();
        let mut parts = Vec::with_capacity(servers.len());
        for (number, topology) in numbers.into_iter().zip(servers) {
            // Backends read the events of one server.
            let events = settings.events.filter(|_| parts.is_empty());
            let settings = RedisSettings { topology, events, ..settings.clone() };
            let (identity, sink) = (identity.clone(), standing.sink(number));
            parts.push(Arc::new(RedisRelay::start(settings, rules, identity, sink, &shared, &Role::Whole)?));
        }
        let lanes: Vec<_> = parts.iter().map(|part| part.lane.clone()).collect();
        shared.lanes.are(move |channel| lanes[rendezvous::place(channel, lanes.len())].clone());
        Ok(Self { parts, masters: None, standing, counts: shared.counts })
    }

    fn cluster(
        settings: RedisSettings,
        nodes: &[String],
        rules: &Arc<Rules>,
        identity: &Identity,
        sink: Arc<dyn Sink>,
    ) -> Result<Self, RelayError> {
        let (standing, shared) = (Standing::new(sink), Shared::default());
        let cluster = Cluster::new(&settings, nodes)?;
        let names = Arc::new(Names::new(&settings.prefix, &identity.id));
        let of_channels = RedisSettings { events: None, ingest: None, ..settings.clone() };
        let (home, sink) = (Role::Home(Arc::clone(&cluster)), standing.sink(standing.add()));
        let home = RedisRelay::start(settings, rules, identity.clone(), sink, &shared, &home)?;
        let make = {
            let (standing, shared, rules) = (Arc::clone(&standing), shared.clone(), Arc::clone(rules));
            let (cluster, identity) = (Arc::clone(&cluster), identity.clone());
            Box::new(move |number, place: &_| {
                let role = Role::Master { cluster: Arc::clone(&cluster), place: Clone::clone(place), number };
                let (settings, sink) = (of_channels.clone(), standing.sink(number));
                RedisRelay::start(settings, &rules, identity.clone(), sink, &shared, &role)
            })
        };
        let masters = Arc::new(Masters::new(cluster, names, Arc::clone(&standing), make)?);
        let weak = Arc::downgrade(&masters);
        let fallback = home.lane.clone();
        shared.lanes.are(move |channel| {
            weak.upgrade().map_or_else(|| fallback.clone(), |masters| masters.of(channel).lane.clone())
        });
        let (stop, stopping) = watch::channel(false);
        let follow = Arc::clone(&masters).run(stopping);
        let ended = thread("relay-cluster", runtime()?, follow)?;
        let masters = Following { masters, stop, ended: tokio::sync::Mutex::new(Some(ended)) };
        Ok(Self { parts: vec![Arc::new(home)], masters: Some(masters), standing, counts: shared.counts })
    }

    /// The part that has the channel.
    pub(crate) fn of(&self, channel: &ChannelName) -> Arc<RedisRelay> {
        match &self.masters {
            Some(following) => following.masters.of(channel),
            None => Arc::clone(&self.parts[rendezvous::place(channel, self.parts.len())]),
        }
    }

    pub(crate) fn join(&self, worker: WorkerId, channel: ChannelName) -> Result<(), Busy> {
        match &self.masters {
            Some(following) => following.masters.join(worker, channel),
            None => self.of(&channel).join(worker, channel),
        }
    }

    pub(crate) fn leave(&self, worker: WorkerId, channel: ChannelName) -> Result<(), Busy> {
        match &self.masters {
            Some(following) => following.masters.leave(worker, channel),
            None => self.of(&channel).leave(worker, channel),
        }
    }

    // Boxed: the callers' futures are nested deeply already.
    pub(crate) async fn control(&self, control: &Control) -> Result<(), RelayError> {
        Box::pin(self.any(async |part| part.control(control).await)).await
    }

    pub(crate) async fn nodes(&self) -> Result<Vec<NodeInfo>, RelayError> {
        Box::pin(self.any(async |part| part.nodes().await)).await
    }

    pub(crate) async fn channels(&self) -> Result<Vec<(String, u64)>, RelayError> {
        Box::pin(self.any(async |part| part.channels().await)).await
    }

    pub(crate) fn happened(&self, event: Event) {
        if let Some(first) = self.parts.first() {
            first.happened(event);
        }
    }

    pub(crate) fn channel_count(&self) -> usize {
        self.counts.sum()
    }

    pub(crate) fn status(&self) -> Status {
        self.standing.status()
    }

    pub(crate) async fn stop(&self) {
        join_all(self.parts.iter().map(|part| part.stop())).await;
        if let Some(following) = &self.masters {
            following.stop.send_replace(true);
            if let Some(ended) = following.ended.lock().await.take() {
                let _ = tokio::time::timeout(STOP_DEADLINE, ended).await;
            }
            following.masters.stop().await;
        }
    }

    /// Asks the parts one after the other until one is not away, those that are up first.
    async fn any<T>(&self, ask: impl AsyncFn(&RedisRelay) -> Result<T, RelayError>) -> Result<T, RelayError> {
        let (up, down): (Vec<_>, Vec<_>) = self.parts.iter().partition(|part| part.status().up);
        let mut result = Err(RelayError::Away("there is no server".into()));
        for part in up.into_iter().chain(down) {
            result = ask(part).await;
            if !matches!(result, Err(RelayError::Away(_))) {
                break;
            }
        }
        result
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}
