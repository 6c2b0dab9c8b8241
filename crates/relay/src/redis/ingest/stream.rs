//! The ingest stream as one consumer of its group sees it: the commands, and what Redis answers.
//!
//! All of it goes over a connection of its own, one command or pipeline at a time: a read that waits for entries holds
//! up whatever is behind it. Not here: what entries ask for (`super::entry`) and when what is called (`super`).

use std::sync::Arc;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{Cmd, Pipeline, RedisResult, Value};
use bytes::Bytes;
use deadpool_redis::Connection;

use super::entry::{Entry, Fields};
use crate::names::Names;
use crate::redis::pool::Pool;
use crate::redis::server;
use crate::relay::RelayError;

/// The consumer group of all nodes.
const GROUP: &str = "tidegate";
/// About how many entries are kept that were set aside.
const MOST_POISON: usize = 10_000;

/// Takes consumers out of the group that have nothing and have not asked for so long; with a name only that one. Atomic:
/// to delete a consumer forgets what it was given, so none may be given anything in between.
const FORGET: &str = "
local forgotten = 0
for _, reply in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
    local consumer = {}
    for i = 1, #reply, 2 do consumer[reply[i]] = reply[i + 1] end
    local meant = ARGV[3] == '' or consumer.name == ARGV[3]
    if meant and consumer.pending == 0 and consumer.idle >= tonumber(ARGV[2]) then
        redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], consumer.name)
        forgotten = forgotten + 1
    end
end
return forgotten";

/// Which stream, and as whom.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) names: Arc<Names>,
    /// Of the server that owns the stream.
    pub(super) pool: Pool,
    /// Of the server that owns the stream of what was set aside.
    pub(super) poison: Pool,
    /// The node's id.
    pub(super) consumer: String,
}

/// The stream, connected.
pub(super) struct Stream {
    place: Place,
    connection: MultiplexedConnection,
}

/// What a read brought.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Brought {
    pub(super) entries: Vec<Entry>,
    /// Entries that a node was given and that somebody has deleted since.
    pub(super) deleted: Vec<String>,
}

/// How the stream stands, for all nodes together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    /// Entries that a node has and that are not acknowledged.
    pub(super) pending: u64,
    /// Entries that no node has.
    pub(super) waiting: u64,
    /// The age of the oldest of all of them.
    pub(super) oldest: Duration,
}

impl Stream {
    /// Connects, and makes the stream and its group where they are missing.
    pub(super) async fn open(place: &Place) -> Result<Self, RelayError> {
        let connection = place.pool.get().await.map_err(|error| server::no_connection(&error))?;
        let mut stream = Self { place: place.clone(), connection: Connection::take(connection) };
        let mut create = ::redis::cmd("XGROUP");
        create.arg("CREATE").arg(stream.key()).arg(GROUP).arg(0).arg("MKSTREAM");
        match create.query_async::<Value>(&mut stream.connection).await {
            Err(error) if error.code() != Some("BUSYGROUP") => Err(server::away(&error)),
            _ => Ok(stream),
        }
    }

    fn key(&self) -> &str {
        self.place.names.ingest()
    }

    async fn ask(&mut self, command: &Cmd) -> Result<Value, RelayError> {
        checked(command.query_async(&mut self.connection).await)
    }

