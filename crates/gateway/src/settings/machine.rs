//! What the machine gives this process, for settings that are `auto`.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{Resource, getrlimit, setrlimit};

use super::resolved::Bound;

/// Bytes of the process that a connection takes, with room for a few subscriptions and now and then an unfinished
/// message. Measured by `tidegate-bench idle` with one subscription: 302 B, 362 B after a burst.
const USER_BYTES: u64 = 1024;

/// What TLS by rustls' record layer takes besides. Measured: 3,915 B in all.
const TLS_BYTES: u64 = 4 * 1024;

/// What the kernel takes for a socket, and charges to the cgroup. Measured: 10,073 B for both ends of an idle
/// connection, so 5 KB for ours; the rest is for a few frames on their way, each at least a buffer of 1 KB.
const KERNEL_BYTES: u64 = 8 * 1024;

/// What the node takes for itself, whoever is connected: program, relay and its lanes (measured at start: 12 MB).
const NODE_BYTES: u64 = 32 << 20;

/// What each of its workers takes: scratch, and the half of a full inbox.
const WORKER_BYTES: u64 = 16 << 20;

/// The part of the memory that is left to outboxes: one in so many.
const OUTBOX_SHARE: u64 = 4;

/// File descriptors kept for all that is not a client: Redis, the internal port, pollers, files.
pub(crate) const RESERVED_FILES: u64 = 200;

/// What it costs a worker to let a plain connection in, in seconds of a processor: accept, HTTP, WebSocket handshake,
/// connect and subscribe. Measured by `tidegate-bench connect`: 0.032 to 0.048 ms (docs/guides/benchmarking.md).
const PLAIN_SECONDS: f64 = 50e-6;

/// The same with a full TLS 1.3 handshake and an ECDSA key on P-256: measured 0.216 ms.
const TLS_SECONDS: f64 = 250e-6;

/// The part of the workers' time that newcomers may take while there are more of them than that.
const ACCEPT_SHARE: f64 = 0.5;

/// The burst, in seconds of the rate. All of a burst say their first commands at once, before whom a client's
/// publication then waits (ADR 0009).
const BURST_SECONDS: f64 = 0.02;

/// How many connections a second workers can let in and still have the rest of their time for those they have.
pub(super) fn accept_rate(workers: usize, tls: bool) -> u32 {
    (workers as f64 * ACCEPT_SHARE / if tls { TLS_SECONDS } else { PLAIN_SECONDS }).round() as u32
}

/// How many of them at once.
pub(super) fn accept_burst(rate: u32) -> u32 {
    ((f64::from(rate) * BURST_SECONDS).ceil() as u32).max(1)
}

/// What the machine gives this process.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    /// Processors, a container's quota considered.
    pub cpus: usize,
    /// File descriptors the process may hold.
    pub files: u64,
    /// Bytes of memory the process may use: the cgroup's limit or the machine's memory, the smaller one.
    pub memory: Option<u64>,
    /// The host's name.
    pub host: String,
}

impl Machine {
    /// Looks around. Raises the soft limit of file descriptors to the hard one on the way: every connection is one,
    /// and the soft limit of 1,024 that most systems start a process with exists for the sake of `select`.
    pub(crate) fn here() -> Self {
        Self {
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            files: raise_file_limit(),
            memory: memory_limit(Path::new("/")),
            host: fs::read_to_string("/proc/sys/kernel/hostname")
                .ok()
                .map(|name| name.trim().to_owned())
                .filter(|name| !name.is_empty())
                .unwrap_or_else(|| "tidegate".to_owned()),
        }
    }

    /// The most connections the file descriptors allow.
    pub(super) fn connections_by_files(&self) -> usize {
        to_usize(self.files.saturating_sub(RESERVED_FILES).max(1))
    }

