//! Three sentinels, a master and a replica, all of them real.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tidegate_relay::{RedisSettings, Secret, SentinelSettings, Topology};

use super::server::{RedisServer, free_port};
use super::{Keys, NODE, eventually, settings};

/// What the sentinels call the master.
const NAME: &str = "main";

/// A sentinel; killed when dropped.
pub struct SentinelServer {
    child: Child,
    pub port: u16,
    tls_port: Option<u16>,
    _directory: TempDir,
}

/// A master and a replica that sentinels watch.
pub struct Watched {
    pub servers: [RedisServer; 2],
    pub sentinels: Vec<SentinelServer>,
    /// With TLS and ACL users.
    keys: Option<Keys>,
}

/// How long a master may be silent before it counts as dead.
pub const DOWN_AFTER: Duration = Duration::from_secs(1);

impl Watched {
    pub fn start() -> Self {
        Self::with(None)
    }

    /// All of them speak TLS to each other and to nodes, and nodes are the user `node`, with the documented rights.
    pub fn secured() -> Self {
        Self::with(Some(Keys::new()))
    }

    fn with(keys: Option<Keys>) -> Self {
        let server = |master: Option<&RedisServer>| {
            RedisServer::with(|_, _| {
                // Replication without the wait for further replicas.
                let mut args = vec!["--repl-diskless-sync-delay".to_owned(), "0".to_owned()];
                let at = |server: &RedisServer| match &keys {
                    Some(_) => server.tls_port(),
                    None => server.port.to_string(),
                };
                if let Some(master) = master {
                    args.extend(["--replicaof".to_owned(), "127.0.0.1".to_owned(), at(master)]);
                }
                if let Some(keys) = &keys {
                    args.extend(keys.arguments(free_port()));
                    args.extend(
                        ["--tls-replication", "yes", "--user", "node", "on", ">s3cret"].map(str::to_owned),
                    );
                    args.extend(NODE.map(str::to_owned));
                    args.push("+role".to_owned());
                }
                args
            })
        };
        let master = server(None);
        let replica = server(Some(&master));
        eventually("the replica has the master's data", || {
            replica.command::<String>(&["INFO", "replication"]).contains("master_link_status:up")
        });
        let at = if keys.is_some() { master.tls_port() } else { master.port.to_string() };
        let sentinels: Vec<_> = (0..3).map(|_| SentinelServer::start(&at, keys.as_ref())).collect();
        let watched = Self { servers: [master, replica], sentinels, keys };
        eventually("the sentinels know each other and the replica", || {
            watched.sentinels.iter().all(|sentinel| {
                let fields = sentinel.fields();
                let is = |field: &str, value: &str| fields.iter().any(|(f, v)| f == field && v == value);
                is("num-other-sentinels", "2") && is("num-slaves", "1") && is("flags", "master")
            })
        });
        watched
    }

    pub fn settings(&self) -> RedisSettings {
        let url = |sentinel: &SentinelServer| match sentinel.tls_port {
            Some(port) => format!("rediss://127.0.0.1:{port}"),
            None => format!("redis://127.0.0.1:{}", sentinel.port),
        };
        let secret = |text: &str| self.keys.as_ref().map(|_| Secret::new(text.to_owned()));
        let user = |name: &str| self.keys.as_ref().map(|_| name.to_owned());
        let sentinel = SentinelSettings {
            master: NAME.to_owned(),
            nodes: self.sentinels.iter().map(url).collect(),
            username: user("asker"),
            password: secret("an0ther"),
        };
        RedisSettings {
            topology: Topology::Sentinel(Box::new(sentinel)),
            username: user("node"),
            password: secret("s3cret"),
            ca: self.keys.as_ref().map(Keys::authority),
            ..settings("")
        }
    }

    /// The port by which the sentinels know the server.
    fn known_port(&self, server: &RedisServer) -> u16 {
        if self.keys.is_some() { server.tls_port().parse().expect("a port") } else { server.port }
    }

