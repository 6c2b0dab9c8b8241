//! The function library `tidegate`, by which backends publish into histories: made of the scripts that nodes run and of what
//! the node's namespaces keep, and loaded where Redis knows functions and lets us.
//!
//! Nodes of several versions and settings meet in one Redis: an older library never replaces a newer one, and one of the
//! same version with other retention replaces it only at a node's start, so that two nodes do not go on replacing each
//! other's. Not here: how nodes themselves publish (`publish`); they need no library.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};

use ::redis::{RedisError, Value};

use super::pool::Pool;
use super::script::{CHANNEL, PUBLISH, seconds, verb};
use super::server;
use crate::relay::RelayError;
use crate::rules::{ChannelRules, Rules};

/// The version of what the library can do: one more with each change that backends could notice.
const VERSION: u32 = 1;
const NAME: &str = "#!lua name=tidegate\n";
const ABOUT: &str = "-- tidegate library ";

pub(super) struct Library {
    code: String,
    hash: String,
    /// Whether nothing is decided yet: the node has just started.
    starting: AtomicBool,
    /// Whether an attempt is under way.
    busy: AtomicBool,
    /// Whether it was said that Redis does not take the library.
    told: AtomicBool,
}

/// What is to be done about the library that Redis has.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Newer(u32),
    Same,
    Other,
}

impl Library {
    /// `None` where no namespace keeps anything.
    pub(super) fn new(rules: &Rules, sharded: bool) -> Option<Self> {
        rules.keep().then(|| {
            let body = [&retention(rules), verb(sharded), CHANNEL, PUBLISH, include_str!("lua/library.lua")]
                .concat();
            let hash = ::redis::Script::new(&body).get_hash().to_owned();
            Self {
                code: format!("{NAME}{ABOUT}{VERSION} {hash}\n{body}"),
                hash,
                starting: AtomicBool::new(true),
                busy: AtomicBool::new(false),
                told: AtomicBool::new(false),
            }
        })
    }

    /// Sees to it that Redis has the library, or a newer one. Whatever fails is said once: nodes can do without.
    pub(super) async fn offer(&self, pool: &Pool) {
        if self.busy.swap(true, Ordering::SeqCst) {
            return;
        }
        let result = self.load(pool).await;
        self.busy.store(false, Ordering::SeqCst);
        match result {
            Ok(()) => self.starting.store(false, Ordering::SeqCst),
            Err(error) => {
                if !self.told.swap(true, Ordering::SeqCst) {
                    tracing::info!(%error, "redis does not take the function library: FCALL tg_publish cannot be used");
                }
            }
        }
    }

    async fn load(&self, pool: &Pool) -> Result<(), RelayError> {
        let refused = |error: RedisError| server::away(&error);
        let mut connection = pool.get().await.map_err(|error| server::no_connection(&error))?;
        let mut list = ::redis::cmd("FUNCTION");
        list.arg("LIST").arg("LIBRARYNAME").arg("tidegate").arg("WITHCODE");
        let listed: Value = list.query_async(&mut *connection).await.map_err(refused)?;
        let mut load = ::redis::cmd("FUNCTION");
        load.arg("LOAD");
        if let Some(code) = code(&listed) {
            match self.compare(code) {
                Found::Same => return Ok(()),
                Found::Newer(version) => {
                    tracing::info!(version, ours = VERSION, "redis has a newer function library: it stays");
                    return Ok(());
                }
                Found::Other if version(code) == Some(VERSION) && !self.starting.load(Ordering::SeqCst) => {
                    return Ok(());
                }
                Found::Other => drop(load.arg("REPLACE")),
            }
        }
        match load.arg(&self.code).query_async::<Value>(&mut *connection).await {
            Ok(_) => {
                tracing::info!(version = VERSION, "the function library is loaded");
                Ok(())
            }
            // Another node was faster.
            Err(error) if error.to_string().contains("already exists") => Ok(()),
            Err(error) => Err(refused(error)),
        }
    }

    fn compare(&self, code: &str) -> Found {
        match version(code) {
            Some(version) if version > VERSION => Found::Newer(version),
            Some(VERSION) if code.contains(&self.hash) => Found::Same,
            _ => Found::Other,
        }
    }
}

/// The library's code in the answer to FUNCTION LIST.
fn code(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(text) => std::str::from_utf8(text).ok().filter(|text| text.starts_with(NAME)),
        Value::SimpleString(text) => Some(text.as_str()).filter(|text| text.starts_with(NAME)),
        Value::Array(items) => items.iter().find_map(code),
        Value::Map(pairs) => pairs.iter().find_map(|(_, value)| code(value)),
        _ => None,
    }
}

fn version(code: &str) -> Option<u32> {
    code.strip_prefix(NAME)?.strip_prefix(ABOUT)?.split(' ').next()?.parse().ok()
}

/// What namespaces keep, as Lua.
fn retention(rules: &Rules) -> String {
    let kept = |rules: &ChannelRules| match rules.retention {
        Some(retention) => format!("{{ {}, {} }}", retention.size.max(1), seconds(retention.ttl)),
        None => "{}".to_owned(),
    };
    let mut names: Vec<_> = rules.namespaces.iter().collect();
    names.sort_by_key(|(name, _)| *name);
    let mut lua = "local RETENTION = {".to_owned();
    for (name, rules) in names {
        // Every byte by its number: nothing in a name means anything to Lua.
        let name: String = name.bytes().map(|byte| format!("\\{byte:03}")).collect();
        let _ = write!(lua, " [\"{name}\"] = {},", kept(rules));
    }
    let any = rules.any.as_ref().map_or_else(|| "{}".to_owned(), kept);
    let _ = writeln!(lua, " }}\nlocal ANY = {any}");
    lua
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_is_known_by_its_version_and_by_what_is_kept() {
        let rules = |size| Rules {
            any: Some(ChannelRules {
                retention: Some(crate::rules::Retention { size, ttl: std::time::Duration::from_secs(60) }),
                ..ChannelRules::default()
            }),
            ..Rules::default()
        };
        let library = |size| Library::new(&rules(size), false).expect("something is kept");
        let (ours, other) = (library(10), library(20));
        assert_eq!(ours.compare(&ours.code), Found::Same);
        assert_eq!(ours.compare(&other.code), Found::Other);
        let newer = ours.code.replace(&format!("{ABOUT}{VERSION} "), &format!("{ABOUT}{} ", VERSION + 1));
        assert_eq!(ours.compare(&newer), Found::Newer(VERSION + 1));
        assert_eq!(ours.compare("#!lua name=tidegate\nsomebody else's"), Found::Other);
        assert!(Library::new(&Rules::default(), false).is_none());
    }
}
