//! The official SDKs, driven over pipes.
//!
//! A script in `sdk/` runs any number of SDK clients in one process. It takes commands as JSON lines and writes answers
//! (`{"re":1,"ok":...}` or `{"re":1,"error":{"code","message"}}`) and events (`{"event":"connected","client":"a",...}`).

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::certs::Certificates;
use crate::deadline::PATIENCE;
use crate::process::Process;

/// Which SDK, and what it speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `centrifuge` for JavaScript, JSON.
    Js,
    /// `centrifuge` for JavaScript, Protobuf.
    JsProtobuf,
    /// `centrifuge-python`, JSON.
    Python,
    /// `centrifuge-python`, Protobuf.
    PythonProtobuf,
}

impl Kind {
    /// Every SDK with every codec it has.
    pub const ALL: [Self; 4] = [Self::Js, Self::JsProtobuf, Self::Python, Self::PythonProtobuf];

    const fn codec(self) -> &'static str {
        match self {
            Self::Js | Self::Python => "json",
            Self::JsProtobuf | Self::PythonProtobuf => "protobuf",
        }
    }
}

/// What an SDK said was wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The code: the server's, or the SDK's own.
    pub code: i64,
    /// The words.
    pub message: String,
}

/// One process of SDK clients. Ends when dropped.
#[derive(Debug)]
pub struct Sdk {
    process: Process,
    stdin: Mutex<ChildStdin>,
    next: AtomicU64,
}

