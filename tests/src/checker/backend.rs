//! How a backend finds its way to Redis and publishes, in each topology.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::SocketAddr;
use std::process::Command;

use super::history::Position;
use super::resp::{Answer, Resp};
use crate::process::run;

/// How often a command is sent to another server because one said so.
const MOST_MOVES: usize = 5;

/// Where Redis is to be found.
#[derive(Debug, Clone)]
pub enum Lookup {
    /// Here.
    Server(SocketAddr),
    /// Where these sentinels say.
    Sentinels(Vec<SocketAddr>),
    /// One of these knows.
    Cluster(Vec<SocketAddr>),
}

/// What came of a publication.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Taken, and as what, where that was told.
    Taken(Option<Position>),
    /// Not taken, for certain.
    Refused(String),
    /// Nobody knows.
    Unknown(String),
}

impl Lookup {
    /// Where the master is, or some server of a cluster.
    fn find(&self) -> Option<SocketAddr> {
        match self {
            Self::Server(address) => Some(*address),
            Self::Cluster(servers) => servers.iter().copied().find(|server| Resp::open(*server).is_ok()),
            Self::Sentinels(sentinels) => sentinels.iter().find_map(|sentinel| {
                let words = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main"];
                let answer = Resp::open(*sentinel).ok()?.call(&words).ok()?;
                let Answer::List(parts) = answer else { return None };
                let [Answer::Text(host), Answer::Text(port)] = parts.as_slice() else { return None };
                format!("{host}:{port}").parse().ok()
            }),
        }
    }

    /// The command with which a backend publishes: with history, or without.
    fn words(&self, channel: &str, kept: bool, data: &str) -> Vec<String> {
        let (key, data) = (format!("tg:{{{channel}}}"), data.to_owned());
        match (kept, self) {
            (true, Self::Cluster(_)) => {
                // Every key is named, so that a slot may move meanwhile.
                let (meta, log) = (format!("{key}:meta"), format!("{key}:log"));
                ["FCALL", "tg_publish", "3", &key, &meta, &log, &data].map(str::to_owned).to_vec()
            }
            (true, _) => ["FCALL", "tg_publish", "1", &key, &data].map(str::to_owned).to_vec(),
            (false, Self::Cluster(_)) => vec!["SPUBLISH".to_owned(), key, data],
            (false, _) => vec!["PUBLISH".to_owned(), key, data],
        }
    }
}

/// Connections to servers, kept while they work.
#[derive(Debug, Default)]
pub(super) struct Backend {
    open: HashMap<SocketAddr, Resp>,
    /// Who has taken a channel's publication last.
    known: HashMap<String, SocketAddr>,
}

impl Backend {
    pub(super) fn publish(&mut self, lookup: &Lookup, channel: &str, kept: bool, data: &str) -> Outcome {
        let words = lookup.words(channel, kept, data);
        self.send(lookup, channel, &words.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Leaves it to the nodes to publish it.
    pub(super) fn ingest(&mut self, lookup: &Lookup, channel: &str, data: &str, id: u64) -> Outcome {
        let key = id.to_string();
        let words = ["XADD", "tg:ingest", "*", "channel", channel, "data", data, "id", &key];
        self.send(lookup, "tg:ingest", &words)
    }

    fn send(&mut self, lookup: &Lookup, channel: &str, words: &[&str]) -> Outcome {
        let known = self.known.get(channel).copied();
        let Some(mut at) = known.or_else(|| lookup.find()) else {
            return Outcome::Refused("no server is found".to_owned());
        };
        let mut asking = false;
        for _ in 0..MOST_MOVES {
            let Some(answer) = self.call(at, asking, words) else {
                self.known.remove(channel);
                return Outcome::Refused(format!("{at} does not take connections"));
            };
            match answer {
                Ok(Answer::Error(why)) => {
                    let moved = why.starts_with("MOVED ");
                    asking = why.starts_with("ASK ");
                    if let Some(next) = why.rsplit(' ').next().and_then(|next| next.parse().ok())
                        && (moved || asking)
                    {
                        at = next;
                        continue;
                    }
                    self.known.remove(channel);
                    return Outcome::Refused(why);
                }
                Ok(answer) => {
                    self.known.insert(channel.to_owned(), at);
                    let Answer::List(parts) = answer else { return Outcome::Taken(None) };
                    return Outcome::Taken(told(&parts));
                }
                Err(error) => {
                    self.open.remove(&at);
                    self.known.remove(channel);
                    return Outcome::Unknown(error.to_string());
                }
            }
        }
        self.known.remove(channel);
        Outcome::Refused("sent from server to server".to_owned())
    }

    /// Sends the command to a server; `None`: it cannot be reached.
    fn call(&mut self, at: SocketAddr, asking: bool, words: &[&str]) -> Option<io::Result<Answer>> {
        let connection = match self.open.entry(at) {
            Entry::Occupied(open) => open.into_mut(),
            Entry::Vacant(place) => place.insert(Resp::open(at).ok()?),
        };
        if asking && let Err(error) = connection.call(&["ASKING"]) {
            return Some(Err(error));
        }
        Some(connection.call(words))
    }
}

fn told(parts: &[Answer]) -> Option<Position> {
    let [Answer::Number(offset), Answer::Text(epoch)] = parts else { return None };
    Some(Position { offset: u64::try_from(*offset).ok()?, epoch: epoch.clone() })
}

/// Publishes with redis-cli.
pub(super) fn redis_cli(lookup: &Lookup, channel: &str, kept: bool, data: &str) -> Outcome {
    let Some(at) = lookup.find() else { return Outcome::Refused("no server is found".to_owned()) };
    let mut command = Command::new("timeout");
    // timeout(1) says so with its own status.
    command.args(["3", "redis-cli", "-e", "-h", "127.0.0.1", "-p", &at.port().to_string()]);
    if let Lookup::Cluster(_) = lookup {
        command.arg("-c");
    }
    let said = run(command.args(lookup.words(channel, kept, data)));
    if said.status.success() {
        let mut lines = said.out.lines();
        let offset = lines.next().and_then(|line| line.parse().ok());
        let position = offset.zip(lines.next()).filter(|_| kept);
        return Outcome::Taken(position.map(|(offset, epoch)| Position { offset, epoch: epoch.to_owned() }));
    }
    let why = format!("{} {}", said.out, said.err);
    // What Redis itself says, and what happens before a word is sent.
    let refused =
        ["ERR", "NOPERM", "LOADING", "MISCONF", "READONLY", "TRYAGAIN", "CLUSTERDOWN", "Could not connect"];
    if refused.iter().any(|word| why.contains(word)) { Outcome::Refused(why) } else { Outcome::Unknown(why) }
}
