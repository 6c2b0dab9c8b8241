//! Subscribers by the official SDKs: scripts that print what their application is told, as entries of a history.

use std::process::{ChildStdin, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;

use super::history::{Recorder, What};
use crate::process::Process;
use crate::sdk::{Kind, root};

/// A process of one SDK with some subscribers in it. Ends when dropped.
#[derive(Debug)]
pub struct Driver {
    process: Process,
    _stdin: Option<ChildStdin>,
}

impl Driver {
    /// Starts subscribers of these names, each at its URL, in all the channels.
    pub fn start(kind: Kind, seats: &[(String, String)], channels: &[String]) -> Self {
        let scripts = root().join("sdk");
        let mut command = match kind {
            Kind::Js | Kind::JsProtobuf => {
                let mut node = Command::new("node");
                node.arg(scripts.join("subscriber.mjs"));
                node
            }
            Kind::Python | Kind::PythonProtobuf => {
                let mut python = Command::new(root().join(".cache/venv/bin/python"));
                python.arg("-u").arg(scripts.join("subscriber.py"));
                python
            }
        };
        let codec = match kind {
            Kind::Js | Kind::Python => "json",
            Kind::JsProtobuf | Kind::PythonProtobuf => "protobuf",
        };
        let seats: Vec<_> = seats.iter().map(|(who, url)| json!({"who": who, "url": url})).collect();
        command.arg(codec).arg(json!({"seats": seats, "channels": channels}).to_string());
        let mut process = Process::start(format!("{kind:?} subscribers"), command.current_dir(scripts));
        let stdin = process.stdin();
        Self { process, _stdin: stdin }
    }

    /// Writes down what they are told, until it is told to stop or they end. `Err` says what went wrong.
    pub fn record(&self, recorder: &Arc<Recorder>, over: &AtomicBool) -> Result<(), String> {
        while !over.load(Ordering::Relaxed) {
            let taken = self.process.out.take(Duration::from_millis(200), |line| Some(line.to_owned()));
            match taken {
                Ok(line) => {
                    let what: What =
                        serde_json::from_str(&line).map_err(|error| format!("{error}: {line}"))?;
                    recorder.note(what);
                }
                Err(why) if why.contains("closed") => {
                    return Err(format!("{why}: {}", self.process.err.lines().join("\n")));
                }
                Err(_) => {}
            }
        }
        Ok(())
    }
}
