//! A node: the release binary as a child process.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::certs::Certificates;
use crate::deadline::{PATIENCE, eventually};
use crate::door::{self, Answer};
use crate::metrics::Metrics;
use crate::over::record_layer;
use crate::process::Process;
use crate::redis::Redis;

/// A running node, listening on free ports of 127.0.0.1. Killed when dropped.
#[derive(Debug)]
pub struct Node {
    /// The process, its log in `err`.
    pub process: Process,
    public: SocketAddr,
    internal: SocketAddr,
    tls: bool,
    _dir: TempDir,
    _certificates: Option<Certificates>,
}

/// How a node is to be started.
#[derive(Debug, Clone)]
pub struct Start {
    name: String,
    binary: Option<PathBuf>,
    dev: bool,
    sets: Vec<(String, String)>,
    file: Option<String>,
    env: Vec<(String, String)>,
    tls: bool,
}

impl Start {
    /// Sets one key, as `--set` does.
    #[must_use]
    pub fn set(mut self, key: &str, value: impl ToString) -> Self {
        self.sets.push((key.to_owned(), value.to_string()));
        self
    }

    /// Sets one environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The text of its settings file, YAML.
    #[must_use]
    pub fn file(mut self, yaml: &str) -> Self {
        self.file = Some(yaml.to_owned());
        self
    }

    /// Another build of the node than the one that is tested everywhere.
    #[must_use]
    pub fn binary(mut self, path: &Path) -> Self {
        self.binary = Some(path.to_owned());
        self
    }

    /// What a failing test calls it.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// Serves `wss` with these certificates.
    #[must_use]
    pub fn tls(mut self, certificates: &Certificates) -> Self {
        self.tls = true;
        self.set("tls.cert", certificates.cert().display()).set("tls.key", certificates.key().display())
    }

    /// Relays by this Redis.
    #[must_use]
    pub fn redis(self, redis: &Redis) -> Self {
        self.set("relay.kind", "redis").set("relay.redis.url", redis.url())
    }

    /// The command that starts it, with its settings file in `dir`.
    fn command(&self, dir: &Path) -> Command {
        let mut command = Command::new(self.binary.clone().unwrap_or_else(binary));
        if let Some(text) = &self.file {
            let path = dir.join("tidegate.yaml");
            std::fs::write(&path, text).expect("the temporary directory takes files");
            command.arg("--config").arg(path);
        }
        if self.dev {
            command.arg("--dev");
        }
        for (key, value) in &self.sets {
            command.arg("--set").arg(format!("{key}={value}"));
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.current_dir(dir);
        command
    }

    /// Starts it and waits until it listens.
    ///
    /// # Panics
    /// When it does not listen in time; the message has its log.
    pub fn go(mut self) -> Node {
        let mut certificates = None;
        if let Some(layer) = record_layer() {
            if !self.tls {
                self = self.tls(certificates.insert(Certificates::new()));
            }
            self = self.set("tls.record_layer", layer);
        }
        let dir = tempfile::tempdir().expect("a temporary directory");
        let process = Process::start(self.name.clone(), &mut self.command(dir.path()));
        let listening = process.err.find(PATIENCE, |line| {
            let event: Value = serde_json::from_str(line).ok()?;
            let fields = event.get("fields").unwrap_or(&event);
            let address = |key: &str| fields.get(key)?.as_str()?.parse::<SocketAddr>().ok();
            (fields.get("message")?.as_str()? == "listening")
                .then_some((address("public")?, address("internal")?))
        });
        let (public, internal) = match listening {
            Ok(addresses) => addresses,
            Err(why) => panic!("{} does not listen: {why}\n{}", self.name, process.err.lines().join("\n")),
        };
        let node = Node { process, public, internal, tls: self.tls, _dir: dir, _certificates: certificates };
        eventually("the node is ready", PATIENCE, || (node.get("/health/ready").status == 200).then_some(()));
        node
    }
}

impl Node {
    /// A node in dev mode on free ports, which drains without delay.
    pub fn dev() -> Start {
        let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Start {
            name: "node".to_owned(),
            binary: None,
            dev: true,
            sets: Vec::new(),
            file: None,
            env: Vec::new(),
            tls: false,
        }
        .set("listen.public", free)
        .set("listen.internal", free)
        .set("log.format", "json")
        .set("drain.delay", "0s")
        .set("drain.duration", "1s")
    }