    /// Entries that no node has been given yet; waits for the first one, and then gives what is there.
    pub(super) async fn read(&mut self, most: usize, wait: Duration) -> Result<Brought, RelayError> {
        let wait = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1);
        let mut command = ::redis::cmd("XREADGROUP");
        command.arg("GROUP").arg(GROUP).arg(&self.place.consumer).arg("COUNT").arg(most);
        command.arg("BLOCK").arg(wait).arg("STREAMS").arg(self.key()).arg(">");
        Ok(brought(only_stream(self.ask(&command).await?)))
    }

    /// Entries behind `after` that this node was given and has not acknowledged.
    pub(super) async fn own(&mut self, after: &str, most: usize) -> Result<Brought, RelayError> {
        let mut command = ::redis::cmd("XREADGROUP");
        command.arg("GROUP").arg(GROUP).arg(&self.place.consumer).arg("COUNT").arg(most);
        command.arg("STREAMS").arg(self.key()).arg(after);
        let mut brought = brought(only_stream(self.ask(&command).await?));
        self.count_deliveries(&mut brought.entries).await?;
        Ok(brought)
    }

    /// Takes over entries from `cursor` on that their node has not acknowledged for `idle`; and where to go on.
    pub(super) async fn claim(
        &mut self,
        cursor: &str,
        idle: Duration,
        most: usize,
    ) -> Result<(String, Brought), RelayError> {
        let mut command = ::redis::cmd("XAUTOCLAIM");
        command.arg(self.key()).arg(GROUP).arg(&self.place.consumer);
        command.arg(u64::try_from(idle.as_millis()).unwrap_or(u64::MAX)).arg(cursor).arg("COUNT").arg(most);
        let mut parts = array(self.ask(&command).await?).into_iter();
        let next = parts.next().and_then(text).unwrap_or_default();
        let mut brought = brought(parts.next().unwrap_or(Value::Nil));
        // Redis 7 has taken these out of the group already.
        brought.deleted.extend(parts.next().map(array).unwrap_or_default().into_iter().filter_map(text));
        self.count_deliveries(&mut brought.entries).await?;
        Ok((next, brought))
    }

    async fn count_deliveries(&mut self, entries: &mut [Entry]) -> Result<(), RelayError> {
        if entries.is_empty() {
            return Ok(());
        }
        let mut pipeline = Pipeline::with_capacity(entries.len());
        for entry in &*entries {
            pipeline.cmd("XPENDING").arg(self.key()).arg(GROUP).arg(&entry.id).arg(&entry.id).arg(1);
        }
        let answers = self.run(&pipeline).await?;
        for (entry, answer) in entries.iter_mut().zip(answers) {
            // [[id, consumer, idle, deliveries]]
            let row = array(answer).pop().map(array).unwrap_or_default();
            if let Some(Value::Int(count)) = row.get(3) {
                entry.deliveries = u64::try_from(*count).unwrap_or(1);
            }
        }
        Ok(())
    }

    /// Acknowledges entries and takes them out of the stream, which holds nothing that is done.
    pub(super) async fn finish(&mut self, ids: &[String]) -> Result<(), RelayError> {
        if ids.is_empty() {
            return Ok(());
        }
        let mut pipeline = Pipeline::new();
        pipeline.atomic();
        pipeline.cmd("XACK").arg(self.key()).arg(GROUP).arg(ids).ignore();
        pipeline.cmd("XDEL").arg(self.key()).arg(ids).ignore();
        checked(pipeline.query_async(&mut self.connection).await)
    }

    /// Keeps an entry that cannot be done, with the reason. It has to be finished after that.
    pub(super) async fn set_aside(&self, entry: &Entry, reason: &str) -> Result<(), RelayError> {
        let mut connection = self.place.poison.get().await.map_err(|error| server::no_connection(&error))?;
        let mut command = ::redis::cmd("XADD");
        command.arg(self.place.names.poison()).arg("MAXLEN").arg("~").arg(MOST_POISON).arg("*");
        command.arg("entry").arg(&entry.id).arg("reason").arg(reason).arg("node").arg(&self.place.consumer);
        for (name, value) in &entry.fields {
            command.arg(&name[..]).arg(&value[..]);
        }
        checked(command.query_async(&mut *connection).await)
    }

    /// How the stream stands. What is done is not in it, so its length says what is not.
    pub(super) async fn standing(&mut self) -> Result<Standing, RelayError> {
        let mut pipeline = Pipeline::with_capacity(4);
        pipeline.cmd("XLEN").arg(self.key());
        pipeline.cmd("XPENDING").arg(self.key()).arg(GROUP);
        pipeline.cmd("XRANGE").arg(self.key()).arg("-").arg("+").arg("COUNT").arg(1);
        pipeline.cmd("TIME");
        let mut answers = self.run(&pipeline).await?.into_iter();
        let mut next = || answers.next().unwrap_or(Value::Nil);
        let length = number(&next());
        let pending = array(next()).first().map_or(0, number);
        let first = brought(next()).entries.pop();
        let now = array(next()).into_iter().next().and_then(text).and_then(|text| text.parse::<u64>().ok());
        let made = first.and_then(|entry| entry.id.split('-').next()?.parse::<u64>().ok());
        let oldest = match (now, made) {
            (Some(now), Some(made)) => Duration::from_millis((now * 1000).saturating_sub(made)),
            _ => Duration::ZERO,
        };
        Ok(Standing { pending, waiting: length.saturating_sub(pending), oldest })
    }

    /// Takes nodes out of the group that have nothing and have not asked for `idle`.
    pub(super) async fn forget_others(&mut self, idle: Duration) -> Result<(), RelayError> {
        self.forget(idle, "").await
    }

    /// Takes this node out of the group, unless it has something: that waits to be claimed.
    pub(super) async fn leave(&mut self) -> Result<(), RelayError> {
        let consumer = self.place.consumer.clone();
        self.forget(Duration::ZERO, &consumer).await
    }

    async fn forget(&mut self, idle: Duration, consumer: &str) -> Result<(), RelayError> {
        let mut command = ::redis::cmd("EVAL");
        command.arg(FORGET).arg(1).arg(self.key()).arg(GROUP);
        command.arg(u64::try_from(idle.as_millis()).unwrap_or(u64::MAX)).arg(consumer);
        self.ask(&command).await.map(drop)
    }

    async fn run(&mut self, pipeline: &Pipeline) -> Result<Vec<Value>, RelayError> {
        let sent = self.connection.send_packed_commands(pipeline, 0, pipeline.len()).await;
        let answers = checked(sent)?;
        answers.iter().try_for_each(server::answer)?;
        Ok(answers)
    }
}