    /// The most connections that make sense here, and what bounds them.
    pub(super) fn connections(&self, workers: usize, tls: bool) -> (usize, Bound) {
        let by_memory = self.memory.map_or(usize::MAX, |bytes| {
            let own = NODE_BYTES + WORKER_BYTES * workers as u64;
            // Where so little is left, the node's own share is the one to be too small.
            let left = (bytes - bytes / OUTBOX_SHARE).saturating_sub(own).max(bytes / 4);
            let each = USER_BYTES + KERNEL_BYTES + if tls { TLS_BYTES } else { 0 };
            to_usize(left / each).max(1)
        });
        let bounds = [
            (self.connections_by_files(), Bound::Files),
            (by_memory, Bound::Memory),
            (super::check::MAX_CONNECTIONS, Bound::Most),
        ];
        bounds.into_iter().min_by_key(|(connections, _)| *connections).unwrap_or((1, Bound::Files))
    }
}

fn raise_file_limit() -> u64 {
    let mut limit = getrlimit(Resource::Nofile);
    let before = limit.current;
    limit.current = limit.maximum;
    let now = if setrlimit(Resource::Nofile, limit).is_ok() { limit.current } else { before };
    // `None` is no limit at all.
    now.unwrap_or(u64::MAX)
}

/// The smallest of the machine's memory and the limits of the process' cgroup and those around it, version 1 or 2.
/// `root` is where `/proc` and `/sys` are.
fn memory_limit(root: &Path) -> Option<u64> {
    let mut limits = Vec::new();
    if let Ok(text) = fs::read_to_string(root.join("proc/meminfo")) {
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
        let kib = line.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
        limits.extend(kib.map(|kib| kib.saturating_mul(1024)));
    }
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    for line in groups.lines() {
        // `0::/path` in version 2, `4:memory:/path` in version 1.
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (mount, file) = match controllers {
            "" => ("sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let mount = root.join(mount);
        let mut group: PathBuf = mount.join(path.trim_start_matches('/'));
        while group.starts_with(&mount) {
            // `max` in version 2 is no number; version 1 writes a very large one.
            let limit = fs::read_to_string(group.join(file)).ok();
            limits.extend(limit.and_then(|text| text.trim().parse::<u64>().ok()));
            if !group.pop() {
                break;
            }
        }
    }
    limits.into_iter().min()
}

fn to_usize(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failing test is what should happen")]
    use super::*;

    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn a_container_is_given_the_connections_its_memory_limit_can_hold() {
        let total = ("proc/meminfo", "MemTotal:       16777216 kB\nMemFree: 1 kB\n");
        let version_2 = machine(&[
            total,
            ("proc/self/cgroup", "0::/kubepods/pod1/c1\n"),
            ("sys/fs/cgroup/kubepods/pod1/c1/memory.max", "max\n"),
            ("sys/fs/cgroup/kubepods/pod1/memory.max", "268435456\n"),
        ]);
        assert_eq!(memory_limit(version_2.path()), Some(256 << 20));
        let version_1 = machine(&[
            total,
            ("proc/self/cgroup", "5:cpu:/x\n4:memory,hugetlb:/docker/c1\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/memory/docker/c1/memory.limit_in_bytes", "536870912\n"),
        ]);
        assert_eq!(memory_limit(version_1.path()), Some(512 << 20));
        let free = machine(&[total]);
        assert_eq!(memory_limit(free.path()), Some(16 << 30));

        let machine = Machine { cpus: 1, files: 1_000_000, memory: Some(256 << 20), host: "here".to_owned() };
        // Of 256 MiB a quarter is the outboxes', 64 MiB the node's; 128 MiB hold connections of 9 or 13 KiB.
        assert_eq!(machine.connections(2, false), (14_563, Bound::Memory));
        assert_eq!(machine.connections(2, true), (10_082, Bound::Memory));
        let small = Machine { memory: Some(64 << 20), ..machine.clone() };
        assert_eq!(small.connections(2, true), (1260, Bound::Memory));
        let large = Machine { memory: Some(1 << 40), files: 1 << 40, ..machine.clone() };
        assert_eq!(large.connections(2, true), (10_000_000, Bound::Most));
        assert_eq!(Machine { files: 1024, ..machine }.connections(2, false), (824, Bound::Files));
    }
}
