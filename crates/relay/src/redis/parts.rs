//! All of Redis, as the relay holds it: one part for each server that channels are spread over.
//!
//! A part is a whole relay over one server: its own connections, interest, lane and registry. Whatever concerns a channel
//! goes to the part that has it. What concerns all nodes goes through any one part, the first that is up: every node is
//! in the registry of each, and hears the control channels of each.
//!
//! Not here: which part has a channel (`rendezvous`), whether all are up (`standing`), and all that a part does.

use std::sync::Arc;

use futures_util::future::join_all;
use tidegate_protocol::{ChannelName, Control, Event};

use super::counts::Counts;
use super::lanes::Lanes;
use super::standing::Standing;
use super::{RedisRelay, rendezvous};
use crate::relay::{Identity, NodeInfo, RelayError, Status};
use crate::rules::Rules;
use crate::settings::{RedisSettings, Topology};
use crate::sink::Sink;

/// The parts, one at least.
pub(crate) struct RedisParts {
    parts: Vec<Arc<RedisRelay>>,
    standing: Arc<Standing>,
    counts: Counts,
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
            let sink = standing.sink(number);
            parts.push(Arc::new(RedisRelay::start(settings, rules, identity.clone(), sink, &shared)?));
        }
        let lanes: Vec<_> = parts.iter().map(|part| part.lane.clone()).collect();
        shared.lanes.are(move |channel| lanes[rendezvous::place(channel, lanes.len())].clone());
        Ok(Self { parts, standing, counts: shared.counts })
    }

    /// The part that has the channel.
    pub(crate) fn of(&self, channel: &ChannelName) -> Arc<RedisRelay> {
        Arc::clone(&self.parts[rendezvous::place(channel, self.parts.len())])
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
