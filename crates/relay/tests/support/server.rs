//! A real redis-server of our own, on a free port of loopback, in a directory that goes with it.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::SOON;

pub struct RedisServer {
    child: Child,
    pub port: u16,
    args: Vec<String>,
    pub directory: TempDir,
}

impl RedisServer {
    pub fn start() -> Self {
        Self::with(|_, _| Vec::new())
    }

    /// Starts a server with further arguments, which may depend on its port and directory.
    pub fn with(further: impl Fn(u16, &TempDir) -> Vec<String>) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let port = free_port();
        let mut args: Vec<String> = ["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""]
            .into_iter()
            .chain(["--appendonly", "no", "--dir", directory.path().to_str().expect("a plain path")])
            .map(str::to_owned)
            .collect();
        args.extend(further(port, &directory));
        let child = spawn(&args);
        let mut server = Self { child, port, args, directory };
        server.ready();
        server
    }

    fn ready(&mut self) {
        let deadline = Instant::now() + SOON;
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("redis-server ended at once: {status}; arguments {:?}", self.args);
            }
            assert!(Instant::now() < deadline, "redis-server does not listen on port {}", self.port);
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
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

    /// How many connections have subscribed to the raw channel.
    pub fn subscribers(&self, raw: &str) -> u64 {
        let (_, count): (String, u64) = self.command(&["PUBSUB", "NUMSUB", raw]);
        count
    }

    /// Waits until the raw channel has so many subscribers.
    pub fn has_subscribers(&self, raw: &str, wanted: u64) {
        let deadline = Instant::now() + SOON;
        while self.subscribers(raw) != wanted {
            assert!(
                Instant::now() < deadline,
                "{raw} has {} subscribers, not {wanted}",
                self.subscribers(raw)
            );
            std::thread::sleep(Duration::from_millis(10));
        }
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
        self.child = spawn(&self.args);
        self.ready();
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(args: &[String]) -> Child {
    Command::new("redis-server").args(args).stdout(Stdio::null()).spawn().unwrap_or_else(|error| {
        panic!("these tests need redis-server on the PATH (apt-get install redis-server): {error}")
    })
}

pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}
