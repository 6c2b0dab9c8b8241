//! The Protobuf codec: each command, reply and push behind its length as a varint.
//!
//! Commands are read in place: text and payloads are slices of the message. Unknown fields are skipped, since
//! SDKs send more than a node knows.

use std::borrow::Cow;

use super::shape::{Field, Fields};
use super::wire::{self, Reader, Value};
use super::{DecodeError, Draft};
use crate::command::{Command, Connect, History, Request, Subscribe};

pub(super) fn commands<'a>(
    message: &'a [u8],
    mut each: impl FnMut(Command<'a>) -> bool,
) -> Result<(), DecodeError> {
    let mut rest = Reader::new(message);
    if rest.is_empty() {
        return Err(DecodeError("a message without a command"));
    }
    while !rest.is_empty() {
        if !each(command(rest.delimited()?)?) {
            break;
        }
    }
    Ok(())
}

fn command(bytes: &[u8]) -> Result<Command<'_>, DecodeError> {
    let mut draft = Draft::default();
    let mut rest = Reader::new(bytes);
    while let Some((tag, value)) = rest.field()? {
        match tag {
            1 => {
                let id = value.number()?;
                draft.id = u32::try_from(id).map_err(|_| DecodeError("an id of more than 32 bits"))?;
            }
            4..=15 => draft.request(request(tag, value.bytes()?)?),
            _ => {}
        }
    }
    draft.finish()
}

/// Decodes the request of a command from the tag of its field, 4 to 15.
fn request(tag: u32, bytes: &[u8]) -> Result<Request<'_>, DecodeError> {
    Ok(match tag {
        4 => Request::Connect(connect(bytes)?),
        5 => Request::Subscribe(subscribe(bytes)?),
        10 => Request::History(history(bytes)?),
        _ => {
            let [first, second] = first_two(bytes)?;
            match tag {
                6 => Request::Unsubscribe { channel: text(first)? },
                7 => Request::Publish { channel: text(first)?, data: second.bytes()? },
                8 => Request::Presence { channel: text(first)? },
                9 => Request::PresenceStats { channel: text(first)? },
                12 => Request::Send { data: first.bytes()? },
                13 => Request::Rpc { data: first.bytes()?, method: text(second)? },
                14 => Request::Refresh { token: text(first)? },
                15 => Request::SubRefresh { channel: text(first)?, token: text(second)? },
                _ => Request::Ping,
            }
        }
    })
}

/// The fields 1 and 2, empty where they are not there: all that a request other than connect and subscribe has.
fn first_two(bytes: &[u8]) -> Result<[Value<'_>; 2], DecodeError> {
    let mut found = [Value::Bytes(&[]); 2];
    let mut rest = Reader::new(bytes);
    while let Some((tag, value)) = rest.field()? {
        match tag {
            1 => found[0] = value,
            2 => found[1] = value,
            _ => {}
        }
    }
    Ok(found)
}

fn text(value: Value<'_>) -> Result<Cow<'_, str>, DecodeError> {
    value.text().map(Cow::Borrowed)
}

fn connect(bytes: &[u8]) -> Result<Connect<'_>, DecodeError> {
    let mut connect = Connect::default();
    let mut rest = Reader::new(bytes);
    while let Some((tag, value)) = rest.field()? {
        match tag {
            1 => connect.token = text(value)?,
            2 => connect.data = value.bytes()?,
            3 => connect.subs += 1,
            4 => connect.name = text(value)?,
            5 => connect.version = text(value)?,
            _ => {}
        }
    }
    Ok(connect)
}

