//! The methods: what a backend can ask, and doing it.
//!
//! Everything goes through the relay, so it concerns all nodes alike, whichever was called. Not here: what only looks
//! (`reading`).

use std::collections::BTreeMap;
use std::future::Future;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use tidegate_protocol::codec::json::{payload, payload_from};
use tidegate_protocol::control::{DisconnectControl, SubscriptionControl};
use tidegate_protocol::{ChannelName, Control, Publication};
use tidegate_relay::{Outgoing, RelayError, RelaySettings};
use tokio::time::{Instant, timeout_at};

use super::ApiState;
use super::access::Caller;
use super::answer::Failure;
use super::fields::Fields;
use crate::metrics::Source;

/// The most commands of one batch.
const MAX_COMMANDS: usize = 1000;

/// The most channels of one broadcast.
const MAX_CHANNELS: usize = 10_000;

/// The most bytes of an idempotency key.
const MAX_KEY_BYTES: usize = 255;

/// How many commands or channels of one call are under way at once.
const AT_ONCE: usize = 64;

/// What can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    /// One publication into one channel.
    Publish,
    /// One publication into many channels.
    Broadcast,
    /// What was said in a channel.
    History,
    /// Forget it.
    HistoryRemove,
    /// Who is in a channel.
    Presence,
    /// How many are.
    PresenceStats,
    /// Subscribe a user's sessions to a channel.
    Subscribe,
    /// End such subscriptions.
    Unsubscribe,
    /// End a user's connections.
    Disconnect,
    /// The channels with subscribers.
    Channels,
    /// The nodes.
    Info,
    /// Several commands in one request.
    Batch,
}

impl Method {
    /// Every method.
    pub(super) const ALL: [Self; 12] = [
        Self::Publish,
        Self::Broadcast,
        Self::History,
        Self::HistoryRemove,
        Self::Presence,
        Self::PresenceStats,
        Self::Subscribe,
        Self::Unsubscribe,
        Self::Disconnect,
        Self::Channels,
        Self::Info,
        Self::Batch,
    ];

    /// The last part of its path, and its name in a batch.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Broadcast => "broadcast",
            Self::History => "history",
            Self::HistoryRemove => "history_remove",
            Self::Presence => "presence",
            Self::PresenceStats => "presence_stats",
            Self::Subscribe => "subscribe",
            Self::Unsubscribe => "unsubscribe",
            Self::Disconnect => "disconnect",
            Self::Channels => "channels",
            Self::Info => "info",
            Self::Batch => "batch",
        }
    }

    /// Errors: there is none of this name, or not yet.
    pub(super) fn parse(name: &str) -> Result<Self, Failure> {
        match name {
            "refresh" => Err(Failure::not_available(&format!("the method {name}"))),
            _ => Self::ALL
                .into_iter()
                .find(|method| method.name() == name)
                .ok_or_else(|| Failure::no_method(name)),
        }
    }
}

/// A request that is carried out.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) state: &'a ApiState,
    pub(super) caller: &'a Caller,
    /// When whoever asked is told that it took too long.
    pub(super) deadline: Instant,
}

