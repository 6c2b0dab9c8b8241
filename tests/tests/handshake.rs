//! From the first byte to the 101, or to the answer that is none.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use tidegate_tests::raw::{Error, Frame, Raw, Response, Upgrade};
use tidegate_tests::{Certificates, Node, PATIENCE, eventually};

/// Sends bytes and reads to the end of the connection: everything that was answered, and after how long it ended.
fn converse(to: SocketAddr, bytes: &[u8]) -> (String, Duration) {
    let began = Instant::now();
    let mut socket = TcpStream::connect_timeout(&to, PATIENCE).expect("the node accepts");
    socket.set_read_timeout(Some(PATIENCE)).expect("a deadline");
    socket.write_all(bytes).expect("the node reads");
    let mut answer = Vec::new();
    match socket.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => {}
        Err(e) => panic!("the connection does not end: {e}: {}", String::from_utf8_lossy(&answer)),
    }
    (String::from_utf8_lossy(&answer).into_owned(), began.elapsed())
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
}

fn refused(result: Result<Raw, Error>) -> Response {
    match result {
        Ok(_) => panic!("it was let in"),
        Err(Error::Refused(response)) => *response,
        Err(error) => panic!("no answer: {error}"),
    }
}

#[tokio::test]
async fn a_requested_subprotocol_is_echoed() -> Result<(), Error> {
    let node = Node::dev().go();
    for (asked, echoed) in [
        (Some("centrifuge-json"), Some("centrifuge-json")),
        (Some("centrifuge-protobuf"), Some("centrifuge-protobuf")),
        (Some("chat, centrifuge-json"), Some("centrifuge-json")),
        (Some("chat"), None),
        (None, None),
    ] {
        let upgrade = Upgrade::at(node.public());
        let upgrade = match asked {
            Some(names) => upgrade.subprotocol(names),
            None => upgrade,
        };
        let client = upgrade.open().await?;
        assert_eq!(client.response().header("sec-websocket-protocol"), echoed, "{asked:?}");
        assert_eq!(client.response().header("sec-websocket-extensions"), None, "nothing is negotiated");
    }
    Ok(())
}

#[tokio::test]
async fn the_codec_can_be_asked_for_in_three_ways() -> Result<(), Error> {
    let node = Node::dev().go();
    let ways = [
        Upgrade::at(node.public()).subprotocol("centrifuge-protobuf"),
        Upgrade::at(node.public()).path("/connection/websocket?format=protobuf"),
        Upgrade::at(node.public()).path("/connection/websocket?cf_protocol=protobuf"),
    ];
    let mut clients = Vec::new();
    for way in ways {
        let mut client = way.open().await?;
        // A length, then Command { id: 1, connect: {} }.
        client.binary(&[4, 0x08, 1, 0x22, 0]).await?;
        let reply = client.frame().await?;
        assert_eq!(reply.opcode, 2, "Protobuf is answered in binary messages: {reply:?}");
        assert_eq!(usize::from(reply.payload[0]), reply.payload.len() - 1, "one reply behind its length");
        assert_eq!(reply.payload[1..3], [0x08, 1], "the reply to command 1");
        clients.push(client);
    }
    assert_eq!(node.metrics().with("tidegate_connections", &[("codec", "protobuf")]), 3.0);
    Ok(())
}

