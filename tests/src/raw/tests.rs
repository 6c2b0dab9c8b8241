//! The client against a server that says what it is told, byte for byte: a test client must not pass by mistake.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::{End, Error, Frame, Upgrade};
use crate::certs::Certificates;

const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
const SHORT: Duration = Duration::from_millis(50);

/// What happens to the socket when the script is done.
enum Then {
    Hold,
    Finish,
    Reset,
}

/// A server for one connection: reads the request, writes `script`, then what `then` says; gives back all it read.
async fn server(script: &[&[u8]], then: Then) -> (SocketAddr, JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("an address");
    let script = script.concat();
    let served = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.expect("a client");
        let mut read = Vec::new();
        while !read.windows(4).any(|window| window == b"\r\n\r\n") {
            assert!(socket.read_buf(&mut read).await.expect("a request") > 0, "no request");
        }
        socket.write_all(&script).await.expect("the client takes the script");
        finish(socket, then, &mut read).await;
        read
    });
    (addr, served)
}

async fn finish(mut socket: TcpStream, then: Then, read: &mut Vec<u8>) {
    match then {
        Then::Hold => {}
        Then::Finish => socket.shutdown().await.expect("a FIN"),
        Then::Reset => return socket.set_zero_linger().expect("a reset"),
    }
    // Until the client is gone, however it goes.
    while socket.read_buf(read).await.is_ok_and(|size| size > 0) {}
}

fn text(text: &str) -> Vec<u8> {
    let mut frame = vec![0x81, u8::try_from(text.len()).expect("a short text")];
    frame.extend(text.as_bytes());
    frame
}