impl Call<'_> {
    /// Carries the request out; what comes back is the whole body of the answer.
    pub(super) async fn answer(&self, method: Method, body: &[u8]) -> Result<Value, Failure> {
        if method == Method::Batch {
            return self.batch(body).await;
        }
        Ok(json!({"result": self.run(method, body).await?}))
    }

    async fn run(&self, method: Method, body: &[u8]) -> Result<Value, Failure> {
        let fields = Fields::parse(body)?;
        match method {
            Method::Publish => self.publish(fields).await,
            Method::Broadcast => self.broadcast(fields).await,
            Method::History => self.history(fields).await,
            Method::HistoryRemove => self.history_remove(fields).await,
            Method::Presence => self.presence(fields).await,
            Method::PresenceStats => self.presence_stats(fields).await,
            Method::Subscribe | Method::Unsubscribe => self.subscription(method, fields).await,
            Method::Disconnect => self.disconnect(fields).await,
            Method::Channels => self.channels(fields).await,
            Method::Info => self.info(fields).await,
            Method::Batch => Err(Failure::bad_request("a batch cannot be in a batch")),
        }
    }

    async fn publish(&self, mut fields: Fields<'_>) -> Result<Value, Failure> {
        let channel: String = fields.required("channel", "a channel's name")?;
        let content = self.content(&mut fields)?;
        fields.end()?;
        self.send(&channel, &content).await
    }

    async fn broadcast(&self, mut fields: Fields<'_>) -> Result<Value, Failure> {
        let channels: Vec<String> = fields.required("channels", "a list of channels' names")?;
        if channels.is_empty() {
            return Err(Failure::bad_request("`channels` is empty: nobody would hear it"));
        }
        if channels.len() > MAX_CHANNELS {
            return Err(Failure::limit(format!("`channels` has more than {MAX_CHANNELS} names")));
        }
        let content = self.content(&mut fields)?;
        fields.end()?;
        let responses: Vec<Value> = stream::iter(&channels)
            .map(|channel| async {
                match self.send(channel, &content).await {
                    Ok(result) => json!({"result": result}),
                    Err(failure) => failure.json(),
                }
            })
            .buffered(AT_ONCE)
            .collect()
            .await;
        Ok(json!({"responses": responses}))
    }

    /// What is to be published: `data` or `b64data`, and how.
    fn content(&self, fields: &mut Fields<'_>) -> Result<Content, Failure> {
        let idempotency_key = fields.text("idempotency_key")?;
        let skip_history = fields.flag("skip_history")?;
        if idempotency_key.len() > MAX_KEY_BYTES {
            return Err(Failure::bad_request(format!(
                "`idempotency_key` has more than {MAX_KEY_BYTES} bytes"
            )));
        }
        if skip_history && !idempotency_key.is_empty() {
            return Err(Failure::bad_request(
                "`idempotency_key` and `skip_history` are both there: what is not kept is not recognised either",
            ));
        }
        let data = fields.raw("data");
        let encoded: Option<String> = fields.optional("b64data", "base64 text")?;
        let tags: Option<BTreeMap<String, String>> = fields.optional("tags", "an object of texts")?;
        let refused =
            |name: &str, what: &dyn std::fmt::Display| Failure::bad_request(format!("`{name}`: {what}"));
        let (name, data) = match (data, encoded) {
            (Some(_), Some(_)) => {
                return Err(Failure::bad_request("`data` and `b64data` are both there: send one of them"));
            }
            (Some(raw), None) => {
                ("data", payload(raw.get().as_bytes()).map_err(|error| refused("data", &error))?)
            }
            (None, Some(encoded)) => {
                let bytes = STANDARD.decode(encoded).map_err(|error| refused("b64data", &error))?;
                ("b64data", payload_from(bytes.into()).map_err(|error| refused("b64data", &error))?)
            }
            (None, None) => {
                return Err(Failure::bad_request("`data` is missing: it must be a JSON value"));
            }
        };
        if let RelaySettings::Redis(redis) = &self.state.settings.relay
            && data.len() > redis.max_publication_bytes
        {
            let (has, most) = (data.len(), redis.max_publication_bytes);
            let message = format!("`{name}` has {has} bytes; relay.redis.max_publication_bytes is {most}");
            return Err(Failure::bad_request(message));
        }
        let tags = tags.unwrap_or_default().into_iter().collect();
        Ok(Content { data, tags, idempotency_key, skip_history })
    }

    /// Publishes; comes back when the relay has acknowledged it.
    async fn send(&self, channel: &str, content: &Content) -> Result<Value, Failure> {
        let channel = self.channel(channel)?;
        let Content { data, tags, idempotency_key, skip_history } = content.clone();
        if !idempotency_key.is_empty() && !self.keeps_history(&channel) {
            return Err(Failure::without_history("`idempotency_key`"));
        }
        let publication = Publication { channel, data, info: None, tags, offset: 0 };
        let outgoing = Outgoing { publication, idempotency_key, skip_history };
        let sent = self.in_time(self.state.relay.publish(outgoing)).await;
        match &sent {
            Ok(Ok(_)) => self.state.metrics.published(Source::Api, 1),
            Ok(Err(error)) => self.state.metrics.publish_failed(error),
            Err(_) => self.state.metrics.publish_failed(&RelayError::Away(String::new())),
        }
        Ok(match sent?.map_err(|error| Failure::relay(&error))? {
            Some(position) => json!({"offset": position.offset, "epoch": position.epoch.as_str()}),
            None => json!({}),
        })
    }

    /// A channel of a known namespace.
    pub(super) fn channel(&self, name: &str) -> Result<ChannelName, Failure> {
        let channel = ChannelName::parse(name)
            .map_err(|error| Failure::bad_request(format!("the channel {name:?}: {error}")))?;
        match self.state.settings.rules(&channel) {
            Some(_) => Ok(channel),
            None => Err(Failure::unknown_channel(channel.namespace())),
        }
    }

    async fn subscription(&self, method: Method, mut fields: Fields<'_>) -> Result<Value, Failure> {
        let channel: String = fields.required("channel", "a channel's name")?;
        let control =
            SubscriptionControl { user: fields.text("user")?, client: fields.text("client")?, channel };
        for later in
            ["session", "info", "b64info", "data", "b64data", "recover_since", "override", "expire_at"]
        {
            fields.not_yet(later)?;
        }
        fields.end()?;
        self.channel(&control.channel)?;
        self.control(
            method,
            if method == Method::Subscribe {
                Control::Subscribe(control)
            } else {
                Control::Unsubscribe(control)
            },
        )
        .await
    }

    async fn disconnect(&self, mut fields: Fields<'_>) -> Result<Value, Failure> {
        let control = DisconnectControl {
            user: fields.text("user")?,
            client: fields.text("client")?,
            reconnect: fields.flag("reconnect")?,
        };
        for later in ["session", "disconnect", "whitelist"] {
            fields.not_yet(later)?;
        }
        fields.end()?;
        self.control(Method::Disconnect, Control::Disconnect(control)).await
    }

    async fn control(&self, method: Method, control: Control) -> Result<Value, Failure> {
        control.check().map_err(|error| Failure::bad_request(error.to_string()))?;
        let (user, client, channel) = match &control {
            Control::Disconnect(it) => (it.user.clone(), it.client.clone(), String::new()),
            Control::Subscribe(it) | Control::Unsubscribe(it) => {
                (it.user.clone(), it.client.clone(), it.channel.clone())
            }
        };
        let done = match self.in_time(self.state.relay.control(control)).await {
            Ok(Ok(())) => Ok(json!({})),
            Ok(Err(error)) => Err(Failure::relay(&error)),
            Err(failure) => Err(failure),
        };
        tracing::info!(
            key = self.caller.name,
            method = method.name(),
            user,
            client,
            channel,
            ok = done.is_ok(),
            "admin call"
        );
        done
    }

    async fn channels(&self, mut fields: Fields<'_>) -> Result<Value, Failure> {
        fields.not_yet("pattern")?;
        fields.end()?;
        let found =
            self.in_time(self.state.relay.channels()).await?.map_err(|error| Failure::relay(&error))?;
        let channels: Map<String, Value> =
            found.into_iter().map(|(name, members)| (name, json!({"num_clients": members}))).collect();
        Ok(json!({"channels": channels}))
    }

    async fn info(&self, fields: Fields<'_>) -> Result<Value, Failure> {
        fields.end()?;
        let found = self.in_time(self.state.relay.nodes()).await?.map_err(|error| Failure::relay(&error))?;
        let nodes: Vec<Value> = found
            .into_iter()
            .map(|node| {
                json!({
                    "uid": node.id,
                    "name": node.name,
                    "version": node.version,
                    "uptime": node.uptime,
                    "num_clients": node.connections,
                    "num_subs": node.subscriptions,
                    "num_channels": node.channels,
                })
            })
            .collect();
        Ok(json!({"nodes": nodes}))
    }

    async fn batch(&self, body: &[u8]) -> Result<Value, Failure> {
        let mut fields = Fields::parse(body)?;
        let commands: Vec<BTreeMap<String, &RawValue>> = fields
            .optional("commands", "a list of objects such as {\"publish\": {...}}")?
            .ok_or_else(|| Failure::bad_request("`commands` is missing: it must be a list"))?;
        let parallel = fields.flag("parallel")?;
        fields.end()?;
        if commands.len() > MAX_COMMANDS {
            return Err(Failure::limit(format!("`commands` has more than {MAX_COMMANDS} commands")));
        }
        let replies: Vec<Value> = stream::iter(&commands)
            .map(|command| async {
                match self.command(command).await {
                    Ok((method, result)) => json!({method.name(): result}),
                    Err(failure) => failure.json(),
                }
            })
            .buffered(if parallel { AT_ONCE } else { 1 })
            .collect()
            .await;
        Ok(json!({"replies": replies}))
    }

    /// One command of a batch: an object whose one field is the method's name.
    async fn command(&self, command: &BTreeMap<String, &RawValue>) -> Result<(Method, Value), Failure> {
        let mut methods = command.iter();
        let (Some((name, body)), None) = (methods.next(), methods.next()) else {
            return Err(Failure::bad_request("a command must have one field: its method, such as `publish`"));
        };
        let method = Method::parse(name)?;
        self.caller.must(method.scope())?;
        Ok((method, self.run(method, body.get().as_bytes()).await?))
    }

    /// Waits no longer than the request may take.
    pub(super) async fn in_time<T>(&self, work: impl Future<Output = T>) -> Result<T, Failure> {
        timeout_at(self.deadline, work).await.map_err(|_| Failure::too_late())
    }
}

/// What goes into a channel, and how.
#[derive(Clone)]
struct Content {
    data: Bytes,
    tags: Vec<(String, String)>,
    idempotency_key: String,
    skip_history: bool,
}
