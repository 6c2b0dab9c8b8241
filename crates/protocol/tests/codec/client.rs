//! A client's side of both codecs, as independent of the crate's as can be: prost types with the sheet's tags,
//! and JSON by serde_json.

use std::collections::BTreeMap;

use prost::Message;
use serde_json::{Map, Value, json};
use tidegate_protocol::{Command, Request};

macro_rules! message {
    ($name:ident { $($(#[$meta:meta])+ $field:ident: $type:ty,)* }) => {
        #[derive(Clone, PartialEq, prost::Message)]
        pub(crate) struct $name { $($(#[$meta])+ pub(crate) $field: $type,)* }
    };
}

message!(WireCommand {
    #[prost(uint32, tag = "1")] id: u32,
    #[prost(message, tag = "4")] connect: Option<WireConnect>,
    #[prost(message, tag = "5")] subscribe: Option<WireSubscribe>,
    #[prost(message, tag = "6")] unsubscribe: Option<WireChannel>,
    #[prost(message, tag = "7")] publish: Option<WirePublish>,
    #[prost(message, tag = "8")] presence: Option<WireChannel>,
    #[prost(message, tag = "9")] presence_stats: Option<WireChannel>,
    #[prost(message, tag = "10")] history: Option<WireHistory>,
    #[prost(message, tag = "11")] ping: Option<WireNothing>,
    #[prost(message, tag = "12")] send: Option<WireData>,
    #[prost(message, tag = "13")] rpc: Option<WireRpc>,
    #[prost(message, tag = "14")] refresh: Option<WireToken>,
    #[prost(message, tag = "15")] sub_refresh: Option<WireSubRefresh>,
});
message!(WireConnect {
    #[prost(string, tag = "1")] token: String,
    #[prost(bytes = "vec", tag = "2")] data: Vec<u8>,
    #[prost(btree_map = "string, message", tag = "3")] subs: BTreeMap<String, WireSubscribe>,
    #[prost(string, tag = "4")] name: String,
    #[prost(string, tag = "5")] version: String,
    #[prost(btree_map = "string, string", tag = "6")] headers: BTreeMap<String, String>,
});
message!(WireSubscribe {
    #[prost(string, tag = "1")] channel: String,
    #[prost(string, tag = "2")] token: String,
    #[prost(bool, tag = "3")] recover: bool,
    #[prost(string, tag = "6")] epoch: String,
    #[prost(uint64, tag = "7")] offset: u64,
    #[prost(bytes = "vec", tag = "8")] data: Vec<u8>,
    #[prost(bool, tag = "9")] positioned: bool,
    #[prost(bool, tag = "10")] recoverable: bool,
    #[prost(bool, tag = "11")] join_leave: bool,
    #[prost(string, tag = "12")] delta: String,
    #[prost(int64, tag = "14")] flag: i64,
});
message!(WireNothing {});
message!(WireChannel {
    #[prost(string, tag = "1")]
    channel: String,
});
message!(WireHistory {
    #[prost(string, tag = "1")] channel: String,
    #[prost(int32, tag = "7")] limit: i32,
    #[prost(message, tag = "8")] since: Option<WirePosition>,
    #[prost(bool, tag = "9")] reverse: bool,
});
message!(WirePosition {
    #[prost(uint64, tag = "1")]
    offset: u64,
    #[prost(string, tag = "2")]
    epoch: String,
});
message!(WirePublish {
    #[prost(string, tag = "1")] channel: String,
    #[prost(bytes = "vec", tag = "2")] data: Vec<u8>,
});
message!(WireData {
    #[prost(bytes = "vec", tag = "1")] data: Vec<u8>,
});
message!(WireRpc {
    #[prost(bytes = "vec", tag = "1")] data: Vec<u8>,
    #[prost(string, tag = "2")] method: String,
});
message!(WireToken {
    #[prost(string, tag = "1")]
    token: String,
});
message!(WireSubRefresh {
    #[prost(string, tag = "1")]
    channel: String,
    #[prost(string, tag = "2")]
    token: String,
});

message!(WireReply {
    #[prost(uint32, tag = "1")] id: u32,
    #[prost(message, tag = "2")] error: Option<WireError>,
    #[prost(message, tag = "4")] push: Option<WirePush>,
    #[prost(message, tag = "5")] connect: Option<WireConnectResult>,
    #[prost(message, tag = "6")] subscribe: Option<WireSubscribeResult>,
    #[prost(message, tag = "7")] unsubscribe: Option<WireNothing>,
    #[prost(message, tag = "8")] publish: Option<WireNothing>,
    #[prost(message, tag = "12")] ping: Option<WireNothing>,
});
message!(WireError {
    #[prost(uint32, tag = "1")]
    code: u32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(bool, tag = "3")]
    temporary: bool,
});
message!(WireConnectResult {
    #[prost(string, tag = "1")] client: String,
    #[prost(string, tag = "2")] version: String,
    #[prost(bool, tag = "3")] expires: bool,
    #[prost(uint32, tag = "4")] ttl: u32,
    #[prost(btree_map = "string, message", tag = "6")] subs: BTreeMap<String, WireSubscribeResult>,
    #[prost(uint32, tag = "7")] ping: u32,
    #[prost(bool, tag = "8")] pong: bool,
    #[prost(string, tag = "10")] node: String,
});
message!(WireSubscribeResult {
    #[prost(bool, tag = "1")]
    expires: bool,
    #[prost(uint32, tag = "2")]
    ttl: u32,
});
message!(WirePush {
    #[prost(string, tag = "2")] channel: String,
    #[prost(message, tag = "4")] publication: Option<WirePublication>,
    #[prost(message, tag = "5")] join: Option<WireWho>,
    #[prost(message, tag = "6")] leave: Option<WireWho>,
    #[prost(message, tag = "7")] unsubscribe: Option<WireUnsubscribed>,
    #[prost(message, tag = "8")] message: Option<WireData>,
    #[prost(message, tag = "9")] subscribe: Option<WireNothing>,
    #[prost(message, tag = "11")] disconnect: Option<WireDisconnect>,
});
message!(WirePublication {
    #[prost(bytes = "vec", tag = "4")] data: Vec<u8>,
    #[prost(message, tag = "5")] info: Option<WireInfo>,
    #[prost(btree_map = "string, string", tag = "7")] tags: BTreeMap<String, String>,
});
message!(WireWho {
    #[prost(message, tag = "1")] info: Option<WireInfo>,
});
message!(WireInfo {
    #[prost(string, tag = "1")] user: String,
    #[prost(string, tag = "2")] client: String,
    #[prost(bytes = "vec", tag = "3")] conn_info: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")] chan_info: Vec<u8>,
});
message!(WireUnsubscribed {
    #[prost(uint32, tag = "2")]
    code: u32,
    #[prost(string, tag = "3")]
    reason: String,
});
message!(WireDisconnect {
    #[prost(uint32, tag = "1")]
    code: u32,
    #[prost(string, tag = "2")]
    reason: String,
    #[prost(bool, tag = "3")]
    reconnect: bool,
});

/// Encodes a command in Protobuf, with its length, and with fields that a node does not know.
pub(crate) fn protobuf(command: &Command<'_>) -> Vec<u8> {
    let channel = |channel: &str| Some(WireChannel { channel: channel.into() });
    let mut wire = WireCommand { id: command.id, ..WireCommand::default() };
    match &command.request {
        Request::Pong => {}
        Request::Connect(it) => {
            wire.connect = Some(WireConnect {
                token: it.token.to_string(),
                data: it.data.into(),
                subs: (0..it.subs).map(|n| (n.to_string(), WireSubscribe::default())).collect(),
                name: it.name.to_string(),
                version: it.version.to_string(),
                headers: BTreeMap::from([("x".into(), "y".into())]),
            });
        }
        Request::Subscribe(it) => {
            wire.subscribe = Some(WireSubscribe {
                channel: it.channel.to_string(),
                token: it.token.to_string(),
                recover: it.recover,
                epoch: it.epoch.to_string(),
                offset: it.offset,
                data: it.data.into(),
                positioned: it.positioned,
                recoverable: it.recoverable,
                join_leave: it.join_leave,
                delta: "fossil".into(),
                flag: 1,
            });
        }
        Request::Unsubscribe { channel: it } => wire.unsubscribe = channel(it),
        Request::Publish { channel, data } => {
            wire.publish = Some(WirePublish { channel: channel.to_string(), data: data.to_vec() });
        }
        Request::Presence { channel: it } => wire.presence = channel(it),
        Request::PresenceStats { channel: it } => wire.presence_stats = channel(it),
        Request::History(it) => {
            wire.history = Some(WireHistory {
                channel: it.channel.to_string(),
                limit: it.limit,
                since: it
                    .since
                    .as_ref()
                    .map(|(offset, epoch)| WirePosition { offset: *offset, epoch: epoch.to_string() }),
                reverse: it.reverse,
            });
        }
        Request::Ping => wire.ping = Some(WireNothing {}),
        Request::Send { data } => wire.send = Some(WireData { data: data.to_vec() }),
        Request::Rpc { method, data } => {
            wire.rpc = Some(WireRpc { data: data.to_vec(), method: method.to_string() });
        }
        Request::Refresh { token } => wire.refresh = Some(WireToken { token: token.to_string() }),
        Request::SubRefresh { channel, token } => {
            let (channel, token) = (channel.to_string(), token.to_string());
            wire.sub_refresh = Some(WireSubRefresh { channel, token });
        }
    }
    wire.encode_length_delimited_to_vec()
}

/// Encodes a command in JSON, with fields that a node does not know.
pub(crate) fn json(command: &Command<'_>) -> Vec<u8> {
    let (name, mut fields, data): (_, _, &[u8]) = match &command.request {
        Request::Pong => return b"{}".to_vec(),
        Request::Connect(it) => {
            let subs: Map<_, _> = (0..it.subs).map(|n| (n.to_string(), json!({ "recover": true }))).collect();
            let fields = json!({
                "token": it.token, "name": it.name, "version": it.version, "subs": subs, "headers": { "x": "y" },
            });
            ("connect", fields, it.data)
        }
        Request::Subscribe(it) => {
            let fields = json!({
                "channel": it.channel, "token": it.token, "recover": it.recover, "epoch": it.epoch,
                "offset": it.offset, "positioned": it.positioned, "recoverable": it.recoverable,
                "join_leave": it.join_leave, "delta": "fossil", "flag": 1,
            });
            ("subscribe", fields, it.data)
        }
        Request::Unsubscribe { channel } => ("unsubscribe", json!({ "channel": channel }), b""),
        Request::Publish { channel, data } => ("publish", json!({ "channel": channel }), data),
        Request::Presence { channel } => ("presence", json!({ "channel": channel }), b""),
        Request::PresenceStats { channel } => ("presence_stats", json!({ "channel": channel }), b""),
        Request::History(it) => {
            let since = it.since.as_ref().map(|(offset, epoch)| json!({ "offset": offset, "epoch": epoch }));
            let fields = json!({
                "channel": it.channel, "limit": it.limit, "since": since, "reverse": it.reverse,
            });
            ("history", fields, b"")
        }
        Request::Ping => ("ping", json!({}), b""),
        Request::Send { data } => ("send", json!({}), data),
        Request::Rpc { method, data } => ("rpc", json!({ "method": method }), data),
        Request::Refresh { token } => ("refresh", json!({ "token": token }), b""),
        Request::SubRefresh { channel, token } => {
            ("sub_refresh", json!({ "channel": channel, "token": token }), b"")
        }
    };
    // A payload must arrive as it was sent, so it is put into the text and not parsed here.
    let mut text = String::from("{");
    if command.id != 0 {
        text += &format!("\"id\":{},", command.id);
    }
    let fields = fields.as_object_mut().unwrap();
    let mut members: Vec<String> =
        fields.iter().map(|(name, value)| format!("{}:{value}", json!(name))).collect();
    if !data.is_empty() {
        members.insert(members.len() / 2, format!("\"data\" : {}", std::str::from_utf8(data).unwrap()));
    }
    text += &format!("\"{name}\": {{{}}} }}", members.join(", "));
    text.into_bytes()
}

/// Decodes one reply or push from Protobuf, with its length, into the value its JSON has.
pub(crate) fn protobuf_value(bytes: &[u8]) -> Value {
    let mut rest = bytes;
    let reply = WireReply::decode_length_delimited(&mut rest).unwrap();
    assert!(rest.is_empty(), "one item");
    // Prost leaves out the value of a map entry that is an empty message; the SDKs' encoders do not, nor does a node.
    let empty_sub =
        |it: &WireConnectResult| it.subs.values().any(|sub| *sub == WireSubscribeResult::default());
    if !reply.connect.as_ref().is_some_and(empty_sub) {
        assert_eq!(
            reply.encode_length_delimited_to_vec(),
            bytes,
            "the shortest form, without unknown fields"
        );
    }
    let mut value = Map::new();
    put(&mut value, "id", json!(reply.id));
    if let Some(it) = reply.error {
        message(
            &mut value,
            "error",
            [("code", json!(it.code)), ("message", json!(it.message)), ("temporary", json!(it.temporary))],
        );
    }
    if let Some(it) = reply.push {
        value.insert("push".into(), push_value(it));
    }
    if let Some(it) = reply.connect {
        let subs: Map<_, _> = it.subs.iter().map(|(name, it)| (name.clone(), subscribe_value(it))).collect();
        message(
            &mut value,
            "connect",
            [
                ("client", json!(it.client)),
                ("version", json!(it.version)),
                ("expires", json!(it.expires)),
                ("ttl", json!(it.ttl)),
                ("subs", json!(subs)),
                ("ping", json!(it.ping)),
                ("pong", json!(it.pong)),
                ("node", json!(it.node)),
            ],
        );
    }
    if let Some(it) = reply.subscribe {
        value.insert("subscribe".into(), subscribe_value(&it));
    }
    for (name, it) in [("unsubscribe", reply.unsubscribe), ("publish", reply.publish), ("ping", reply.ping)] {
        if it.is_some() {
            value.insert(name.into(), json!({}));
        }
    }
    Value::Object(value)
}

fn push_value(push: WirePush) -> Value {
    let mut value = Map::new();
    put(&mut value, "channel", json!(push.channel));
    if let Some(it) = push.publication {
        let mut fields = vec![("data", raw(&it.data)), ("tags", json!(it.tags))];
        if let Some(info) = &it.info {
            fields.push(("info", info_value(info)));
        }
        message(&mut value, "pub", fields);
    }
    for (name, it) in [("join", push.join), ("leave", push.leave)] {
        if let Some(it) = it {
            message(&mut value, name, it.info.iter().map(|info| ("info", info_value(info))));
        }
    }
    if let Some(it) = push.unsubscribe {
        message(&mut value, "unsubscribe", [("code", json!(it.code)), ("reason", json!(it.reason))]);
    }
    if let Some(it) = push.message {
        message(&mut value, "message", [("data", raw(&it.data))]);
    }
    if push.subscribe.is_some() {
        message(&mut value, "subscribe", []);
    }
    if let Some(it) = push.disconnect {
        message(
            &mut value,
            "disconnect",
            [("code", json!(it.code)), ("reason", json!(it.reason)), ("reconnect", json!(it.reconnect))],
        );
    }
    Value::Object(value)
}

fn subscribe_value(result: &WireSubscribeResult) -> Value {
    let mut value = Map::new();
    put(&mut value, "expires", json!(result.expires));
    put(&mut value, "ttl", json!(result.ttl));
    Value::Object(value)
}

fn info_value(info: &WireInfo) -> Value {
    let mut value = Map::new();
    put(&mut value, "user", json!(info.user));
    put(&mut value, "client", json!(info.client));
    for (name, bytes) in [("conn_info", &info.conn_info), ("chan_info", &info.chan_info)] {
        if !bytes.is_empty() {
            value.insert(name.into(), raw(bytes));
        }
    }
    Value::Object(value)
}

fn raw(json: &[u8]) -> Value {
    if json.is_empty() { Value::String(String::new()) } else { serde_json::from_slice(json).unwrap() }
}

/// Inserts a message, also an empty one, with the fields that are not empty; payloads always.
fn message<'a>(to: &mut Map<String, Value>, name: &str, fields: impl IntoIterator<Item = (&'a str, Value)>) {
    let mut value = Map::new();
    for (name, field) in fields {
        match name {
            "data" | "info" => drop(value.insert(name.into(), field)),
            _ => put(&mut value, name, field),
        }
    }
    to.insert(name.into(), Value::Object(value));
}

/// Inserts a field unless it is zero or empty.
fn put(to: &mut Map<String, Value>, name: &str, value: Value) {
    if ![json!(0), json!(false), json!(""), json!({})].contains(&value) {
        to.insert(name.into(), value);
    }
}
