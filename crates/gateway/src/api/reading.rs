//! What a backend asks of channels: what was said, and who is there.

use serde::Deserialize;
use serde_json::{Map, Value, json};
use tidegate_hub::{History as Keeping, Presence as Attendance};
use tidegate_protocol::{ChannelName, ClientInfo, Epoch, Publication};
use tidegate_relay::{HistoryQuery, RelayError, Since};

use super::answer::Failure;
use super::call::Call;
use super::fields::Fields;

/// A position as a backend writes it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenSince {
    offset: u64,
    #[serde(default)]
    epoch: String,
}

impl Call<'_> {
    pub(super) async fn history(&self, mut fields: Fields<'_>) -> Result<Value, Failure> {
        let channel: String = fields.required("channel", "a channel's name")?;
        let limit: Option<i64> = fields.optional("limit", "a whole number; below 0 is all")?;
        let since: Option<WrittenSince> =
            fields.optional("since", "an object with `offset`, and perhaps `epoch`")?;
        let reverse = fields.flag("reverse")?;
        fields.end()?;
        let channel = self.with_history(&channel)?;
        let since = since.map(|WrittenSince { offset, epoch }| Since {
            offset,
            epoch: (!epoch.is_empty()).then(|| Epoch::new(&epoch)),
        });
        // Below zero: all.
        let limit = usize::try_from(limit.unwrap_or_default()).ok();
        let found = self
            .in_time(self.state.relay.history(channel, HistoryQuery { limit, since, reverse }))
            .await?
            .map_err(|error| Failure::relay(&error))?;
        let publications =
            found.publications.iter().map(publication).collect::<Result<Vec<Value>, Failure>>()?;
        Ok(json!({
            "publications": publications,
            "offset": found.position.offset,
            "epoch": found.position.epoch.as_str(),
        }))
    }

    pub(super) async fn history_remove(&self, mut fields: Fields<'_>) -> Result<Value, Failure> {
        let channel: String = fields.required("channel", "a channel's name")?;
        fields.end()?;
        let channel = self.with_history(&channel)?;
        let name = channel.to_string();
        let done = self.in_time(self.state.relay.history_remove(channel)).await?;
        tracing::info!(
            key = self.caller.name,
            method = "history_remove",
            channel = name,
            ok = done.is_ok(),
            "admin call"
        );
        done.map(|()| json!({})).map_err(|error| Failure::relay(&error))
    }

    pub(super) async fn presence(&self, mut fields: Fields<'_>) -> Result<Value, Failure> {
        let channel: String = fields.required("channel", "a channel's name")?;
        fields.end()?;
        let channel = self.with_presence(&channel)?;
        let found = self.in_time(self.state.relay.presence(channel)).await?;
        let clients = found.map_err(|error| Failure::relay(&error))?;
        let clients = clients
            .iter()
            .map(|info| Ok((info.client.clone(), who(info)?)))
            .collect::<Result<Map<String, Value>, Failure>>()?;
        Ok(json!({"presence": clients}))
    }

    pub(super) async fn presence_stats(&self, mut fields: Fields<'_>) -> Result<Value, Failure> {
        let channel: String = fields.required("channel", "a channel's name")?;
        fields.end()?;
        let channel = self.with_presence(&channel)?;
        let found = self.in_time(self.state.relay.presence_stats(channel)).await?;
        let stats = found.map_err(|error| Failure::relay(&error))?;
        Ok(json!({"num_clients": stats.clients, "num_users": stats.users}))
    }

    /// A channel of a namespace with history.
    fn with_history(&self, name: &str) -> Result<ChannelName, Failure> {
        let channel = self.channel(name)?;
        if self.keeps_history(&channel) { Ok(channel) } else { Err(Failure::without_history("this")) }
    }

    /// Whether what is said in the channel is kept.
    pub(super) fn keeps_history(&self, channel: &ChannelName) -> bool {
        let rules = self.state.settings.rules(channel);
        rules.is_some_and(|rules| rules.clients.history != Keeping::None)
    }

    fn with_presence(&self, name: &str) -> Result<ChannelName, Failure> {
        let channel = self.channel(name)?;
        let rules = self.state.settings.rules(&channel);
        if rules.is_some_and(|rules| rules.clients.presence != Attendance::None) {
            Ok(channel)
        } else {
            Err(Failure::without_presence())
        }
    }
}

/// A publication as clients get it, but for their codec.
fn publication(publication: &Publication) -> Result<Value, Failure> {
    let mut fields = Map::new();
    fields.insert("offset".to_owned(), publication.offset.into());
    fields.insert("data".to_owned(), raw(&publication.data)?);
    if let Some(info) = &publication.info {
        fields.insert("info".to_owned(), who(info)?);
    }
    if !publication.tags.is_empty() {
        let tags: Map<String, Value> =
            publication.tags.iter().map(|(name, text)| (name.clone(), text.as_str().into())).collect();
        fields.insert("tags".to_owned(), tags.into());
    }
    Ok(fields.into())
}

fn who(info: &ClientInfo) -> Result<Value, Failure> {
    let mut fields = Map::new();
    fields.insert("client".to_owned(), info.client.as_str().into());
    fields.insert("user".to_owned(), info.user.as_str().into());
    for (name, json) in [("conn_info", &info.conn_info), ("chan_info", &info.chan_info)] {
        if !json.is_empty() {
            fields.insert(name.to_owned(), raw(json)?);
        }
    }
    Ok(fields.into())
}

/// JSON as it was published. Errors: what cannot be, for it was checked when it was.
fn raw(json: &[u8]) -> Result<Value, Failure> {
    serde_json::from_slice(json).map_err(|error| {
        Failure::relay(&RelayError::Refused(format!("what is kept of the channel is not JSON: {error}")))
    })
}
