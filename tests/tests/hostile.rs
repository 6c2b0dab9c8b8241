//! What one client must not be able to do to the node or to the other clients.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;
use tidegate_tests::deadline::pause;
use tidegate_tests::raw::{Error, Frame, Upgrade};
use tidegate_tests::{Certificates, Node, PATIENCE};

#[tokio::test]
async fn one_client_that_never_stops_does_not_hold_up_the_others() -> Result<(), Error> {
    let node = Node::dev().set("workers", 1).go();
    let mut bystander = Upgrade::at(node.public()).open().await?;
    bystander.connect_command().await?;
    bystander.subscribe("news").await?;

    // Unsolicited pongs are legal and cost the client nothing.
    let stop = Arc::new(AtomicBool::new(false));
    let flooder = Upgrade::at(node.public()).request();
    let flood = std::thread::spawn({
        let (stop, to) = (Arc::clone(&stop), node.public());
        move || -> std::io::Result<u64> {
            let mut socket = TcpStream::connect(to)?;
            socket.write_all(&flooder)?;
            socket.read_exact(&mut [0; 64])?;
            let pongs = Frame::pong(b"x").bytes().repeat(10_000);
            let mut sent = 0;
            while !stop.load(Ordering::Relaxed) {
                socket.write_all(&pongs)?;
                sent += 1;
            }
            Ok(sent)
        }
    });
    node.until("the flood arrives", |m| m.sum("tidegate_bytes_received_total") > 10e6);
    for number in 0..20 {
        let began = Instant::now();
        node.api("publish", &json!({"channel": "news", "data": number}));
        assert_eq!(bystander.publication().await?.data, number);
        assert!(began.elapsed() < Duration::from_secs(2), "{:?} under the flood", began.elapsed());
    }
    let began = Instant::now();
    let mut newcomer = Upgrade::at(node.public()).open().await?;
    newcomer.connect_command().await?;
    assert!(began.elapsed() < Duration::from_secs(2), "a handshake takes {:?}", began.elapsed());
    stop.store(true, Ordering::Relaxed);
    let sent = flood.join().expect("the flooder does not panic").expect("the flood is legal");
    assert!(sent > 100, "it was a flood: {sent}");
    Ok(())
}

#[tokio::test]
async fn clients_that_answered_survive_a_node_that_was_stopped() -> Result<(), Error> {
    let mut node = Node::dev().set("heartbeat.interval", "2s").set("heartbeat.timeout", "1s").go();
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = Upgrade::at(node.public()).open().await?;
        client.connect_command().await?;
        client.subscribe("news").await?;
        clients.push(client);
    }
    node.process.signal(Signal::STOP);
    // Longer than interval and timeout together: every deadline has passed when the node goes on. What the clients send
    // meanwhile, one of them half a message, waits in the sockets.
    let half = Frame::text(r#"{"id":9,"ping":{}}"#).bytes();
    clients[0].write(&half[..half.len() / 2]).await?;
    for client in &mut clients[1..] {
        client.text("{}").await?;
    }
    pause(Duration::from_secs(4));
    node.process.signal(Signal::CONT);
    clients[0].write(&half[half.len() / 2..]).await?;
    clients[0].reply(9).await?;
    node.api("publish", &json!({"channel": "news", "data": "back"}));
    for client in &mut clients {
        assert_eq!(client.publication().await?.data, "back");
    }
    Ok(())
}

/// How long a connection stays open that is written to once and then left alone.
fn held(node: &Node, bytes: &[u8], then: &[u8]) -> Duration {
    let mut socket = TcpStream::connect_timeout(&node.public(), PATIENCE).expect("the node accepts");
    socket.set_read_timeout(Some(PATIENCE)).expect("a deadline");
    let began = Instant::now();
    socket.write_all(bytes).expect("the node reads");
    let mut answer = [0; 4096];
    let size = socket.read(&mut answer).expect("an answer or the end");
    if size > 0 {
        // The node may have closed already, which is as good.
        let _ = socket.write_all(then);
        while socket.read(&mut answer).is_ok_and(|size| size > 0) {}
    }
    began.elapsed()
}

