//! What the kernel says of the server: memory and processor time, from `/proc`.
//!
//! It asks the server nothing: any process of any language can be measured, as long as this one may read its files.

use std::ops::Sub;
use std::time::Duration;

use serde::Serialize;

use crate::clock;
use crate::error::Error;

/// Ticks of utime and stime in a second: `USER_HZ`, which is 100 on every architecture that Linux still runs on.
const TICKS: f64 = 100.0;

/// Memory of the server, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Memory {
    /// Resident: everything, shared pages too.
    pub(crate) rss: u64,
    /// Resident, shared pages divided among those who share them.
    pub(crate) pss: u64,
    /// Anonymous: heap and stacks. What connections cost is seen here, and code that is paged in is not.
    pub(crate) anonymous: u64,
}

/// Processor time, in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct Cpu {
    /// In its own code.
    pub(crate) user: f64,
    /// In the kernel, for it.
    pub(crate) system: f64,
}

impl Cpu {
    /// Both.
    pub(crate) fn all(self) -> f64 {
        self.user + self.system
    }
}

impl Sub for Cpu {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self { user: self.user - before.user, system: self.system - before.system }
    }
}

/// The processes that are the server.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    pids: Vec<u32>,
}

impl Server {
    /// Errors: no process is named, or one cannot be read.
    pub(crate) fn new(pids: &[u32]) -> Result<Self, Error> {
        if pids.is_empty() {
            return Err(Error::Asked(
                "--pid is needed: memory and CPU of the server are what is measured".into(),
            ));
        }
        let server = Self { pids: pids.to_vec() };
        server.memory()?;
        Ok(server)
    }

    /// Memory of all its processes.
    pub(crate) fn memory(&self) -> Result<Memory, Error> {
        let mut sum = Memory::default();
        for &pid in &self.pids {
            let memory = read(pid, "smaps_rollup", memory)?;
            sum.rss += memory.rss;
            sum.pss += memory.pss;
            sum.anonymous += memory.anonymous;
        }
        Ok(sum)
    }

    /// Seconds of processor time used so far by all its processes, in user space and in the kernel for them.
    pub(crate) fn cpu(&self) -> Result<f64, Error> {
        self.times().map(Cpu::all)
    }

    /// The same, apart.
    pub(crate) fn times(&self) -> Result<Cpu, Error> {
        let mut sum = Cpu::default();
        for &pid in &self.pids {
            let (user, system) = read(pid, "stat", ticks)?;
            sum.user += to_f64(user) / TICKS;
            sum.system += to_f64(system) / TICKS;
        }
        Ok(sum)
    }

    /// Waits until the server does next to nothing: three half seconds in a row with at most 2 % of a processor.
    ///
    /// Gives up after a minute and says so by `false`: a server that is never calm is measured as it is.
    pub(crate) fn calm(&self) -> Result<bool, Error> {
        let mut quiet = 0;
        let mut before = self.cpu()?;
        for _ in 0..120 {
            clock::pass(Duration::from_millis(500));
            let now = self.cpu()?;
            quiet = if now - before <= 0.0101 { quiet + 1 } else { 0 };
            before = now;
            if quiet == 3 {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn read<T>(pid: u32, file: &'static str, parse: fn(&str) -> Option<T>) -> Result<T, Error> {
    let failed = |why: String| Error::Process { pid, file, why };
    let text =
        std::fs::read_to_string(format!("/proc/{pid}/{file}")).map_err(|error| failed(error.to_string()))?;
    parse(&text).ok_or_else(|| failed("it does not look as expected".into()))
}

/// Of `smaps_rollup`: lines such as `Anonymous:   116 kB`.
fn memory(text: &str) -> Option<Memory> {
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
    };
    Some(Memory { rss: field("Rss")?, pss: field("Pss")?, anonymous: field("Anonymous")? })
}

/// Of `stat`: utime and stime are the 14th and 15th field; the second, the name in parentheses, may contain anything.
fn ticks(text: &str) -> Option<(u64, u64)> {
    let (_, behind_name) = text.rsplit_once(')')?;
    let mut fields = behind_name.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user, system))
}

/// A count as a float; exact up to 2^53, far above anything counted here.
pub(crate) fn to_f64(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failing test is what should happen")]
    use super::*;

    const ROLLUP: &str = "\
55e1cfc4b000-7ffed3efe000 ---p 00000000 00:00 0                          [rollup]
Rss:                1620 kB
Pss:                 271 kB
Pss_Dirty:           116 kB
Pss_Anon:            117 kB
Shared_Clean:       1464 kB
Anonymous:           118 kB
LazyFree:              0 kB
AnonHugePages:         4 kB
";

    #[test]
    fn memory_takes_the_fields_by_their_whole_name() {
        let expected = Memory { rss: 1620 * 1024, pss: 271 * 1024, anonymous: 118 * 1024 };
        assert_eq!(memory(ROLLUP), Some(expected));
        assert_eq!(memory("Rss: 1 kB\nPss: 1 kB\n"), None);
        assert_eq!(memory("Rss: 1 kB\nPss: 1 kB\nAnonymous: many kB\n"), None);
    }

    #[test]
    fn a_process_with_parentheses_and_blanks_in_its_name_is_read_right() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 1 2 3 4 700 50 9 9 20 0 5 0 1 2 3";
        assert_eq!(ticks(stat), Some((700, 50)));
        assert_eq!(ticks("42 (a) S 1 2"), None);
        assert_eq!(ticks(""), None);
    }

    #[test]
    fn this_process_can_be_measured_and_one_that_is_not_there_is_named() {
        let server = Server::new(&[std::process::id()]).unwrap();
        let memory = server.memory().unwrap();
        assert!(memory.anonymous > 0 && memory.anonymous <= memory.rss, "{memory:?}");
        let text = Server::new(&[4_194_305]).unwrap_err().to_string();
        assert!(text.starts_with("--pid 4194305: failed to read /proc/4194305/smaps_rollup"), "{text}");
    }
}
