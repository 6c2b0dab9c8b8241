//! The Redis of a run: one server, a master and a replica with three sentinels, or a cluster of six.
//!
//! What happens to it as a whole is here. Faults of one server are those of [`Redis`].

mod cluster;
mod sentinel;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::backend::Lookup;
use crate::deadline::{PATIENCE, eventually};
use crate::redis::{Options, Redis};
use sentinel::Sentinel;

/// How Redis is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topology {
    /// One server, which keeps its data in a file.
    Single,
    /// A master, a replica and three sentinels.
    Sentinel,
    /// Three masters, a replica each.
    Cluster,
}

impl Topology {
    /// By its name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Single, Self::Sentinel, Self::Cluster].into_iter().find(|one| one.name() == name)
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::Sentinel => "sentinel",
            Self::Cluster => "cluster",
        }
    }
}

/// The servers.
#[derive(Debug)]
pub struct Store {
    topology: Topology,
    servers: Vec<Redis>,
    sentinels: Vec<Sentinel>,
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

impl Store {
    /// Starts it.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(topology: Topology) -> Self {
        match topology {
            Topology::Single => {
                let servers = vec![Options::default().durable().go()];
                Self { topology, servers, sentinels: Vec::new() }
            }
            Topology::Sentinel => {
                let (servers, sentinels) = sentinel::start();
                Self { topology, servers, sentinels }
            }
            Topology::Cluster => Self { topology, servers: cluster::start(), sentinels: Vec::new() },
        }
    }

    /// How publishers find it.
    pub fn lookup(&self) -> Lookup {
        let servers = || self.servers.iter().map(|server| loopback(server.port())).collect();
        match self.topology {
            Topology::Single => Lookup::Server(loopback(self.servers[0].port())),
            Topology::Sentinel => {
                Lookup::Sentinels(self.sentinels.iter().map(|s| loopback(s.port)).collect())
            }
            Topology::Cluster => Lookup::Cluster(servers()),
        }
    }

    /// What nodes are told, where they do not reach it through a proxy.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let list = |ports: Vec<u16>| {
            let urls: Vec<String> = ports.iter().map(|port| format!("redis://127.0.0.1:{port}")).collect();
            urls.join(",")
        };
        match self.topology {
            Topology::Single => vec![("relay.redis.url", self.servers[0].url())],
            Topology::Sentinel => vec![
                ("relay.redis.sentinel.master", sentinel::NAME.to_owned()),
                ("relay.redis.sentinel.nodes", list(self.sentinels.iter().map(|s| s.port).collect())),
            ],
            Topology::Cluster => {
                vec![("relay.redis.cluster.nodes", list(self.servers.iter().map(Redis::port).collect()))]
            }
        }
    }

    /// The server that a fault is about: the only one, the master, or the master of a slot.
    pub fn master(&mut self) -> &mut Redis {
        let at = self.master_at();
        &mut self.servers[at]
    }

    fn master_at(&self) -> usize {
        let port = match self.topology {
            Topology::Single => return 0,
            Topology::Sentinel => sentinel::elected(&self.sentinels),
            Topology::Cluster => cluster::master(&self.servers),
        };
        self.servers.iter().position(|server| server.port() == port).unwrap_or_default()
    }

    /// FLUSHALL, everywhere.
    pub fn flush(&self) {
        for server in &self.servers {
            // A replica refuses, and has it from its master.
            server.cli(&["FLUSHALL"]);
        }
    }

    /// A replica takes its master's place, as an operator asks for it; the old master follows it. Until then it may take
    /// what nobody will ever hear.
    pub fn fail_over(&mut self) {
        let before = self.master_at();
        match self.topology {
            Topology::Single => {}
            Topology::Sentinel => self.sentinels[0].fail_over(),
            Topology::Cluster => cluster::fail_over(&self.servers, before),
        }
        self.succeeded(before);
        self.rejoin(before, |_| {});
    }

    /// Takes the master away by `end`, and waits until another server has its place. Which one it was.
    pub fn without_master(&mut self, end: impl FnOnce(&mut Redis)) -> usize {
        let before = self.master_at();
        end(&mut self.servers[before]);
        self.succeeded(before);
        before
    }

    fn succeeded(&self, before: usize) {
        eventually("another server is the master", PATIENCE * 2, || {
            (self.master_at() != before).then_some(())
        });
    }

    /// A server that was the master is back, or awake, and follows the one that is.
    pub fn rejoin(&mut self, server: usize, back: impl FnOnce(&mut Redis)) {
        back(&mut self.servers[server]);
        if self.topology == Topology::Sentinel {
            let port = self.servers[self.master_at()].port().to_string();
            // Sentinels would do it by themselves after some seconds.
            self.servers[server].cli(&["REPLICAOF", "127.0.0.1", &port]);
        }
        eventually("the old master follows the new one", PATIENCE * 2, || {
            self.servers[server].cli(&["INFO", "replication"]).out.contains("role:slave").then_some(())
        });
    }

    /// Moves the slot of a channel to another master.
    pub fn reshard(&self, channel: &str) {
        cluster::reshard(&self.servers, channel);
    }

    /// Every server answers, and every replica follows.
    pub fn healthy(&self, within: Duration) {
        eventually("every server is in its place", within, || {
            let fine = |server: &Redis| {
                let said = server.cli(&["INFO", "replication"]).out;
                said.contains("role:master") || said.contains("master_link_status:up")
            };
            self.servers.iter().all(fine).then_some(())
        });
    }
}
