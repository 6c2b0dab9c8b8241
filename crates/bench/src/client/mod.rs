//! A client process: thousands of connections on one thread, told by its parent what to do.
//!
//! Standard input carries orders, standard output reports, a line each. The end of standard input ends the process, so
//! that none is left behind when the parent dies. It measures nothing of the server but what a client sees.

mod chatter;
pub(crate) mod connection;
mod opening;
mod publisher;
pub(crate) mod socket;
mod tickets;

use std::collections::{BTreeMap, HashMap};
use std::io::{self, BufRead, Write};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::time::Duration;

use mio::{Events, Interest, Poll, Token, Waker};
use slab::Slab;

use self::chatter::Chatter;
use self::connection::{Connection, End, Phase, Shared};
use self::opening::Opening;
use self::publisher::Publisher;
use self::socket::{Socket, Trust, source};
use crate::channels::Dealt;
use crate::clock;
use crate::error::Error;
use crate::latency::Latencies;
use crate::ledger::{Account, Ledger};
use crate::speech::upgrade;
use crate::wire::{Finished, Order, Progress, Report, Role};

const WAKER: Token = Token(usize::MAX);

/// How long a handshake, a goodbye or an acknowledgement may take until it is given up.
const PATIENCE: u64 = 30_000_000_000;

/// The most ways to end that are told apart.
const MOST_ENDS: usize = 32;

/// What is being done.
enum Task {
    Nothing,
    Open(Opening),
    Leave { leaving: u32, since: u64 },
    Publish(Publisher),
    Chat(Chatter),
    Finish { dealt: Dealt, patience: u64, looked: u64 },
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
    let trust = role.target.ca.as_deref().map(|ca| Trust::new(ca, &role.target)).transpose()?;
    if role.nice > 0 {
        // Where it may not step back, it does not: the result is the same, only later.
        let _ = rustix::process::nice(role.nice);
    }
    Client::new(role, trust.unwrap_or_default(), poll, orders).run()
}

struct Client {
    /// What each node is asked.
    requests: Vec<Vec<u8>>,
    shared: Shared,
    role: Role,
    /// For each node; empty without TLS.
    trust: Vec<Trust>,
    poll: Poll,
    orders: Receiver<Order>,
    table: Slab<Connection>,
    scratch: Vec<u8>,
    task: Task,
    started: u32,
    /// Numbers that no connection has any more.
    free: Vec<u32>,
    /// How many numbers were given out.
    numbered: u32,
    /// Whether nothing is read.
    stalled: bool,
    progress: Progress,
    told: (Progress, u64),
    /// The books of connections that ended in the course of the run, by their channel.
    gone: Vec<(u32, Ledger)>,
    broken: u64,
    reason: Option<String>,
    ends: BTreeMap<String, u64>,
}

impl Client {
    fn new(role: Role, trust: Vec<Trust>, poll: Poll, orders: Receiver<Order>) -> Self {
        let target = &role.target;
        let shared = Shared {
            protocol: target.protocol,
            token: target.token.clone(),
            channels: role.channels.clone(),
            subscribe: role.subscribe,
            run: 0,
            delivered: 0,
            positions: HashMap::new(),
            strayed: 0,
            between: (0, 0),
            latencies: Latencies::new(),
            acknowledged: 0,
            refused: None,
        };
        Self {
            requests: target.nodes.iter().map(|node| upgrade::request(node, target.protocol)).collect(),
            shared,
            role,
            trust,
            poll,
            orders,
            table: Slab::new(),
            scratch: vec![0; 256 * 1024],
            task: Task::Nothing,
            started: 0,
            free: Vec::new(),
            numbered: 0,
            stalled: false,
            progress: Progress::default(),
            told: (Progress::default(), 0),
            gone: Vec::new(),
            broken: 0,
            reason: None,
            ends: BTreeMap::new(),
        }
    }

