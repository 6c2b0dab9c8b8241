//! RFC 6455 as the edge keeps it: what SDKs never send, and what may come in pieces.

use std::time::{Duration, Instant};

use serde_json::json;
use tidegate_tests::node::Start;
use tidegate_tests::raw::{Error, Frame, Raw, Upgrade};
use tidegate_tests::{Certificates, Node};

async fn connected(node: &Node) -> Result<Raw, Error> {
    let mut client = Upgrade::at(node.public()).open().await?;
    client.connect_command().await?;
    Ok(client)
}

/// Writes these bytes on a connected session and holds how the node ends it.
async fn ends_with(node: &Node, what: &str, bytes: &[u8], code: u16) -> Result<(), Error> {
    let mut client = connected(node).await?;
    client.write(bytes).await?;
    let end = client.end().await.map_err(|e| Error::Protocol(format!("{what}: {e}")))?;
    assert_eq!(end.code(), Some(code), "{what}: {end:?}");
    assert!(end.orderly, "{what}: TCP ends in order: {end:?}");
    Ok(())
}

#[tokio::test]
async fn a_message_may_come_in_pieces_with_pings_between() -> Result<(), Error> {
    let certificates = Certificates::new();
    for node in [Node::dev().go(), Node::dev().tls(&certificates).go()] {
        let upgrade = Upgrade::at(node.public());
        let upgrade =
            if node.url().starts_with("wss") { upgrade.tls(certificates.client()) } else { upgrade };
        let mut client = upgrade.open().await?;
        let (id, command) = client.numbered("connect", json!({"name": "smörgås"}));
        // The cut goes through a character.
        let cut = command.find('ö').expect("it is there") + 1;
        let (first, rest) = command.as_bytes().split_at(cut);
        let (second, third) = rest.split_at(3);
        client.send(&Frame { fin: false, ..Frame::new(1, first) }).await?;
        client.send(&Frame::ping(b"one")).await?;
        client.send(&Frame::open_continuation(second)).await?;
        client.send(&Frame::pong(b"unasked")).await?;
        client.send(&Frame::ping(b"two")).await?;
        client.send(&Frame::continuation(third)).await?;
        for expected in [b"one", b"two"] {
            let pong = client.frame().await?;
            assert!(pong.is_pong() && pong.payload == expected, "{pong:?}");
        }
        client.reply(id).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_message_may_come_byte_by_byte_and_many_may_come_at_once() -> Result<(), Error> {
    let node = Node::dev().go();
    let mut client = Upgrade::at(node.public()).open().await?;
    let (id, command) = client.numbered("connect", json!({}));
    for byte in Frame::text(&command).bytes() {
        client.write(&[byte]).await?;
    }
    client.reply(id).await?;
    client.subscribe("news").await?;

    let mut bytes = Vec::new();
    let mut ids = Vec::new();
    for n in 0..200 {
        let (id, command) = client.numbered("publish", json!({"channel": "news", "data": n}));
        ids.push(id);
        bytes.extend(Frame::text(&command).bytes());
    }
    client.write(&bytes).await?;
    for id in ids {
        let reply = client.reply(id).await?;
        assert_eq!(reply["publish"], json!({}), "{reply}");
    }
    for n in 0..200 {
        assert_eq!(client.publication().await?.data, n);
    }
    Ok(())
}

#[tokio::test]
async fn pings_are_answered_in_order_with_their_own_bytes() -> Result<(), Error> {
    let node = Node::dev().go();
    // Before the first command, too.
    let mut client = Upgrade::at(node.public()).open().await?;
    let long = vec![0xff; 125];
    for payload in [b"".as_slice(), b"a", b"b", &long] {
        client.send(&Frame::ping(payload)).await?;
    }
    for payload in [b"".as_slice(), b"a", b"b", &long] {
        let pong = client.frame().await?;
        assert!(pong.is_pong() && pong.payload == payload, "{pong:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_broken_frame_ends_the_connection_with_1002() -> Result<(), Error> {
    let node = Node::dev().go();
    let text = || Frame::text("{}");
    for (what, frame) in [
        ("not masked", Frame { masked: false, ..text() }),
        ("a reserved bit", Frame { reserved: 4, ..text() }),
        ("another reserved bit", Frame { reserved: 1, ..Frame::ping(b"") }),
        ("an unknown opcode", Frame::new(3, *b"x")),
        ("an unknown control opcode", Frame::new(11, *b"")),
        ("a ping of 126 bytes", Frame::ping(&[b'x'; 126])),
        ("a ping in fragments", Frame { fin: false, ..Frame::ping(b"x") }),
        ("a continuation of nothing", Frame::continuation(*b"x")),
        ("a length in too many bytes", Frame { length_bytes: Some(8), ..text() }),
        ("a length with the highest bit", Frame { length_bytes: Some(8), declared: Some(1 << 63), ..text() }),
        ("a close of one byte", Frame::new(8, *b"\x03")),
        ("a close with a code that is never sent", Frame::close(1005, "")),
        ("a close with a code below all", Frame::close(999, "")),
    ] {
        ends_with(&node, what, &frame.bytes(), 1002).await?;
    }
    let mut two = Frame::open_text("{").bytes();
    two.extend(Frame::text("{}").bytes());
    ends_with(&node, "a message within a message", &two, 1002).await?;
    let metrics = node.until("each is counted", |m| m.sum("tidegate_connections") == 0.0);
    assert_eq!(metrics.with("tidegate_disconnects_total", &[("code", "1002")]), 14.0);
    Ok(())
}

#[tokio::test]
async fn text_that_is_not_utf_8_ends_the_connection_with_1007_as_soon_as_it_shows() -> Result<(), Error> {
    let node = Node::dev().go();
    for (what, bytes) in [
        ("a byte that is none", b"{\"id\":\xff}".as_slice()),
        ("an overlong form", b"\xc0\xaf"),
        ("a surrogate", b"\xed\xa0\x80"),
        ("beyond the last", b"\xf4\x90\x80\x80"),
        ("half a character", b"\xc3"),
    ] {
        ends_with(&node, what, &Frame::new(1, bytes).bytes(), 1007).await?;
    }
    let open = Frame { fin: false, ..Frame::new(1, *b"{\xff") };
    ends_with(&node, "in the first of more fragments", &open.bytes(), 1007).await?;
    let begun = Frame { declared: Some(1000), length_bytes: Some(2), ..Frame::new(1, *b"{\xff\xff\xff") };
    ends_with(&node, "in a frame that has not ended", &begun.bytes(), 1007).await?;
    let mut reason = 1000_u16.to_be_bytes().to_vec();
    reason.push(0xff);
    ends_with(&node, "a close whose reason is not", &Frame::new(8, reason).bytes(), 1007).await
}

#[tokio::test]
async fn a_close_is_answered_and_the_node_ends_tcp() -> Result<(), Error> {
    let node = Node::dev().go();
    for (code, reason) in [(1000, ""), (1001, "going away"), (3000, "own"), (4999, "own")] {
        let mut client = connected(&node).await?;
        let end = client.close(code, reason).await?;
        assert!(end.close.is_some() && end.orderly, "{code}: {end:?}");
    }
    let mut client = connected(&node).await?;
    client.send(&Frame::new(8, *b"")).await?;
    let end = client.end().await?;
    assert!(end.close.is_some() && end.orderly, "{end:?}");
    node.until("all are gone", |m| m.sum("tidegate_connections") == 0.0);
    // A scrape is no moment: the code may have been read before the last one went.
    assert_eq!(node.metrics().with("tidegate_disconnects_total", &[("code", "3000")]), 5.0);
    Ok(())
}

#[tokio::test]
async fn what_comes_behind_a_close_is_ignored() -> Result<(), Error> {
    let node = Node::dev().go();
    let mut witness = connected(&node).await?;
    witness.subscribe("news").await?;
    let mut client = connected(&node).await?;
    let mut bytes = Frame::close(1000, "").bytes();
    let (_, command) = client.numbered("publish", json!({"channel": "news", "data": "too late"}));
    bytes.extend(Frame::text(&command).bytes());
    client.write(&bytes).await?;
    client.end().await?;
    node.api("publish", &json!({"channel": "news", "data": "in time"}));
    assert_eq!(witness.publication().await?.data, "in time");
    Ok(())
}

fn small() -> Start {
    Node::dev()
        .set("limits.max_message_bytes", "8KiB")
        .set("limits.max_fragments", 4)
        .set("limits.message_timeout", "1s")
}

#[tokio::test]
async fn a_message_of_the_limit_is_taken_and_one_byte_more_is_3501() -> Result<(), Error> {
    let node = small().go();
    let padded = |size: usize| {
        let empty = r#"{"id":9,"rpc":{"method":"x","data":""}}"#;
        empty.replace("\"\"}}", &format!("\"{}\"}}}}", "x".repeat(size - empty.len())))
    };
    let mut client = connected(&node).await?;
    client.text(&padded(8192)).await?;
    assert_eq!(client.reply(9).await?["error"]["code"], 108);
    ends_with(&node, "one byte more", &Frame::text(&padded(8193)).bytes(), 3501).await?;

    // The head of the frame is enough to know.
    let head = Frame { declared: Some(8193), length_bytes: Some(2), ..Frame::text("") };
    ends_with(&node, "one byte more, announced", &head.bytes(), 3501).await?;
    let head = Frame { declared: Some((1 << 63) - 1), length_bytes: Some(8), ..Frame::text("") };
    ends_with(&node, "the most that can be announced", &head.bytes(), 3501).await?;

    // The limit is the message's, not the frame's.
    let half = "x".repeat(5000);
    let mut bytes = Frame::open_text(&half).bytes();
    bytes.extend(Frame::continuation(half.as_bytes()).bytes());
    ends_with(&node, "two halves", &bytes, 3501).await
}

#[tokio::test]
async fn a_message_in_too_many_fragments_is_3501() -> Result<(), Error> {
    let node = small().go();
    let mut client = connected(&node).await?;
    let (id, command) = client.numbered("rpc", json!({"method": "x"}));
    let (first, rest) = command.as_bytes().split_at(3);
    let mut bytes = Frame { fin: false, ..Frame::new(1, first) }.bytes();
    bytes.extend(Frame::open_continuation(*b"").bytes());
    bytes.extend(Frame::open_continuation(&rest[..3]).bytes());
    bytes.extend(Frame::continuation(&rest[3..]).bytes());
    client.write(&bytes).await?;
    assert_eq!(client.reply(id).await?["error"]["code"], 108, "four fragments are allowed");

    let mut bytes = Frame::open_text("{").bytes();
    for _ in 0..4 {
        bytes.extend(Frame::open_continuation(*b"").bytes());
    }
    ends_with(&node, "a fifth, however empty", &bytes, 3501).await
}

#[tokio::test]
async fn a_message_that_does_not_end_is_3501_however_it_trickles() -> Result<(), Error> {
    let node = small().go();
    // Half a frame, and nothing more; a fragment, and nothing more; half a frame's head.
    for bytes in [
        Frame { declared: Some(100), ..Frame::text("{") }.bytes(),
        Frame::open_text("{\"id\":1").bytes(),
        Frame::text("{}").bytes()[..3].to_vec(),
    ] {
        let began = Instant::now();
        ends_with(&node, "half a message", &bytes, 3501).await?;
        let after = began.elapsed();
        assert!(after > Duration::from_millis(900) && after < Duration::from_secs(5), "{after:?}");
    }

    Ok(())
}

#[tokio::test]
async fn a_trickle_does_not_make_a_message_younger() -> Result<(), Error> {
    let node = small().set("limits.max_fragments", 1000).go();
    let begun = Frame { declared: Some(5000), length_bytes: Some(2), key: [0; 4], ..Frame::text("{") };
    trickle(&node, "bytes of one frame", &begun.bytes(), b"x").await?;
    let fragment = Frame::open_continuation(*b" ").bytes();
    trickle(&node, "fragments", &Frame::open_text("{").bytes(), &fragment).await?;
    let mut with_ping = fragment;
    with_ping.extend(Frame::ping(b"").bytes());
    trickle(&node, "fragments with pings between", &Frame::open_text("{").bytes(), &with_ping).await?;
    trickle(&node, "pings alone", &Frame::open_text("{").bytes(), &Frame::ping(b"").bytes()).await
}

/// Begins a message and goes on with it ten times a second, until the node has had enough.
async fn trickle(node: &Node, what: &str, begin: &[u8], more: &[u8]) -> Result<(), Error> {
    let mut client = connected(node).await?;
    client.write(begin).await?;
    let began = Instant::now();
    client.set_patience(Duration::from_millis(100));
    loop {
        assert!(began.elapsed() < Duration::from_secs(5), "{what}: it goes on and on");
        match client.frame().await {
            Ok(frame) if frame.is_close() => {
                let code = frame.close()?.map(|(code, _)| code);
                assert_eq!(code, Some(3501), "{what}");
                assert!(began.elapsed() > Duration::from_millis(900), "{what}: {:?}", began.elapsed());
                return Ok(());
            }
            // A pong comes at once: not so often.
            Ok(_) => client.silent(Duration::from_millis(80)).await.or_else(|error| match error {
                Error::NotSilent { .. } => Ok(()),
                error => Err(error),
            })?,
            Err(Error::Late { .. }) => {}
            Err(error) => return Err(error),
        }
        // The node may have closed meanwhile; the next frame says so.
        let _ = client.write(more).await;
    }
}

#[tokio::test]
async fn a_short_pause_within_a_message_is_no_fault() -> Result<(), Error> {
    let node = Node::dev().set("limits.message_timeout", "10s").go();
    let mut client = Upgrade::at(node.public()).open().await?;
    let (id, command) = client.numbered("connect", json!({}));
    let bytes = Frame::text(&command).bytes();
    let (first, second) = bytes.split_at(bytes.len() / 2);
    client.write(first).await?;
    client.silent(Duration::from_millis(1500)).await?;
    client.write(second).await?;
    client.reply(id).await?;
    Ok(())
}
