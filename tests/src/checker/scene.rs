//! Redis, the nodes and the seats of subscribers, and what a schedule does to them.
//!
//! Each subscriber has a proxy of its own, so that it can be moved, stalled and cut without its help, and each node has
//! one before its Redis.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use rustix::process::Signal;
use tempfile::TempDir;

use super::history::{Loss, What};
use super::publisher::{Address, Press};
use super::schedule::Fault;
use crate::deadline::{PATIENCE, eventually};
use crate::node::{Node, Start};
use crate::proxy::Proxy;
use crate::redis::{Options, Redis};

/// Everything that runs.
#[derive(Debug)]
pub struct Scene {
    redis: Redis,
    berths: Vec<Berth>,
    seats: Vec<Seat>,
    press: Option<Arc<Press>>,
    /// What Redis will be put back to.
    backup: Option<TempDir>,
    /// Nodes that ended without being told to.
    dead: BTreeSet<usize>,
}

/// A node and what stands in its place when it is gone.
#[derive(Debug)]
struct Berth {
    start: Start,
    node: Option<Node>,
    link: Proxy,
}

/// Where a subscriber connects.
#[derive(Debug)]
struct Seat {
    proxy: Proxy,
    /// To which node.
    node: usize,
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

impl Scene {
    /// Starts Redis and as many nodes, each as `start` says, and seats for as many subscribers, spread over the nodes.
    ///
    /// # Panics
    /// When something does not start.
    pub fn new(nodes: usize, seats: usize, start: impl Fn(usize) -> Start) -> Self {
        let redis = Options::default().durable().go();
        let berths: Vec<Berth> = (0..nodes)
            .map(|number| {
                let link = Proxy::to_redis(loopback(redis.port()));
                let url = format!("redis://{}/0", link.address());
                let start = start(number).named(&format!("node {number}"));
                let start = start.set("relay.kind", "redis").set("relay.redis.url", url);
                let node = Some(start.clone().go());
                Berth { start, node, link }
            })
            .collect();
        let seats = (0..seats).map(|number| {
            let node = number % nodes;
            let target = berths[node].node.as_ref().map(Node::public);
            Seat { proxy: Proxy::to(target.expect("it was just started")), node }
        });
        let seats = seats.collect();
        Self { redis, berths, seats, press: None, backup: None, dead: BTreeSet::new() }
    }

    /// Where a subscriber connects.
    pub fn place(&self, seat: usize) -> SocketAddr {
        self.seats[seat].proxy.address()
    }

    /// Where Redis is.
    pub fn redis(&self) -> SocketAddr {
        loopback(self.redis.port())
    }

    /// Where the nodes are.
    pub fn addresses(&self) -> Vec<Option<Address>> {
        let address = |node: &Node| Address { public: node.public(), internal: node.internal() };
        self.berths.iter().map(|berth| berth.node.as_ref().map(address)).collect()
    }

    /// Tells these publishers, from now on, where the nodes are, and their recorder what happens.
    pub fn inform(&mut self, press: &Arc<Press>) {
        self.press = Some(Arc::clone(press));
    }

    /// Nodes that ended without being told to.
    pub fn dead(&mut self) -> &BTreeSet<usize> {
        for (number, berth) in self.berths.iter_mut().enumerate() {
            if berth.node.as_mut().is_some_and(|node| node.process.exited().is_some()) {
                self.dead.insert(number);
            }
        }
        &self.dead
    }

    /// What the nodes say of themselves, summed up: how often each counter of the relay moved.
    pub fn metric(&self, name: &str) -> f64 {
        self.berths.iter().filter_map(|berth| berth.node.as_ref()).map(|node| node.metrics().sum(name)).sum()
    }

