//! A master and a replica that three sentinels watch.

use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::deadline::{PATIENCE, eventually};
use crate::process::{Process, run};
use crate::redis::{Options, Redis, free_port};

/// What the sentinels call the master.
pub(super) const NAME: &str = "main";

/// How long a master may be silent before it counts as dead.
const DOWN_AFTER: Duration = Duration::from_secs(1);

/// A sentinel. Ends when dropped.
#[derive(Debug)]
pub(super) struct Sentinel {
    pub(super) port: u16,
    _process: Process,
    _dir: TempDir,
}

pub(super) fn start() -> (Vec<Redis>, Vec<Sentinel>) {
    // Replication without the wait for further replicas.
    let options = || Options::default().line("repl-diskless-sync-delay 0");
    let master = options().go();
    let replica = options().line(format!("replicaof 127.0.0.1 {}", master.port())).go();
    eventually("the replica follows", PATIENCE, || {
        replica.ask(&["INFO", "replication"]).contains("master_link_status:up").then_some(())
    });
    let sentinels: Vec<Sentinel> = (0..3).map(|_| Sentinel::watch(master.port())).collect();
    eventually("the sentinels know each other and the replica", PATIENCE, || {
        let ready = |sentinel: &Sentinel| {
            let said = sentinel.ask(&["SENTINEL", "MASTER", NAME]).unwrap_or_default();
            let lines: Vec<&str> = said.lines().collect();
            let is = |name: &str, value: &str| lines.windows(2).any(|pair| pair == [name, value]);
            is("num-other-sentinels", "2") && is("num-slaves", "1") && is("flags", "master")
        };
        sentinels.iter().all(ready).then_some(())
    });
    (vec![master, replica], sentinels)
}

/// The port of the master, by the word of a majority.
pub(super) fn elected(sentinels: &[Sentinel]) -> u16 {
    eventually("the sentinels agree on a master", PATIENCE, || {
        let named: Vec<u16> = sentinels.iter().filter_map(Sentinel::names).collect();
        named.iter().copied().find(|port| named.iter().filter(|other| *other == port).count() >= 2)
    })
}

impl Sentinel {
    fn watch(master: u16) -> Self {
        let (port, dir) = (free_port(), tempfile::tempdir().expect("a temporary directory"));
        let lines = [
            format!("port {port}"),
            "bind 127.0.0.1".to_owned(),
            format!("dir {}", dir.path().display()),
            format!("sentinel monitor {NAME} 127.0.0.1 {master} 2"),
            format!("sentinel down-after-milliseconds {NAME} {}", DOWN_AFTER.as_millis()),
            format!("sentinel failover-timeout {NAME} 4000"),
        ];
        let file = dir.path().join("sentinel.conf");
        std::fs::write(&file, lines.join("\n")).expect("the temporary directory takes files");
        let process = Process::start("sentinel", Command::new("redis-server").arg(file).arg("--sentinel"));
        let sentinel = Self { port, _process: process, _dir: dir };
        eventually("the sentinel answers", PATIENCE, || sentinel.ask(&["PING"]));
        sentinel
    }

    fn ask(&self, words: &[&str]) -> Option<String> {
        let said = run(Command::new("timeout")
            .args(["2", "redis-cli", "-e", "-p", &self.port.to_string()])
            .args(words));
        said.status.success().then_some(said.out)
    }

    /// The port of the master that it names.
    fn names(&self) -> Option<u16> {
        self.ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME])?.lines().nth(1)?.parse().ok()
    }

    pub(super) fn fail_over(&self) {
        eventually("the sentinels agree to a failover", PATIENCE, || {
            self.ask(&["SENTINEL", "FAILOVER", NAME])
        });
    }
}
