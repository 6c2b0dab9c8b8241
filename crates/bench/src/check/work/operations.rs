//! The operations whose instructions are counted. Each does a round and says how many units it did.

use std::hint::black_box;

use tidegate_hub::{Delivery, Tick};
use tidegate_protocol::frame::{Decoder, Event, Limits};
use tidegate_protocol::{ChannelName, Codec};

use crate::crowd::{ByToken, Crowd, PING_INTERVAL, broadcast, data, hello};

/// Sessions that hear, or are pinged.
const CROWD: usize = 1_000;

/// Sessions that a sweep passes by.
const SWEPT: usize = 10_000;

/// Publications of a run.
const RUN: usize = 16;

/// Does one round and says how many units it was.
pub(crate) type Operation = Box<dyn FnMut() -> usize>;

/// All names that `prepare` knows.
pub(crate) const NAMES: [&str; 13] = [
    "encode-json",
    "encode-protobuf",
    "parse-json",
    "parse-protobuf",
    "fanout-one",
    "fanout-run",
    "fanout-latest",
    "direct",
    "publish",
    "connect",
    "heartbeat",
    "sweep",
    "hold",
];

/// Prepares an operation: what is done before it returns is in every count alike.
pub(crate) fn prepare(name: &str) -> Option<Operation> {
    Some(match name {
        "encode-json" => encode(Codec::Json),
        "encode-protobuf" => encode(Codec::Protobuf),
        "parse-json" => parse(Codec::Json, 1, json_publish()),
        "parse-protobuf" => parse(Codec::Protobuf, 2, protobuf_publish()),
        "fanout-one" => fanout(1),
        "fanout-run" => fanout(RUN),
        "fanout-latest" => fanout_latest(),
        "direct" => direct(),
        "publish" => publish(),
        "connect" => connect(),
        "heartbeat" => heartbeat(),
        "sweep" => sweep(),
        "hold" => hold(),
        _ => return None,
    })
}

fn channel(name: &str) -> ChannelName {
    ChannelName::parse(name).unwrap_or_else(|_| unreachable!("the names here are good ones"))
}

/// A publication to the frame that all its subscribers of one codec share. A unit is a publication.
fn encode(codec: Codec) -> Operation {
    let (news, data) = (channel("news"), data());
    Box::new(move || {
        let publication = broadcast(&news, &data);
        black_box(publication.frame(codec));
        1
    })
}

/// A client's publish command: its frame unmasked, its command found. A unit is a message.
fn parse(codec: Codec, opcode: u8, message: Vec<u8>) -> Operation {
    let limits = Limits { max_message_bytes: 65_536, max_fragments: 64 };
    let mut decoder = Decoder::default();
    // The key is all zeros, for a frame is unmasked where it lies, and shall be the same in the next round.
    let length = u8::try_from(message.len()).map_or(255, |length| length);
    let mut frame = vec![0x80 | opcode, 0x80 | 126, 0, length, 0, 0, 0, 0];
    frame.extend_from_slice(&message);
    Box::new(move || {
        let mut commands = 0;
        let mut at = 0;
        while let Ok(step) = decoder.step(&mut frame[at..], &limits) {
            at += step.consumed;
            let message = match step.event {
                Some(Event::Text(text)) => text.as_bytes(),
                Some(Event::Binary(bytes)) => bytes,
                _ => break,
            };
            let found = codec.commands(message, |command| {
                black_box(&command);
                commands += 1;
                true
            });
            assert_eq!(found, Ok(()));
        }
        assert_eq!(commands, 1);
        1
    })
}

fn json_publish() -> Vec<u8> {
    let mut message = b"{\"id\":7,\"publish\":{\"channel\":\"chat:1\",\"data\":".to_vec();
    message.extend_from_slice(&data());
    message.extend_from_slice(b"}}");
    message
}

/// The same command by hand: a command's length, id (1), publish (7) with channel (1) and data (2).
fn protobuf_publish() -> Vec<u8> {
    let field = |tag: u8, bytes: &[u8]| {
        let mut out = vec![tag << 3 | 2];
        let length = bytes.len();
        if length >= 128 {
            out.push(0x80 | u8::try_from(length & 0x7f).unwrap_or_default());
            out.push(u8::try_from(length >> 7).unwrap_or_default());
        } else {
            out.push(u8::try_from(length).unwrap_or_default());
        }
        out.extend_from_slice(bytes);
        out
    };
    let publish = [field(1, b"chat:1"), field(2, &data())].concat();
    let command = [vec![1 << 3, 7], field(7, &publish)].concat();
    // A field without its tag is what stands in front of a command: its length.
    field(0, &command).split_off(1)
}

