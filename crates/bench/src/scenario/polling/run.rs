//! One run: many clients by one way on one thread, updates at a pace, a window in which bytes and CPU are counted.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use mio::{Events, Interest, Poll, Token};

use super::client::{Client, Count, Outcome, Shared};
use super::{Options, Way};
use crate::clock;
use crate::error::Error;
use crate::latency::{Latencies, Summary};
use crate::ledger::Account;
use crate::process::{Server, to_f64};
use crate::progress::Progress;
use crate::target::Target;

/// Clients that connect at once.
const AT_ONCE: usize = 64;

/// How long nothing may come while clients connect.
const PATIENCE: u64 = 20_000_000_000;

/// How long what is still under way when the window closes may take, beside an interval of polling.
const GRACE: u64 = 2_000_000_000;

/// What was seen.
pub(super) struct Seen {
    /// In the window.
    pub(super) count: Count,
    /// Before it: what connecting took, of all clients.
    pub(super) joining: Count,
    /// With what came after the window.
    pub(super) account: Account,
    pub(super) latency: Option<Summary>,
    pub(super) seconds: f64,
    pub(super) cpu_seconds: f64,
}

struct Run<'a> {
    poll: Poll,
    clients: Vec<Client>,
    shared: Shared,
    scratch: Vec<u8>,
    options: &'a Options,
}

/// Runs one way against one server.
pub(super) fn run(
    way: Way,
    target: &Target,
    server: &Server,
    options: &Options,
    shown: &mut Progress,
) -> Result<Seen, Error> {
    let Some(node) = target.nodes.first() else {
        return Err(Error::Asked("--target is needed: ws://HOST:PORT/PATH".into()));
    };
    let shared = Shared {
        way,
        address: node.address,
        authority: node.authority.clone(),
        path: node.path.clone(),
        headers: options.headers,
        count: Count::default(),
        latencies: Latencies::new(),
        refused: None,
    };
    let poll = Poll::new().map_err(Error::io("make a poller"))?;
    let mut run = Run { poll, clients: Vec::new(), shared, scratch: vec![0; 64 * 1024], options };
    shown.phase(&format!("{way}: connecting"));
    run.connect(shown)?;
    shown.say("waiting until the server is calm");
    server.calm()?;
    let joining = std::mem::take(&mut run.shared.count);
    shown.phase(&format!("{way}: updates"));
    run.updates(server, joining, shown)
}

impl Run<'_> {
    /// One turn of the poller. Errors: any connection's.
    fn turn(&mut self, rest: Duration) -> Result<(), Error> {
        let mut events = Events::with_capacity(1_024);
        match self.poll.poll(&mut events, Some(rest)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            other => other.map_err(Error::io("poll"))?,
        }
        for event in &events {
            let Some(client) = self.clients.get_mut(event.token().0) else { continue };
            let way = self.shared.way;
            let failed = |why: String| Error::Asked(format!("{way}: {why}"));
            let sent = if event.is_writable() { client.send(&mut self.shared) } else { Ok(()) };
            sent.map_err(failed)?;
            let outcome = client.read(&mut self.scratch, &mut self.shared).map_err(failed)?;
            if outcome == Outcome::Closed {
                client.again(&mut self.shared).map_err(Error::io("connect again"))?;
                self.register(event.token().0)?;
            }
        }
        match self.shared.refused.take() {
            Some(why) => Err(Error::Refused(why)),
            None => Ok(()),
        }
    }

    fn register(&mut self, key: usize) -> Result<(), Error> {
        let stream = self.clients[key].stream();
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(stream, Token(key), interest).map_err(Error::io("register a socket"))
    }

    /// All clients, and behind them the one that publishes.
    fn connect(&mut self, shown: &mut Progress) -> Result<(), Error> {
        let wanted = self.options.clients() + 1;
        let (mut ready, mut moved) = (0, clock::now());
        while ready < wanted {
            while self.clients.len() < wanted && self.clients.len() - ready < AT_ONCE {
                let publishes = self.clients.len() + 1 == wanted;
                let client = Client::new(&mut self.shared, publishes).map_err(Error::io("connect"))?;
                self.clients.push(client);
                self.register(self.clients.len() - 1)?;
            }
            self.turn(Duration::from_millis(20))?;
            let now = self.clients.iter().filter(|client| client.ready()).count();
            if now > ready {
                (ready, moved) = (now, clock::now());
            } else if clock::now() - moved > PATIENCE {
                return Err(Error::Stalled { what: "connecting", seconds: PATIENCE / 1_000_000_000 });
            }
            shown.say(&format!("{}: connecting: {ready} of {wanted}", self.shared.way));
        }
        Ok(())
    }

    fn updates(mut self, server: &Server, joining: Count, shown: &mut Progress) -> Result<Seen, Error> {
        let every = self.options.every * 1_000_000;
        let clients = self.options.clients();
        let interval = match self.shared.way {
            Way::Polling { interval } => interval * 1_000_000,
            _ => 0,
        };
        let cpu = server.cpu()?;
        let began = clock::now();
        // Clients that poll do so one after the other, as those who came at different times do.
        let mut due: VecDeque<(u64, usize)> = VecDeque::new();
        if interval > 0 {
            due.extend((0..clients).map(|key| (began + interval * key as u64 / clients as u64, key)));
        } else if self.shared.way == Way::LongPolling {
            for key in 0..clients {
                self.clients[key].ask(&mut self.shared).map_err(Error::Asked)?;
            }
        }
        let count = self.options.count();
        let closes = began + every * u64::from(count);
        let mut published = 0;
        let mut window = None;
        loop {
            let now = clock::now();
            // In the middle of its share of the window, so that the first and the last are like the others.
            let next = began + every * u64::from(published) + every / 2;
            if published < count && now >= next {
                self.clients[clients]
                    .publish(published, self.options.size, &mut self.shared)
                    .map_err(Error::Asked)?;
                published += 1;
                continue;
            }
            while let Some(&(at, key)) = due.front()
                && at <= now
            {
                due.pop_front();
                if !self.clients[key].waits() {
                    self.clients[key].ask(&mut self.shared).map_err(Error::Asked)?;
                }
                due.push_back((at + interval, key));
            }
            if now >= closes && window.is_none() {
                window = Some((self.shared.count, clock::seconds(began, now), server.cpu()? - cpu));
            }
            let all = || self.clients[..clients].iter().all(|client| client.ledger.complete(count));
            if let Some((counted, seconds, cpu_seconds)) = window
                && (now > closes + interval + GRACE || all())
            {
                let mut account = Account::default();
                self.clients[..clients].iter().for_each(|client| client.ledger.close(count, &mut account));
                let latency = self.shared.latencies.summary();
                return Ok(Seen { count: counted, joining, account, latency, seconds, cpu_seconds });
            }
            let publication = if published < count { next } else { closes.max(now + 1_000_000) };
            let until = due.front().map_or(publication, |&(at, _)| at.min(publication));
            self.turn(Duration::from_nanos(until.saturating_sub(now)).min(Duration::from_millis(20)))?;
            let (updates, all) = (self.shared.count.updates, u64::from(count) * clients as u64);
            shown.say(&format!(
                "{}: {updates} of {all} updates ({:.0} %)",
                self.shared.way,
                100.0 * to_f64(updates) / to_f64(all)
            ));
        }
    }
}
