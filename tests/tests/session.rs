//! A session's life as a raw client sees it: the order of commands, what is answered with which code, heartbeats,
//! peers that vanish.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidegate_tests::raw::{Error, Frame, Raw, Upgrade};
use tidegate_tests::{Node, PATIENCE, Proxy, door, eventually};

/// Channels without a namespace have no history and no presence, other than in dev mode.
const PLAIN: &str = "namespaces: [{name: default}]";

async fn open(node: &Node) -> Result<Raw, Error> {
    Upgrade::at(node.public()).open().await
}

async fn connected(node: &Node) -> Result<Raw, Error> {
    let mut client = open(node).await?;
    client.connect_command().await?;
    Ok(client)
}

#[tokio::test]
async fn the_connect_result_says_how_to_stay() -> Result<(), Error> {
    let node = Node::dev().go();
    let result = open(&node).await?.connect_command().await?;
    assert_eq!((&result["ping"], &result["pong"]), (&json!(25), &json!(true)));
    assert_eq!(result["client"].as_str().map(str::len), Some(36), "a UUID: {result}");
    assert!(result["version"].as_str().is_some_and(|version| version.contains('.')), "{result}");
    let native = Upgrade::at(node.public()).path("/connection/websocket?cf_ws_frame_ping_pong=true");
    let result = native.open().await?.connect_command().await?;
    assert!(result.get("ping").is_none() && result.get("pong").is_none(), "{result}");
    Ok(())
}

#[tokio::test]
async fn commands_of_one_message_are_answered_in_order_in_one_message() -> Result<(), Error> {
    let node = Node::dev().file(PLAIN).go();
    let mut client = open(&node).await?;
    let lines = [
        r#"{"id":1,"connect":{}}"#,
        r#"{"id":2,"rpc":{"method":"x"}}"#,
        r#"{"id":3,"subscribe":{"channel":"bad name"}}"#,
        r#"{"id":4,"ping":{}}"#,
        r#"{"id":5,"history":{"channel":"news"}}"#,
        r#"{"id":6,"presence":{"channel":"news"}}"#,
    ];
    client.text(&lines.join("\n")).await?;
    let frame = client.frame().await?;
    let ids: Vec<Value> = frame
        .text()?
        .split('\n')
        .map(|line| {
            serde_json::from_str::<Value>(line).unwrap_or_else(|e| panic!("{line}: {e}"))["id"].clone()
        })
        .collect();
    assert_eq!(ids, [1, 2, 3, 4, 5, 6].map(Value::from));
    Ok(())
}

#[tokio::test]
async fn what_comes_behind_a_refused_connect_is_dropped() -> Result<(), Error> {
    let node = Node::strict().go();
    let mut client = open(&node).await?;
    client.text("{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{\"channel\":\"news\"}}").await?;
    assert_eq!(client.reply(1).await?["error"]["code"], 101);
    client.quiet(Duration::from_millis(500)).await
}