fn checked<T>(result: RedisResult<T>) -> Result<T, RelayError> {
    result.map_err(|error| server::away(&error))
}

fn array(value: Value) -> Vec<Value> {
    match value {
        Value::Array(values) => values,
        _ => Vec::new(),
    }
}

fn number(value: &Value) -> u64 {
    match value {
        Value::Int(number) => u64::try_from(*number).unwrap_or(0),
        _ => 0,
    }
}

fn bytes(value: Value) -> Option<Bytes> {
    match value {
        Value::BulkString(bytes) => Some(bytes.into()),
        Value::SimpleString(text) => Some(text.into_bytes().into()),
        _ => None,
    }
}

fn text(value: Value) -> Option<String> {
    String::from_utf8(bytes(value)?.into()).ok()
}

/// The entries of the one stream that was asked for; as a list of pairs in RESP2, as a map in RESP3.
fn only_stream(value: Value) -> Value {
    match value {
        Value::Map(mut streams) => streams.pop().map(|(_, entries)| entries),
        value => array(value).pop().map(array).and_then(|mut pair| pair.pop()),
    }
    .unwrap_or(Value::Nil)
}

/// `[[id, [name, value, ...]], ...]`; nothing in place of the fields, or of all, is an entry that is gone.
fn brought(entries: Value) -> Brought {
    let mut brought = Brought::default();
    for entry in array(entries) {
        let mut parts = array(entry).into_iter();
        let Some(id) = parts.next().and_then(text) else { continue };
        match parts.next() {
            Some(Value::Array(flat)) => {
                let mut flat = flat.into_iter().filter_map(bytes);
                let mut fields = Fields::with_capacity(flat.size_hint().1.unwrap_or(0) / 2);
                while let (Some(name), Some(value)) = (flat.next(), flat.next()) {
                    fields.push((name, value));
                }
                brought.entries.push(Entry { id, deliveries: 1, fields });
            }
            _ => brought.deleted.push(id),
        }
    }
    brought
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn entries() -> Value {
        Value::Array(vec![
            Value::Array(vec![bulk("1-0"), Value::Array(vec![bulk("channel"), bulk("news")])]),
            Value::Array(vec![bulk("2-0"), Value::Nil]),
            Value::Nil,
        ])
    }

    #[test]
    fn entries_are_read_in_either_version_of_the_protocol() {
        let expected = Brought {
            entries: vec![Entry {
                id: "1-0".into(),
                deliveries: 1,
                fields: vec![(Bytes::from_static(b"channel"), Bytes::from_static(b"news"))],
            }],
            deleted: vec!["2-0".into()],
        };
        let pairs = Value::Array(vec![Value::Array(vec![bulk("tg:ingest"), entries()])]);
        assert_eq!(brought(only_stream(pairs)), expected);
        let map = Value::Map(vec![(bulk("tg:ingest"), entries())]);
        assert_eq!(brought(only_stream(map)), expected);
        assert_eq!(brought(only_stream(Value::Nil)), Brought::default(), "nothing came in time");
    }
}
