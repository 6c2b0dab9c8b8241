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

use super::backend::Lookup;
use super::history::{Loss, What};
use super::publisher::{Address, Press};
use super::schedule::Fault;
use super::store::{Store, Topology};
use crate::deadline::{PATIENCE, eventually};
use crate::node::{Node, Start};
use crate::proxy::Proxy;
use crate::redis::Redis;

/// Everything that runs.
#[derive(Debug)]
pub struct Scene {
    store: Store,
    berths: Vec<Berth>,
    seats: Vec<Seat>,
    press: Option<Arc<Press>>,
    /// What Redis will be put back to.
    backup: Option<TempDir>,
    /// The server that was the master.
    former: Option<usize>,
    /// Channels whose slots move, one after the other.
    moving: Vec<String>,
    /// Nodes that ended without being told to.
    dead: BTreeSet<usize>,
}

/// A node and what stands in its place when it is gone.
#[derive(Debug)]
struct Berth {
    start: Start,
    node: Option<Node>,
    /// Where there is one server.
    link: Option<Proxy>,
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
    pub fn new(topology: Topology, nodes: usize, seats: usize, start: impl Fn(usize) -> Start) -> Self {
        let mut store = Store::start(topology);
        let berths: Vec<Berth> = (0..nodes)
            .map(|number| {
                let start = start(number).named(&format!("node {number}")).set("relay.kind", "redis");
                let single = topology == Topology::Single;
                let link = single.then(|| Proxy::to_redis(loopback(store.master().port())));
                let settings = match &link {
                    Some(link) => vec![("relay.redis.url", format!("redis://{}/0", link.address()))],
                    None => store.settings(),
                };
                let start = settings.into_iter().fold(start, |start, (key, value)| start.set(key, value));
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
        Self {
            store,
            berths,
            seats,
            press: None,
            backup: None,
            former: None,
            moving: Vec::new(),
            dead: BTreeSet::new(),
        }
    }

    /// Where a subscriber connects.
    pub fn place(&self, seat: usize) -> SocketAddr {
        self.seats[seat].proxy.address()
    }

    /// Where Redis is.
    pub fn redis(&self) -> Lookup {
        self.store.lookup()
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
            Fault::StopRedis => self.store.master().stop(),
            Fault::RestartRedis => self.store.master().kill(),
            Fault::EmptyRedis => {
                self.store.master().kill();
                clear(self.store.master().dir());
                self.note("Redis has lost everything", Loss::Everything);
            }
            Fault::RewindRedis => {
                let backup = tempfile::tempdir().expect("a temporary directory");
                copy(self.store.master().dir(), backup.path());
                self.backup = Some(backup);
            }
            Fault::Flush => {
                self.note("FLUSHALL", Loss::Everything);
                self.store.flush();
            }
            Fault::FailOver => {
                self.note("Redis may lose what came last", Loss::Latest);
                self.store.fail_over();
                self.note("another server is the master, and the old one a replica", Loss::Latest);
            }
            Fault::KillMaster | Fault::StopMaster => {
                self.note("Redis may lose what came last", Loss::Latest);
                let killed = fault == Fault::KillMaster;
                let end = |server: &mut Redis| if killed { server.kill() } else { server.stop() };
                self.former = Some(self.store.without_master(end));
                self.note("another server is the master", Loss::Latest);
            }
            Fault::Reshard => {
                if self.moving.is_empty() {
                    self.moving = self.channels();
                }
                if let Some(channel) = self.moving.pop() {
                    self.store.reshard(&channel);
                }
            }
            Fault::KillSubscribers => {
                self.store.master().ask(&["CLIENT", "KILL", "TYPE", "pubsub"]);
            }
            Fault::KillClients => {
                self.store.master().ask(&["CLIENT", "KILL", "TYPE", "normal"]);
            }
            Fault::PauseClients => {
                self.store.master().ask(&["CLIENT", "PAUSE", &milliseconds.to_string()]);
            }
            Fault::StallRelay(node) => self.link(node, Proxy::silence),
            Fault::CutRelay(node) => self.link(node, Proxy::refuse),
            Fault::DeafenRelay(node) => self.link(node, Proxy::deafen),
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
            Fault::StopRedis => self.store.master().resume(),
            Fault::RestartRedis | Fault::EmptyRedis => self.store.master().restart(),
            Fault::RewindRedis => {
                self.store.master().kill();
                let backup = self.backup.take().expect("it was made when the fault began");
                clear(self.store.master().dir());
                copy(backup.path(), self.store.master().dir());
                self.note("Redis has lost what came since", Loss::Latest);
                self.store.master().restart();
            }
            Fault::KillMaster | Fault::StopMaster => {
                let killed = fault == Fault::KillMaster;
                let back = |server: &mut Redis| if killed { server.restart() } else { server.resume() };
                if let Some(server) = self.former.take() {
                    self.store.rejoin(server, back);
                }
                // What a master took that was none any more.
                self.note("the old master is a replica", Loss::Latest);
            }
            Fault::StallRelay(node) => self.link(node, Proxy::speak),
            Fault::CutRelay(node) => self.link(node, Proxy::admit),
            Fault::StallClient(seat) => self.seats[seat].proxy.speak(),
            Fault::CutClient(seat) => self.seats[seat].proxy.admit(),
            Fault::Flush
            | Fault::FailOver
            | Fault::Reshard
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

    fn link(&self, node: usize, act: impl FnOnce(&Proxy)) {
        if let Some(link) = &self.berths[node].link {
            act(link);
        }
    }

    fn channels(&self) -> Vec<String> {
        let channels = self.press.iter().flat_map(|press| &press.channels);
        channels.map(|(channel, _)| channel.clone()).collect()
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
