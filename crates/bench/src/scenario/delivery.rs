//! A run of publications to connections that stand: made by one publisher, counted by all subscribers.
//!
//! A flood is closed-loop: the publisher is never more than a window ahead of the slowest sum of deliveries, so what is
//! measured is how fast the server delivers, not how it treats clients that cannot keep up.

use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use super::merged;
use crate::api::{self, Api};
use crate::clock;
use crate::error::Error;
use crate::fleet::Fleet;
use crate::latency::Summary;
use crate::ledger::Account;
use crate::process::{Server, to_f64};
use crate::progress::Progress;
use crate::target::Target;
use crate::wire::{Order, Publish, Report};

/// What is published.
#[derive(Debug, Clone, Args)]
pub(crate) struct Load {
    /// Bytes of each publication's data
    #[arg(long, value_name = "BYTES", default_value_t = 128)]
    pub(crate) size: usize,
    /// In a flood: publications that the publisher may be ahead of the deliveries
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub(crate) window: u32,
    #[command(flatten)]
    pub(crate) api: api::Endpoint,
}

/// What was seen of a run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Delivery {
    /// Publications that were made.
    pub(crate) publications: u32,
    /// What came of them, over all subscribers.
    pub(crate) account: Account,
    /// Connections that ended in the course of it.
    pub(crate) broken: u64,
    /// How the first of them ended.
    pub(crate) broken_reason: Option<String>,
    /// Seconds from the first delivery to the last.
    pub(crate) seconds: f64,
    /// Deliveries in each of these seconds.
    pub(crate) deliveries_per_second: f64,
    /// Processor time of the server, from before the first publication to after the last delivery.
    pub(crate) cpu_seconds: Option<f64>,
    /// The same, for a million deliveries.
    pub(crate) cpu_seconds_per_million: Option<f64>,
    /// From the publisher's write to the subscriber's read.
    pub(crate) latency: Option<Summary>,
}

/// Who publishes.
pub(crate) struct Publisher {
    way: Way,
    run: u32,
}

/// How it is done.
enum Way {
    /// By the one connection of a process.
    Socket(Fleet),
    /// From here, one request after the other.
    Api(Api),
}

impl Publisher {
    pub(crate) fn start(target: &Target, load: &Load, shown: &mut Progress) -> Result<Self, Error> {
        let way = match Api::new(&load.api)? {
            Some(api) => Way::Api(api),
            None => {
                let mut fleet = Fleet::start(target, 1, false)?;
                fleet.connect(1, 1, shown)?;
                Way::Socket(fleet)
            }
        };
        Ok(Self { way, run: 0 })
    }

    /// Publishes `count` times, at `rate` a second or as a flood, and waits for what comes of it.
    pub(crate) fn run(
        &mut self,
        subscribers: &mut Fleet,
        server: Option<&Server>,
        (count, rate): (u32, Option<f64>),
        load: &Load,
        shown: &mut Progress,
    ) -> Result<Delivery, Error> {
        self.run += 1;
        let standing = subscribers.holds().max(1);
        subscribers.ask(&Order::Begin { run: self.run }, |_| ())?;
        let cpu = server.map(Server::cpu).transpose()?;
        let publish = Publish { run: self.run, count, rate, size: load.size, allowed: load.window.max(1) };
        match &mut self.way {
            Way::Socket(fleet) => by_socket(fleet, subscribers, &publish, standing, shown)?,
            Way::Api(api) => by_api(api, subscribers, &publish, standing, shown)?,
        }
        // What comes later than this after everything else is lost for whoever waits for it.
        let finish = Order::Finish { published: count, patience_ms: 5_000 };
        let reports = subscribers.ask(&finish, |fleet| shown.say(&deliveries(fleet)))?;
        let cpu_seconds = match (server, cpu) {
            (Some(server), Some(before)) => Some(server.cpu()? - before),
            _ => None,
        };
        Ok(summed(count, &reports, cpu_seconds))
    }
}

/// Whether anything moves, and how far a flood may go.
struct Watch {
    moved: Instant,
    seen: u64,
}

impl Watch {
    fn new() -> Self {
        Self { moved: Instant::now(), seen: 0 }
    }

    /// How many publications may have been made by now. Errors: nothing was delivered for long.
    fn upto(&mut self, subscribers: &Fleet, publish: &Publish, standing: u64) -> Result<u32, Error> {
        let delivered = subscribers.delivered();
        if delivered != self.seen {
            (self.moved, self.seen) = (Instant::now(), delivered);
        }
        // At a slow pace nothing is delivered between two publications.
        let pause = publish.rate.map_or(0.0, |rate| 2.0 / rate);
        if self.moved.elapsed().as_secs_f64() > 30.0 + pause {
            return Err(Error::Stalled { what: "the publisher", seconds: 30 });
        }
        let reached = u32::try_from(delivered / standing).unwrap_or(u32::MAX);
        // In bursts of half a window: a publication for each that was delivered would be a pace, not a flood.
        let burst = (publish.allowed / 2).max(1);
        let reached = reached / burst * burst;
        Ok(reached.saturating_add(publish.allowed).min(publish.count))
    }
}