    fn run(mut self) -> Result<(), Error> {
        let mut events = Events::with_capacity(1_024);
        loop {
            let rest = match &self.task {
                Task::Publish(publisher) => publisher.rest(clock::now()),
                Task::Chat(chatter) => chatter.rest(clock::now()),
                _ => Duration::from_millis(20),
            };
            match self.poll.poll(&mut events, Some(rest)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other.map_err(Error::io("poll"))?,
            }
            for event in &events {
                if event.token() != WAKER {
                    let to_end = event.is_read_closed() || event.is_error();
                    self.ready(event.token().0, event.is_writable(), to_end);
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
            if self.progress != self.told.0 && now - self.told.1 > 5_000_000 {
                self.told = (self.progress, now);
                say(&Report::Progress(self.progress))?;
            }
        }
    }

    fn order(&mut self, order: Order) -> Result<(), Error> {
        match order {
            Order::Open { count, at_once, again, resume } => {
                self.task = Task::Open(Opening::new(count, at_once, (again, resume)));
            }
            Order::Leave { count } => {
                let keys: Vec<usize> = self.table.iter().map(|(key, _)| key).take(count as usize).collect();
                self.task = Task::Leave { leaving: 0, since: clock::now() };
                for key in keys {
                    if let Task::Leave { leaving, .. } = &mut self.task {
                        *leaving += 1;
                    }
                    if let Err(end) = self.table[key].leave() {
                        self.end(key, &end);
                    }
                }
            }
            Order::Drop => {
                self.free.extend(self.table.iter().map(|(_, connection)| connection.number));
                self.table.clear();
                self.progress.open = 0;
                say(&Report::Left)?;
            }
            Order::Begin { run } => {
                self.shared.run = run;
                self.shared.delivered = 0;
                self.shared.strayed = 0;
                self.shared.between = (0, 0);
                self.shared.latencies = Latencies::new();
                self.gone = Vec::new();
                self.broken = 0;
                self.reason = None;
                self.ends = BTreeMap::new();
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
            Order::Chat(chat) => {
                self.shared.acknowledged = 0;
                self.shared.refused = None;
                self.task = Task::Chat(Chatter::new(chat, &self.table, &self.shared, clock::now()));
            }
            Order::Allow { upto } => {
                if let Task::Publish(publisher) = &mut self.task {
                    publisher.allow(upto);
                }
            }
            Order::Stop => {
                if let Task::Publish(publisher) = &mut self.task {
                    publisher.stop();
                }
            }
            Order::Stall(stalled) => {
                self.stalled = stalled;
                if !stalled {
                    // What came meanwhile was told once, and will not be told again.
                    for key in self.table.iter().map(|(key, _)| key).collect::<Vec<_>>() {
                        self.ready(key, true, true);
                    }
                }
                say(&Report::Begun)?;
            }
            Order::Finish { dealt, patience_ms } => {
                let patience = patience_ms * 1_000_000;
                self.task = Task::Finish { dealt, patience, looked: clock::now() };
            }
        }
        Ok(())
    }

    /// Goes on with what is being done, and reports when it is done.
    fn go_on(&mut self) -> Result<(), Error> {
        match std::mem::replace(&mut self.task, Task::Nothing) {
            Task::Nothing => {}
            task @ Task::Open(_) => {
                self.task = task;
                self.open()?;
            }
            Task::Leave { leaving, since } => {
                let done = leaving == 0 || clock::now() - since > PATIENCE;
                if done {
                    // Servers that do not answer a Close are left without an answer.
                    let free = &mut self.free;
                    self.table.retain(|_, connection| {
                        let stays = connection.phase != Phase::Leaving;
                        if !stays {
                            free.push(connection.number);
                        }
                        stays
                    });
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
                let written = publisher.write(connection, &self.shared, clock::now());
                let refused = self.shared.refused.clone();
                if refused.is_some() || publisher.done(connection, &self.shared) {
                    say(&Report::Published { count: publisher.made(), refused })?;
                } else if let Err(end) = written {
                    say(&Report::Failed(end.words()))?;
                } else {
                    self.task = Task::Publish(publisher);
                }
            }
            Task::Chat(mut chatter) => {
                let now = clock::now();
                // As many as are due now, and not more than a turn should take.
                for _ in 0..256 {
                    match chatter.write(&mut self.table, &self.shared, now) {
                        None => break,
                        Some(Ok(())) => {}
                        Some(Err((key, end))) => self.end(key, &end),
                    }
                }
                let refused = self.shared.refused.clone();
                if refused.is_some() || chatter.done(&self.shared, now) {
                    say(&Report::Published { count: chatter.made(), refused })?;
                } else {
                    self.task = Task::Chat(chatter);
                }
            }
            Task::Finish { dealt, patience, looked } => {
                let now = clock::now();
                let last = self.shared.between.1.max(looked);
                let channels = &self.shared.channels;
                let complete = |one: &Connection| one.ledger.complete(dealt.to(channels.index(one.number)));
                if now - last > patience || self.table.iter().all(|(_, one)| complete(one)) {
                    self.finished(dealt)?;
                } else {
                    self.task = Task::Finish { dealt, patience, looked };
                }
            }
        }
        Ok(())
    }

    fn finished(&mut self, dealt: Dealt) -> Result<(), Error> {
        let mut account = Account { strayed: self.shared.strayed, ..Account::default() };
        let mut newest = 0;
        for (_, connection) in &self.table {
            let published = dealt.to(self.shared.channels.index(connection.number));
            connection.ledger.close(published, &mut account);
            newest += u64::from(connection.ledger.newest(published));
        }
        for (channel, ledger) in &self.gone {
            ledger.close(dealt.to(*channel), &mut account);
        }
        say(&Report::Finished(Finished {
            account,
            broken: self.broken,
            reason: self.reason.take(),
            ends: std::mem::take(&mut self.ends),
            newest,
            between: self.shared.between,
            latencies: self.shared.latencies.counted(),
        }))
    }

    /// Starts handshakes until enough are under way.
    fn open(&mut self) -> Result<(), Error> {
        loop {
            let Task::Open(opening) = &mut self.task else { return Ok(()) };
            if let Some(opened) = opening.done() {
                self.task = Task::Nothing;
                return say(&Report::Opened(opened));
            }
            let now = clock::now();
            if opening.under_way > 0 && now.saturating_sub(opening.moved) > PATIENCE {
                let keys = self.table.iter().filter(|(_, one)| !matches!(one.phase, Phase::Open));
                for key in keys.map(|(key, _)| key).collect::<Vec<_>>() {
                    self.end(key, &End::Lost("a handshake took longer than 30 s".into()));
                }
                continue;
            }
            let (free, numbered, role) = (&mut self.free, &mut self.numbered, &self.role);
            let resume = opening.resume;
            let Some(attempt) = opening.next(now, || {
                free.pop().unwrap_or_else(|| {
                    let number = role.index + *numbered * role.of;
                    *numbered += 1;
                    number
                })
            }) else {
                return Ok(());
            };
            let node = attempt.number as usize % role.target.nodes.len().max(1);
            let from = source(role.index, role.of, self.started);
            self.started = self.started.wrapping_add(1);
            let to = role.target.nodes[node].address;
            match Socket::connect(to, from, role.receive_buffer, (self.trust.get(node), resume)) {
                Err(error) => {
                    let end = End::Lost(format!("failed to connect: {error}"));
                    self.not_opened(attempt.number, attempt.attempt, attempt.began.unwrap_or(now), &end);
                }
                Ok(socket) => {
                    let mut connection = Connection::new(socket, &self.requests[node], attempt.number);
                    connection.attempt = attempt.attempt;
                    connection.began = attempt.began.unwrap_or(connection.began);
                    let key = self.table.insert(connection);
                    let stream = self.table[key].socket.stream();
                    let interest = Interest::READABLE | Interest::WRITABLE;
                    let registered = self.poll.registry().register(stream, Token(key), interest);
                    registered.map_err(Error::io("register a socket"))?;
                }
            }
        }
    }

    /// A socket can be read or written.
    fn ready(&mut self, key: usize, writable: bool, to_end: bool) {
        let Some(connection) = self.table.get_mut(key) else { return };
        if self.stalled && connection.phase == Phase::Open {
            return;
        }
        let before = connection.phase;
        let mut result = if writable { connection.send() } else { Ok(()) };
        if result.is_ok() {
            result = connection.read(to_end, &mut self.scratch, &mut self.shared);
        }
        if before != Phase::Open
            && connection.phase == Phase::Open
            && let Task::Open(opening) = &mut self.task
        {
            opening.stands(connection.began, connection.socket.resumed());
            self.progress.open += 1;
        }
        if let Err(end) = result {
            self.end(key, &end);
        }
    }

    fn not_opened(&mut self, number: u32, attempt: u8, began: u64, end: &End) {
        if let Task::Open(opening) = &mut self.task
            && let Some(number) = opening.refused(number, attempt, began, end)
        {
            self.free.push(number);
        }
    }

    /// A connection is over.
    fn end(&mut self, key: usize, end: &End) {
        let Some(connection) = self.table.try_remove(key) else { return };
        match connection.phase {
            Phase::Upgrading | Phase::Joining(_) => {
                self.not_opened(connection.number, connection.attempt, connection.began, end);
                return;
            }
            Phase::Open => {
                self.progress.open -= 1;
                self.progress.broken += 1;
                self.broken += 1;
                let words = end.words();
                if self.ends.len() < MOST_ENDS || self.ends.contains_key(&words) {
                    *self.ends.entry(words.clone()).or_default() += 1;
                }
                self.reason.get_or_insert(words);
                self.gone.push((self.shared.channels.index(connection.number), connection.ledger));
            }
            Phase::Leaving => {
                self.progress.open -= 1;
                if let Task::Leave { leaving, .. } = &mut self.task {
                    *leaving -= 1;
                }
            }
        }
        self.free.push(connection.number);
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
