//! The JSON codec of Centrifuge v2, as far as a test wants it done for it.
//!
//! Commands get ids and wait for their replies; pushes that come in between are kept in order; pings are answered
//! whenever something is awaited. A test that wants to do without says so or works with frames.

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Error, Frame, Raw, frame};

/// What of the protocol's state is the client's.
#[derive(Debug, Default)]
pub(super) struct State {
    /// The last command's id.
    id: u32,
    /// Whether pings are left without an answer.
    mute: bool,
    /// Replies and pushes that came while another was awaited.
    kept: VecDeque<Value>,
}

/// A publication as a subscriber gets it.
#[derive(Debug, Clone, PartialEq)]
pub struct Publication {
    /// Its channel.
    pub channel: String,
    /// Its payload.
    pub data: Value,
    /// The whole `pub` object: offset, info, tags.
    pub whole: Value,
}

impl Raw {
    /// Sends a connect command without a token and waits for its result.
    pub async fn connect_command(&mut self) -> Result<Value, Error> {
        self.command("connect", json!({})).await
    }

    /// Subscribes and waits for the result.
    pub async fn subscribe(&mut self, channel: &str) -> Result<Value, Error> {
        self.command("subscribe", json!({ "channel": channel })).await
    }

    /// Unsubscribes and waits for the result.
    pub async fn unsubscribe(&mut self, channel: &str) -> Result<Value, Error> {
        self.command("unsubscribe", json!({ "channel": channel })).await
    }

    /// Publishes and waits for the result.
    pub async fn publish(&mut self, channel: &str, data: Value) -> Result<Value, Error> {
        self.command("publish", json!({ "channel": channel, "data": data })).await
    }

    /// Sends one command under the next id and waits for its result, `{}` where the reply has none. An error in the
    /// reply is [`Error::Command`].
    pub async fn command(&mut self, name: &str, request: Value) -> Result<Value, Error> {
        let (id, command) = self.numbered(name, request);
        self.text(&command).await?;
        self.result(name, id, command).await
    }

    /// A command under the next id, not sent yet: for batches and fragments. Wait for its answer with
    /// [`Raw::reply`].
    pub fn numbered(&mut self, name: &str, request: Value) -> (u32, String) {
        self.json.id += 1;
        let id = self.json.id;
        (id, json!({ "id": id, name: request }).to_string())
    }

    async fn result(&mut self, name: &str, id: u32, command: String) -> Result<Value, Error> {
        let mut reply = self.reply(id).await?;
        if let Some(error) = reply.get("error") {
            return Err(Error::Command {
                command,
                code: error.get("code").and_then(Value::as_u64).unwrap_or(0),
                message: error.get("message").and_then(Value::as_str).unwrap_or_default().to_owned(),
            });
        }
        Ok(reply.get_mut(name).map_or_else(|| json!({}), Value::take))
    }

    /// Waits for the reply with this id. Others are kept.
    pub async fn reply(&mut self, id: u32) -> Result<Value, Error> {
        let what = format!("the reply to command {id}");
        self.first(&what, self.patience, |reply| reply.get("id") == Some(&json!(id))).await
    }

    /// Waits for the next push, of whatever kind: what is in its `push` object.
    pub async fn push(&mut self) -> Result<Value, Error> {
        let mut reply = self.first("a push", self.patience, |reply| reply.get("push").is_some()).await?;
        Ok(reply.get_mut("push").map_or(Value::Null, Value::take))
    }

    /// Waits for the next publication, in any channel. Other pushes are kept.
    pub async fn publication(&mut self) -> Result<Publication, Error> {
        let is_publication = |reply: &Value| reply.pointer("/push/pub").is_some();
        let reply = self.first("a publication", self.patience, is_publication).await?;
        let at = |path: &str| reply.pointer(path).cloned().unwrap_or(Value::Null);
        Ok(Publication {
            channel: at("/push/channel").as_str().unwrap_or_default().to_owned(),
            data: at("/push/pub/data"),
            whole: at("/push/pub"),
        })
    }

    /// Leaves pings without an answer from now on, or answers them again.
    pub fn mute(&mut self, mute: bool) {
        self.json.mute = mute;
    }

    /// Stays connected for `during` and answers pings; what else comes is kept. Ends early only with an error.
    pub async fn stay(&mut self, during: Duration) -> Result<(), Error> {
        match self.first("the end of the stay", during, |_| false).await {
            Err(Error::Late { .. }) | Ok(_) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Holds that no reply and no push comes for the whole of `during`; pings are answered.
    pub async fn quiet(&mut self, during: Duration) -> Result<(), Error> {
        match self.first("anything", during, |_| true).await {
            Err(Error::Late { .. }) => Ok(()),
            Err(error) => Err(error),
            Ok(reply) => Err(Error::NotSilent { heard: format!(": {reply}") }),
        }
    }

    /// Waits for the first reply or push that is wanted; keeps the others.
    async fn first(
        &mut self,
        what: &str,
        within: Duration,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<Value, Error> {
        let deadline = Instant::now() + within;
        let mut seen = 0;
        loop {
            while seen < self.json.kept.len() {
                if self.json.kept.get(seen).is_some_and(&wanted) {
                    return Ok(self.json.kept.remove(seen).unwrap_or(Value::Null));
                }
                seen += 1;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let received = match self.frame_within("a message", left).await {
                Ok(received) => received,
                Err(error) => return Err(self.awaited(error, what, within)),
            };
            match received.opcode {
                frame::PING => self.send(&Frame::pong(&received.payload)).await?,
                frame::PONG => {}
                frame::CLOSE => {
                    let (code, reason) = match received.close()? {
                        Some((code, reason)) => (Some(code), reason),
                        None => (None, String::new()),
                    };
                    return Err(Error::Closed { what: what.to_owned(), code, reason });
                }
                _ => self.keep(received.text()?).await?,
            }
        }
    }

    /// Takes a message apart: one JSON object a line.
    async fn keep(&mut self, message: &str) -> Result<(), Error> {
        for line in message.split('\n').filter(|line| !line.is_empty()) {
            let reply: Value = serde_json::from_str(line)
                .map_err(|error| Error::Protocol(format!("a line that is no JSON ({error}): {line}")))?;
            if reply != json!({}) {
                self.json.kept.push_back(reply);
            } else if !self.json.mute {
                self.text("{}").await?;
            }
        }
        Ok(())
    }

    /// The same error, in the words of what was awaited.
    fn awaited(&self, error: Error, what: &str, within: Duration) -> Error {
        let kept = || match self.json.kept.len() {
            0 => String::new(),
            count => format!("; came instead ({count}): {}", excerpt(&self.json.kept)),
        };
        match error {
            Error::Late { heard, .. } => {
                Error::Late { what: what.to_owned(), within, heard: format!("{heard}{}", kept()) }
            }
            Error::Ended { heard, .. } => {
                Error::Ended { what: what.to_owned(), heard: format!("{heard}{}", kept()) }
            }
            other => other,
        }
    }
}

fn excerpt(kept: &VecDeque<Value>) -> String {
    kept.iter().take(5).map(Value::to_string).collect::<Vec<_>>().join(" ")
}