/// Lets the process that publishes go on, until it is through.
fn by_socket(
    fleet: &mut Fleet,
    subscribers: &Fleet,
    publish: &Publish,
    standing: u64,
    shown: &mut Progress,
) -> Result<(), Error> {
    fleet.tell(&Order::Publish(publish.clone()))?;
    let (mut watch, mut allowed) = (Watch::new(), 0);
    loop {
        match fleet.heard(Duration::from_millis(5))? {
            Some(Report::Published { refused: Some(why) }) => return Err(Error::Refused(why)),
            Some(Report::Published { refused: None }) => return Ok(()),
            _ => {}
        }
        let upto = watch.upto(subscribers, publish, standing)?;
        if publish.rate.is_none() && upto > allowed {
            allowed = upto;
            fleet.tell(&Order::Allow { upto })?;
        }
        shown.say(&deliveries(subscribers));
    }
}

/// Publishes from here.
fn by_api(
    api: &Api,
    subscribers: &Fleet,
    publish: &Publish,
    standing: u64,
    shown: &mut Progress,
) -> Result<(), Error> {
    let (began, mut watch) = (Instant::now(), Watch::new());
    let mut next = 0;
    while next < publish.count {
        let upto = watch.upto(subscribers, publish, standing)?;
        let wait = match publish.rate {
            Some(rate) => (f64::from(next) / rate - began.elapsed().as_secs_f64()).max(0.0),
            None if next >= upto => 0.001,
            None => 0.0,
        };
        if wait > 0.0 {
            clock::pass(Duration::from_secs_f64(wait.min(0.1)));
        } else {
            api.publish(publish.run, next, publish.size)?;
            next += 1;
        }
        shown.say(&deliveries(subscribers));
    }
    Ok(())
}

fn deliveries(fleet: &Fleet) -> String {
    format!("delivered: {}", fleet.delivered())
}

/// The books of all client processes as one.
fn summed(publications: u32, reports: &[Report], cpu_seconds: Option<f64>) -> Delivery {
    let books: Vec<_> = reports
        .iter()
        .filter_map(|report| if let Report::Finished(finished) = report { Some(finished) } else { None })
        .collect();
    let mut account = Account::default();
    books.iter().for_each(|book| account.add(book.account));
    let began = books.iter().map(|book| book.between.0).filter(|at| *at > 0).min().unwrap_or(0);
    let ended = books.iter().map(|book| book.between.1).max().unwrap_or(0);
    let seconds = clock::seconds(began, ended);
    let deliveries = to_f64(account.received + account.duplicated);
    let per = |whole: f64, part: f64| if part > 0.0 { whole / part } else { 0.0 };
    Delivery {
        publications,
        account,
        broken: books.iter().map(|book| book.broken).sum(),
        broken_reason: books.iter().find_map(|book| book.reason.clone()),
        seconds,
        deliveries_per_second: per(deliveries, seconds),
        cpu_seconds,
        cpu_seconds_per_million: cpu_seconds.map(|cpu| per(cpu * 1e6, deliveries)),
        latency: merged(books.iter().map(|book| &book.latencies)),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failing test is what should happen")]
    use super::*;
    use crate::latency::Latencies;
    use crate::wire::Finished;

    #[test]
    fn the_books_of_two_processes_add_up() {
        let finished = |received, lost, between, milliseconds: u64| {
            let mut latencies = Latencies::new();
            latencies.record(milliseconds * 1_000_000);
            let account = Account { received, lost, duplicated: 0, reordered: 0 };
            Report::Finished(Finished {
                account,
                between,
                latencies: latencies.counted(),
                ..Default::default()
            })
        };
        let second = 1_000_000_000;
        let reports =
            [finished(600, 1, (2 * second, 5 * second), 3), finished(400, 0, (second, 4 * second), 9)];
        let sum = summed(10, &reports, Some(0.5));
        assert_eq!((sum.account.received, sum.account.lost), (1_000, 1));
        assert!((sum.seconds - 4.0).abs() < 1e-9);
        assert!((sum.deliveries_per_second - 250.0).abs() < 1e-9);
        assert!((sum.cpu_seconds_per_million.unwrap() - 500.0).abs() < 1e-9);
        assert!((sum.latency.unwrap().max_ms - 9.0).abs() < 0.01);
    }

    #[test]
    fn a_process_that_got_nothing_does_not_move_the_beginning() {
        let finished = |between| Report::Finished(Finished { between, ..Default::default() });
        let sum = summed(1, &[finished((0, 0)), finished((5_000_000_000, 6_000_000_000))], None);
        assert!((sum.seconds - 1.0).abs() < 1e-9);
        assert!(sum.cpu_seconds_per_million.is_none() && sum.latency.is_none());
    }
}
