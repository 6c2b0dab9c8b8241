//! Who publishes: by every door there is, each try and each answer recorded.
//!
//! What a publisher is told decides what is recorded, nothing else: a clear no is a failure, and whatever leaves a doubt
//! (no answer, a temporary error) is unknown.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use serde_json::{Value, json};

use super::backend::{Backend, Lookup, Outcome, redis_cli};
use super::history::{Position, Recorder, What};
use crate::deadline::pause;
use crate::door;
use crate::raw::{Error, Raw, Upgrade};

/// A way in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// The HTTP API of any node. What is unknown is tried again under its idempotency key.
    Api,
    /// FCALL and PUBLISH on a connection to Redis.
    Redis,
    /// The same with redis-cli, a process each time.
    RedisCli,
    /// An entry of the stream that nodes publish from. Only where there is history.
    Ingest,
    /// A client of a node.
    Client,
}

impl Door {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Api, Self::Redis, Self::RedisCli, Self::Ingest, Self::Client];

    const fn name(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Redis => "redis",
            Self::RedisCli => "redis-cli",
            Self::Ingest => "ingest",
            Self::Client => "client",
        }
    }

    /// Between how many milliseconds it waits after each.
    const fn pace(self) -> (u64, u64) {
        match self {
            Self::RedisCli | Self::Ingest => (150, 500),
            _ => (10, 70),
        }
    }
}

/// Where a node's doors are now.
#[derive(Debug, Clone, Copy)]
pub struct Address {
    /// For clients.
    pub public: SocketAddr,
    /// For backends.
    pub internal: SocketAddr,
}

/// What all publishers share.
#[derive(Debug)]
pub struct Press {
    /// Where everything is written down.
    pub recorder: Arc<Recorder>,
    /// Channels: the name, and whether it has history.
    pub channels: Vec<(String, bool)>,
    /// Nodes, as far as they run.
    pub nodes: Mutex<Vec<Option<Address>>>,
    /// Where Redis is.
    pub redis: Lookup,
    /// Set when they are to stop.
    pub over: AtomicBool,
    /// The next publication's id.
    pub next: AtomicU64,
}

impl Press {
    fn node(&self, rng: &mut Rng) -> Option<Address> {
        let nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let running: Vec<Address> = nodes.iter().flatten().copied().collect();
        rng.choice(running)
    }

    /// A publication of the API, tried until it is acknowledged; its id. For the last one of a channel.
    pub fn last(&self, rng: &mut Rng, channel: &str) -> Option<u64> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.attempt(channel, id, Door::Api);
        let outcome = self.api(rng, channel, id, false);
        let taken = matches!(outcome, Outcome::Taken(_));
        self.outcome(channel, id, outcome);
        taken.then_some(id)
    }

    fn attempt(&self, channel: &str, id: u64, door: Door) {
        self.recorder.note(What::Attempt { channel: channel.to_owned(), id, door: door.name().to_owned() });
    }

    fn outcome(&self, channel: &str, id: u64, outcome: Outcome) {
        let channel = channel.to_owned();
        self.recorder.note(match outcome {
            Outcome::Taken(position) => What::Acknowledged { channel, id, position },
            Outcome::Refused(why) => What::Failed { channel, id, why },
            Outcome::Unknown(why) => What::Unknown { channel, id, why },
        });
    }

    /// Through any node; `keyed`: so that it may be tried again.
    fn api(&self, rng: &mut Rng, channel: &str, id: u64, keyed: bool) -> Outcome {
        let Some(node) = self.node(rng) else { return Outcome::Refused("no node runs".to_owned()) };
        let url = format!("http://{}/api/publish", node.internal);
        let mut request = json!({"channel": channel, "data": {"id": id}});
        if keyed {
            request["idempotency_key"] = id.to_string().into();
        }
        let answer = match door::post(&url, None, &request.to_string()) {
            Ok(answer) => answer,
            Err(error) => return Outcome::Unknown(error.to_string()),
        };
        let Ok(body) = serde_json::from_str::<Value>(&answer.body) else {
            return Outcome::Unknown(format!("{}: {}", answer.status, answer.body));
        };
        if let Some(error) = body.get("error") {
            // 100 is the internal error, which may come after Redis took it.
            let doubt = error["code"] == 100;
            return if doubt {
                Outcome::Unknown(body.to_string())
            } else {
                Outcome::Refused(body.to_string())
            };
        }
        Outcome::Taken(position(&body["result"]["offset"], &body["result"]["epoch"]))
    }
}

