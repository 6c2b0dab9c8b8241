//! The vectors in `tests/golden`: made by hand from the protocol's tag numbers, and what real clients speak.

use std::borrow::Cow;

use bytes::Bytes;
use tidegate_protocol::command::{Connect, History, Subscribe};
use tidegate_protocol::reply::{ConnectResult, SubscribeResult};
use tidegate_protocol::{
    ChannelName, ClientInfo, Codec, Command, Disconnect, ErrorCode, Publication, Push, Reply, Request,
    UnsubscribeCode,
};

use crate::{client, decoded};

const COMMANDS: &str = include_str!("../golden/commands.txt");
const REPLIES: &str = include_str!("../golden/replies.txt");

struct Vector {
    name: &'static str,
    json: &'static [u8],
    protobuf: Vec<u8>,
}

impl Vector {
    fn bytes(&self, codec: Codec) -> &[u8] {
        match codec {
            Codec::Json => self.json,
            Codec::Protobuf => &self.protobuf,
        }
    }
}

fn vectors(file: &'static str) -> Vec<Vector> {
    let mut blocks = file.split("\n\n");
    assert!(blocks.next().unwrap().starts_with('#'));
    blocks
        .map(|block| {
            let mut lines = block.lines();
            let name = lines.next().unwrap().strip_prefix('[').unwrap().strip_suffix(']').unwrap();
            let json = lines.next().unwrap().strip_prefix("json     ").unwrap().as_bytes();
            let hex = lines.next().unwrap().strip_prefix("protobuf ").unwrap();
            let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
            Vector { name, json, protobuf: (0..hex.len()).step_by(2).map(byte).collect() }
        })
        .collect()
}

/// A JSON text of 152 bytes, so that lengths around it take two bytes.
fn long() -> String {
    format!("\"{}\"", "0123456789".repeat(15))
}

fn commands(long: &str) -> Vec<(&'static str, Command<'_>)> {
    let news = Cow::Borrowed("news");
    let connect = Connect {
        token: "t0k".into(),
        data: b"{\"a\":1}",
        name: "js".into(),
        version: "5.0".into(),
        subs: 1,
    };
    let subscribe = Subscribe {
        channel: "chat:1".into(),
        token: "t".into(),
        data: b"[1,2]",
        recover: true,
        epoch: "x".into(),
        offset: 9_007_199_254_740_991,
        positioned: true,
        recoverable: true,
        join_leave: true,
    };
    let plain = Subscribe { channel: "новости".into(), ..Subscribe::default() };
    let publish = |data| Request::Publish { channel: news.clone(), data };
    [
        ("connect with all fields", 1, Request::Connect(connect)),
        ("connect with none", 1, Request::Connect(Connect::default())),
        ("subscribe with all fields", 2, Request::Subscribe(subscribe)),
        ("subscribe with a channel", 300, Request::Subscribe(plain)),
        ("unsubscribe", 3, Request::Unsubscribe { channel: news.clone() }),
        ("publish", 4, publish(b"{\"text\":\"hello\"}")),
        ("publish of more than 127 bytes", u32::MAX, publish(long.as_bytes())),
        ("publish without data", 5, publish(b"")),
        ("presence", 6, Request::Presence { channel: news.clone() }),
        ("presence_stats", 7, Request::PresenceStats { channel: news.clone() }),
        (
            "history",
            8,
            Request::History(History {
                channel: news.clone(),
                limit: 10,
                since: Some((7, "x".into())),
                reverse: true,
            }),
        ),
        ("ping", 9, Request::Ping),
        ("send", 0, Request::Send { data: b"true" }),
        ("rpc", 10, Request::Rpc { method: "sum".into(), data: b"null" }),
        ("refresh", 11, Request::Refresh { token: "t".into() }),
        ("sub_refresh", 12, Request::SubRefresh { channel: news.clone(), token: "t".into() }),
        ("pong", 0, Request::Pong),
    ]
    .map(|(name, id, request)| (name, Command { id, request }))
    .into()
}

#[test]
fn commands_of_real_clients_are_understood_in_both_codecs() {
    let long = long();
    let expected = commands(&long);
    let vectors = vectors(COMMANDS);
    assert_eq!(vectors.len(), expected.len());
    for codec in Codec::ALL {
        for (vector, (name, command)) in vectors.iter().zip(&expected) {
            assert_eq!(vector.name, *name);
            let (commands, end) = decoded(codec, vector.bytes(codec));
            assert_eq!((commands.as_slice(), end), (std::slice::from_ref(command), Ok(())), "{name}");
        }
    }
}