#[tokio::test]
async fn bytes_pipelined_behind_the_handshake_are_not_lost() -> Result<(), Error> {
    let certificates = Certificates::new();
    for node in [Node::dev().go(), Node::dev().tls(&certificates).go()] {
        let mut behind = Frame::text(r#"{"id":1,"connect":{}}"#).bytes();
        behind.extend(Frame::text("{\"id\":2,\"subscribe\":{\"channel\":\"news\"}}").bytes());
        let third = Frame::text(r#"{"id":3,"publish":{"channel":"news","data":"early"}}"#).bytes();
        let (half, rest) = third.split_at(third.len() / 2);
        behind.extend(half);
        let upgrade = Upgrade::at(node.public()).behind(&behind);
        let upgrade =
            if node.url().starts_with("wss") { upgrade.tls(certificates.client()) } else { upgrade };
        let mut client = upgrade.open().await?;
        client.reply(1).await?;
        client.reply(2).await?;
        client.write(rest).await?;
        client.reply(3).await?;
        assert_eq!(client.publication().await?.data, "early", "{}", node.url());
    }
    Ok(())
}

#[tokio::test]
async fn a_foreign_page_is_refused_before_the_upgrade() -> Result<(), Error> {
    let strict = Node::strict().set("auth.origins", "https://app.example.com").go();
    let at = |origin: &str| Upgrade::at(strict.public()).header("Origin", origin);
    at("https://app.example.com").open().await?;
    Upgrade::at(strict.public()).without("Origin").open().await?;
    for foreign in [
        "https://evil.example.com",
        "https://app.example.com.evil.com",
        "http://app.example.com",
        "https://app.example.com:8443",
        "http://localhost:8000",
        "null",
        "",
    ] {
        assert_eq!(refused(at(foreign).open().await).status(), 403, "{foreign:?}");
    }
    let rejected = strict.metrics().with("tidegate_connections_rejected_total", &[("reason", "origin")]);
    assert_eq!(rejected, 7.0);

    let dev = Node::dev().go();
    Upgrade::at(dev.public()).header("Origin", "http://localhost:5173").open().await?;
    let foreign = Upgrade::at(dev.public()).header("Origin", "https://evil.example.com");
    assert_eq!(refused(foreign.open().await).status(), 403, "dev mode is for pages of this machine");
    Ok(())
}

#[test]
fn what_is_no_handshake_is_answered_and_closed() {
    let node = Node::dev().go();
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let version = "Sec-WebSocket-Version: 13\r\n";
    let cases = [
        ("an unknown path", format!("GET /nowhere HTTP/1.1\r\nHost: x\r\n{upgrade}{key}{version}\r\n")),
        ("the page's path", format!("GET /robots.txt HTTP/1.1\r\nHost: x\r\n{upgrade}{key}{version}\r\n")),
        ("no key", format!("GET /connection/websocket HTTP/1.1\r\nHost: x\r\n{upgrade}{version}\r\n")),
        ("no version", format!("GET /connection/websocket HTTP/1.1\r\nHost: x\r\n{upgrade}{key}\r\n")),
        (
            "another version",
            format!(
                "GET /connection/websocket HTTP/1.1\r\nHost: x\r\n{upgrade}{key}Sec-WebSocket-Version: 8\r\n\r\n"
            ),
        ),
        ("a POST", format!("POST /connection/websocket HTTP/1.1\r\nHost: x\r\n{upgrade}{key}{version}\r\n")),
        (
            "another upgrade",
            "GET /connection/websocket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
                .to_owned(),
        ),
        ("a tunnel", "CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: 127.0.0.1:22\r\n\r\n".to_owned()),
        ("a tunnel with more behind it", "CONNECT x:1 HTTP/1.1\r\nHost: x:1\r\n\r\nSSH-2.0-x\r\n".to_owned()),
    ];
    for (what, request) in cases {
        let (answer, _) = converse(node.public(), request.as_bytes());
        assert!((400..500).contains(&status(&answer)), "{what}: {answer:?}");
        assert_eq!(answer.matches("HTTP/1.1 4").count(), 1, "{what}: one answer and no more: {answer:?}");
    }
    eventually("no connection is counted", PATIENCE, || {
        (node.metrics().sum("tidegate_connections") == 0.0).then_some(())
    });
}

#[test]
fn what_is_no_http_ends_without_harm() {
    let node = Node::dev().go();
    let descriptors = node.descriptors();
    for bytes in [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".as_slice(),
        b"\0\0\0\0\0\0\0\0\r\n\r\n",
        b"HELO example.com\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /connection/websocket HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let (answer, _) = converse(node.public(), bytes);
        assert!(answer.is_empty() || status(&answer) >= 400, "{answer:?}");
    }
    let long = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    let mut socket = TcpStream::connect_timeout(&node.public(), PATIENCE).expect("the node accepts");
    // It may be closed while it is still being written.
    let _ = socket.write_all(long.as_bytes());
    drop(socket);
    eventually("every descriptor is given back", PATIENCE, || {
        (node.descriptors() <= descriptors).then_some(())
    });
    assert_eq!(node.get("/health/live").status, 200);
}

#[tokio::test]
async fn plain_http_on_the_websocket_path_is_answered_with_an_error() -> Result<(), Error> {
    let node = Node::dev().go();
    let plain = Upgrade::at(node.public()).without("Connection").without("Upgrade");
    let answer = plain.answer().await?;
    assert!((400..500).contains(&answer.status()), "{answer}");
    assert_eq!(node.metrics().with("tidegate_connections_rejected_total", &[("reason", "bad_request")]), 1.0);
    Ok(())
}

/// Waits for the end of a connection that is given too little, and holds that it came at the deadline.
fn dropped_at_the_deadline(to: SocketAddr, what: &str, bytes: &[u8]) {
    let (_, after) = converse(to, bytes);
    assert!(after >= Duration::from_millis(700), "{what}: not before the deadline: {after:?}");
    assert!(after < Duration::from_secs(6), "{what}: {after:?}");
}

#[test]
fn a_head_that_does_not_end_is_dropped_at_the_deadline() {
    let node = Node::dev().set("limits.handshake_timeout", "1s").go();
    dropped_at_the_deadline(node.public(), "silence", b"");
    dropped_at_the_deadline(
        node.public(),
        "half a head",
        b"GET /connection/websocket HTTP/1.1\r\nHost: x\r\n",
    );

    // A trickle does not move the deadline.
    let mut socket = TcpStream::connect_timeout(&node.public(), PATIENCE).expect("the node accepts");
    let began = Instant::now();
    eventually("a trickled head is dropped", PATIENCE, || {
        tidegate_tests::deadline::pause(Duration::from_millis(80));
        socket.write_all(b"G").err()
    });
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    node.until("they are counted", |m| {
        m.with("tidegate_connections_rejected_total", &[("reason", "handshake_timeout")]) >= 3.0
    });
}

#[tokio::test]
async fn a_slow_tls_handshake_is_dropped_at_the_deadline() -> Result<(), Error> {
    let certificates = Certificates::new();
    let node = Node::dev().tls(&certificates).set("limits.handshake_timeout", "1s").go();
    dropped_at_the_deadline(node.public(), "silence", b"");
    dropped_at_the_deadline(node.public(), "a record begun", b"\x16\x03\x01\x02\x00\x01\x00\x01");
    // TLS and HTTP share the deadline.
    let began = Instant::now();
    let mut client = Upgrade::at(node.public()).tls(certificates.client()).unfinished(b"GET /conn").await?;
    // The end, in whatever way.
    let _ = client.end().await;
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    node.until("they are counted", |m| {
        m.with("tidegate_connections_rejected_total", &[("reason", "handshake_timeout")]) >= 3.0
    });
    // Plain HTTP to the TLS port is no handshake either.
    let (answer, _) = converse(node.public(), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(!answer.starts_with("HTTP/"), "{answer:?}");
    node.until("a failed TLS handshake is counted", |m| {
        m.with("tidegate_connections_rejected_total", &[("reason", "tls")]) >= 1.0
    });
    Ok(())
}

#[tokio::test]
async fn slow_handshakes_do_not_keep_others_out() -> Result<(), Error> {
    let certificates = Certificates::new();
    let node = Node::dev().tls(&certificates).set("limits.handshake_timeout", "10s").go();
    let stalled: Vec<TcpStream> = (0..200)
        .map(|_| TcpStream::connect_timeout(&node.public(), PATIENCE).expect("the node accepts"))
        .collect();
    let began = Instant::now();
    Upgrade::at(node.public()).tls(certificates.client()).open().await?;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    drop(stalled);
    Ok(())
}

#[tokio::test]
async fn never_one_connection_more_than_allowed() -> Result<(), Error> {
    const LIMIT: usize = 50;
    let node = Node::dev().set("limits.max_connections", LIMIT).go();
    for round in 0..4 {
        let mut upgrades = tokio::task::JoinSet::new();
        for _ in 0..LIMIT * 4 {
            let upgrade = Upgrade::at(node.public());
            upgrades.spawn(async move { upgrade.open().await });
        }
        let mut open = Vec::new();
        let mut pauses = Vec::new();
        for result in upgrades.join_all().await {
            match result {
                Ok(client) => open.push(client),
                refusal => {
                    let refusal = refused(refusal);
                    assert_eq!(refusal.status(), 503, "{refusal}");
                    let pause = refusal.header("retry-after").and_then(|seconds| seconds.parse::<u32>().ok());
                    pauses.push(pause.unwrap_or_else(|| panic!("no Retry-After: {refusal}")));
                }
            }
        }
        assert_eq!(open.len(), LIMIT, "round {round}: not one more, and not one fewer");
        assert!(pauses.iter().all(|pause| (1..=60).contains(pause)), "{pauses:?}");
        pauses.sort_unstable();
        pauses.dedup();
        assert!(pauses.len() > 1, "Retry-After is jittered: {pauses:?}");
        let metrics = node.metrics();
        assert_eq!(metrics.sum("tidegate_connections"), LIMIT as f64);
        assert_eq!(metrics.sum("tidegate_connections_limit"), LIMIT as f64);
        // Every way to end gives the permit back.
        for (n, mut client) in open.into_iter().enumerate() {
            match n % 3 {
                0 => drop(client.close(1000, "").await?),
                1 => client.reset()?,
                _ => drop(client),
            }
        }
        node.until("the gauge is at zero", |m| m.sum("tidegate_connections") == 0.0);
    }
    let metrics = node.metrics();
    assert_eq!(
        metrics.with("tidegate_connections_rejected_total", &[("reason", "full")]),
        (LIMIT * 12) as f64
    );
    assert_eq!(metrics.sum("tidegate_connections_accepted_total"), (LIMIT * 4) as f64);
    Ok(())
}

#[tokio::test]
async fn one_address_may_have_so_many_connections_and_no_more() -> Result<(), Error> {
    let node = Node::dev().set("limits.max_connections_per_ip", 3).go();
    let from = |last: u8| Upgrade::at(node.public()).source(IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)));
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(from(1).open().await?);
    }
    let refusal = refused(from(1).open().await);
    assert_eq!(refusal.status(), 429, "{refusal}");
    assert!(refusal.header("retry-after").is_some(), "{refusal}");
    from(2).open().await?;
    drop(open.pop());
    node.until("one has left", |m| m.sum("tidegate_connections") <= 3.0);
    eventually("its place is free", PATIENCE, || {
        (node.metrics().sum("tidegate_connections") == 2.0).then_some(())
    });
    from(1).open().await?;
    assert_eq!(node.metrics().with("tidegate_connections_rejected_total", &[("reason", "per_ip")]), 1.0);
    Ok(())
}

#[tokio::test]
async fn tls_1_2_and_1_3_are_both_spoken() -> Result<(), Error> {
    let certificates = Certificates::new();
    let node = Node::dev().tls(&certificates).go();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut client = Upgrade::at(node.public()).tls(certificates.client_speaking(version)).open().await?;
        client.connect_command().await?;
        client.subscribe("news").await?;
        node.api("publish", &serde_json::json!({"channel": "news", "data": "x".repeat(100_000)}));
        assert_eq!(client.publication().await?.data.as_str().map(str::len), Some(100_000), "{version:?}");
        let end = client.close(1000, "").await?;
        assert!(end.orderly, "{version:?}");
    }
    Ok(())
}
