//! What a shard counted since it was last asked. Plain integers: the gateway adds them to its metrics once a turn.

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
}

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