    /// The same without dev mode: nothing is allowed unless set.
    pub fn strict() -> Start {
        Start { dev: false, ..Self::dev() }
    }

    /// Where clients connect.
    pub fn public(&self) -> SocketAddr {
        self.public
    }

    /// Where operators and backends connect.
    pub fn internal(&self) -> SocketAddr {
        self.internal
    }

    /// The address of the WebSocket, for an SDK.
    pub fn url(&self) -> String {
        self.url_at(self.public)
    }

    /// The same through another address, such as a proxy's.
    pub fn url_at(&self, address: SocketAddr) -> String {
        let scheme = if self.tls { "wss" } else { "ws" };
        format!("{scheme}://{address}/connection/websocket")
    }

    /// GET on the internal port.
    ///
    /// # Panics
    /// When there is no answer.
    pub fn get(&self, path: &str) -> Answer {
        door::get(&format!("http://{}{path}", self.internal)).unwrap_or_else(|e| panic!("GET {path}: {e}"))
    }

    /// Calls a method of the server API without a key; the answer's JSON.
    ///
    /// # Panics
    /// When the answer is not 200.
    pub fn api(&self, method: &str, request: &Value) -> Value {
        let answer = self.api_with(method, None, request);
        assert_eq!(answer.status, 200, "{method}: {answer:?}");
        answer.json()
    }

    /// Calls a method of the server API.
    ///
    /// # Panics
    /// When there is no answer.
    pub fn api_with(&self, method: &str, key: Option<&str>, request: &Value) -> Answer {
        let url = format!("http://{}/api/{method}", self.internal);
        door::post(&url, key, &request.to_string()).unwrap_or_else(|e| panic!("POST /api/{method}: {e}"))
    }

    /// A scrape.
    ///
    /// # Panics
    /// When there is no answer of 200.
    pub fn metrics(&self) -> Metrics {
        let answer = self.get("/metrics");
        assert_eq!(answer.status, 200, "{answer:?}");
        Metrics::parse(&answer.body)
    }

    /// Waits until the metrics satisfy `holds`.
    ///
    /// # Panics
    /// When they do not in time.
    pub fn until(&self, what: &str, mut holds: impl FnMut(&Metrics) -> bool) -> Metrics {
        eventually(what, PATIENCE, || Some(self.metrics()).filter(|metrics| holds(metrics)))
    }

    /// Resident memory, in bytes.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn resident_bytes(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.process.pid())).expect("the node runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line for VmRSS");
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number of KiB");
        kib * 1024
    }

    /// How many file descriptors it has open.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.process.pid())).expect("the node runs").count()
    }

    /// SIGTERM: the node drains.
    pub fn terminate(&mut self) {
        self.process.signal(Signal::TERM);
    }

    /// SIGKILL, and waits for its end.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Waits for its end.
    pub fn wait(&mut self, within: Duration) -> ExitStatus {
        self.process.wait(within)
    }
}

/// The release binary beside this test's own, or the one that `TIDEGATE_BIN` names.
///
/// # Panics
/// When there is none.
pub fn binary() -> PathBuf {
    #[expect(clippy::disallowed_methods, reason = "the harness's own setting: which binary is tested")]
    let named = std::env::var_os("TIDEGATE_BIN").map(PathBuf::from);
    let path = named.unwrap_or_else(|| {
        let own = std::env::current_exe().expect("this program has a path");
        let target = own
            .ancestors()
            .find(|dir| dir.ends_with("debug") || dir.ends_with("release"))
            .and_then(Path::parent)
            .expect("this program lies in cargo's target directory");
        target.join("release/tidegate")
    });
    assert!(path.is_file(), "{} is not there: `make test` builds it", path.display());
    path
}
