//! A cluster of six: three masters, a replica each, all of them real, and redis-cli to work on it.

use std::path::Path;
use std::process::{Command, Output};

use tidegate_relay::{RedisSettings, Secret, Topology};

use super::server::{RedisServer, free_port};
use super::{CLUSTER, Keys, NODE, eventually, settings};

/// How long a master may be silent before it counts as dead, in milliseconds.
const NODE_TIMEOUT: &str = "1500";

pub struct Cluster {
    pub servers: Vec<RedisServer>,
    /// With TLS and ACL users.
    keys: Option<Keys>,
}

/// A server as CLUSTER NODES has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub id: String,
    pub port: u16,
    pub is_master: bool,
    pub is_down: bool,
    /// Of a replica: the id of its master.
    pub of: Option<String>,
    /// Ranges of slots.
    pub slots: Vec<(u16, u16)>,
}

impl Member {
    pub fn has(&self, slot: u16) -> bool {
        self.slots.iter().any(|(first, last)| (*first..=*last).contains(&slot))
    }
}

impl Cluster {
    pub fn start() -> Self {
        Self::with(Path::new("redis-server"), None)
    }

    /// Of another program.
    pub fn of(program: &Path) -> Self {
        Self::with(program, None)
    }

    /// All of them speak TLS to each other and to nodes, and nodes are the user `node`, with the documented rights.
    pub fn secured() -> Self {
        Self::with(Path::new("redis-server"), Some(Keys::new()))
    }

    fn with(program: &Path, keys: Option<Keys>) -> Self {
        let start = || {
            RedisServer::of(program, |_, _| {
                let bus = free_port().to_string();
                let mut args = ["--cluster-enabled", "yes", "--cluster-node-timeout", NODE_TIMEOUT].to_vec();
                args.extend(["--repl-diskless-sync-delay", "0", "--cluster-port", &bus]);
                let mut args: Vec<String> = args.into_iter().map(str::to_owned).collect();
                if let Some(keys) = &keys {
                    args.extend(keys.arguments(free_port()));
                    let more = [
                        "--tls-cluster",
                        "yes",
                        "--tls-replication",
                        "yes",
                        "--user",
                        "node",
                        "on",
                        ">s3cret",
                    ];
                    args.extend(more.map(str::to_owned));
                    args.extend(NODE.map(str::to_owned));
                    args.extend(CLUSTER.map(str::to_owned));
                }
                args
            })
        };
        let cluster = Self { servers: (0..6).map(|_| start()).collect(), keys };
        let addresses = cluster.servers.iter().map(|server| format!("127.0.0.1:{}", cluster.port_of(server)));
        let mut words = vec!["--cluster".to_owned(), "create".to_owned()];
        words.extend(addresses);
        words.extend(["--cluster-replicas", "1", "--cluster-yes"].map(str::to_owned));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let made = cluster.cli(&words);
        assert!(made.status.success(), "{made:?}");
        cluster.settled();
        cluster
    }

    /// The port by which the servers know each other.
    fn port_of(&self, server: &RedisServer) -> u16 {
        if self.keys.is_some() { server.tls_port().parse().expect("a port") } else { server.port }
    }

    /// Waits until all servers that live agree that the cluster works and every replica has its master's data.
    pub fn settled(&self) {
        eventually("the cluster is settled", || {
            self.alive().all(|server| {
                let state: String = server.command(&["CLUSTER", "INFO"]);
                let replication: String = server.command(&["INFO", "replication"]);
                state.contains("cluster_state:ok")
                    && (replication.contains("role:master") || replication.contains("master_link_status:up"))
            }) && {
                let views: Vec<_> = self.alive().map(|server| self.members_by(server)).collect();
                views.windows(2).all(|pair| pair[0] == pair[1])
            }
        });
    }

    fn alive(&self) -> impl Iterator<Item = &RedisServer> {
        self.servers.iter().filter(|server| server.is_alive())
    }

