//! What the relay's tests share: a real redis-server, a sink that remembers, and short ways to say things.
#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    clippy::allow_attributes,
    reason = "each test file uses a part"
)]

pub mod cluster;
pub mod keys;
pub mod process;
pub mod recorder;
pub mod sentinel;
pub mod server;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tidegate_protocol::{ChannelName, Position, Publication};
use tidegate_relay::{
    ChannelRules, MemorySettings, RedisSettings, Relay, RelaySettings, Retention, Rules, Ticket, Topology,
    WorkerId,
};

pub use cluster::Cluster;
pub use keys::Keys;
pub use recorder::Recorder;
pub use sentinel::Watched;
pub use server::RedisServer;

/// How long a test waits for what must happen. Long, since the machine may be busy; nothing waits in vain.
pub const SOON: Duration = Duration::from_secs(15);

/// Settings for a server on loopback, with short times.
pub fn settings(url: &str) -> RedisSettings {
    RedisSettings {
        topology: Topology::Server(url.to_owned()),
        username: None,
        password: None,
        ca: None,
        prefix: "tg".to_owned(),
        command_timeout: Duration::from_secs(1),
        pool_size: 4,
        linger: Duration::from_millis(300),
        heartbeat: Duration::from_millis(500),
        max_publication_bytes: 64 * 1024,
        probe_interval: Duration::from_secs(2),
        wait_replicas: 0,
        wait_timeout: Duration::from_millis(500),
        presence_ttl: Duration::from_secs(3),
        ingest: None,
        events: None,
    }
}

/// A memory relay with room.
pub const MEMORY: RelaySettings = RelaySettings::Memory(MemorySettings { history_bytes: 64 << 20 });

/// A node on the server, with its own recorder; up.
pub fn node(id: &str, settings: RedisSettings) -> (Relay, Arc<Recorder>) {
    let recorder = Recorder::new();
    let relay = start(id, RelaySettings::Redis(settings), &recorder);
    recorder.up(1);
    (relay, recorder)
}

pub fn start(id: &str, settings: RelaySettings, recorder: &Arc<Recorder>) -> Relay {
    Relay::start(settings, rules(), id, &format!("host-{id}"), "0.0.0-test", Arc::clone(recorder))
        .expect("settings that work")
}

/// The rights that docs/reference/redis-contract.md gives to nodes.
pub const NODE: [&str; 47] = [
    "resetchannels",
    "~tg:*",
    "&tg:*",
    "+ping",
    "+unwatch",
    "+time",
    "+publish",
    "+subscribe",
    "+unsubscribe",
    "+set",
    "+del",
    "+mget",
    "+zadd",
    "+zrem",
    "+zrangebyscore",
    "+zremrangebyscore",
    "+hello",
    "+xadd",
    "+xreadgroup",
    "+xautoclaim",
    "+xack",
    "+xdel",
    "+xgroup",
    "+xpending",
    "+xlen",
    "+xrange",
    "+xinfo",
    "+multi",
    "+exec",
    "+eval",
    "+evalsha",
    "+script|load",
    "+function|list",
    "+function|load",
    "+get",
    "+hget",
    "+hmget",
    "+hset",
    "+hincrby",
    "+xrevrange",
    "+expire",
    "+hdel",
    "+hlen",
    "+hexists",
    "+hvals",
    "+zcard",
    "+wait",
];

/// The rights that it gives to nodes in a cluster besides.
pub const CLUSTER: [&str; 5] = ["+cluster|nodes", "+role", "+spublish", "+ssubscribe", "+sunsubscribe"];

/// Channels without namespace have no history; `kept:`, `brief:` (three) and `fleeting:` (for a second) have; `room:` tells
/// who joins and leaves.
pub fn rules() -> Arc<Rules> {
    let kept = |size, ttl| ChannelRules {
        retention: Some(Retention { size, ttl: Duration::from_secs(ttl) }),
        ..ChannelRules::default()
    };
    let namespaces = [
        ("kept", kept(100, 300)),
        ("brief", kept(3, 300)),
        ("fleeting", kept(100, 1)),
        ("room", ChannelRules { join_leave: true, ..ChannelRules::default() }),
    ];
    let namespaces = namespaces.map(|(name, rules)| (name.to_owned(), rules));
    Arc::new(Rules { namespaces: namespaces.into(), any: Some(ChannelRules::default()) })
}

pub fn channel(name: &str) -> ChannelName {
    ChannelName::parse(name).expect("a channel name")
}

pub fn publication(name: &str, data: &str) -> Publication {
    Publication {
        channel: channel(name),
        data: Bytes::copy_from_slice(data.as_bytes()),
        info: None,
        tags: Vec::new(),
        offset: 0,
    }
}

pub fn ticket(id: u32) -> Ticket {
    Ticket { worker: WorkerId(1), session: 7, id }
}

/// Joins and waits for the relay's word: the position, where the channel has history.
pub fn joined(relay: &Relay, recorder: &Recorder, worker: u8, name: &str) -> Option<Position> {
    let before = recorder.answers_to_joins(worker, name).len();
    relay.join(WorkerId(worker), channel(name)).expect("room in the queue");
    let result = recorder
        .wait(&format!("worker {worker} joins {name}"), |r| r.joins(worker, name).get(before).cloned());
    result.unwrap_or_else(|error| panic!("worker {worker} could not join {name}: {error}"))
}

/// How often Redis ran the command.
pub fn calls(server: &RedisServer, command: &str) -> usize {
    let text: String = server.command(&["INFO", "commandstats"]);
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
    line.and_then(|rest| rest.split(',').next()).map_or(0, |count| count.parse().expect("a number"))
}

/// Waits until Redis has the function library.
pub fn library(server: &RedisServer) {
    eventually("the function library is loaded", || {
        !server.command::<Vec<redis::Value>>(&["FUNCTION", "LIST"]).is_empty()
    });
}

/// Looks again and again until `look` is satisfied, for what sends no event of its own.
#[expect(clippy::disallowed_methods, reason = "a pause between two looks, within a deadline")]
pub fn eventually(what: &str, look: impl Fn() -> bool) {
    let deadline = Instant::now() + SOON;
    while !look() {
        assert!(Instant::now() < deadline, "waited {SOON:?} in vain for: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The same for what must be asked for.
pub async fn until(what: &str, look: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + SOON;
    while !look().await {
        assert!(Instant::now() < deadline, "waited {SOON:?} in vain for: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
