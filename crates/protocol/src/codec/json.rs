//! The JSON codec: objects joined by newlines, payloads embedded as they are.
//!
//! Commands are read in place: payloads are slices of the message, and so is text without an escape. Values are
//! read as a stream, so newlines inside a command do no harm. Unknown fields are skipped, since SDKs send more
//! than a node knows, and `null` is the same as an absent field, except as a payload. Nothing recurses by the
//! depth of what a peer sent.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::error::Category;
use serde_json::value::RawValue;

pub use super::payload::{MAX_PAYLOAD_DEPTH, NotJson, payload, payload_from};
use super::shape::{Field, Fields};
use super::{DecodeError, Draft};
use crate::command::{Command, Connect, History, Request, Subscribe};

pub(super) fn commands<'a>(
    message: &'a [u8],
    mut each: impl FnMut(Command<'a>) -> bool,
) -> Result<(), DecodeError> {
    let message = simdutf8::basic::from_utf8(message).map_err(|_| DecodeError("text that is not UTF-8"))?;
    let mut any = false;
    for draft in serde_json::Deserializer::from_str(message).into_iter::<Draft<'a>>() {
        any = true;
        if !each(draft.map_err(|error| refused(&error))?.finish()?) {
            break;
        }
    }
    if any { Ok(()) } else { Err(DecodeError("a message without a command")) }
}

fn refused(error: &serde_json::Error) -> DecodeError {
    DecodeError(match error.classify() {
        Category::Data => "a command with a field of the wrong type or out of range",
        Category::Eof => "a command that ends too early",
        Category::Syntax | Category::Io => "a command that is not JSON",
    })
}

impl<'de: 'a, 'a> Deserialize<'de> for Draft<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(DraftVisitor)
    }
}

/// The names of the fields of a command.
#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Name {
    Id,
    Connect,
    Subscribe,
    Unsubscribe,
    Publish,
    Presence,
    PresenceStats,
    History,
    Ping,
    Send,
    Rpc,
    Refresh,
    SubRefresh,
    #[serde(other)]
    Unknown,
}

struct DraftVisitor;

impl<'de> Visitor<'de> for DraftVisitor {
    type Value = Draft<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a command")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut draft = Draft::default();
        while let Some(name) = map.next_key()? {
            let request = match name {
                Name::Id => {
                    draft.id = map.next_value::<Option<u32>>()?.unwrap_or_default();
                    None
                }
                Name::Connect => object(&mut map)?.map(|it: ConnectFields<'_>| {
                    Request::Connect(Connect {
                        token: it.token.0,
                        data: it.data.0,
                        name: it.name.0,
                        version: it.version.0,
                        subs: it.subs.0,
                    })
                }),
                Name::Subscribe => object(&mut map)?.map(|it: SubscribeFields<'_>| {
                    Request::Subscribe(Subscribe {
                        channel: it.channel.0,
                        token: it.token.0,
                        data: it.data.0,
                        recover: it.recover,
                        epoch: it.epoch.0,
                        offset: it.offset,
                        positioned: it.positioned,
                        recoverable: it.recoverable,
                        join_leave: it.join_leave,
                    })
                }),
                Name::Unsubscribe => {
                    small(&mut map)?.map(|it| Request::Unsubscribe { channel: it.channel.0 })
                }
                Name::Publish => {
                    small(&mut map)?.map(|it| Request::Publish { channel: it.channel.0, data: it.data.0 })
                }
                Name::Presence => small(&mut map)?.map(|it| Request::Presence { channel: it.channel.0 }),
                Name::PresenceStats => {
                    small(&mut map)?.map(|it| Request::PresenceStats { channel: it.channel.0 })
                }
                Name::History => object(&mut map)?.map(|it: HistoryFields<'_>| {
                    Request::History(History {
                        channel: it.channel.0,
                        limit: it.limit,
                        since: it.since.0.map(|since| (since.offset, since.epoch.0)),
                        reverse: it.reverse,
                    })
                }),
                Name::Ping => small(&mut map)?.map(|_| Request::Ping),
                Name::Send => small(&mut map)?.map(|it| Request::Send { data: it.data.0 }),
                Name::Rpc => small(&mut map)?.map(|it| Request::Rpc { method: it.method.0, data: it.data.0 }),
                Name::Refresh => small(&mut map)?.map(|it| Request::Refresh { token: it.token.0 }),
                Name::SubRefresh => small(&mut map)?
                    .map(|it| Request::SubRefresh { channel: it.channel.0, token: it.token.0 }),
                Name::Unknown => {
                    map.next_value::<IgnoredAny>()?;
                    None
                }
            };
            if let Some(request) = request {
                draft.request(request);
            }
        }
        Ok(draft)
    }
}

#[derive(Deserialize)]
struct ConnectFields<'a> {
    #[serde(borrow, default)]
    token: Text<'a>,
    #[serde(borrow, default)]
    data: Payload<'a>,
    #[serde(borrow, default)]
    name: Text<'a>,
    #[serde(borrow, default)]
    version: Text<'a>,
    #[serde(default, deserialize_with = "or_default")]
    subs: Count,
}

#[derive(Deserialize)]
struct SubscribeFields<'a> {
    #[serde(borrow, default)]
    channel: Text<'a>,
    #[serde(borrow, default)]
    token: Text<'a>,
    #[serde(borrow, default)]
    data: Payload<'a>,
    #[serde(default, deserialize_with = "or_default")]
    recover: bool,
    #[serde(borrow, default)]
    epoch: Text<'a>,
    #[serde(default, deserialize_with = "or_default")]
    offset: u64,
    #[serde(default, deserialize_with = "or_default")]
    positioned: bool,
    #[serde(default, deserialize_with = "or_default")]
    recoverable: bool,
    #[serde(default, deserialize_with = "or_default")]
    join_leave: bool,
}

