//! Who should hear a publication: the sessions of one worker, their subscriptions, outboxes and liveness.
//!
//! Memory only and synchronous: nothing here awaits, blocks, reads a clock or knows a socket. One [`Shard`] belongs
//! to one worker thread, so the delivery path has no lock. What the shard cannot do itself it asks for as an
//! [`Effect`], which the gateway carries out.
//!
//! Not here: how publications travel between nodes (`tidegate-relay`), how bytes reach a socket (`tidegate-gateway`).

mod asking;
pub mod backend;
pub mod broadcast;
mod channels;
mod commands;
mod consulting;
mod control;
pub mod effect;
mod events;
mod grants;
mod latest;
mod liveness;
mod membership;
pub mod outbox;
pub mod policy;
pub mod recovery;
#[cfg(feature = "sabotage")]
pub mod sabotage;
mod session;
mod sessions;
pub mod shard;
pub mod table;
pub mod tally;
pub mod tick;

pub use backend::{Asker, Backends, Decision, Grant, Matter};
pub use broadcast::Broadcast;
pub use effect::{Effect, Found, Question};
pub use outbox::Outbox;
pub use policy::{Authenticator, Delivery, History, Identity, Namespace, Policy, Presence, Refusal, Right};
pub use recovery::Recovered;
pub use shard::{Opening, SessionKey, Shard};
pub use table::Table;
pub use tally::Tally;
pub use tick::Tick;
