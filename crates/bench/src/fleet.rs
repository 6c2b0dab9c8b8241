//! The parent's side of the client processes: started, told what to do, listened to, ended.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use crate::channels::Channels;
use crate::error::Error;
use crate::latency::Counted;
use crate::progress::Progress as Shown;
use crate::target::Target;
use crate::wire::{Opened, Order, Report, Role};

/// The most connections one client process holds: half of the descriptors that a process commonly may have.
pub(crate) const MOST_EACH: u32 = 9_000;

/// How long nothing may move before a wait is given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Client processes. Dropping it ends them.
pub(crate) struct Fleet {
    clients: Vec<Client>,
    reports: Receiver<(usize, Report)>,
}

struct Client {
    process: Child,
    orders: ChildStdin,
    gauges: Arc<Gauges>,
    /// How many connections it holds.
    holds: u32,
}

/// What client processes are to be.
#[derive(Debug, Clone)]
pub(crate) struct Kind {
    /// Which channels there are.
    pub(crate) channels: Channels,
    /// Whether connections subscribe.
    pub(crate) subscribe: bool,
    /// How far they step back for others that want a processor (0 to 19).
    pub(crate) nice: i32,
    /// Bytes of each connection's receive buffer in the kernel, if not what the kernel finds right.
    pub(crate) receive_buffer: Option<u32>,
}

impl Kind {
    /// Those that hear these channels.
    pub(crate) fn hears(channels: &Channels) -> Self {
        Self { channels: channels.clone(), subscribe: true, nice: 0, receive_buffer: None }
    }

    /// Those that know them and hear none.
    pub(crate) fn knows(channels: &Channels) -> Self {
        Self { subscribe: false, ..Self::hears(channels) }
    }
}

/// What a client process says of itself all the time.
#[derive(Default)]
struct Gauges {
    open: AtomicU64,
    delivered: AtomicU64,
    broken: AtomicU64,
}

impl Fleet {
    /// As many client processes as `connections` need. They are connected to nothing yet.
    pub(crate) fn start(target: &Target, connections: u32, kind: &Kind) -> Result<Self, Error> {
        let of = connections.div_ceil(MOST_EACH).max(1);
        // One line a client process and order, and progress does not go through it: it cannot fill.
        let (sender, reports) = sync_channel(256);
        let mut clients = Vec::new();
        for index in 0..of {
            let mut process = itself()
                .arg("client")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .map_err(Error::io("start a client process"))?;
            let (Some(orders), Some(out)) = (process.stdin.take(), process.stdout.take()) else {
                return Err(Error::Client { index: index as usize, why: "it has no pipes".into() });
            };
            let gauges = Arc::new(Gauges::default());
            let (sender, seen) = (sender.clone(), Arc::clone(&gauges));
            let listen = move || {
                for line in BufReader::new(out).lines().map_while(Result::ok) {
                    let report = serde_json::from_str(&line)
                        .unwrap_or_else(|error| Report::Failed(format!("it said {line:?}: {error}")));
                    if let Report::Progress(progress) = report {
                        seen.open.store(progress.open, Ordering::Relaxed);
                        seen.delivered.store(progress.delivered, Ordering::Relaxed);
                        seen.broken.store(progress.broken, Ordering::Relaxed);
                    } else if sender.send((index as usize, report)).is_err() {
                        return;
                    }
                }
                let _ = sender.send((index as usize, Report::Failed("it ended".into())));
            };
            std::thread::Builder::new().spawn(listen).map_err(Error::io("start a thread"))?;
            let mut client = Client { process, orders, gauges, holds: 0 };
            let role = Role {
                target: target.clone(),
                channels: kind.channels.clone(),
                subscribe: kind.subscribe,
                nice: kind.nice,
                receive_buffer: kind.receive_buffer,
                index,
                of,
            };
            tell(&mut client, &role)?;
            clients.push(client);
        }
        Ok(Self { clients, reports })
    }

    /// How many client processes it is.
    pub(crate) fn processes(&self) -> u32 {
        u32::try_from(self.clients.len()).unwrap_or(u32::MAX)
    }

    /// Connections that are open.
    pub(crate) fn open(&self) -> u64 {
        self.clients.iter().map(|client| client.gauges.open.load(Ordering::Relaxed)).sum()
    }

    /// Connections that it opened and has not closed; some may have ended by themselves.
    pub(crate) fn holds(&self) -> u64 {
        self.clients.iter().map(|client| u64::from(client.holds)).sum()
    }

    /// Publications of this run that came, over all connections.
    pub(crate) fn delivered(&self) -> u64 {
        self.clients.iter().map(|client| client.gauges.delivered.load(Ordering::Relaxed)).sum()
    }

    /// Connections that ended and were not asked to, since the start.
    pub(crate) fn broken(&self) -> u64 {
        self.clients.iter().map(|client| client.gauges.broken.load(Ordering::Relaxed)).sum()
    }

    /// Opens so many connections, shared evenly. All or none: fewer are an error.
    pub(crate) fn connect(
        &mut self,
        count: u32,
        at_once: u32,
        shown: &mut Shown,
    ) -> Result<Connected, Error> {
        self.open_all(count, at_once, (false, true), shown)
    }

    /// Opens so many connections, as often as it takes: who is refused because the server is full, or loses its
    /// connection on the way, comes again as SDKs do.
    pub(crate) fn insist(&mut self, count: u32, at_once: u32, shown: &mut Shown) -> Result<Connected, Error> {
        self.open_all(count, at_once, (true, true), shown)
    }

