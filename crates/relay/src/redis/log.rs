//! A channel's log and position as Redis gives them: the commands that ask, and what their answers say.
//!
//! Not here: when to ask, and what an answer means (`repair`, `crate::track`).

use ::redis::{Cmd, Value};
use bytes::Bytes;
use tidegate_protocol::codec::json::payload_from;
use tidegate_protocol::{ChannelName, Epoch, Position, Publication};

use super::script::{READING, RENEWING, seconds};
use super::server;
use crate::envelope;
use crate::interest::{Ask, Question};
use crate::names::Names;
use crate::relay::RelayError;
use crate::rules::Rules;
use crate::track::{Entry, Page};

/// About how many bytes of logs the answers to one batch of questions hold.
const BATCH_BYTES: usize = 1024 * 1024;
/// How many logs one batch asks for at most.
const BATCH_READS: usize = 16;
/// How many bytes the largest publications of one batch may add to that, about.
const OVERSHOOT: usize = 2 * BATCH_BYTES;
/// How many entries one XRANGE asks for at most.
const MOST_CHUNK: usize = 64;

/// How logs are read from one server.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paging {
    /// The largest publication that is of use.
    most: usize,
}

impl Paging {
    pub(super) const fn new(most_publication_bytes: usize) -> Self {
        Self { most: if most_publication_bytes == 0 { 1 } else { most_publication_bytes } }
    }

    /// How many logs one batch may ask for: each answer may hold one publication beyond its share.
    pub(super) fn reads(self) -> usize {
        (16 * BATCH_BYTES / self.most).clamp(1, BATCH_READS)
    }

    /// The command for one of `batch` questions that are asked together.
    pub(super) fn command(self, question: &Question, names: &Names, rules: &Rules, batch: usize) -> Cmd {
        let key = names.channel(&question.channel);
        let ttl = rules.of(&question.channel).retention.map_or(1, |retention| seconds(retention.ttl));
        match &question.ask {
            Ask::Position => {
                let mut command = READING.call(&key);
                command.arg(ttl);
                command
            }
            Ask::Log(since) => {
                let bytes = BATCH_BYTES / batch.max(1);
                let chunk = (OVERSHOOT / batch.max(1) / self.most).clamp(1, MOST_CHUNK);
                let mut command = READING.call(&key);
                command.arg(ttl).arg(since.offset).arg(since.epoch.as_str()).arg(bytes).arg(chunk);
                command
            }
            Ask::Renew(epoch) => {
                let mut command = RENEWING.call(&key);
                command.arg(ttl).arg(epoch.as_str());
                command
            }
        }
    }
}

/// A position, as scripts answer: offset, epoch.
pub(super) fn position(value: &Value) -> Result<Position, RelayError> {
    server::answer(value)?;
    match value {
        Value::Array(items) => placed(items),
        _ => Err(unknown(value)),
    }
}

/// A position, and the entries behind it in the answer.
pub(super) fn page(value: Value, channel: &ChannelName, most: usize) -> Result<Page, RelayError> {
    server::answer(&value)?;
    let Value::Array(items) = value else { return Err(unknown(&value)) };
    let position = placed(&items)?;
    let entries = items.into_iter().skip(2).map(|item| entry(item, channel, most));
    Ok(Page { position, entries: entries.collect::<Result<_, _>>()? })
}

fn placed(items: &[Value]) -> Result<Position, RelayError> {
    let [Value::Int(offset), Value::BulkString(epoch), ..] = items else {
        return Err(RelayError::Refused("redis answered something that is no position".into()));
    };
    let offset = u64::try_from(*offset)
        .map_err(|_| RelayError::Refused(format!("redis keeps an offset of {offset}")))?;
    Ok(Position { offset, epoch: Epoch::new(&String::from_utf8_lossy(epoch)) })
}

/// `[id, [field, value, ...]]`, the id `<offset>-0`.
fn entry(value: Value, channel: &ChannelName, most: usize) -> Result<Entry, RelayError> {
    let Value::Array(parts) = value else { return Err(unknown(&value)) };
    let Ok([Value::BulkString(id), Value::Array(fields)]) = <[Value; 2]>::try_from(parts) else {
        return Err(RelayError::Refused("redis answered something that is no entry of a log".into()));
    };
    let offset = std::str::from_utf8(&id).ok().and_then(|id| id.split_once('-')?.0.parse().ok());
    let offset = offset.ok_or_else(|| {
        RelayError::Refused(format!("a log has an entry {:?}", String::from_utf8_lossy(&id)))
    })?;
    Ok(Entry { offset, publication: publication(offset, fields, channel, most) })
}

fn publication(
    offset: u64,
    fields: Vec<Value>,
    channel: &ChannelName,
    most: usize,
) -> Result<Publication, &'static str> {
    let (mut data, mut info, mut tags) = (None, None, Vec::new());
    let mut fields = fields.into_iter();
    while let (Some(Value::BulkString(name)), Some(Value::BulkString(value))) = (fields.next(), fields.next())
    {
        match name.as_slice() {
            b"data" => data = Some(Bytes::from(value)),
            b"info" => info = Some(envelope::read_info(&value.into()).ok_or("envelope")?),
            b"tags" => tags = envelope::read_tags(&value).ok_or("envelope")?,
            _ => {}
        }
    }
    let data = data.ok_or("envelope")?;
    if data.len() > most {
        return Err("too_large");
    }
    let data = payload_from(data).map_err(|_| "not_json")?;
    Ok(Publication { channel: channel.clone(), data, info, tags, offset })
}

fn unknown(value: &Value) -> RelayError {
    let mut text = format!("{value:?}");
    text.truncate(text.floor_char_boundary(100));
    RelayError::Refused(format!("redis answered something unexpected: {text}"))
}
