//! How other nodes hear a publication.
//!
//! The only crate that knows Redis. A [`Relay`] carries publications and control messages between nodes, keeps the
//! node's interest (the channels it must hear) subscribed, and keeps the node in the registry. The memory relay
//! gives the same promises to a single node. Both run on threads of their own and talk to the gateway through the
//! [`Sink`] it hands in.
//!
//! Not here: who on this node hears a publication (`tidegate-hub`).

mod budget;
mod envelope;
mod interest;
mod memory;
mod names;
mod recovery;
mod redis;
pub mod relay;
pub mod rules;
#[cfg(feature = "sabotage")]
pub mod sabotage;
pub mod settings;
pub mod sink;
mod sparse;
mod track;

pub use relay::{
    Busy, History, HistoryQuery, NodeInfo, Outgoing, PresenceStats, Recover, Relay, RelayError, Since, Status,
};
pub use rules::{ChannelRules, OnGap, Retention, Rules};
pub use settings::{
    IngestSettings, MemorySettings, RedisSettings, RelaySettings, Secret, SentinelSettings, Topology,
};
pub use sink::{Delivery, Ingested, Observation, Recovered, Report, Said, Sink, Ticket, WorkerId, WorkerSet};
pub use sparse::Sparse;