impl Sdk {
    /// Starts the script; `certificates` are what its clients trust.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(kind: Kind, certificates: Option<&Certificates>) -> Self {
        let scripts = root().join("sdk");
        let mut command = match kind {
            Kind::Js | Kind::JsProtobuf => {
                let mut node = Command::new("node");
                node.arg(scripts.join("client.mjs"));
                node
            }
            Kind::Python | Kind::PythonProtobuf => {
                let mut python = Command::new(root().join(".cache/venv/bin/python"));
                python.arg("-u").arg(scripts.join("client.py"));
                python
            }
        };
        command.arg(kind.codec()).current_dir(&scripts);
        if let Some(certificates) = certificates {
            let authority = certificates.authority();
            command.env("NODE_EXTRA_CA_CERTS", &authority).env("SSL_CERT_FILE", &authority);
        }
        let mut process = Process::start(format!("{kind:?} clients"), &mut command);
        let stdin = process.stdin().expect("a pipe");
        Self { process, stdin: Mutex::new(stdin), next: AtomicU64::new(1) }
    }

    /// Sends a command and waits for its answer.
    pub fn call(&self, command: Value) -> Result<Value, Refusal> {
        self.call_within(PATIENCE, command)
    }

    /// The same for what takes long.
    ///
    /// # Panics
    /// When there is no answer in time.
    pub fn call_within(&self, within: Duration, command: Value) -> Result<Value, Refusal> {
        let number = self.begin(command);
        self.finish(within, number)
    }

    /// Sends a command; [`finish`](Self::finish) takes its answer.
    ///
    /// # Panics
    /// When the process has ended.
    pub fn begin(&self, mut command: Value) -> u64 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        command["id"] = number.into();
        let mut stdin = self.stdin.lock().expect("no thread panicked while writing");
        writeln!(stdin, "{command}").unwrap_or_else(|e| panic!("the SDK process takes no command: {e}"));
        number
    }

    /// Waits for the answer to a command.
    ///
    /// # Panics
    /// When there is none in time.
    pub fn finish(&self, within: Duration, number: u64) -> Result<Value, Refusal> {
        let answer = self.process.out.take(within, |line| {
            let value: Value = serde_json::from_str(line).ok()?;
            (value["re"] == number).then_some(value)
        });
        let mut answer = answer.unwrap_or_else(|why| panic!("no answer to command {number}: {why}"));
        match answer.get("error") {
            None => Ok(answer["ok"].take()),
            Some(error) => Err(Refusal {
                code: error["code"].as_i64().unwrap_or_default(),
                message: error["message"].as_str().unwrap_or_default().to_owned(),
            }),
        }
    }

    /// Waits for an event that satisfies `is` and takes it out.
    ///
    /// # Panics
    /// When there is none in time.
    pub fn event(&self, what: &str, is: impl FnMut(&Value) -> bool) -> Value {
        self.event_within(PATIENCE, what, is)
    }

    /// The same for what takes long.
    ///
    /// # Panics
    /// When there is none in time.
    pub fn event_within(&self, within: Duration, what: &str, mut is: impl FnMut(&Value) -> bool) -> Value {
        let event = self.process.out.take(within, |line| {
            let value: Value = serde_json::from_str(line).ok()?;
            (value.get("event").is_some() && is(&value)).then_some(value)
        });
        event.unwrap_or_else(|why| panic!("no event ({what}): {why}"))
    }

    /// Waits for an event by name of a client and takes it out.
    pub fn named(&self, client: &str, event: &str) -> Value {
        self.event(&format!("{event} of {client}"), |e| e["event"] == event && e["client"] == client)
    }

    /// Events that came and were not taken yet, by name, of a client.
    pub fn pending(&self, client: &str, event: &str) -> Vec<Value> {
        let values =
            self.process.out.lines().into_iter().filter_map(|line| serde_json::from_str::<Value>(&line).ok());
        values.filter(|e| e["event"] == event && e["client"] == client).collect()
    }

    /// Connects a new client and waits until it is connected.
    ///
    /// # Panics
    /// When it is not.
    pub fn connect(&self, client: &str, url: &str) -> Value {
        self.call(json!({"do": "connect", "client": client, "url": url}))
            .unwrap_or_else(|e| panic!("{client} does not connect: {e:?}"))
    }

    /// Subscribes a client and waits for the answer.
    pub fn subscribe(&self, client: &str, channel: &str) -> Result<Value, Refusal> {
        self.call(json!({"do": "subscribe", "client": client, "channel": channel}))
    }

    /// Publishes as a client and waits for the answer.
    pub fn publish(&self, client: &str, channel: &str, data: Value) -> Result<Value, Refusal> {
        self.call(json!({"do": "publish", "client": client, "channel": channel, "data": data}))
    }

    /// Waits for the client's next publication in the channel; its data.
    pub fn publication(&self, client: &str, channel: &str) -> Value {
        let mut event = self.event(&format!("publication in {channel} for {client}"), |e| {
            e["event"] == "publication" && e["client"] == client && e["channel"] == channel
        });
        event["data"].take()
    }

    /// Connects `count` quiet clients and subscribes each to `channel`: what they receive is kept for
    /// [`heard`](Self::heard).
    ///
    /// # Panics
    /// When not every one is subscribed in time.
    pub fn fleet(&self, name: &str, count: usize, url: &str, channel: &str) {
        let command = json!({"do": "fleet", "name": name, "count": count, "url": url, "channel": channel});
        let number = self.begin(command);
        self.finish(PATIENCE * 3, number).unwrap_or_else(|e| panic!("fleet {name} does not gather: {e:?}"));
    }

    /// What each client of a fleet has received, once each has at least `least` publications: each different
    /// sequence with how many clients received exactly it.
    ///
    /// # Panics
    /// When some have not in time.
    pub fn heard(&self, name: &str, least: usize) -> Vec<(Vec<Value>, u64)> {
        let answer = self
            .call_within(PATIENCE * 2, json!({"do": "heard", "name": name, "least": least}))
            .unwrap_or_else(|e| panic!("fleet {name} has not heard {least}: {e:?}"));
        let groups = answer.as_array().cloned().unwrap_or_default();
        groups
            .into_iter()
            .map(|group| {
                let sequence = group["sequence"].as_array().cloned().unwrap_or_default();
                (sequence, group["clients"].as_u64().unwrap_or_default())
            })
            .collect()
    }
}

/// The directory of this package, where `sdk/` and `.cache/` are.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}
