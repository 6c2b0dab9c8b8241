//! A client process: thousands of connections on one thread, told by its parent what to do.
//!
//! Standard input carries orders, standard output reports, a line each. The end of standard input ends the process, so
//! that none is left behind when the parent dies. It measures nothing of the server but what a client sees.

pub(crate) mod connection;
mod publisher;
pub(crate) mod socket;

use std::io::{self, BufRead, Write};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::time::Duration;

use mio::{Events, Interest, Poll, Token, Waker};
use slab::Slab;

use self::connection::{Connection, Phase, Shared};
use self::publisher::Publisher;
use self::socket::{Socket, Trust, source};
use crate::clock;
use crate::error::Error;
use crate::latency::Latencies;
use crate::ledger::{Account, Ledger};
use crate::speech;
use crate::wire::{Finished, Opened, Order, Progress, Report, Role};

const WAKER: Token = Token(usize::MAX);

/// How long a handshake, a goodbye or an acknowledgement may take until it is given up.
const PATIENCE: u64 = 30_000_000_000;

/// What is being done.
enum Task {
    Nothing,
    Open { left: u32, under_way: u32, at_once: u32, opened: Opened, latencies: Latencies, moved: u64 },
    Leave { leaving: u32, since: u64 },
    Publish(Publisher),
    Finish { published: u32, patience: u64, looked: u64 },
}

/// Runs until standard input ends.
pub(crate) fn run() -> Result<(), Error> {
    let mut first = String::new();
    io::stdin().lock().read_line(&mut first).map_err(Error::io("read the role"))?;
    let role: Role = serde_json::from_str(&first).map_err(|error| Error::Asked(error.to_string()))?;
    let poll = Poll::new().map_err(Error::io("make a poller"))?;
    let waker = Waker::new(poll.registry(), WAKER).map_err(Error::io("make a waker"))?;
    // A few orders at most are under way: when it is full, the thread that reads waits, and then the parent.
    let (sender, orders) = sync_channel(16);
    std::thread::Builder::new()
        .name("orders".into())
        .spawn(move || {
            for line in io::stdin().lock().lines().map_while(Result::ok) {
                let Ok(order) = serde_json::from_str::<Order>(&line) else { break };
                if sender.send(order).is_err() || waker.wake().is_err() {
                    return;
                }
            }
            drop(sender);
            let _ = waker.wake();
        })
        .map_err(Error::io("start a thread"))?;
    let trust = role.target.ca.as_deref().map(|ca| Trust::new(ca, &role.target.host)).transpose()?;
    Client::new(role, trust, poll, orders).run()
}

struct Client {
    request: Vec<u8>,
    shared: Shared,
    role: Role,
    trust: Option<Trust>,
    poll: Poll,
    orders: Receiver<Order>,
    table: Slab<Connection>,
    scratch: Vec<u8>,
    task: Task,
    started: u32,
    progress: Progress,
    told: (Progress, u64),
    /// The books of connections that ended in the course of the run.
    gone: Vec<Ledger>,
    broken: u64,
    reason: Option<String>,
}

impl Client {
    fn new(role: Role, trust: Option<Trust>, poll: Poll, orders: Receiver<Order>) -> Self {
        let shared = Shared {
            protocol: role.target.protocol,
            subscribe: role.subscribe,
            run: 0,
            delivered: 0,
            between: (0, 0),
            latencies: Latencies::new(),
            acknowledged: 0,
            refused: None,
        };
        Self {
            request: speech::request(&role.target),
            shared,
            role,
            trust,
            poll,
            orders,
            table: Slab::new(),
            scratch: vec![0; 256 * 1024],
            task: Task::Nothing,
            started: 0,
            progress: Progress::default(),
            told: (Progress::default(), 0),
            gone: Vec::new(),
            broken: 0,
            reason: None,
        }
    }