    pub fn settings(&self) -> RedisSettings {
        let scheme = if self.keys.is_some() { "rediss" } else { "redis" };
        let nodes =
            self.servers.iter().map(|server| format!("{scheme}://127.0.0.1:{}", self.port_of(server)));
        RedisSettings {
            topology: Topology::Cluster(nodes.collect()),
            username: self.keys.as_ref().map(|_| "node".to_owned()),
            password: self.keys.as_ref().map(|_| Secret::new("s3cret".to_owned())),
            ca: self.keys.as_ref().map(Keys::authority),
            ..settings("")
        }
    }

    /// redis-cli, to one of the servers that live.
    pub fn cli(&self, words: &[&str]) -> Output {
        let server = self.alive().next().expect("one that lives");
        let mut command = Command::new("redis-cli");
        command.args(["-h", "127.0.0.1", "-p", &self.port_of(server).to_string()]);
        if let Some(keys) = &self.keys {
            command.arg("--tls").arg("--cacert").arg(keys.authority());
        }
        command.args(words).output().expect("redis-cli")
    }

    /// What redis-cli prints that follows redirections, as a backend uses it.
    pub fn ask(&self, words: &[&str]) -> String {
        let said = self.cli(&[&["-c"], words].concat());
        assert!(said.status.success(), "{words:?}: {said:?}");
        String::from_utf8_lossy(&said.stdout).trim().to_owned()
    }

    pub fn members(&self) -> Vec<Member> {
        self.members_by(self.alive().next().expect("one that lives"))
    }

    fn members_by(&self, server: &RedisServer) -> Vec<Member> {
        let text: String = server.command(&["CLUSTER", "NODES"]);
        let mut members: Vec<Member> = text.lines().filter_map(member).collect();
        members.sort_by(|a, b| a.id.cmp(&b.id));
        members
    }

    /// The member, a master, that has the channel, and its server.
    pub fn owner(&self, channel: &str) -> (Member, usize) {
        let slot: u16 =
            self.ask(&["CLUSTER", "KEYSLOT", &format!("tg:{{{channel}}}")]).parse().expect("a slot");
        let owner = self.members().into_iter().find(|member| member.is_master && member.has(slot));
        let owner = owner.expect("an owner");
        let at = self.servers.iter().position(|server| self.port_of(server) == owner.port).expect("a server");
        (owner, at)
    }

    /// A master that has not the channel.
    pub fn other(&self, channel: &str) -> Member {
        let (owner, _) = self.owner(channel);
        let masters = self.members().into_iter().filter(|m| m.is_master && !m.is_down && !m.slots.is_empty());
        masters.into_iter().find(|member| member.id != owner.id).expect("another master")
    }

    /// Lets a replica of the channel's master take its place, as an operator would.
    pub fn fail_over(&self, channel: &str) {
        let (owner, _) = self.owner(channel);
        let replica =
            self.members().into_iter().find(|m| m.of.as_ref() == Some(&owner.id)).expect("a replica");
        let at =
            self.servers.iter().position(|server| self.port_of(server) == replica.port).expect("a server");
        let _: String = self.servers[at].command(&["CLUSTER", "FAILOVER"]);
        eventually("the replica is the master", || self.owner(channel).0.id == replica.id);
    }
}

/// A line of CLUSTER NODES.
fn member(line: &str) -> Option<Member> {
    let words: Vec<&str> = line.split(' ').collect();
    let [id, address, flags, of, _, _, _, _, slots @ ..] = words.as_slice() else { return None };
    let port = address.split(['@', ',']).next()?.rsplit(':').next()?.parse().ok()?;
    let range = |text: &&str| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        Some((first.parse().ok()?, last.parse().ok()?))
    };
    Some(Member {
        id: (*id).to_owned(),
        port,
        is_master: flags.contains("master"),
        is_down: flags.contains("fail"),
        of: (*of != "-").then(|| (*of).to_owned()),
        slots: slots.iter().filter_map(range).collect(),
    })
}
