//! A redis-server of our own, and the real redis-cli to speak to it.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::certs::Certificates;
use crate::deadline::{PATIENCE, eventually};
use crate::process::{Process, Said, run};

/// A running redis-server on a free port of 127.0.0.1, without persistence. Killed when dropped.
#[derive(Debug)]
pub struct Redis {
    process: Process,
    options: Options,
    port: u16,
    dir: TempDir,
}

/// How a Redis is to be started.
#[derive(Debug, Clone, Default)]
pub struct Options {
    user: Option<(String, String, String)>,
    password: Option<String>,
    tls: Option<Tls>,
    durable: bool,
    lines: Vec<String>,
}

#[derive(Debug, Clone)]
struct Tls {
    cert: String,
    key: String,
    authority: String,
}

impl Options {
    /// The default user's password, which redis-cli uses too.
    #[must_use]
    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self
    }

    /// An ACL user beside it: name, password and rules (`~tg:* &tg:* +@all`).
    #[must_use]
    pub fn user(mut self, name: &str, password: &str, rules: &str) -> Self {
        self.user = Some((name.to_owned(), password.to_owned(), rules.to_owned()));
        self
    }

    /// TLS only, with this certificate.
    #[must_use]
    pub fn tls(mut self, certificates: &Certificates) -> Self {
        let text = |path: std::path::PathBuf| path.display().to_string();
        self.tls = Some(Tls {
            cert: text(certificates.cert()),
            key: text(certificates.key()),
            authority: text(certificates.authority()),
        });
        self
    }

    /// Writes everything it takes into a file, and has it again after a restart.
    #[must_use]
    pub fn durable(mut self) -> Self {
        self.durable = true;
        self
    }

    /// A line of its configuration.
    #[must_use]
    pub fn line(mut self, line: impl Into<String>) -> Self {
        self.lines.push(line.into());
        self
    }

    /// Starts it and waits until it takes connections.
    ///
    /// # Panics
    /// When it does not in time.
    pub fn go(self) -> Redis {
        let dir = tempfile::tempdir().expect("a temporary directory");
        // Another process may take the port in between; then the next one.
        for _ in 0..10 {
            let port = free_port();
            if let Some(process) = launch(&self, port, &dir) {
                return Redis { process, options: self, port, dir };
            }
        }
        panic!("redis-server does not start");
    }
}

impl Redis {
    /// One without password or TLS.
    pub fn start() -> Self {
        Options::default().go()
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where it keeps its files.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its URL, without credentials.
    pub fn url(&self) -> String {
        let scheme = if self.options.tls.is_some() { "rediss" } else { "redis" };
        format!("{scheme}://127.0.0.1:{}/0", self.port)
    }

    /// Runs redis-cli as the default user.
    pub fn cli(&self, words: &[&str]) -> Said {
        let mut command = Command::new("redis-cli");
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string()]);
        if let Some(tls) = &self.options.tls {
            command.args(["--tls", "--cacert", &tls.authority]);
        }
        if let Some(password) = &self.options.password {
            command.args(["--no-auth-warning", "-a", password]);
        }
        run(command.args(words))
    }

    /// Runs redis-cli and gives back what it printed.
    ///
    /// # Panics
    /// When it failed.
    pub fn ask(&self, words: &[&str]) -> String {
        let said = self.cli(words);
        assert!(said.status.success(), "redis-cli {words:?}: {said:?}");
        said.out
    }

    /// `PUBLISH tg:{channel} payload`, as any backend does; how many nodes heard it.
    ///
    /// # Panics
    /// When Redis refuses.
    pub fn publish(&self, channel: &str, payload: &str) -> u64 {
        let key = format!("tg:{{{channel}}}");
        let out = self.ask(&["PUBLISH", &key, payload]);
        out.parse().unwrap_or_else(|_| panic!("PUBLISH {key}: {out}"))
    }

    /// How many connections are subscribed to the channel in Redis.
    ///
    /// # Panics
    /// When Redis refuses.
    pub fn listeners(&self, channel: &str) -> u64 {
        let out = self.ask(&["PUBSUB", "NUMSUB", &format!("tg:{{{channel}}}")]);
        let count = out.lines().last().unwrap_or_default();
        count.parse().unwrap_or_else(|_| panic!("PUBSUB NUMSUB: {out}"))
    }

    /// SIGSTOP: connections stay, nothing is answered.
    pub fn stop(&mut self) {
        self.process.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn resume(&mut self) {
        self.process.signal(Signal::CONT);
    }

    /// SIGKILL, and waits for its end.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Kills it, if it runs, and starts it again on the same port: empty, unless it is durable.
    ///
    /// # Panics
    /// When it does not start.
    pub fn restart(&mut self) {
        self.process.kill();
        self.process =
            eventually("redis-server starts again", PATIENCE, || launch(&self.options, self.port, &self.dir));
    }
}

fn launch(options: &Options, port: u16, dir: &TempDir) -> Option<Process> {
    let mut lines = vec![
        "bind 127.0.0.1".to_owned(),
        "save \"\"".to_owned(),
        format!("appendonly {}", if options.durable { "yes" } else { "no" }),
        format!("dir {}", dir.path().display()),
    ];
    match &options.tls {
        None => lines.push(format!("port {port}")),
        Some(tls) => lines.extend([
            "port 0".to_owned(),
            format!("tls-port {port}"),
            "tls-auth-clients no".to_owned(),
            format!("tls-cert-file {}", tls.cert),
            format!("tls-key-file {}", tls.key),
            format!("tls-ca-cert-file {}", tls.authority),
        ]),
    }
    if let Some(password) = &options.password {
        lines.push(format!("requirepass \"{password}\""));
    }
    if let Some((name, password, rules)) = &options.user {
        lines.push(format!("user {name} on >{password} {rules}"));
    }
    lines.extend(options.lines.iter().cloned());
    let config = dir.path().join("redis.conf");
    std::fs::write(&config, lines.join("\n")).expect("the temporary directory takes files");
    let process = Process::start("redis-server", Command::new("redis-server").arg(config));
    let ready =
        process.out.find(Duration::from_secs(10), |line| line.contains("Ready to accept").then_some(()));
    ready.is_ok().then_some(process)
}

/// A port that was free a moment ago.
///
/// # Panics
/// When there is none.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("a bound listener has an address").port()
}