#[tokio::test]
async fn what_cannot_be_understood_is_3501() -> Result<(), Error> {
    let node = Node::dev().go();
    let first = [
        ("subscribe first", r#"{"id":1,"subscribe":{"channel":"news"}}"#),
        ("publish first", r#"{"id":1,"publish":{"channel":"news","data":1}}"#),
        ("a ping first", r#"{"id":1,"ping":{}}"#),
        ("connect without an id", r#"{"connect":{}}"#),
        ("connect with id 0", r#"{"id":0,"connect":{}}"#),
    ];
    for (what, text) in first {
        let mut client = open(&node).await?;
        client.text(text).await?;
        let end = client.end().await?;
        assert_eq!((end.code(), end.reason()), (Some(3501), Some("bad request")), "{what}: {end:?}");
        assert!(end.orderly, "{what}");
    }
    let later = [
        ("a second connect", r#"{"id":2,"connect":{}}"#),
        ("nothing", ""),
        ("white space", " \n "),
        ("no JSON", "hello"),
        ("JSON that does not end", r#"{"id":2,"subscribe":{"#),
        ("an array", "[]"),
        ("a number", "1"),
        ("a command without an id", r#"{"subscribe":{"channel":"news"}}"#),
        ("a negative id", r#"{"id":-1,"ping":{}}"#),
        ("an id beyond 32 bits", r#"{"id":4294967296,"ping":{}}"#),
        ("an id that is text", r#"{"id":"2","ping":{}}"#),
        ("a request that is no object", r#"{"id":2,"subscribe":"news"}"#),
        ("a good command and a bad line", "{\"id\":2,\"ping\":{}}\n{"),
        ("objects without end", &format!("{{\"id\":2,\"rpc\":{{\"data\":{}", "[".repeat(60_000))),
    ];
    for (what, text) in later {
        let mut client = connected(&node).await?;
        client.text(text).await?;
        let end = client.end().await.map_err(|e| Error::Protocol(format!("{what}: {e}")))?;
        assert_eq!(end.code(), Some(3501), "{what}: {end:?}");
    }
    for (what, path, frame) in [
        ("binary to JSON", "/connection/websocket", Frame::binary(br#"{"id":1,"connect":{}}"#)),
        (
            "text to Protobuf",
            "/connection/websocket?format=protobuf",
            Frame::text(r#"{"id":1,"connect":{}}"#),
        ),
        ("a length beyond the message", "/connection/websocket?format=protobuf", Frame::binary(&[9, 8, 1])),
        ("a length without end", "/connection/websocket?format=protobuf", Frame::binary(&[0xff; 11])),
        ("nothing", "/connection/websocket?format=protobuf", Frame::binary(&[])),
    ] {
        let mut client = Upgrade::at(node.public()).path(path).open().await?;
        client.send(&frame).await?;
        assert_eq!(client.end().await?.code(), Some(3501), "{what}");
    }
    Ok(())
}

#[tokio::test]
async fn each_mistake_has_its_error_and_the_session_goes_on() -> Result<(), Error> {
    let node = Node::dev().file(PLAIN).set("limits.max_subscriptions", 3).go();
    let mut client = connected(&node).await?;
    let long = "x".repeat(256);
    let mut expect = async |name: &str, request: Value, code: u64| -> Result<(), Error> {
        match client.command(name, request.clone()).await {
            Err(error) if error.command_code() == Some(code) => Ok(()),
            other => panic!("{name} {request}: {other:?}"),
        }
    };
    for channel in ["", "two words", "x{y}", "a*", "tab\t", "nul\0", &long] {
        expect("subscribe", json!({"channel": channel}), 107).await?;
        expect("publish", json!({"channel": channel, "data": 1}), 107).await?;
    }
    for name in ["presence", "presence_stats", "history", "rpc", "refresh", "sub_refresh"] {
        expect(name, json!({"channel": "news", "method": "x"}), 108).await?;
    }
    let mut client = connected(&node).await?;
    for channel in ["a", "b", "c"] {
        client.subscribe(channel).await?;
    }
    let again = client.subscribe("a").await.err().and_then(|e| e.command_code());
    assert_eq!(again, Some(105));
    let fourth = client.subscribe("d").await.err().and_then(|e| e.command_code());
    assert_eq!(fourth, Some(106));
    client.unsubscribe("b").await?;
    client.unsubscribe("b").await?;
    client.subscribe("d").await?;
    client.publish("d", json!(1)).await?;
    assert_eq!(client.publication().await?.data, 1);
    // `send` has no id and gets no reply.
    client.text(r#"{"send":{"data":{"any":"thing"}}}"#).await?;
    client.quiet(Duration::from_millis(300)).await
}

#[tokio::test]
async fn a_payload_reaches_the_wire_byte_for_byte_but_for_line_breaks() -> Result<(), Error> {
    let node = Node::dev().go();
    let mut client = connected(&node).await?;
    client.subscribe("news").await?;
    for data in [
        r#"{"b":12345678901234567890123,"a":1.10,"a":2,"c": [ 1 ,2 ]}"#,
        r#""\u0041\/\ud83c\udf0a plain é 🌊""#,
        "1e2",
        "-0",
        r#""</script>""#,
    ] {
        client.text(&format!(r#"{{"id":77,"publish":{{"channel":"news","data":{data}}}}}"#)).await?;
        let pushed = loop {
            let frame = client.frame().await?;
            let text = frame.text()?.to_owned();
            if let Some(line) = text.split('\n').find(|line| line.contains("\"pub\"")) {
                break line.to_owned();
            }
        };
        assert!(pushed.contains(&format!("\"data\":{data}")), "{data} became {pushed}");
    }
    // From a backend a payload may have line breaks between its tokens; none may reach the wire.
    let body = "{\"channel\":\"news\",\"data\":{\r\n  \"a\":\t\"x\\ny\",\n  \"b\": 1.0\n}}";
    door::post(&format!("http://{}/api/publish", node.internal()), None, body).expect("an answer");
    let pushed = loop {
        let frame = client.frame().await?;
        let text = frame.text()?.to_owned();
        if text.contains("\"pub\"") {
            break text;
        }
    };
    assert!(!pushed.contains('\n') && !pushed.contains('\r'), "{pushed:?}");
    let push: Value = serde_json::from_str(&pushed).unwrap_or_else(|e| panic!("{pushed}: {e}"));
    assert_eq!(push["push"]["pub"]["data"], json!({"a": "x\ny", "b": 1.0}));
    Ok(())
}

#[tokio::test]
async fn who_says_nothing_is_3502() -> Result<(), Error> {
    let node = Node::dev().set("limits.connect_timeout", "1s").go();
    let began = Instant::now();
    let mut silent = open(&node).await?;
    let end = silent.end().await?;
    assert_eq!((end.code(), end.reason()), (Some(3502), Some("stale")), "{end:?}");
    let after = began.elapsed();
    assert!(after > Duration::from_millis(900) && after < Duration::from_secs(4), "{after:?}");

    // Native pings are no command.
    let mut pinging = open(&node).await?;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(4) {
        pinging.send(&Frame::ping(b"")).await?;
        let frame = pinging.frame().await?;
        if frame.is_close() {
            assert_eq!(frame.close()?.map(|(code, _)| code), Some(3502));
            return Ok(());
        }
        pinging.set_patience(Duration::from_secs(2));
        tidegate_tests::deadline::pause(Duration::from_millis(100));
    }
    panic!("it may stay for ever");
}

#[tokio::test]
async fn who_leaves_a_ping_without_a_pong_is_3012() -> Result<(), Error> {
    let node = Node::dev().set("heartbeat.interval", "1s").set("heartbeat.timeout", "500ms").go();
    let mut mute = connected(&node).await?;
    mute.mute(true);
    let began = Instant::now();
    let end = mute.end().await?;
    assert_eq!((end.code(), end.reason()), (Some(3012), Some("no pong")), "{end:?}");
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());

    let native = Upgrade::at(node.public()).path("/connection/websocket?cf_ws_frame_ping_pong=true");
    let mut mute = native.open().await?;
    mute.connect_command().await?;
    let end = mute.end().await?;
    assert_eq!(end.code(), Some(3012), "{end:?}");

    let mut good = native.open().await?;
    good.connect_command().await?;
    good.stay(Duration::from_secs(4)).await?;
    good.close(1000, "").await?;
    let mut good = connected(&node).await?;
    // A pong that nobody asked for is no fault.
    good.text("{}").await?;
    good.text("{}\n{}").await?;
    good.stay(Duration::from_secs(4)).await?;
    assert_eq!(node.metrics().sum("tidegate_heartbeat_timeouts_total"), 2.0);
    Ok(())
}

#[tokio::test]
async fn first_pings_are_spread_over_half_an_interval() -> Result<(), Error> {
    let node = Node::dev().set("heartbeat.interval", "4s").set("heartbeat.timeout", "3s").go();
    let mut clients = Vec::new();
    for _ in 0..60 {
        clients.push(connected(&node).await?);
    }
    let began = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for mut client in clients {
        tasks.spawn(async move {
            let frame = client.frame().await.expect("a ping");
            assert_eq!(frame.payload, b"{}", "{frame:?}");
            began.elapsed()
        });
    }
    let mut times = tasks.join_all().await;
    times.sort_unstable();
    let (first, last) = (times[0], times[times.len() - 1]);
    assert!(first > Duration::from_millis(1200), "none before half an interval: {first:?}");
    assert!(last < Duration::from_secs(6), "none long after a whole one: {last:?}");
    assert!(last - first > Duration::from_millis(900), "not all at once: {first:?} to {last:?}");
    Ok(())
}

#[tokio::test]
async fn a_peer_that_vanished_is_found_and_its_place_is_free() -> Result<(), Error> {
    let node = Node::dev().set("heartbeat.interval", "1s").set("heartbeat.timeout", "1s").go();
    let proxy = Proxy::to(node.public());
    let mut client = Upgrade::at(proxy.address()).open().await?;
    client.connect_command().await?;
    client.subscribe("news").await?;
    let descriptors = node.descriptors();
    proxy.silence();
    let metrics = node.until("it is found", |m| m.sum("tidegate_connections") == 0.0);
    assert_eq!(metrics.with("tidegate_disconnects_total", &[("code", "3012")]), 1.0);
    node.until("its subscription went with it", |m| m.sum("tidegate_subscriptions") == 0.0);
    eventually("its socket is closed", PATIENCE, || (node.descriptors() < descriptors).then_some(()));
    Ok(())
}

#[tokio::test]
async fn a_peer_that_ends_without_a_close_frees_its_place_at_once() -> Result<(), Error> {
    let node = Node::dev().go();
    let mut half = connected(&node).await?;
    half.subscribe("news").await?;
    half.finish().await?;
    node.until("the half-closed one is gone", |m| m.sum("tidegate_connections") == 0.0);
    let crashed = connected(&node).await?;
    crashed.reset()?;
    node.until("the crashed one is gone", |m| m.sum("tidegate_connections") == 0.0);
    let mut within = connected(&node).await?;
    within.write(&Frame::text("{}").bytes()[..4]).await?;
    drop(within);
    let metrics = node.until("the one within a frame is gone", |m| m.sum("tidegate_connections") == 0.0);
    assert_eq!(metrics.with("tidegate_disconnects_total", &[("code", "1006")]), 3.0);
    node.until("subscriptions went with them", |m| m.sum("tidegate_subscriptions") == 0.0);
    Ok(())
}

#[tokio::test]
async fn who_does_not_close_after_the_close_is_dropped() -> Result<(), Error> {
    let node = Node::dev().go();
    let mut stubborn = connected(&node).await?;
    let descriptors = node.descriptors();
    stubborn.text("bad").await?;
    let frame = stubborn.frame().await?;
    assert!(frame.is_close(), "{frame:?}");
    // It neither answers nor closes.
    eventually("its socket is closed all the same", PATIENCE, || {
        (node.descriptors() < descriptors).then_some(())
    });
    node.until("its place is free", |m| m.sum("tidegate_connections") == 0.0);
    Ok(())
}
