//! The harness: real nodes, real Redis, real clients.
//!
//! A test starts what it needs as child processes on free ports ([`Node`], [`Redis`], [`Sdk`]), acts by the door a user
//! has and waits for what a user would see, with a deadline. Dropping a handle ends its process; a failing test prints
//! what its processes wrote.
//!
//! Not here: what is promised. That is in `tests/`, one file per family of promises.

pub mod backend;
pub mod certs;
pub mod checker;
pub mod deadline;
pub mod door;
pub mod logbook;
pub mod metrics;
pub mod node;
pub mod over;
pub mod process;
pub mod proxy;
pub mod raw;
pub mod redis;
pub mod sdk;

pub use backend::Backend;
pub use certs::Certificates;
pub use deadline::{PATIENCE, eventually};
pub use metrics::Metrics;
pub use node::Node;
pub use proxy::Proxy;
pub use redis::Redis;
pub use sdk::Sdk;