    /// A fault begins.
    ///
    /// # Panics
    /// When Redis or a node does what it should not do even then.
    pub fn begin(&mut self, fault: Fault, milliseconds: u64) {
        if fault != Fault::Flush {
            self.note(&format!("{fault}"), Loss::Nothing);
        }
        match fault {
            Fault::KillNode(node) => {
                self.retire(node, |node| node.kill());
            }
            Fault::StopNode(node) => self.signal(node, Signal::STOP),
            Fault::DrainNode(node) => self.retire(node, |node| {
                node.terminate();
                node.wait(PATIENCE);
            }),
            Fault::StopRedis => self.redis.stop(),
            Fault::RestartRedis => self.redis.kill(),
            Fault::EmptyRedis => {
                self.redis.kill();
                clear(self.redis.dir());
                self.note("Redis has lost everything", Loss::Everything);
            }
            Fault::RewindRedis => {
                let backup = tempfile::tempdir().expect("a temporary directory");
                copy(self.redis.dir(), backup.path());
                self.backup = Some(backup);
            }
            Fault::Flush => {
                self.note("FLUSHALL", Loss::Everything);
                self.redis.ask(&["FLUSHALL"]);
            }
            Fault::KillSubscribers => {
                self.redis.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]);
            }
            Fault::KillClients => {
                self.redis.ask(&["CLIENT", "KILL", "TYPE", "normal"]);
            }
            Fault::PauseClients => {
                self.redis.ask(&["CLIENT", "PAUSE", &milliseconds.to_string()]);
            }
            Fault::StallRelay(node) => self.berths[node].link.silence(),
            Fault::CutRelay(node) => self.berths[node].link.refuse(),
            Fault::DeafenRelay(node) => self.berths[node].link.deafen(),
            Fault::StallClient(seat) => self.seats[seat].proxy.silence(),
            Fault::CutClient(seat) => self.seats[seat].proxy.refuse(),
            Fault::Hop(seat, node) => {
                self.seats[seat].node = node;
                self.point();
                self.seats[seat].proxy.cut();
            }
        }
    }

    /// It ends.
    ///
    /// # Panics
    /// When what was ended does not come back.
    pub fn end(&mut self, fault: Fault) {
        match fault {
            Fault::KillNode(node) | Fault::DrainNode(node) => self.man(node),
            Fault::StopNode(node) => self.signal(node, Signal::CONT),
            Fault::StopRedis => self.redis.resume(),
            Fault::RestartRedis | Fault::EmptyRedis => self.redis.restart(),
            Fault::RewindRedis => {
                self.redis.kill();
                let backup = self.backup.take().expect("it was made when the fault began");
                clear(self.redis.dir());
                copy(backup.path(), self.redis.dir());
                self.note("Redis has lost what came since", Loss::Latest);
                self.redis.restart();
            }
            Fault::StallRelay(node) => self.berths[node].link.speak(),
            Fault::CutRelay(node) => self.berths[node].link.admit(),
            Fault::StallClient(seat) => self.seats[seat].proxy.speak(),
            Fault::CutClient(seat) => self.seats[seat].proxy.admit(),
            Fault::Flush
            | Fault::KillSubscribers
            | Fault::KillClients
            | Fault::PauseClients
            | Fault::DeafenRelay(_)
            | Fault::Hop(..) => return,
        }
        self.note(&format!("over: {fault}"), Loss::Nothing);
    }

    fn note(&self, fault: &str, loses: Loss) {
        if let Some(press) = &self.press {
            press.recorder.note(What::Fault { fault: fault.to_owned(), loses });
        }
    }

    fn signal(&mut self, node: usize, signal: Signal) {
        if let Some(node) = &mut self.berths[node].node {
            node.process.signal(signal);
        }
    }

    /// Ends a node; nobody is sent to it until there is another.
    fn retire(&mut self, node: usize, end: impl FnOnce(&mut Node)) {
        self.dead();
        if let Some(mut old) = self.berths[node].node.take() {
            self.point();
            end(&mut old);
        }
    }

    /// Starts a node in a berth.
    fn man(&mut self, node: usize) {
        let berth = &mut self.berths[node];
        berth.node = Some(berth.start.clone().go());
        self.point();
    }

    /// Sends everyone where the nodes are.
    fn point(&self) {
        let addresses = self.addresses();
        for seat in &self.seats {
            // While its node is away, a subscriber knocks where it was.
            if let Some(address) = addresses[seat.node] {
                seat.proxy.point_at(address.public);
            }
        }
        if let Some(press) = &self.press {
            *press.nodes.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = addresses;
        }
    }
}

/// Takes the files of Redis away.
fn clear(dir: &Path) {
    let _ = std::fs::remove_dir_all(dir.join("appendonlydir"));
    let _ = std::fs::remove_file(dir.join("dump.rdb"));
}

/// Copies them, while they may be written to: Redis takes a file whose end is cut off.
fn copy(from: &Path, to: &Path) {
    let (from, to) = (from.join("appendonlydir"), to.join("appendonlydir"));
    // A rewrite may take a file away under the copy.
    eventually("the files of Redis are copied", PATIENCE, || {
        let _ = std::fs::remove_dir_all(&to);
        std::fs::create_dir(&to).ok()?;
        let entries = std::fs::read_dir(&from).ok()?;
        entries
            .map(|entry| {
                let entry = entry.ok()?;
                std::fs::copy(entry.path(), to.join(entry.file_name())).ok()
            })
            .all(|copied| copied.is_some())
            .then_some(())
    });
}
