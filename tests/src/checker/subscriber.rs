//! A subscriber of our own: it records everything in the order in which the wire brought it.
//!
//! It connects to its place, subscribes to every channel in one batch, asks for what it missed, and comes back whenever
//! it is cut off or hears nothing. Now and then it forgets where it was, as a page that is loaded again.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fastrand::Rng;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use super::history::{Heard, Position, Recorder, What};
use crate::raw::{Error, Frame, Raw, Upgrade};

/// How long nothing may come, pings included, before it gives its connection up.
const SILENCE: Duration = Duration::from_secs(7);

/// How often it looks whether something is due.
const TURN: Duration = Duration::from_millis(100);

/// A subscriber, before it begins.
#[derive(Debug)]
pub struct Subscriber {
    /// What it is called.
    pub who: String,
    /// Where it connects.
    pub place: SocketAddr,
    /// Where it subscribes.
    pub channels: Vec<String>,
    /// Where everything is written down.
    pub recorder: Arc<Recorder>,
    /// Set when it is to stop.
    pub over: Arc<AtomicBool>,
    /// Its own chance.
    pub rng: Rng,
}

/// One connection's state.
struct Session {
    raw: Raw,
    /// Subscribe commands without their replies yet.
    asked: HashMap<u64, String>,
    /// When to subscribe again.
    due: Vec<(Instant, String)>,
    heard: Instant,
}

impl Subscriber {
    /// Follows its channels until it is told to stop.
    pub async fn follow(mut self) {
        let mut positions: HashMap<String, Position> = HashMap::new();
        while !self.over.load(Ordering::Relaxed) {
            if self.rng.u8(..12) == 0 {
                positions.clear();
            }
            if let Err(error) = self.session(&mut positions).await {
                self.recorder.note(What::Disconnected { who: self.who.clone(), why: error.to_string() });
            }
            sleep(Duration::from_millis(self.rng.u64(20..300))).await;
        }
    }

    async fn session(&mut self, positions: &mut HashMap<String, Position>) -> Result<(), Error> {
        let mut raw = Upgrade::at(self.place).patience(SILENCE).open().await?;
        raw.connect_command().await?;
        let now = Instant::now();
        let mut session = Session { raw, asked: HashMap::new(), due: Vec::new(), heard: now };
        session.due.extend(self.channels.iter().map(|channel| (now, channel.clone())));
        while !self.over.load(Ordering::Relaxed) {
            self.subscribe(&mut session, positions).await?;
            match timeout(TURN, session.raw.frame()).await {
                Err(_) if session.heard.elapsed() > SILENCE => {
                    return Err(Error::Protocol("silence".to_owned()));
                }
                Err(_) => continue,
                Ok(frame) => {
                    let frame = frame?;
                    session.heard = Instant::now();
                    if frame.is_ping() {
                        session.raw.send(&Frame::pong(&frame.payload)).await?;
                    } else if frame.is_close() {
                        let (code, reason) = frame.close()?.unwrap_or_default();
                        let what = "more".to_owned();
                        return Err(Error::Closed { what, code: Some(code), reason });
                    } else {
                        for line in frame.text()?.split('\n').filter(|line| !line.is_empty()) {
                            let said: Value = serde_json::from_str(line)
                                .map_err(|error| Error::Protocol(format!("{error}: {line}")))?;
                            self.hear(&mut session, positions, &said).await?;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Sends what is due, in one message.
    async fn subscribe(
        &self,
        session: &mut Session,
        positions: &HashMap<String, Position>,
    ) -> Result<(), Error> {
        let now = Instant::now();
        let mut lines = Vec::new();
        for (_, channel) in session.due.extract_if(.., |(due, _)| *due <= now) {
            let since = positions.get(&channel).cloned();
            let mut request = json!({ "channel": channel });
            if let Some(since) = &since {
                request["recover"] = true.into();
                request["offset"] = since.offset.into();
                request["epoch"] = since.epoch.clone().into();
            }
            let (id, line) = session.raw.numbered("subscribe", request);
            self.recorder.note(What::Asked { who: self.who.clone(), channel: channel.clone(), since });
            session.asked.insert(u64::from(id), channel);
            lines.push(line);
        }
        if lines.is_empty() { Ok(()) } else { session.raw.text(&lines.join("\n")).await }
    }

    async fn hear(
        &self,
        session: &mut Session,
        positions: &mut HashMap<String, Position>,
        said: &Value,
    ) -> Result<(), Error> {
        let who = self.who.clone();
        if *said == json!({}) {
            return session.raw.text("{}").await;
        }
        if let Some(channel) = said["id"].as_u64().and_then(|id| session.asked.remove(&id)) {
            if let Some(error) = said.get("error") {
                let code = error["code"].as_u64().unwrap_or_default();
                self.recorder.note(What::Refused { who, channel: channel.clone(), code });
                session.due.push((Instant::now() + TURN * 3, channel));
                return Ok(());
            }
            self.subscribed(positions, channel, &said["subscribe"]);
            return Ok(());
        }
        let push = &said["push"];
        let channel = push["channel"].as_str().unwrap_or_default().to_owned();
        if let Some(publication) = push.get("pub") {
            let heard = heard(publication);
            self.recorder.note(What::Delivered { who, channel: channel.clone(), heard });
            if let Some(position) = positions.get_mut(&channel).filter(|_| heard.offset > 0) {
                position.offset = heard.offset;
            }
        } else if let Some(end) = push.get("unsubscribe") {
            let code = end["code"].as_u64().unwrap_or_default();
            self.recorder.note(What::Unsubscribed { who, channel: channel.clone(), code });
            if code >= 2500 {
                session.due.push((Instant::now(), channel));
            }
        }
        Ok(())
    }

    fn subscribed(&self, positions: &mut HashMap<String, Position>, channel: String, result: &Value) {
        let flag = |name: &str| result[name].as_bool().unwrap_or_default();
        let has_position = flag("positioned") || flag("recoverable");
        let position = has_position.then(|| Position {
            offset: result["offset"].as_u64().unwrap_or_default(),
            epoch: result["epoch"].as_str().unwrap_or_default().to_owned(),
        });
        let publications: Vec<Heard> =
            result["publications"].as_array().into_iter().flatten().map(heard).collect();
        if let Some(mut position) = position.clone() {
            position.offset = publications.last().map_or(position.offset, |last| last.offset);
            positions.insert(channel.clone(), position);
        } else {
            positions.remove(&channel);
        }
        self.recorder.note(What::Subscribed {
            who: self.who.clone(),
            channel,
            position,
            was_recovering: flag("was_recovering"),
            recovered: flag("recovered"),
            publications: Some(publications),
        });
    }
}

fn heard(publication: &Value) -> Heard {
    Heard {
        id: publication["data"]["id"].as_u64().unwrap_or(u64::MAX),
        offset: publication["offset"].as_u64().unwrap_or_default(),
    }
}
