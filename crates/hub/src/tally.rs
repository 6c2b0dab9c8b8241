//! What a shard counted since it was last asked. Plain integers: the gateway adds them to its metrics once a turn.

use tidegate_protocol::Request;

/// Counts since the last `Shard::take_tally`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Commands received, by `COMMANDS` index.
    pub received: [u64; COMMANDS.len()],
    /// Frames put into outboxes, by `SENT` index.
    pub sent: [u64; SENT.len()],
    /// Pings without a pong in time.
    pub heartbeat_timeouts: u64,
    /// Outboxes that passed their bound.
    pub slow_consumers: u64,
    /// Of the publications put into outboxes, those that a newer one of their channel replaced, or that had no room
    /// beside those of other channels of newest values.
    pub conflated: u64,
    /// Subscriptions that asked for what they missed, by `RECOVERIES` index.
    pub recoveries: [u64; RECOVERIES.len()],
}

/// Labels of what came of asking for what was missed, in the order of `Tally::recoveries`: it was given, or there was
/// none; it cannot be had, and the client was told; it could not be found out now.
pub const RECOVERIES: [&str; 3] = ["recovered", "unrecovered", "failed"];

/// The index of recoveries that gave everything in [`RECOVERIES`].
pub(crate) const RECOVERED: usize = 0;

/// The index of those that could not in [`RECOVERIES`].
pub(crate) const UNRECOVERED: usize = 1;

/// The index of those that came to nothing in [`RECOVERIES`].
pub(crate) const FAILED: usize = 2;

/// Labels of received commands, in the order of `Tally::received`.
pub const COMMANDS: [&str; 13] = [
    "connect",
    "subscribe",
    "unsubscribe",
    "publish",
    "presence",
    "presence_stats",
    "history",
    "ping",
    "send",
    "rpc",
    "refresh",
    "sub_refresh",
    "pong",
];

/// Labels of sent frames, in the order of `Tally::sent`.
pub const SENT: [&str; 4] = ["reply", "publication", "push", "ping"];

/// The index of replies, native pongs included, in [`SENT`].
pub(crate) const SENT_REPLY: usize = 0;

/// The index of publications in [`SENT`].
pub(crate) const SENT_PUBLICATION: usize = 1;

/// The index of pushes that are no publications in [`SENT`].
pub(crate) const SENT_PUSH: usize = 2;

/// The index of pings in [`SENT`].
pub(crate) const SENT_PING: usize = 3;

impl Tally {
    /// Counts a received command.
    pub(crate) const fn count(&mut self, request: &Request<'_>) {
        self.received[index(request)] += 1;
    }
}

/// The index of a request in [`COMMANDS`].
const fn index(request: &Request<'_>) -> usize {
    match request {
        Request::Connect(_) => 0,
        Request::Subscribe(_) => 1,
        Request::Unsubscribe { .. } => 2,
        Request::Publish { .. } => 3,
        Request::Presence { .. } => 4,
        Request::PresenceStats { .. } => 5,
        Request::History { .. } => 6,
        Request::Ping => 7,
        Request::Send { .. } => 8,
        Request::Rpc { .. } => 9,
        Request::Refresh { .. } => 10,
        Request::SubRefresh { .. } => 11,
        Request::Pong => 12,
    }
}