    fn run(mut self) -> Result<(), Error> {
        let mut events = Events::with_capacity(1_024);
        loop {
            let rest = match &self.task {
                Task::Publish(publisher) => publisher.rest(clock::now()),
                _ => Duration::from_millis(20),
            };
            match self.poll.poll(&mut events, Some(rest)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other.map_err(Error::io("poll"))?,
            }
            for event in &events {
                if event.token() != WAKER {
                    self.ready(event.token().0, event.is_writable());
                }
            }
            loop {
                match self.orders.try_recv() {
                    Ok(order) => self.order(order)?,
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return Ok(()),
                }
            }
            self.go_on()?;
            self.progress.delivered = self.shared.delivered;
            let now = clock::now();
            if self.progress != self.told.0 && now - self.told.1 > 10_000_000 {
                self.told = (self.progress, now);
                say(&Report::Progress(self.progress))?;
            }
        }
    }

    fn order(&mut self, order: Order) -> Result<(), Error> {
        match order {
            Order::Open { count, at_once } => {
                self.task = Task::Open {
                    left: count,
                    under_way: 0,
                    at_once: at_once.max(1),
                    opened: Opened::default(),
                    latencies: Latencies::new(),
                    moved: clock::now(),
                };
            }
            Order::Leave { count } => {
                let keys: Vec<usize> = self.table.iter().map(|(key, _)| key).take(count as usize).collect();
                self.task = Task::Leave { leaving: 0, since: clock::now() };
                for key in keys {
                    if let Task::Leave { leaving, .. } = &mut self.task {
                        *leaving += 1;
                    }
                    if let Err(why) = self.table[key].leave() {
                        self.end(key, why);
                    }
                }
            }
            Order::Begin { run } => {
                self.shared.run = run;
                self.shared.delivered = 0;
                self.shared.between = (0, 0);
                self.shared.latencies = Latencies::new();
                self.gone = Vec::new();
                self.broken = 0;
                self.reason = None;
                for (_, connection) in &mut self.table {
                    connection.ledger = Ledger::default();
                }
                // First, so that the parent does not take the last run's deliveries for this one's.
                self.progress.delivered = 0;
                say(&Report::Progress(self.progress))?;
                say(&Report::Begun)?;
            }
            Order::Publish(publish) => {
                self.shared.acknowledged = 0;
                self.shared.refused = None;
                self.task = Task::Publish(Publisher::new(publish, clock::now()));
            }
            Order::Allow { upto } => {
                if let Task::Publish(publisher) = &mut self.task {
                    publisher.allow(upto);
                }
            }
            Order::Finish { published, patience_ms } => {
                let patience = patience_ms * 1_000_000;
                self.task = Task::Finish { published, patience, looked: clock::now() };
            }
        }
        Ok(())
    }

    /// Goes on with what is being done, and reports when it is done.
    fn go_on(&mut self) -> Result<(), Error> {
        match std::mem::replace(&mut self.task, Task::Nothing) {
            Task::Nothing => {}
            task @ Task::Open { .. } => {
                self.task = task;
                self.open()?;
            }
            Task::Leave { leaving, since } => {
                let done = leaving == 0 || clock::now() - since > PATIENCE;
                if done {
                    // Servers that do not answer a Close are left without an answer.
                    self.table.retain(|_, connection| connection.phase != Phase::Leaving);
                    self.progress.open -= u64::from(leaving);
                    say(&Report::Left)?;
                } else {
                    self.task = Task::Leave { leaving, since };
                }
            }
            Task::Publish(mut publisher) => {
                let Some((_, connection)) = self.table.iter_mut().next() else {
                    let why = self.reason.clone().unwrap_or_else(|| "the publisher is not connected".into());
                    return say(&Report::Failed(why));
                };
                let written = publisher.write(connection, clock::now());
                let (acknowledged, refused) = (self.shared.acknowledged, &self.shared.refused);
                if refused.is_some() || publisher.done(acknowledged) {
                    say(&Report::Published { refused: refused.clone() })?;
                } else if let Err(why) = written {
                    say(&Report::Failed(why))?;
                } else {
                    self.task = Task::Publish(publisher);
                }
            }
            Task::Finish { published, patience, looked } => {
                let now = clock::now();
                let last = self.shared.between.1.max(looked);
                let complete = || self.table.iter().all(|(_, one)| one.ledger.complete(published));
                if now - last > patience || complete() {
                    self.finished(published)?;
                } else {
                    self.task = Task::Finish { published, patience, looked };
                }
            }
        }
        Ok(())
    }

