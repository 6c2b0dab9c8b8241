//! Checked and resolved settings of a relay.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Which relay, and how.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "there is one of it in a node")]
pub enum RelaySettings {
    /// For one node: nothing leaves the process.
    Memory(MemorySettings),
    /// Redis.
    Redis(RedisSettings),
}

/// What the memory relay may keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemorySettings {
    /// How many bytes the histories of all channels may take. Beyond it the channels that were used least recently lose
    /// theirs.
    pub history_bytes: usize,
}

/// Which servers, and how they belong together.
///
/// Every URL is `redis://` or, for TLS, `rediss://`; credentials are taken out of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Topology {
    /// One server, its URL with host, port and database.
    Server(String),
    /// Whichever server the sentinels name.
    Sentinel(Box<SentinelSettings>),
    /// A cluster: URLs of some of its servers, better all; the others are found.
    Cluster(Vec<String>),
    /// Servers that know nothing of each other, over which channels are spread: 2 or more, each with host, port and
    /// database. The order counts.
    Shards(Vec<String>),
}

/// How to ask sentinels for the master.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentinelSettings {
    /// What they call it.
    pub master: String,
    /// URLs of the sentinels, one or more. The master is reached as they are: over TLS if they are.
    pub nodes: Vec<String>,
    /// ACL user of the sentinels themselves, where not the default one.
    pub username: Option<String>,
    /// Password of the sentinels themselves.
    pub password: Option<Secret>,
}

/// How to reach Redis.
#[derive(Debug, Clone)]
pub struct RedisSettings {
    /// Which servers.
    pub topology: Topology,
    /// ACL user of the servers, where not the default one.
    pub username: Option<String>,
    /// Password of the servers.
    pub password: Option<Secret>,
    /// Certificate authorities to trust instead of the public ones, as a PEM file.
    pub ca: Option<PathBuf>,
    /// What keys and channels begin with: `tg` makes `tg:{news}`.
    pub prefix: String,
    /// How long a command may take, the connection's making included.
    pub command_timeout: Duration,
    /// How many pooled connections commands may use: [`RedisSettings::LEAST_POOL_SIZE`] or more.
    pub pool_size: usize,
    /// How long a channel stays subscribed after its last local subscriber left.
    pub linger: Duration,
    /// How often the node writes itself into the registry; it is forgotten after three times that.
    pub heartbeat: Duration,
    /// The largest publication taken from Redis, in bytes.
    pub max_publication_bytes: usize,
    /// How often the connection to hear is probed; silence beyond it is an interruption.
    pub probe_interval: Duration,
    /// How many replicas must confirm a publication that is kept before it counts as published; 0: none.
    pub wait_replicas: usize,
    /// How long they are waited for: less than the command timeout.
    pub wait_timeout: Duration,
    /// How long somebody is present after the node's last word of it: the node says it anew three times in that.
    pub presence_ttl: Duration,
    /// How the node takes part in durable ingest; `None`: it does not.
    pub ingest: Option<IngestSettings>,
    /// About how many entries the stream of events keeps; `None`: no events are written.
    pub events: Option<usize>,
}

/// How a node takes part in durable ingest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IngestSettings {
    /// How long an entry may be another node's without an acknowledgement before it is taken over.
    pub claim_after: Duration,
    /// How many entries are read at once: 1 or more.
    pub batch: usize,
}

impl RedisSettings {
    /// The fewest pooled connections: publishing keeps one, presence another, registry and API need a third.
    pub const LEAST_POOL_SIZE: usize = 3;

    /// What a prefix must be; the error is the rule. Braces would move the hash slot, white space and what a pattern
    /// gives a meaning would make ACL rules lie.
    pub fn check_prefix(prefix: &str) -> Result<(), &'static str> {
        let fits = |b: u8| b.is_ascii_graphic() && !matches!(b, b'{' | b'}' | b'*' | b'?' | b'[' | b'\\');
        if (1..=64).contains(&prefix.len()) && prefix.bytes().all(fits) {
            return Ok(());
        }
        Err(r"must be 1 to 64 visible ASCII characters without { } * ? [ \")
    }
}

/// Text that must not be shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes the secret.
    pub const fn new(secret: String) -> Self {
        Self(secret)
    }

    /// The secret itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_that_would_break_names_is_refused() {
        for good in ["tg", "my.app:tg", "a"] {
            assert_eq!(RedisSettings::check_prefix(good), Ok(()), "{good}");
        }
        for bad in ["", "a b", "t{g", "t*", "t?", "t[a]", "t\\g", "ü", &"x".repeat(65)] {
            assert!(RedisSettings::check_prefix(bad).is_err(), "{bad}");
        }
    }
}
