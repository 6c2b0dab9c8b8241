//! What came of a run of publications: deliveries, losses, latency, and the server's processor time for them.

use std::collections::BTreeMap;

use clap::Args;
use serde::Serialize;

use super::{latency_row, merged};
use crate::latency::Summary;
use crate::ledger::Account;
use crate::process::{Cpu, to_f64};
use crate::wire::Report;
use crate::{api, clock, resp};

/// What is published.
#[derive(Debug, Clone, Args)]
pub(crate) struct Load {
    /// Bytes of each publication's data; by default 128, and 16384 to stalled readers
    #[arg(long, value_name = "BYTES")]
    pub(crate) size: Option<usize>,
    /// In a flood: publications that the publisher may be ahead of the deliveries; by default 256 in one channel, 8192
    /// in several
    #[arg(long, value_name = "N")]
    pub(crate) window: Option<u32>,
    #[command(flatten)]
    pub(crate) api: api::Endpoint,
    #[command(flatten)]
    pub(crate) redis: resp::Endpoint,
}

impl Load {
    /// Bytes of each publication's data.
    pub(crate) fn size(&self) -> usize {
        self.size.unwrap_or(128)
    }
}

/// What was seen of a run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Delivery {
    /// Publications that were made.
    pub(crate) publications: u32,
    /// Publications that Redis gave to no node; each is lost for all.
    pub(crate) unheard: u64,
    /// What came of them, over all subscribers.
    pub(crate) account: Account,
    /// Connections that ended in the course of it.
    pub(crate) broken: u64,
    /// How the first of them ended.
    pub(crate) broken_reason: Option<String>,
    /// How they ended, and how often.
    pub(crate) ends: BTreeMap<String, u64>,
    /// Connections that stand and have the newest publication of their channel.
    pub(crate) newest: u64,
    /// Seconds from the first delivery to the last.
    pub(crate) seconds: f64,
    /// Deliveries in each of these seconds.
    pub(crate) deliveries_per_second: f64,
    /// Processor time of the server, from before the first publication to after the last delivery.
    pub(crate) cpu_seconds: Option<f64>,
    /// The same, in its own code and in the kernel.
    pub(crate) cpu: Option<Cpu>,
    /// The same, for a million deliveries.
    pub(crate) cpu_seconds_per_million: Option<f64>,
    /// Deliveries for a second of processor time.
    pub(crate) deliveries_per_core: Option<f64>,
    /// From the publisher's write to the subscriber's read.
    pub(crate) latency: Option<Summary>,
}

/// The books of all client processes as one.
pub(crate) fn summed(publications: u32, reports: Vec<Report>, cpu: Option<Cpu>) -> Delivery {
    let books: Vec<_> = reports
        .into_iter()
        .filter_map(|report| if let Report::Finished(finished) = report { Some(finished) } else { None })
        .collect();
    let (mut account, mut ends) = (Account::default(), BTreeMap::new());
    for book in &books {
        account.add(book.account);
        for (words, count) in &book.ends {
            *ends.entry(words.clone()).or_default() += count;
        }
    }
    let cpu_seconds = cpu.map(Cpu::all);
    let began = books.iter().map(|book| book.between.0).filter(|at| *at > 0).min().unwrap_or(0);
    let ended = books.iter().map(|book| book.between.1).max().unwrap_or(0);
    let seconds = clock::seconds(began, ended);
    let deliveries = to_f64(account.received + account.duplicated);
    let per = |whole: f64, part: f64| if part > 0.0 { whole / part } else { 0.0 };
    Delivery {
        publications,
        unheard: 0,
        account,
        broken: books.iter().map(|book| book.broken).sum(),
        broken_reason: books.iter().find_map(|book| book.reason.clone()),
        ends,
        newest: books.iter().map(|book| book.newest).sum(),
        seconds,
        deliveries_per_second: per(deliveries, seconds),
        cpu_seconds,
        cpu,
        deliveries_per_core: cpu_seconds.map(|cpu| per(deliveries, cpu)),
        cpu_seconds_per_million: cpu_seconds.map(|cpu| per(cpu * 1e6, deliveries)),
        latency: merged(books.iter().map(|book| &book.latencies)),
    }
}

impl Delivery {
    /// Its 99th percentile of latency to another run's.
    pub(crate) fn p99_to(&self, calm: &Self) -> Option<f64> {
        self.latency.zip(calm.latency).map(|(own, calm)| own.p99_ms / calm.p99_ms)
    }

    /// What every scenario shows of it.
    pub(crate) fn rows(&self) -> Vec<(String, String)> {
        let account = self.account;
        let mut rows = vec![
            (
                "deliveries".into(),
                format!(
                    "{} in {:.2} s, {:.0} a second",
                    account.received, self.seconds, self.deliveries_per_second
                ),
            ),
            (
                "lost, duplicated, reordered".into(),
                format!("{}, {}, {}", account.lost, account.duplicated, account.reordered),
            ),
            latency_row("publish to received", self.latency),
        ];
        if account.strayed > 0 {
            rows.push(("in the wrong channel".into(), account.strayed.to_string()));
        }
        if self.unheard > 0 {
            rows.push(("publications that no node heard".into(), self.unheard.to_string()));
        }
        if let (Some(cpu), Some(each)) = (self.cpu, self.cpu_seconds_per_million) {
            let all = cpu.all();
            let text = format!(
                "{all:.2} s ({:.2} user, {:.2} system), {each:.2} s a million deliveries",
                cpu.user, cpu.system
            );
            rows.push(("server CPU".into(), text));
        }
        let why = self.broken_reason.as_deref().map(|why| format!(" ({why})")).unwrap_or_default();
        rows.push(("connections that ended by themselves".into(), format!("{}{why}", self.broken)));
        rows
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
            let account = Account { received, lost, ..Account::default() };
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
        let sum = summed(10, reports.into(), Some(Cpu { user: 0.4, system: 0.1 }));
        assert_eq!((sum.account.received, sum.account.lost), (1_000, 1));
        assert!((sum.seconds - 4.0).abs() < 1e-9);
        assert!((sum.deliveries_per_second - 250.0).abs() < 1e-9);
        assert!((sum.cpu_seconds_per_million.unwrap() - 500.0).abs() < 1e-9);
        assert!((sum.latency.unwrap().max_ms - 9.0).abs() < 0.01);
    }

    #[test]
    fn a_process_that_got_nothing_does_not_move_the_beginning() {
        let finished = |between| Report::Finished(Finished { between, ..Default::default() });
        let sum = summed(1, vec![finished((0, 0)), finished((5_000_000_000, 6_000_000_000))], None);
        assert!((sum.seconds - 1.0).abs() < 1e-9);
        assert!(sum.cpu_seconds_per_million.is_none() && sum.latency.is_none());
    }
}
