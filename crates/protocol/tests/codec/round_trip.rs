//! What was encoded is decoded as it was, for whatever was meant; and no bytes whatever bring a decoder down.

use std::borrow::Cow;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use tidegate_protocol::command::{Connect, History, Subscribe};
use tidegate_protocol::reply::{ConnectResult, SubscribeResult};
use tidegate_protocol::{
    ChannelName, ClientInfo, Codec, Command, Disconnect, ErrorCode, Publication, Push, Reply, Request,
    UnsubscribeCode,
};

use crate::{client, decoded};

fn text() -> impl Strategy<Value = Cow<'static, str>> {
    prop_oneof![Just(String::new()), "[a-z:#]{1,12}", any::<String>(), "[\"\\\\\n\r\t\u{0}\u{2028}é]{1,9}"]
        .prop_map(Cow::Owned)
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((any::<String>(), inner), 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// JSON text, compact or spread over lines.
fn json_text() -> impl Strategy<Value = String> {
    (value(), any::<bool>()).prop_map(|(value, pretty)| {
        if pretty { serde_json::to_string_pretty(&value).unwrap() } else { value.to_string() }
    })
}

/// The payload of a command: JSON text, or none. Leaked, as commands borrow theirs.
fn data() -> impl Strategy<Value = &'static [u8]> {
    prop_oneof![Just(String::new()), json_text()]
        .prop_map(|text| -> &'static [u8] { Box::leak(text.into_bytes().into_boxed_slice()) })
}

fn connect() -> impl Strategy<Value = Connect<'static>> {
    (text(), data(), text(), text(), 0usize..9).prop_map(|(token, data, name, version, subs)| Connect {
        token,
        data,
        name,
        version,
        subs,
    })
}

fn subscribe() -> impl Strategy<Value = Subscribe<'static>> {
    (text(), text(), data(), any::<[bool; 4]>(), text(), any::<u64>()).prop_map(
        |(channel, token, data, flags, epoch, offset)| {
            let [recover, positioned, recoverable, join_leave] = flags;
            Subscribe { channel, token, data, recover, epoch, offset, positioned, recoverable, join_leave }
        },
    )
}

fn history() -> impl Strategy<Value = History<'static>> {
    (text(), any::<i32>(), prop::option::of((any::<u64>(), text())), any::<bool>())
        .prop_map(|(channel, limit, since, reverse)| History { channel, limit, since, reverse })
}

fn command() -> impl Strategy<Value = Command<'static>> {
    let with_id = prop_oneof![
        connect().prop_map(Request::Connect),
        subscribe().prop_map(Request::Subscribe),
        text().prop_map(|channel| Request::Unsubscribe { channel }),
        (text(), data()).prop_map(|(channel, data)| Request::Publish { channel, data }),
        text().prop_map(|channel| Request::Presence { channel }),
        text().prop_map(|channel| Request::PresenceStats { channel }),
        history().prop_map(Request::History),
        Just(Request::Ping),
        (text(), data()).prop_map(|(method, data)| Request::Rpc { method, data }),
        text().prop_map(|token| Request::Refresh { token }),
        (text(), text()).prop_map(|(channel, token)| Request::SubRefresh { channel, token }),
    ];
    prop_oneof![
        9 => (1..=u32::MAX, with_id).prop_map(|(id, request)| Command { id, request }),
        1 => data().prop_map(|data| Command { id: 0, request: Request::Send { data } }),
        1 => Just(Command { id: 0, request: Request::Pong }),
    ]
}