    fn finished(&mut self, published: u32) -> Result<(), Error> {
        let mut account = Account::default();
        let held = self.table.iter().map(|(_, connection)| &connection.ledger);
        for ledger in held.chain(&self.gone) {
            ledger.close(published, &mut account);
        }
        say(&Report::Finished(Finished {
            account,
            broken: self.broken,
            reason: self.reason.clone(),
            between: self.shared.between,
            latencies: self.shared.latencies.counted(),
        }))
    }

    /// Starts handshakes until enough are under way.
    fn open(&mut self) -> Result<(), Error> {
        loop {
            let Task::Open { left, under_way, at_once, moved, opened, latencies } = &mut self.task else {
                return Ok(());
            };
            if *left == 0 && *under_way == 0 {
                opened.latencies = latencies.counted();
                let opened = std::mem::take(opened);
                self.task = Task::Nothing;
                return say(&Report::Opened(opened));
            }
            if *under_way > 0 && clock::now() - *moved > PATIENCE {
                let keys = self.table.iter().filter(|(_, one)| !matches!(one.phase, Phase::Open));
                for key in keys.map(|(key, _)| key).collect::<Vec<_>>() {
                    self.end(key, "a handshake took longer than 30 s".into());
                }
                continue;
            }
            if *left == 0 || under_way >= at_once {
                return Ok(());
            }
            *left -= 1;
            *under_way += 1;
            let from = source(self.role.index, self.role.of, self.started);
            self.started = self.started.wrapping_add(1);
            match Socket::connect(self.role.target.address, from, self.trust.as_ref()) {
                Err(error) => self.not_opened(format!("failed to connect: {error}")),
                Ok(socket) => {
                    let key = self.table.insert(Connection::new(socket, &self.request));
                    let stream = self.table[key].socket.stream();
                    let interest = Interest::READABLE | Interest::WRITABLE;
                    let registered = self.poll.registry().register(stream, Token(key), interest);
                    registered.map_err(Error::io("register a socket"))?;
                }
            }
        }
    }

    /// A socket can be read or written.
    fn ready(&mut self, key: usize, writable: bool) {
        let Some(connection) = self.table.get_mut(key) else { return };
        let before = connection.phase;
        let mut result = if writable { connection.send() } else { Ok(()) };
        if result.is_ok() {
            result = connection.read(&mut self.scratch, &mut self.shared);
        }
        let (phase, began) = (connection.phase, connection.began);
        if before != Phase::Open
            && phase == Phase::Open
            && let Task::Open { under_way, opened, latencies, moved, .. } = &mut self.task
        {
            *under_way -= 1;
            opened.opened += 1;
            *moved = clock::now();
            latencies.record(moved.saturating_sub(began));
            self.progress.open += 1;
        }
        if let Err(why) = result {
            self.end(key, why);
        }
    }

    fn not_opened(&mut self, why: String) {
        if let Task::Open { under_way, opened, moved, .. } = &mut self.task {
            *under_way = under_way.saturating_sub(1);
            *moved = clock::now();
            opened.failed += 1;
            opened.reason.get_or_insert(why);
        }
    }

    /// A connection is over.
    fn end(&mut self, key: usize, why: String) {
        let connection = self.table.remove(key);
        match connection.phase {
            Phase::Upgrading | Phase::Joining(_) => self.not_opened(why),
            Phase::Open => {
                self.progress.open -= 1;
                self.progress.broken += 1;
                self.broken += 1;
                self.reason.get_or_insert(why);
                self.gone.push(connection.ledger);
            }
            Phase::Leaving => {
                self.progress.open -= 1;
                if let Task::Leave { leaving, .. } = &mut self.task {
                    *leaving -= 1;
                }
            }
        }
    }
}

/// Tells the parent.
fn say(report: &Report) -> Result<(), Error> {
    let mut line = serde_json::to_string(report).map_err(|error| Error::Asked(error.to_string()))?;
    line.push('\n');
    let mut out = io::stdout().lock();
    out.write_all(line.as_bytes()).and_then(|()| out.flush()).map_err(Error::io("report to the parent"))
}

/// Ends with an error the parent can show.
pub(crate) fn main() -> Result<(), Error> {
    run().inspect_err(|error| {
        let _ = say(&Report::Failed(error.to_string()));
    })
}
