//! A redis-server of its own on a free port, and what it says of itself: processor time and bytes.
//!
//! It asks two questions in Redis' protocol, and is no client of it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::error::Error;
use crate::process::Server;
use crate::started::{Started, free};

pub(super) struct RedisServer {
    started: Started,
    address: SocketAddr,
}

/// What it has done so far.
#[derive(Debug, Clone, Copy)]
pub(super) struct Work {
    pub(super) cpu_seconds: f64,
    pub(super) commands: f64,
    pub(super) bytes_in: f64,
    pub(super) bytes_out: f64,
}

impl RedisServer {
    /// Starts one that keeps nothing on disk.
    pub(super) fn start() -> Result<Self, Error> {
        let address = free()?;
        let found = Command::new("redis-server").arg("--version").stdout(Stdio::null()).status();
        if let Err(error) = found {
            return Err(Error::Asked(format!(
                "what goes through Redis needs redis-server on the PATH, and it cannot be started: {error}; install \
                 the package redis-server"
            )));
        }
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port"]).arg(address.port().to_string());
        command.args(["--save", "", "--appendonly", "no", "--loglevel", "warning"]);
        Ok(Self { started: Started::new("redis-server", command, address)?, address })
    }

    /// For `relay.redis.url`.
    pub(super) fn url(&self) -> String {
        format!("redis://{}/0", self.address)
    }

    pub(super) fn pid(&self) -> u32 {
        self.started.pid()
    }

    /// What it has done so far.
    pub(super) fn work(&self) -> Result<Work, Error> {
        let info = self.info()?;
        let field = |name: &str| field(&info, name);
        Ok(Work {
            cpu_seconds: Server::new(&[self.pid()])?.cpu()?,
            commands: field("total_commands_processed")?,
            bytes_in: field("total_net_input_bytes")?,
            bytes_out: field("total_net_output_bytes")?,
        })
    }

    /// Channels that somebody hears.
    pub(super) fn channels(&self) -> Result<f64, Error> {
        field(&self.info()?, "pubsub_channels")
    }

    /// Ends the connections of all who hear channels.
    pub(super) fn end_subscribers(&self) -> Result<(), Error> {
        let answer =
            self.ask("CLIENT KILL TYPE pubsub").map_err(Error::io("ask redis-server for CLIENT KILL"))?;
        if answer.starts_with(":0") || !answer.starts_with(':') {
            return Err(Error::Asked(format!("redis-server ended no subscriber: it answered {answer:?}")));
        }
        Ok(())
    }

    fn info(&self) -> Result<String, Error> {
        self.ask("INFO stats").map_err(Error::io("ask redis-server for INFO"))
    }

    /// Sends a command; the answer is a number, as it is written, or a text.
    fn ask(&self, command: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&self.address, Duration::from_secs(2))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(format!("{command}\r\n").as_bytes())?;
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        reader.read_line(&mut head)?;
        let Some(length) = head.trim().strip_prefix('$') else { return Ok(head) };
        let length: u64 = length.parse().unwrap_or(0);
        let mut text = String::new();
        reader.take(length.min(1_048_576)).read_to_string(&mut text)?;
        Ok(text)
    }
}

/// A number of INFO.
fn field(info: &str, name: &str) -> Result<f64, Error> {
    let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|value| value.trim().parse().ok())
        .ok_or_else(|| Error::Asked(format!("redis-server's INFO has no {name}")))
}

impl Work {
    /// What was done since.
    pub(super) fn since(self, before: Self) -> Self {
        Self {
            cpu_seconds: self.cpu_seconds - before.cpu_seconds,
            commands: self.commands - before.commands,
            bytes_in: self.bytes_in - before.bytes_in,
            bytes_out: self.bytes_out - before.bytes_out,
        }
    }
}
