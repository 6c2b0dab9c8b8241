//! What the kernel holds for sockets, of the whole machine: by difference, what it holds for connections.
//!
//! Client and server share the machine, so the difference has both ends of each connection, and whatever else the
//! machine did meanwhile.

use serde::Serialize;

use crate::error::Error;

/// Bytes of a page, on the machines that servers run on.
const PAGE: u64 = 4_096;

/// Memory of the kernel, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Kernel {
    /// `Slab` of `/proc/meminfo`: sockets, files, and everything else of which there are many.
    pub(crate) slab: u64,
    /// Buffers of TCP sockets, of `/proc/net/sockstat`.
    pub(crate) tcp: u64,
}

impl Kernel {
    /// Now. Errors: a file of `/proc` cannot be read or is not as expected.
    pub(crate) fn now() -> Result<Self, Error> {
        let meminfo = std::fs::read_to_string("/proc/meminfo").map_err(Error::io("read /proc/meminfo"))?;
        let sockstat =
            std::fs::read_to_string("/proc/net/sockstat").map_err(Error::io("read /proc/net/sockstat"))?;
        let strange = || Error::Asked("/proc/meminfo or /proc/net/sockstat is not as expected".into());
        Ok(Self { slab: slab(&meminfo).ok_or_else(strange)?, tcp: tcp(&sockstat).ok_or_else(strange)? })
    }

    /// How much more it is than it was, less counting as none.
    pub(crate) fn above(self, before: Self) -> u64 {
        self.slab.saturating_sub(before.slab) + self.tcp.saturating_sub(before.tcp)
    }
}

/// `Slab:   12345 kB`.
fn slab(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("Slab:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kilobytes| kilobytes * 1_024)
}

/// `TCP: inuse 1 orphan 0 tw 0 alloc 1 mem 457`, in pages.
fn tcp(sockstat: &str) -> Option<u64> {
    let line = sockstat.lines().find_map(|line| line.strip_prefix("TCP:"))?;
    let mut words = line.split_ascii_whitespace().skip_while(|word| *word != "mem").skip(1);
    words.next()?.parse::<u64>().ok().map(|pages| pages * PAGE)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failing test is what should happen")]
    use super::*;

    #[test]
    fn the_right_words_are_read() {
        assert_eq!(slab("MemTotal: 9 kB\nSlab:     120 kB\nSReclaimable: 1 kB\n"), Some(122_880));
        assert_eq!(slab("MemTotal: 9 kB\n"), None);
        let sockstat = "sockets: used 14\nTCP: inuse 1 orphan 0 tw 0 alloc 1 mem 457\nUDP: inuse 0 mem 3\n";
        assert_eq!(tcp(sockstat), Some(457 * 4_096));
        assert_eq!(tcp("TCP: inuse 1\n"), None);
    }

    #[test]
    fn this_machine_has_a_kernel() {
        let now = Kernel::now().unwrap();
        assert!(now.slab > 0 && now.above(now) == 0);
    }
}