    /// The same, without resuming TLS sessions: each collects its ticket for later.
    pub(crate) fn collect(
        &mut self,
        count: u32,
        at_once: u32,
        shown: &mut Shown,
    ) -> Result<Connected, Error> {
        self.open_all(count, at_once, (true, false), shown)
    }

    fn open_all(
        &mut self,
        count: u32,
        at_once: u32,
        (again, resume): (bool, bool),
        shown: &mut Shown,
    ) -> Result<Connected, Error> {
        let began = Instant::now();
        let shares = shares(count, self.clients.len());
        for (client, share) in self.clients.iter_mut().zip(shares) {
            client.holds += share;
            tell(client, &Order::Open { count: share, at_once, again, resume })?;
        }
        let reports = self.gather(|fleet| shown.say(&format!("connecting: {} of {count}", fleet.open())))?;
        let seconds = began.elapsed().as_secs_f64();
        let (mut all, mut latencies) = (Opened::default(), Vec::new());
        for report in reports {
            if let Report::Opened(mut opened) = report {
                latencies.push(std::mem::take(&mut opened.latencies));
                all.add(opened);
            }
        }
        if all.opened != u64::from(count) {
            let why = all.reason.unwrap_or_else(|| "no reason was given".into());
            return Err(Error::Opening { opened: all.opened, asked: count.into(), why });
        }
        Ok(Connected { seconds, all, latencies })
    }

    /// Loses all connections at once, without a word to the server.
    pub(crate) fn lose(&mut self, shown: &mut Shown) -> Result<(), Error> {
        for client in &mut self.clients {
            client.holds = 0;
        }
        self.ask(&Order::Drop, |_| shown.say("losing all connections"))?;
        Ok(())
    }

    /// Closes all but so many connections.
    pub(crate) fn keep(&mut self, count: u32, shown: &mut Shown) -> Result<(), Error> {
        let shares = shares(count, self.clients.len());
        for (client, share) in self.clients.iter_mut().zip(shares) {
            let leaving = client.holds.saturating_sub(share);
            client.holds -= leaving;
            tell(client, &Order::Leave { count: leaving })?;
        }
        self.gather(|fleet| shown.say(&format!("leaving: {} are left", fleet.open())))?;
        Ok(())
    }

    /// Gives all the same order and waits for their reports.
    pub(crate) fn ask(&mut self, order: &Order, meanwhile: impl FnMut(&Self)) -> Result<Vec<Report>, Error> {
        self.tell(order)?;
        self.gather(meanwhile)
    }

    /// Gives all the same order.
    pub(crate) fn tell(&mut self, order: &Order) -> Result<(), Error> {
        self.clients.iter_mut().try_for_each(|client| tell(client, order))
    }

    /// A report that is there within `time`, if any.
    pub(crate) fn heard(&self, time: Duration) -> Result<Option<Report>, Error> {
        match self.reports.recv_timeout(time) {
            Ok((index, Report::Failed(why))) => Err(Error::Client { index, why }),
            Ok((_, report)) => Ok(Some(report)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(Error::Client { index: 0, why: "it ended".into() }),
        }
    }

    /// One report of each, as long as anything moves.
    fn gather(&mut self, mut meanwhile: impl FnMut(&Self)) -> Result<Vec<Report>, Error> {
        let mut reports = Vec::new();
        let (mut moved, mut state) = (Instant::now(), (0, 0));
        while reports.len() < self.clients.len() {
            reports.extend(self.heard(Duration::from_millis(100))?);
            let now = (self.open(), self.delivered());
            if now != state {
                (moved, state) = (Instant::now(), now);
            }
            if moved.elapsed() > PATIENCE {
                return Err(Error::Stalled { what: "the client processes", seconds: PATIENCE.as_secs() });
            }
            meanwhile(self);
        }
        Ok(reports)
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for client in &mut self.clients {
            // Either may fail only if it has ended by itself.
            let _ = client.process.kill();
            let _ = client.process.wait();
        }
    }
}

/// What opening connections took.
pub(crate) struct Connected {
    /// Seconds from the first to the last.
    pub(crate) seconds: f64,
    /// What became of all.
    pub(crate) all: Opened,
    /// Of each client process.
    pub(crate) latencies: Vec<Counted>,
}

/// This program once more. Not by its name, under which a newer one may lie by now.
pub(crate) fn itself() -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("tidegate-bench");
    command
}

/// `count` in as many even parts.
fn shares(count: u32, parts: usize) -> Vec<u32> {
    let parts = u32::try_from(parts).unwrap_or(u32::MAX).max(1);
    (0..parts).map(|part| count / parts + u32::from(part < count % parts)).collect()
}

fn tell<T: serde::Serialize>(client: &mut Client, what: &T) -> Result<(), Error> {
    let mut line = serde_json::to_string(what).map_err(|error| Error::Asked(error.to_string()))?;
    line.push('\n');
    client.orders.write_all(line.as_bytes()).map_err(Error::io("write to a client process"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_even_and_add_up() {
        assert_eq!(shares(10, 3), [4, 3, 3]);
        assert_eq!(shares(2, 3), [1, 1, 0]);
        assert_eq!(shares(19_000, 3).iter().sum::<u32>(), 19_000);
    }
}