/// One channel, a thousand subscribers: so many publications at once, then every outbox is written out. A unit is a
/// delivery.
fn fanout(run: usize) -> Operation {
    let mut crowd = Crowd::of(CROWD, |_| "news".to_owned());
    let (news, data) = (channel("news"), data());
    Box::new(move || {
        let run: Vec<_> = (0..run).map(|_| broadcast(&news, &data)).collect();
        let delivered = crowd.deliver(&run);
        assert_eq!(delivered, run.len() * CROWD);
        assert_eq!(crowd.settle(), CROWD);
        delivered
    })
}

/// One channel of newest values, a thousand subscribers whose sockets take nothing more: each publication takes the
/// place of the one that waits. A unit is a delivery.
fn fanout_latest() -> Operation {
    let mut crowd = Crowd::with(Delivery::Latest, CROWD, |_| "price:a".to_owned());
    let (price, data) = (channel("price:a"), data());
    crowd.deliver(&[broadcast(&price, &data)]);
    crowd.block();
    Box::new(move || {
        let delivered = crowd.deliver(&[broadcast(&price, &data)]);
        assert_eq!(delivered, CROWD);
        delivered
    })
}

/// A thousand subscribers with a channel each, and a publication to each channel. A unit is a delivery.
fn direct() -> Operation {
    let mut crowd = Crowd::of(CROWD, |number| format!("inbox:user-{number:08}"));
    let data = data();
    let channels: Vec<_> = (0..CROWD).map(|number| channel(&format!("inbox:user-{number:08}"))).collect();
    Box::new(move || {
        let mut delivered = 0;
        for channel in &channels {
            delivered += crowd.deliver(&[broadcast(channel, &data)]);
        }
        assert_eq!(crowd.settle(), CROWD);
        delivered
    })
}

/// A client publishes and is told that the relay took it. A unit is a command.
fn publish() -> Operation {
    let mut crowd = Crowd::of(1, |_| "chat:1".to_owned());
    let message = json_publish();
    let session = crowd.sessions[0];
    Box::new(move || {
        crowd.shard.message(session, true, &message, &ByToken, Tick(0));
        crowd.settle()
    })
}

/// Open, connect, subscribe to a channel of one's own, be answered, leave. A unit is a session.
fn connect() -> Operation {
    let mut crowd = Crowd::of(CROWD, |number| format!("inbox:user-{number:08}"));
    let hello = hello(CROWD, "inbox:newcomer");
    Box::new(move || {
        let session = crowd.enter(&hello);
        crowd.shard.remove(session);
        crowd.settle();
        1
    })
}

/// Every session is pinged and answers. A unit is a ping with its pong.
fn heartbeat() -> Operation {
    let mut crowd = Crowd::of(CROWD, |_| "news".to_owned());
    let mut now = Tick(0);
    Box::new(move || {
        now = now.after(PING_INTERVAL);
        crowd.shard.sweep(now);
        let pinged = crowd.settle();
        for index in 0..crowd.sessions.len() {
            let session = crowd.sessions[index];
            crowd.shard.message(session, true, b"{}", &ByToken, now);
        }
        assert_eq!(pinged, CROWD);
        pinged
    })
}

/// Nobody is due. A unit is a sweep over ten thousand sessions.
fn sweep() -> Operation {
    let mut crowd = Crowd::of(SWEPT, |_| "news".to_owned());
    Box::new(move || {
        crowd.shard.sweep(black_box(Tick(1)));
        assert_eq!(crowd.settle(), 0);
        1
    })
}

/// A session with a user and a channel of its own, idle. A unit is a session; what it holds is what counts.
fn hold() -> Operation {
    let mut crowd = Crowd::new(Delivery::Every);
    Box::new(move || {
        let number = crowd.sessions.len();
        let session = crowd.enter(&hello(number, &format!("inbox:user-{number:08}")));
        crowd.sessions.push(session);
        1
    })
}