#[tokio::test]
async fn an_upgrade_sends_what_was_asked_and_keeps_what_came_behind_the_answer() {
    let (addr, served) = server(&[SWITCH.as_bytes(), &text("at once")], Then::Hold).await;
    let upgrade = Upgrade::at(addr)
        .path("/echo?x=1")
        .header("Origin", "https://example.com")
        .without("sec-websocket-version")
        .subprotocol("centrifuge-json")
        .behind(b"behind");
    let mut client = upgrade.open().await.expect("an upgrade");
    assert_eq!(client.response().status(), 101);
    assert_eq!(client.response().header("upgrade"), Some("websocket"));
    assert_eq!(client.frame().await.expect("a frame").text().expect("text"), "at once");
    drop(client);
    let request = String::from_utf8(served.await.expect("served")).expect("text");
    assert!(request.starts_with("GET /echo?x=1 HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("\r\nOrigin: https://example.com\r\n"), "{request}");
    assert!(request.contains("\r\nSec-WebSocket-Protocol: centrifuge-json\r\n"), "{request}");
    assert!(!request.contains("Sec-WebSocket-Version"), "{request}");
    assert!(request.ends_with("\r\n\r\nbehind"), "{request}");
}

#[tokio::test]
async fn a_refusal_and_a_wrong_accept_are_errors_that_carry_the_answer() {
    let (addr, _) =
        server(&[b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 7\r\n\r\n"], Then::Finish).await;
    let Err(Error::Refused(response)) = Upgrade::at(addr).open().await else { panic!("not refused") };
    assert_eq!((response.status(), response.header("retry-after")), (503, Some("7")));

    let (addr, _) = server(&[b"HTTP/1.1 101 Yes\r\nSec-WebSocket-Accept: wrong\r\n\r\n"], Then::Hold).await;
    assert!(matches!(Upgrade::at(addr).open().await, Err(Error::Refused(_))));
}

#[tokio::test]
async fn waiting_ends_at_the_deadline_and_says_what_had_come() {
    let (addr, _) = server(&[SWITCH.as_bytes(), b"\x81\x05abc"], Then::Hold).await;
    let mut client = Upgrade::at(addr).open().await.expect("an upgrade");
    client.set_patience(SHORT);
    let late = client.frame().await.expect_err("the frame is incomplete").to_string();
    assert_eq!(late, "not within 50ms: a frame; 5 bytes had arrived: \\x81\\x05abc");
}

#[tokio::test]
async fn the_end_tells_the_close_frame_and_how_tcp_ended() {
    let close = b"\x88\x05\x03\xe8bye";
    let said = Some(Some((1000, "bye".to_owned())));
    let cases = [
        (&close[..], Then::Finish, End { close: said, orderly: true }),
        (b"", Then::Finish, End { close: None, orderly: true }),
        (b"\x88\x00", Then::Finish, End { close: Some(None), orderly: true }),
        (b"", Then::Reset, End { close: None, orderly: false }),
    ];
    for (script, then, expected) in cases {
        let (addr, _) = server(&[SWITCH.as_bytes(), script], then).await;
        // A reset may overtake the answer to the upgrade; then it is that which fails.
        match Upgrade::at(addr).open().await {
            Ok(mut client) => assert_eq!(client.end().await.expect("an end"), expected),
            Err(error) => assert!(!expected.orderly, "{error}"),
        }
    }
}

#[tokio::test]
async fn a_close_without_the_end_of_tcp_is_late() {
    let (addr, _) = server(&[SWITCH.as_bytes(), b"\x88\x00"], Then::Hold).await;
    let mut client = Upgrade::at(addr).open().await.expect("an upgrade");
    client.set_patience(SHORT);
    let late = client.end().await.expect_err("TCP goes on").to_string();
    assert_eq!(late, "not within 50ms: the end of TCP after the Close frame");
}

#[tokio::test]
async fn a_masked_frame_from_a_server_is_an_error() {
    let (addr, _) = server(&[SWITCH.as_bytes(), b"\x81\x80abcd"], Then::Hold).await;
    let mut client = Upgrade::at(addr).open().await.expect("an upgrade");
    assert!(matches!(client.frame().await, Err(Error::Protocol(_))));
}

#[tokio::test]
async fn frames_go_out_bit_by_bit_as_they_were_made() {
    let (addr, served) = server(&[SWITCH.as_bytes()], Then::Hold).await;
    let mut client = Upgrade::at(addr).open().await.expect("an upgrade");
    let odd = Frame {
        reserved: 5,
        masked: false,
        declared: Some(700),
        length_bytes: Some(8),
        ..Frame::open_text("ab")
    };
    client.send(&odd).await.expect("sent");
    client.send(&Frame { key: [1, 2, 3, 4], ..Frame::ping(b"\0\0\0\0\0") }).await.expect("sent");
    client.finish().await.expect("finished");
    let read = served.await.expect("served");
    let expected = b"\x51\x7f\0\0\0\0\0\0\x02\xbcab\x89\x85\x01\x02\x03\x04\x01\x02\x03\x04\x01";
    assert!(read.ends_with(expected), "{}", read.escape_ascii());
}

#[tokio::test]
async fn commands_wait_for_their_own_reply_and_keep_what_came_between() {
    let first = r#"{"push":{"channel":"a","pub":{"data":1,"offset":4}}}"#;
    let batch = format!("{{}}\n{first}\n{{\"id\":1,\"connect\":{{\"client\":\"c\"}}}}");
    let refusal = r#"{"id":2,"error":{"code":103,"message":"permission denied"}}"#;
    let (addr, served) = server(&[SWITCH.as_bytes(), &text(&batch), &text(refusal)], Then::Hold).await;
    let mut client = Upgrade::at(addr).open().await.expect("an upgrade");
    assert_eq!(client.connect_command().await.expect("connected"), json!({"client": "c"}));
    let refused = client.subscribe("a").await.expect_err("refused");
    assert_eq!(refused.command_code(), Some(103));
    let publication = client.publication().await.expect("a publication");
    assert_eq!((publication.channel.as_str(), &publication.data), ("a", &json!(1)));
    assert_eq!(publication.whole, json!({"data": 1, "offset": 4}));
    client.quiet(SHORT).await.expect("nothing more");
    client.finish().await.expect("finished");
    drop(client);
    // The ping was answered: an empty object, masked.
    let read = served.await.expect("served");
    let pong = Frame::text("{}").bytes();
    assert!(read.windows(pong.len()).any(|window| window == pong), "{}", read.escape_ascii());
}

#[tokio::test]
async fn a_close_instead_of_a_reply_is_an_error_with_its_code() {
    let (addr, _) = server(&[SWITCH.as_bytes(), b"\x88\x07\x0d\xadstale"], Then::Finish).await;
    let mut client = Upgrade::at(addr).open().await.expect("an upgrade");
    let error = client.connect_command().await.expect_err("closed");
    assert_eq!(error.close_code(), Some(3501));
    assert_eq!(
        error.to_string(),
        "the server closed with Some(3501) \"stale\" instead of the reply to command 1"
    );
}

#[tokio::test]
async fn silence_is_broken_by_a_single_byte_and_by_the_end() {
    let (addr, _) = server(&[SWITCH.as_bytes()], Then::Hold).await;
    let mut client = Upgrade::at(addr).open().await.expect("an upgrade");
    client.silent(SHORT).await.expect("silence");

    let (addr, _) = server(&[SWITCH.as_bytes(), b"\x81"], Then::Hold).await;
    let mut client = Upgrade::at(addr).open().await.expect("an upgrade");
    client.set_patience(SHORT);
    assert!(matches!(client.silent(Duration::from_secs(5)).await, Err(Error::NotSilent { .. })));

    let (addr, _) = server(&[SWITCH.as_bytes()], Then::Finish).await;
    let mut client = Upgrade::at(addr).open().await.expect("an upgrade");
    assert!(matches!(client.silent(Duration::from_secs(5)).await, Err(Error::Ended { .. })));
}

/// A TLS server which upgrades every connection, sends one text and ends in order.
async fn tls_server(certificates: &Certificates) -> SocketAddr {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let cert = CertificateDer::from_pem_file(certificates.cert()).expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(certificates.key()).expect("a key");
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("TLS 1.2 and 1.3")
        .with_no_client_auth()
        .with_single_cert(vec![cert], key)
        .expect("a key that fits");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.expect("a client");
            let Ok(mut socket) = acceptor.accept(socket).await else { continue };
            let _ = socket.read(&mut [0; 4096]).await.expect("a request");
            let script = [SWITCH.as_bytes(), &text("secret"), b"\x88\x00"].concat();
            socket.write_all(&script).await.expect("the client takes the script");
            socket.shutdown().await.expect("an orderly end");
        }
    });
    addr
}

#[tokio::test]
async fn tls_is_checked_against_the_given_authority_or_not_at_all() {
    let certificates = Certificates::new();
    let addr = tls_server(&certificates).await;
    for upgrade in [Upgrade::at(addr).tls(certificates.client()), Upgrade::at(addr).tls_unverified()] {
        let mut client = upgrade.open().await.expect("an upgrade");
        assert_eq!(client.frame().await.expect("a frame").text().expect("text"), "secret");
        assert_eq!(client.end().await.expect("an end"), End { close: Some(None), orderly: true });
    }
    let stranger = Upgrade::at(addr).tls(Certificates::new().client()).open().await;
    assert!(matches!(stranger, Err(Error::Connect { .. })), "{stranger:?}");
}