#[test]
fn a_batch_is_understood_in_order_in_both_codecs() {
    let long = long();
    let expected: Vec<_> = commands(&long).into_iter().map(|(_, command)| command).collect();
    for codec in Codec::ALL {
        let vectors = vectors(COMMANDS);
        let items: Vec<_> = vectors.iter().map(|vector| vector.bytes(codec)).collect();
        let message = items.join(codec.joint());
        let (commands, end) = decoded(codec, &message);
        assert_eq!((commands, end), (expected.clone(), Ok(())));
    }
}

#[test]
fn replies_and_pushes_are_written_as_real_clients_read_them_in_both_codecs() {
    let info = ClientInfo {
        user: "42".into(),
        client: "c-1".into(),
        conn_info: Bytes::from_static(b"{\"name\":\"Ann\"}"),
        chan_info: Bytes::from_static(b"[]"),
    };
    let session = ClientInfo { client: "c-1".into(), ..ClientInfo::default() };
    let hello = Publication {
        channel: ChannelName::parse("news").unwrap(),
        data: Bytes::from_static(b"{\"text\":\"hello\"}"),
        info: None,
        tags: vec![],
        offset: 0,
    };
    let full = Publication {
        channel: ChannelName::parse("chat:1").unwrap(),
        data: long().into(),
        info: Some(info.clone()),
        tags: vec![("a\"b".into(), "1".into()), ("lang".into(), "ру".into())],
        offset: 0,
    };
    let opened =
        ConnectResult { client: "c-1", version: "0.1.0", ping: 25, pong: true, ..ConnectResult::default() };
    let subs = vec![
        ("inbox:#42", SubscribeResult::default()),
        ("news", SubscribeResult { expires: true, ttl: 60, ..SubscribeResult::default() }),
    ];
    let all = ConnectResult { expires: true, ttl: 300, subs, node: "n-1", ..opened.clone() };

    enum Out<'a> {
        Reply(u32, Reply<'a>),
        Push(Push<'a>),
    }
    use Out::{Push as P, Reply as R};
    let table = [
        ("error", R(1, Reply::Error(ErrorCode::BadRequest))),
        ("temporary error", R(u32::MAX, Reply::Error(ErrorCode::Internal))),
        ("connect", R(1, Reply::Connect(opened))),
        ("connect with all fields", R(1, Reply::Connect(all))),
        ("subscribe", R(2, Reply::Subscribe(SubscribeResult::default()))),
        (
            "subscribe that expires",
            R(
                2,
                Reply::Subscribe(SubscribeResult {
                    expires: true,
                    ttl: u32::MAX,
                    ..SubscribeResult::default()
                }),
            ),
        ),
        ("unsubscribe", R(3, Reply::Unsubscribe)),
        ("publish", R(4, Reply::Publish)),
        ("ping", R(5, Reply::Ping)),
        ("push of a publication", P(Push::Publication(&hello))),
        ("push of a publication with all fields", P(Push::Publication(&full))),
        ("push of a join", P(Push::Join("chat:1", &info))),
        ("push of a leave", P(Push::Leave("chat:1", &session))),
        ("push of an unsubscribe", P(Push::Unsubscribe("news", UnsubscribeCode::InsufficientState))),
        ("push of a subscribe", P(Push::Subscribe("news", SubscribeResult::default()))),
        ("push of a message", P(Push::Message(b"[1]"))),
        ("push of a final disconnect", P(Push::Disconnect(Disconnect::BadRequest))),
        ("push of a passing disconnect", P(Push::Disconnect(Disconnect::Shutdown))),
    ];
    let vectors = vectors(REPLIES);
    assert_eq!(vectors.len(), table.len());
    for codec in Codec::ALL {
        // Appended to one buffer, to see that what is there already stays.
        let mut out = b"before".to_vec();
        for (vector, (name, item)) in vectors.iter().zip(&table) {
            assert_eq!(vector.name, *name);
            let start = out.len();
            match item {
                R(id, reply) => codec.reply(*id, reply, &mut out),
                P(push) => codec.push(push, &mut out),
            }
            let written = &out[start..];
            assert_eq!(written, vector.bytes(codec), "{name}: {}", String::from_utf8_lossy(written));
        }
        assert!(out.starts_with(b"before"));
    }
}

#[test]
fn both_codecs_say_the_same_to_an_independent_reader() {
    for vector in vectors(REPLIES) {
        let json: serde_json::Value = serde_json::from_slice(vector.json).unwrap();
        assert_eq!(client::protobuf_value(&vector.protobuf), json, "{}", vector.name);
    }
}

#[test]
fn a_ping_is_the_empty_reply() {
    assert_eq!(Codec::Json.ping(), b"{}");
    assert_eq!(Codec::Protobuf.ping(), [0]);
}