fn subscribe(bytes: &[u8]) -> Result<Subscribe<'_>, DecodeError> {
    let mut subscribe = Subscribe::default();
    let mut rest = Reader::new(bytes);
    while let Some((tag, value)) = rest.field()? {
        match tag {
            1 => subscribe.channel = text(value)?,
            2 => subscribe.token = text(value)?,
            3 => subscribe.recover = value.flag()?,
            6 => subscribe.epoch = text(value)?,
            7 => subscribe.offset = value.number()?,
            8 => subscribe.data = value.bytes()?,
            9 => subscribe.positioned = value.flag()?,
            10 => subscribe.recoverable = value.flag()?,
            11 => subscribe.join_leave = value.flag()?,
            _ => {}
        }
    }
    Ok(subscribe)
}

fn history(bytes: &[u8]) -> Result<History<'_>, DecodeError> {
    let mut history = History::default();
    let mut rest = Reader::new(bytes);
    while let Some((tag, value)) = rest.field()? {
        match tag {
            1 => history.channel = text(value)?,
            // An int32: what is negative has ten bytes, of which the lower four count.
            7 => history.limit = value.number()? as i32,
            8 => history.since = Some(since(value.bytes()?)?),
            9 => history.reverse = value.flag()?,
            _ => {}
        }
    }
    Ok(history)
}

fn since(bytes: &[u8]) -> Result<(u64, Cow<'_, str>), DecodeError> {
    let mut since = (0, Cow::Borrowed(""));
    let mut rest = Reader::new(bytes);
    while let Some((tag, value)) = rest.field()? {
        match tag {
            1 => since.0 = value.number()?,
            2 => since.1 = text(value)?,
            _ => {}
        }
    }
    Ok(since)
}

/// Appends one message behind its length.
pub(super) fn message(out: &mut Vec<u8>, fill: impl FnOnce(&mut Writer<'_>)) {
    Writer(out).delimited(fill);
}

/// Writes the fields of a message.
pub(super) struct Writer<'o>(&'o mut Vec<u8>);

impl Writer<'_> {
    /// The key of a field whose value is behind its length.
    fn delimited_key(&mut self, tag: u32) {
        wire::put_varint(u64::from(tag) << 3 | 2, self.0);
    }

    fn delimited(&mut self, fill: impl FnOnce(&mut Self)) {
        let start = wire::open(self.0);
        fill(self);
        wire::close(start, self.0);
    }
}

impl Fields for Writer<'_> {
    fn text(&mut self, field: Field, value: &str) {
        self.raw(field, value.as_bytes());
    }

    fn number(&mut self, Field(_, tag): Field, value: u64) {
        if value != 0 {
            wire::put_varint(u64::from(tag) << 3, self.0);
            wire::put_varint(value, self.0);
        }
    }

    fn flag(&mut self, field: Field, value: bool) {
        self.number(field, u64::from(value));
    }

    fn raw(&mut self, Field(_, tag): Field, value: &[u8]) {
        if !value.is_empty() {
            self.delimited_key(tag);
            wire::put_varint(value.len() as u64, self.0);
            self.0.extend_from_slice(value);
        }
    }

    fn message(&mut self, Field(_, tag): Field, fill: impl FnOnce(&mut Self)) {
        self.delimited_key(tag);
        self.delimited(fill);
    }

    // A map is a repeated message of a key and a value.

    fn texts(&mut self, field: Field, map: &[(String, String)]) {
        for (key, value) in map {
            self.message(field, |entry| {
                entry.text(Field("key", 1), key);
                entry.text(Field("value", 2), value);
            });
        }
    }

    fn messages<'a, T: 'a>(
        &mut self,
        field: Field,
        map: impl ExactSizeIterator<Item = (&'a str, &'a T)>,
        fill: impl Fn(&T, &mut Self),
    ) {
        for (key, value) in map {
            self.message(field, |entry| {
                entry.text(Field("key", 1), key);
                entry.message(Field("value", 2), |to| fill(value, to));
            });
        }
    }

    fn list<'a, T: 'a>(
        &mut self,
        field: Field,
        items: impl ExactSizeIterator<Item = &'a T>,
        fill: impl Fn(&T, &mut Self),
    ) {
        for item in items {
            self.message(field, |to| fill(item, to));
        }
    }
}
