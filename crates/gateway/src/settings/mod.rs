//! Settings: as written, then checked and resolved. The only module that reads the environment.
//!
//! Nothing past this module sees a raw value: the rest of the node is given [`Settings`], in which every number is
//! within its bounds, every duration a `Duration` and every `auto` a number.

mod resolved;

pub(crate) use resolved::{
    Api, ApiKey, Auth, Drain, Heartbeat, Limits, Listen, Log, LogFormat, Node, Outbox, Scope, Settings, Tls,
};