    /// The server that is the master, by the word of a majority of the sentinels.
    pub fn master(&self) -> &RedisServer {
        let port = self.elected();
        self.servers.iter().find(|server| self.known_port(server) == port).expect("one of the two")
    }

    /// Kills the master.
    pub fn kill_master(&mut self) {
        let port = self.elected();
        let at = self.servers.iter().position(|server| self.known_port(server) == port);
        self.servers[at.expect("one of the two")].kill();
    }

    /// The port that most sentinels name.
    pub fn elected(&self) -> u16 {
        let named = |port: u16| self.sentinels.iter().filter(|s| s.names() == Some(port)).count();
        let ports = self.servers.each_ref().map(|server| self.known_port(server));
        if named(ports[0]) > named(ports[1]) { ports[0] } else { ports[1] }
    }

    /// Lets the sentinels give the other server the master's place, as an operator would.
    pub fn fail_over(&self) {
        let before = self.elected();
        eventually("the sentinels agree to a failover", || {
            self.sentinels[0].ask(&["SENTINEL", "FAILOVER", NAME]).is_ok()
        });
        self.failed_over(before);
    }

    /// Waits until all sentinels name another master than this one.
    pub fn failed_over(&self, before: u16) {
        eventually("the sentinels name the other server", || {
            self.sentinels.iter().all(|sentinel| sentinel.names().is_some_and(|port| port != before))
        });
    }
}

impl SentinelServer {
    fn start(master: &str, keys: Option<&Keys>) -> Self {
        let (port, directory) = (free_port(), tempfile::tempdir().expect("a temporary directory"));
        let mut settings = vec![
            format!("port {port}"),
            "bind 127.0.0.1".to_owned(),
            format!("dir {}", directory.path().display()),
            format!("sentinel monitor {NAME} 127.0.0.1 {master} 2"),
            format!("sentinel down-after-milliseconds {NAME} {}", DOWN_AFTER.as_millis()),
            format!("sentinel failover-timeout {NAME} 4000"),
        ];
        let tls_port = keys.map(|_| free_port());
        if let (Some(keys), Some(port)) = (keys, tls_port) {
            settings.extend(keys.settings(port).map(|(name, value)| format!("{name} {value}")));
            settings.push("tls-replication yes".to_owned());
            settings.push("user asker on >an0ther +sentinel|master".to_owned());
        }
        let file = directory.path().join("sentinel.conf");
        std::fs::write(&file, settings.join("\n")).expect("written");
        let mut command = Command::new("redis-server");
        let child = command.arg(&file).arg("--sentinel").stdout(Stdio::null()).spawn().expect("redis-server");
        let sentinel = Self { child, port, tls_port, _directory: directory };
        eventually("the sentinel answers", || sentinel.ask(&["PING"]).is_ok());
        sentinel
    }

    fn ask(&self, words: &[&str]) -> redis::RedisResult<redis::Value> {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port))?;
        let mut connection = client.get_connection_with_timeout(Duration::from_secs(1))?;
        connection.set_read_timeout(Some(Duration::from_secs(1)))?;
        redis::cmd(words[0]).arg(&words[1..]).query(&mut connection)
    }

    /// What it knows of the master.
    fn fields(&self) -> Vec<(String, String)> {
        let answer = self.ask(&["SENTINEL", "MASTER", NAME]).ok();
        answer.and_then(|answer| redis::from_redis_value(answer).ok()).unwrap_or_default()
    }

    /// The port of the master that it names.
    pub fn names(&self) -> Option<u16> {
        let (_, port) = self.fields().into_iter().find(|(field, _)| field == "port")?;
        port.parse().ok()
    }

    pub fn freeze(&self) {
        kill_process(Pid::from_child(&self.child), Signal::STOP).expect("SIGSTOP");
    }

    pub fn thaw(&self) {
        kill_process(Pid::from_child(&self.child), Signal::CONT).expect("SIGCONT");
    }
}

impl Drop for SentinelServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