#[derive(Deserialize)]
struct HistoryFields<'a> {
    #[serde(borrow, default)]
    channel: Text<'a>,
    #[serde(default, deserialize_with = "or_default")]
    limit: i32,
    #[serde(borrow, default = "no_object")]
    since: Object<SinceFields<'a>>,
    #[serde(default, deserialize_with = "or_default")]
    reverse: bool,
}

fn no_object<T>() -> Object<T> {
    Object(None)
}

#[derive(Deserialize)]
struct SinceFields<'a> {
    #[serde(default, deserialize_with = "or_default")]
    offset: u64,
    #[serde(borrow, default)]
    epoch: Text<'a>,
}

/// The fields of all other requests.
#[derive(Deserialize)]
struct SmallFields<'a> {
    #[serde(borrow, default)]
    channel: Text<'a>,
    #[serde(borrow, default)]
    token: Text<'a>,
    #[serde(borrow, default)]
    method: Text<'a>,
    #[serde(borrow, default)]
    data: Payload<'a>,
}

fn small<'de, A: MapAccess<'de>>(map: &mut A) -> Result<Option<SmallFields<'de>>, A::Error> {
    object(map)
}

/// Reads the next value: an object, or `None` for `null`. (What serde derives would also take an array.)
fn object<'de, A: MapAccess<'de>, T: Deserialize<'de>>(map: &mut A) -> Result<Option<T>, A::Error> {
    map.next_value().map(|Object(object)| object)
}

struct Object<T>(Option<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ObjectVisitor(PhantomData))
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(|object| Object(Some(object)))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Object(None))
    }
}

fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Text, borrowed unless it has an escape.
#[derive(Default)]
struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Borrowed<'a>(#[serde(borrow)] Cow<'a, str>);
        Option::<Borrowed<'a>>::deserialize(deserializer)
            .map(|text| Self(text.map(|Borrowed(text)| text).unwrap_or_default()))
    }
}

/// The text of a JSON value.
#[derive(Default)]
struct Payload<'a>(&'a [u8]);

impl<'de: 'a, 'a> Deserialize<'de> for Payload<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&'a RawValue>::deserialize(deserializer).map(|value| Self(value.get().as_bytes()))
    }
}

/// How many entries an object has.
#[derive(Default)]
struct Count(usize);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct CountVisitor;

        impl<'de> Visitor<'de> for CountVisitor {
            type Value = Count;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut count = 0;
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
                    count += 1;
                }
                Ok(Count(count))
            }
        }

        deserializer.deserialize_map(CountVisitor)
    }
}

/// Appends one object.
pub(super) fn message(out: &mut Vec<u8>, fill: impl FnOnce(&mut Writer<'_>)) {
    Writer { out, first: true }.object(fill);
}

/// Writes the fields of an object.
pub(super) struct Writer<'o> {
    out: &'o mut Vec<u8>,
    /// No field of the current object is written yet.
    first: bool,
}

impl Writer<'_> {
    fn object(&mut self, fill: impl FnOnce(&mut Self)) {
        self.out.push(b'{');
        self.first = true;
        fill(self);
        self.out.push(b'}');
        self.first = false;
    }

    fn separator(&mut self) {
        if !self.first {
            self.out.push(b',');
        }
        self.first = false;
    }

    /// The name of a field of the protocol, which needs no escape.
    fn name(&mut self, Field(name, _): Field) {
        self.separator();
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    /// The name of a field that a user chose.
    fn key(&mut self, key: &str) {
        self.separator();
        self.value(key);
        self.out.push(b':');
    }

    fn value<T: Serialize + ?Sized>(&mut self, value: &T) {
        serde_json::to_writer(&mut *self.out, value).expect("text or a number into memory cannot fail");
    }
}

impl Fields for Writer<'_> {
    fn text(&mut self, field: Field, value: &str) {
        if !value.is_empty() {
            self.name(field);
            self.value(value);
        }
    }

    fn number(&mut self, field: Field, value: u64) {
        if value != 0 {
            self.name(field);
            self.value(&value);
        }
    }

    fn flag(&mut self, field: Field, value: bool) {
        if value {
            self.name(field);
            self.out.extend_from_slice(b"true");
        }
    }

    fn raw(&mut self, field: Field, value: &[u8]) {
        if !value.is_empty() {
            self.name(field);
            self.out.extend_from_slice(value);
        }
    }

    fn message(&mut self, field: Field, fill: impl FnOnce(&mut Self)) {
        self.name(field);
        self.object(fill);
    }

    fn texts(&mut self, field: Field, map: &[(String, String)]) {
        if map.is_empty() {
            return;
        }
        self.message(field, |to| {
            for (key, value) in map {
                to.key(key);
                to.value(value);
            }
        });
    }

    fn messages<'a, T: 'a>(
        &mut self,
        field: Field,
        map: impl ExactSizeIterator<Item = (&'a str, &'a T)>,
        fill: impl Fn(&T, &mut Self),
    ) {
        if map.len() == 0 {
            return;
        }
        self.message(field, |to| {
            for (key, value) in map {
                to.key(key);
                to.object(|to| fill(value, to));
            }
        });
    }

    fn list<'a, T: 'a>(
        &mut self,
        field: Field,
        items: impl ExactSizeIterator<Item = &'a T>,
        fill: impl Fn(&T, &mut Self),
    ) {
        if items.len() == 0 {
            return;
        }
        self.name(field);
        self.out.push(b'[');
        self.first = true;
        for item in items {
            self.separator();
            self.object(|to| fill(item, to));
        }
        self.out.push(b']');
        self.first = false;
    }
}