#[test]
fn an_answered_request_does_not_buy_time_for_another() {
    let node = Node::dev().set("limits.handshake_timeout", "2s").go();
    let held = held(&node, b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n", b"G");
    assert!(held < Duration::from_secs(5), "held for {held:?}");
    node.until("the socket is gone", |m| m.sum("tidegate_connections") == 0.0);
}

#[test]
fn a_slow_head_is_dropped_without_an_answer_and_counted() {
    let node = Node::dev().set("limits.handshake_timeout", "1s").go();
    let mut socket = TcpStream::connect_timeout(&node.public(), PATIENCE).expect("the node accepts");
    socket.set_read_timeout(Some(PATIENCE)).expect("a deadline");
    socket.write_all(b"GET /connection/websocket HTTP/1.1\r\nHost").expect("the node reads");
    let mut answer = Vec::new();
    // Closed or reset: both are an end.
    let _ = socket.read_to_end(&mut answer);
    assert_eq!(String::from_utf8_lossy(&answer), "");
    node.until("it is counted", |m| {
        m.with("tidegate_connections_rejected_total", &[("reason", "handshake_timeout")]) == 1.0
    });
}

#[tokio::test]
async fn an_upgrade_that_cannot_be_served_is_refused_not_accepted() -> Result<(), Error> {
    let node = Node::dev().go();
    for upgrade in ["websocket, foo", "foo-websocket"] {
        let answer =
            Upgrade::at(node.public()).without("Upgrade").header("Upgrade", upgrade).answer().await?;
        assert_eq!(answer.status(), 400, "{upgrade}");
    }
    let chunked = Upgrade::at(node.public()).header("Transfer-Encoding", "chunked").answer().await?;
    assert_eq!(chunked.status(), 400);
    let metrics = node.metrics();
    assert_eq!(metrics.sum("tidegate_connections_accepted_total"), 0.0);
    assert_eq!(metrics.sum("tidegate_connections"), 0.0);
    Ok(())
}

#[tokio::test]
async fn cut_handshake_messages_do_not_end_a_node_that_serves_tls() -> Result<(), Error> {
    let certificates = Certificates::new();
    let mut node = Node::dev().tls(&certificates).set("limits.handshake_timeout", "2s").go();
    let tails: [&[u8]; 4] = [
        b"\x17\x03\x03\x00\x01\x00",
        b"\x15\x03\x03\x00\x02\x02\x00",
        b"\x14\x03\x03\x00\x01\x01",
        b"\xff\xff\xff\xff\xff",
    ];
    for tail in tails {
        let mut socket = TcpStream::connect_timeout(&node.public(), PATIENCE).expect("the node accepts");
        socket.set_read_timeout(Some(PATIENCE)).expect("a deadline");
        // The first bytes of a long ClientHello in a record of their own, then something else.
        let mut bytes = b"\x16\x03\x01\x00\x05\x01\x00\x02\x00\x03".to_vec();
        bytes.extend_from_slice(tail);
        socket.write_all(&bytes).expect("the node reads");
        let _ = socket.read_to_end(&mut Vec::new());
        assert_eq!(node.process.exited(), None, "the node lives on after {tail:02x?}");
    }
    let mut client = Upgrade::at(node.public()).tls(certificates.client()).open().await?;
    client.connect_command().await?;
    Ok(())
}

#[tokio::test]
async fn a_message_in_fragments_leaves_no_memory_behind() -> Result<(), Error> {
    let node = Node::dev().go();
    let mut clients = Vec::new();
    for _ in 0..200 {
        let mut client = Upgrade::at(node.public()).open().await?;
        client.connect_command().await?;
        clients.push(client);
    }
    let before = node.resident_bytes();
    let text = format!(r#"{{"id":9,"rpc":{{"data":"{}"}}}}"#, "x".repeat(60_000));
    let (head, tail) = text.split_at(30_000);
    for client in &mut clients {
        client.send(&Frame::open_text(head)).await?;
        client.send(&Frame::continuation(tail)).await?;
        // The feature is not there, and that is the answer to the whole message.
        assert_eq!(client.reply(9).await?["error"]["code"], 108);
    }
    // 200 messages of 60 KB are 12 MB.
    tidegate_tests::eventually("the memory is given back", PATIENCE, || {
        (node.resident_bytes() < before + 4_000_000).then_some(())
    });
    Ok(())
}