fn encoded(codec: Codec, commands: &[Command<'_>]) -> Vec<u8> {
    let encode = match codec {
        Codec::Json => client::json,
        Codec::Protobuf => client::protobuf,
    };
    commands.iter().map(encode).collect::<Vec<_>>().join(codec.joint())
}

fn info() -> impl Strategy<Value = ClientInfo> {
    let raw = || prop_oneof![Just(String::new()), value().prop_map(|value| value.to_string())];
    (text(), text(), raw(), raw()).prop_map(|(user, client, conn_info, chan_info)| ClientInfo {
        user: user.into(),
        client: client.into(),
        conn_info: conn_info.into(),
        chan_info: chan_info.into(),
    })
}

fn publication() -> impl Strategy<Value = Publication> {
    let tags = prop::collection::btree_map(any::<String>(), any::<String>(), 0..4);
    ("[a-zA-Z:#é]{1,20}", value(), prop::option::of(info()), tags).prop_map(|(channel, data, info, tags)| {
        Publication {
            channel: ChannelName::parse(&channel).unwrap(),
            data: Bytes::from(data.to_string()),
            info,
            tags: tags.into_iter().collect(),
            offset: 0,
        }
    })
}

/// An object of what is not zero or empty; what is JSON text is given as `Some` value.
fn object(fields: &[(&str, Value)]) -> Value {
    let empty = [json!(0), json!(false), json!(""), json!({})];
    let kept = fields.iter().filter(|(_, value)| !empty.contains(value));
    Value::Object(kept.map(|(name, value)| (String::from(*name), value.clone())).collect())
}

fn with(mut to: Value, name: &str, value: Value) -> Value {
    to.as_object_mut().unwrap().insert(name.into(), value);
    to
}

fn expected_info(info: &ClientInfo) -> Value {
    let mut value = object(&[("user", json!(info.user)), ("client", json!(info.client))]);
    for (name, text) in [("conn_info", &info.conn_info), ("chan_info", &info.chan_info)] {
        if !text.is_empty() {
            value = with(value, name, serde_json::from_slice(text).unwrap());
        }
    }
    value
}

fn expected_publication(publication: &Publication) -> Value {
    let tags: Map<_, _> = publication.tags.iter().map(|(k, v)| (k.clone(), json!(v))).collect();
    let mut value = with(
        object(&[("tags", Value::Object(tags))]),
        "data",
        serde_json::from_slice(&publication.data).unwrap(),
    );
    if let Some(info) = &publication.info {
        value = with(value, "info", expected_info(info));
    }
    json!({ "push": { "channel": publication.channel.as_str(), "pub": value } })
}

/// Encodes with `encode` in both codecs and checks that a reader of either finds `expected`.
fn says(expected: &Value, encode: impl Fn(Codec, &mut Vec<u8>)) -> Result<(), TestCaseError> {
    let mut out = Vec::new();
    encode(Codec::Json, &mut out);
    prop_assert!(!out.contains(&b'\n'), "a client would split here");
    prop_assert_eq!(&serde_json::from_slice::<Value>(&out).unwrap(), expected);
    out.clear();
    encode(Codec::Protobuf, &mut out);
    prop_assert_eq!(&client::protobuf_value(&out), expected);
    Ok(())
}

proptest! {
    #[test]
    fn what_a_client_meant_is_what_a_node_understands(commands in prop::collection::vec(command(), 1..6)) {
        for codec in Codec::ALL {
            let message = encoded(codec, &commands);
            let (understood, end) = decoded(codec, &message);
            prop_assert_eq!(end, Ok(()));
            prop_assert_eq!(&understood, &commands);
        }
    }

    #[test]
    fn a_damaged_message_is_refused_or_understood_but_never_a_panic(
        commands in prop::collection::vec(command(), 1..4),
        at in any::<prop::sample::Index>(),
        bytes in prop::collection::vec(any::<u8>(), 0..4),
        cut in any::<bool>(),
    ) {
        for codec in Codec::ALL {
            let mut message = encoded(codec, &commands);
            let at = at.index(message.len());
            if cut {
                message.truncate(at);
            }
            let end = message.len().min(at + bytes.len());
            message.splice(at.min(end)..end, bytes.iter().copied());
            let _ = decoded(codec, &message);
        }
    }

    #[test]
    fn arbitrary_bytes_are_never_a_panic(message in prop::collection::vec(any::<u8>(), 0..200)) {
        for codec in Codec::ALL {
            let _ = decoded(codec, &message);
        }
    }

    #[test]
    fn arbitrary_text_of_jsons_characters_is_never_a_panic(message in "[\\[\\]{}\",:0-9a-z\\\\ \n-]{0,80}") {
        let _ = decoded(Codec::Json, message.as_bytes());
        let _ = tidegate_protocol::codec::json::payload(message.as_bytes());
    }

    #[test]
    fn a_publication_arrives_as_it_was_given(publication in publication()) {
        says(&expected_publication(&publication), |codec, out| {
            codec.push(&Push::Publication(&publication), out);
        })?;
    }

    #[test]
    fn joins_and_leaves_tell_who(channel in "[a-z:]{1,9}", info in info()) {
        let who = json!({ "info": expected_info(&info) });
        says(&json!({ "push": { "channel": channel, "join": who } }), |codec, out| {
            codec.push(&Push::Join(&channel, &info), out);
        })?;
        says(&json!({ "push": { "channel": channel, "leave": who } }), |codec, out| {
            codec.push(&Push::Leave(&channel, &info), out);
        })?;
    }

    #[test]
    fn a_connect_result_arrives_as_it_was_given(
        names in [text(), text(), text()],
        (id, expires, ttl, ping, pong) in any::<(u32, bool, u32, u32, bool)>(),
        subs in prop::collection::btree_map(any::<String>(), any::<(bool, u32)>(), 0..4),
    ) {
        let [client, version, node] = &names;
        let result = |&(expires, ttl): &(bool, u32)| SubscribeResult { expires, ttl, ..SubscribeResult::default() };
        let reply = Reply::Connect(ConnectResult {
            client,
            version,
            expires,
            ttl,
            ping,
            pong,
            subs: subs.iter().map(|(channel, it)| (channel.as_str(), result(it))).collect(),
            node,
            data: b"",
        });
        let subs: Map<_, _> = subs
            .iter()
            .map(|(channel, (expires, ttl))| {
                (channel.clone(), object(&[("expires", json!(expires)), ("ttl", json!(ttl))]))
            })
            .collect();
        let connect = object(&[
            ("client", json!(client)), ("version", json!(version)), ("node", json!(node)),
            ("expires", json!(expires)), ("ttl", json!(ttl)), ("subs", json!(subs)),
            ("ping", json!(ping)), ("pong", json!(pong)),
        ]);
        let expected = with(object(&[("id", json!(id))]), "connect", connect);
        says(&expected, |codec, out| codec.reply(id, &reply, out))?;
    }
}

#[test]
fn every_code_arrives_with_its_text() {
    for &code in ErrorCode::ALL {
        let fields = [
            ("code", json!(code.code())),
            ("message", json!(code.text())),
            ("temporary", json!(code.temporary())),
        ];
        says(&json!({ "id": 7, "error": object(&fields) }), |codec, out| {
            codec.reply(7, &Reply::Error(code), out);
        })
        .unwrap();
    }
    for &code in Disconnect::ALL {
        let fields = [
            ("code", json!(code.code())),
            ("reason", json!(code.text())),
            ("reconnect", json!(code.reconnects())),
        ];
        says(&json!({ "push": { "disconnect": object(&fields) } }), |codec, out| {
            codec.push(&Push::Disconnect(code), out);
        })
        .unwrap();
    }
    for &code in UnsubscribeCode::ALL {
        let fields = json!({ "code": code.code(), "reason": code.text() });
        says(&json!({ "push": { "channel": "c", "unsubscribe": fields } }), |codec, out| {
            codec.push(&Push::Unsubscribe("c", code), out);
        })
        .unwrap();
    }
}
