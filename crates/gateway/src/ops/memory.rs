//! What a connection costs on this node: its memory now, less its memory without connections, divided by them.
//!
//! Memory is what `/proc/self/status` calls RssAnon: heap and stacks in RAM, read every few seconds on the main thread.
//! The program's own pages are not in it, for they are shared and come and go with the page cache.
//!
//! Not here: what the kernel keeps for a socket. `/proc/net/sockstat` counts buffers of the whole machine, in a
//! container too, and the slabs of one process cannot be told from those of another.

use std::sync::Arc;
use std::time::Duration;

use crate::edge::Admission;
use crate::metrics::Metrics;

/// How often it is looked at.
const LOOK: Duration = Duration::from_secs(5);

/// Fewer connections than this say nothing: what the node takes for itself once it works, some megabytes, would be
/// counted as theirs.
const FEW: usize = 1000;

/// For so many looks nobody must have been connected until the node's memory counts as its own: the allocator gives
/// back what the last ones left within ten seconds or so.
const QUIET: u32 = 6;

/// Keeps the gauge, as long as the node runs.
pub(crate) async fn watch(metrics: Arc<Metrics>, admission: Arc<Admission>) {
    // Where the system does not say, it cannot be told.
    let Some(before) = anonymous() else { return };
    let mut meter = Meter { before, quiet: 0 };
    let mut looks = tokio::time::interval(LOOK);
    loop {
        looks.tick().await;
        if let Some(now) = anonymous() {
            metrics.memory_per_connection.set(meter.look(now, admission.open()));
        }
    }
}

struct Meter {
    /// Bytes without connections.
    before: u64,
    /// How many looks in a row found nobody.
    quiet: u32,
}

impl Meter {
    /// Bytes a connection, not a number if there are too few to tell.
    fn look(&mut self, now: u64, open: usize) -> f64 {
        self.quiet = if open == 0 { self.quiet.saturating_add(1) } else { 0 };
        if self.quiet >= QUIET {
            self.before = now;
        }
        if open < FEW {
            return f64::NAN;
        }
        now.saturating_sub(self.before) as f64 / open as f64
    }
}

/// Bytes of this process that are in RAM and in no file.
fn anonymous() -> Option<u64> {
    read(&std::fs::read_to_string("/proc/self/status").ok()?)
}

fn read(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn few_connections_say_nothing_and_many_share_what_came_with_them() {
        let mut meter = Meter { before: 10 * MIB, quiet: 0 };
        assert!(meter.look(20 * MIB, FEW - 1).is_nan());
        assert_eq!(meter.look(20 * MIB, 10_240), 1024.0);
        assert_eq!(meter.look(9 * MIB, 10_240), 0.0);
    }

    #[test]
    fn what_stays_when_everyone_has_long_left_is_the_nodes_own() {
        let mut meter = Meter { before: 10 * MIB, quiet: 0 };
        for _ in 1..QUIET {
            assert!(meter.look(30 * MIB, 0).is_nan());
        }
        assert_eq!(meter.look(20 * MIB, 1024), 10_240.0, "they have only just left");
        for _ in 0..QUIET {
            assert!(meter.look(12 * MIB, 0).is_nan());
        }
        assert_eq!(meter.look(13 * MIB, 1024), 1024.0);
    }

    #[test]
    fn the_kernel_says_what_is_read() {
        assert_eq!(read("VmRSS:\t    8 kB\nRssAnon:\t    3324 kB\nRssFile: 1 kB\n"), Some(3324 * 1024));
        assert_eq!(read("VmRSS:\t    8 kB\n"), None);
    }
}