fn position(offset: &Value, epoch: &Value) -> Option<Position> {
    let offset = offset.as_u64().filter(|offset| *offset > 0)?;
    Some(Position { offset, epoch: epoch.as_str()?.to_owned() })
}

/// Publishes through one door until it is told to stop.
///
/// # Panics
/// When its runtime cannot be made.
pub fn publish(press: &Press, door: Door, seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let mut way = match door {
        Door::Api => Way::Api,
        Door::Redis => Way::Redis(Backend::default()),
        Door::RedisCli => Way::RedisCli,
        Door::Ingest => Way::Ingest(Backend::default()),
        Door::Client => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            Way::Client { runtime: runtime.expect("a runtime"), client: None }
        }
    };
    let (least, most) = door.pace();
    while !press.over.load(Ordering::Relaxed) {
        let (channel, kept) = &press.channels[rng.usize(..press.channels.len())];
        if door == Door::Ingest && !kept {
            pause(Duration::from_millis(rng.u64(least..=most)));
            continue;
        }
        let id = press.next.fetch_add(1, Ordering::Relaxed);
        // Without history a second try under the same key would be a second publication.
        let tries = if door == Door::Api && *kept { 4 } else { 1 };
        for _ in 0..tries {
            press.attempt(channel, id, door);
            let outcome = way.publish(press, &mut rng, channel, *kept, id);
            let doubt = matches!(outcome, Outcome::Unknown(_));
            press.outcome(channel, id, outcome);
            if !doubt {
                break;
            }
            pause(Duration::from_millis(rng.u64(20..300)));
        }
        pause(Duration::from_millis(rng.u64(least..=most)));
    }
}

enum Way {
    Api,
    Redis(Backend),
    RedisCli,
    Ingest(Backend),
    Client { runtime: tokio::runtime::Runtime, client: Option<Raw> },
}

impl Way {
    fn publish(&mut self, press: &Press, rng: &mut Rng, channel: &str, kept: bool, id: u64) -> Outcome {
        match self {
            Self::Api => press.api(rng, channel, id, kept),
            Self::Redis(backend) => backend.publish(&press.redis, channel, kept, &data(id)),
            Self::RedisCli => redis_cli(&press.redis, channel, kept, &data(id)),
            Self::Ingest(backend) => backend.ingest(&press.redis, channel, &data(id), id),
            Self::Client { runtime, client } => runtime.block_on(as_client(press, rng, client, channel, id)),
        }
    }
}

fn data(id: u64) -> String {
    json!({ "id": id }).to_string()
}

async fn as_client(
    press: &Press,
    rng: &mut Rng,
    client: &mut Option<Raw>,
    channel: &str,
    id: u64,
) -> Outcome {
    let mut open = match client.take() {
        Some(open) => open,
        None => {
            let Some(node) = press.node(rng) else { return Outcome::Refused("no node runs".to_owned()) };
            match connect(node.public).await {
                Ok(open) => open,
                Err(error) => return Outcome::Refused(error.to_string()),
            }
        }
    };
    match open.publish(channel, json!({ "id": id })).await {
        Ok(_) => {
            *client = Some(open);
            Outcome::Taken(None)
        }
        Err(Error::Command { code, message, .. }) => {
            *client = Some(open);
            let why = format!("{code}: {message}");
            if code == 100 { Outcome::Unknown(why) } else { Outcome::Refused(why) }
        }
        Err(error) => Outcome::Unknown(error.to_string()),
    }
}

async fn connect(to: SocketAddr) -> Result<Raw, Error> {
    let mut open = Upgrade::at(to).patience(Duration::from_secs(5)).open().await?;
    open.connect_command().await?;
    Ok(open)
}
