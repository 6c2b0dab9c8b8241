//! The Lua that runs in Redis, and how it is called: publishing into a history, reading it, ending its epoch,
//! and who is present.
//!
//! The sources stand in `lua/`. Each script is what all share (`channel.lua`) and a part of its own. Not here: the function
//! library that backends call (`library`), which is made of the same sources.

use std::sync::LazyLock;
use std::time::Duration;

use ::redis::Cmd;

use crate::names::Names;

/// What all scripts share.
pub(super) const CHANNEL: &str = include_str!("lua/channel.lua");
/// The function `publish(key, args, kept)`.
pub(super) const PUBLISH: &str = include_str!("lua/publish.lua");
/// By which command publications leave Redis: `[sharded]`.
const VERBS: [&str; 2] = ["local VERB = 'PUBLISH'\n", "local VERB = 'SPUBLISH'\n"];

/// A script: its text, and its name in Redis.
pub(super) struct Script {
    source: String,
    hash: String,
}

/// Publishes; ARGV is what `publish.lua` says. `[sharded]`.
static PUBLISHING: LazyLock<[Script; 2]> = LazyLock::new(|| {
    VERBS.map(|verb| Script::new([verb, CHANNEL, PUBLISH, "return publish(KEYS[1], ARGV)\n"].concat()))
});
/// Reads a position and what is behind another one.
pub(super) static READING: LazyLock<Script> =
    LazyLock::new(|| Script::new([CHANNEL, include_str!("lua/read.lua")].concat()));
/// Ends an epoch that has lost writes.
pub(super) static RENEWING: LazyLock<Script> =
    LazyLock::new(|| Script::new([CHANNEL, include_str!("lua/renew.lua")].concat()));
/// Reads a part of a history.
pub(super) static HISTORY: LazyLock<Script> =
    LazyLock::new(|| Script::new([CHANNEL, include_str!("lua/history.lua")].concat()));

/// Says and asks who is present; ARGV is what `presence.lua` says. `[sharded]`.
static PRESENCE: LazyLock<[Script; 2]> =
    LazyLock::new(|| VERBS.map(|verb| Script::new([verb, include_str!("lua/presence.lua")].concat())));

/// By which command publications leave Redis, as Lua.
pub(super) fn verb(sharded: bool) -> &'static str {
    VERBS[usize::from(sharded)]
}

/// The script that publishes into a history.
pub(super) fn publishing(names: &Names) -> &'static Script {
    &PUBLISHING[usize::from(names.are_sharded())]
}

/// The script of presence.
pub(super) fn presence(names: &Names) -> &'static Script {
    &PRESENCE[usize::from(names.are_sharded())]
}

impl Script {
    fn new(source: String) -> Self {
        let hash = ::redis::Script::new(&source).get_hash().to_owned();
        Self { source, hash }
    }

    /// Makes Redis know the script.
    pub(super) fn load(&self) -> Cmd {
        let mut load = ::redis::cmd("SCRIPT");
        load.arg("LOAD").arg(&self.source);
        load
    }

    /// Runs it on a channel's keys, by the name alone: it fails with NOSCRIPT where Redis does not know it.
    pub(super) fn call(&self, channel: &str) -> Cmd {
        let mut call = ::redis::cmd("EVALSHA");
        call.arg(&self.hash).arg(1).arg(channel);
        call
    }

    /// The same with its text, where it is called too rarely to be loaded first.
    pub(super) fn evaluate(&self, channel: &str) -> Cmd {
        let mut call = ::redis::cmd("EVAL");
        call.arg(&self.source).arg(1).arg(channel);
        call
    }
}

/// A time to live as scripts take it: whole seconds, 1 or more.
pub(super) fn seconds(ttl: Duration) -> u64 {
    ttl.as_secs().clamp(1, 999_999_999)
}
