//! `wss`: handshakes with a server that is somebody else's.

#![expect(clippy::unwrap_used, reason = "a failing test is what should happen")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::Arc;

use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{HandshakeKind, ServerConfig, ServerConnection, Stream};

/// Serves so many connections, each until its client is gone. Returns which handshakes were full ones.
fn serve(listener: &TcpListener, config: &Arc<ServerConfig>, connections: usize) -> Vec<bool> {
    let threads: Vec<_> = (0..connections)
        .map(|_| {
            let (stream, _) = listener.accept().unwrap();
            let config = Arc::clone(config);
            std::thread::spawn(move || one(stream, config))
        })
        .collect();
    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
}

fn one(mut stream: TcpStream, config: Arc<ServerConfig>) -> bool {
    let mut tls = ServerConnection::new(config).unwrap();
    let mut both = Stream::new(&mut tls, &mut stream);
    let (mut asked, mut bytes) = (Vec::new(), [0; 1_024]);
    while !asked.ends_with(b"\r\n\r\n") {
        match both.read(&mut bytes) {
            Ok(count) if count > 0 => asked.extend_from_slice(&bytes[..count]),
            _ => return false,
        }
    }
    let accept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
    let answer = format!("HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: {accept}\r\n\r\n");
    both.write_all(answer.as_bytes()).unwrap();
    // Until the client is gone, however it goes.
    while both.read(&mut bytes).is_ok_and(|count| count > 0) {}
    tls.handshake_kind() == Some(HandshakeKind::Full)
}

/// A server's settings with a certificate for 127.0.0.1 and keys for tickets, and that certificate as PEM.
fn server() -> (Arc<ServerConfig>, String) {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .unwrap();
    config.ticketer = rustls::crypto::ring::Ticketer::new().unwrap();
    (Arc::new(config), made.cert.pem())
}

fn connect(addresses: &[SocketAddr], ca: &str, others: &[&str]) -> Output {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), ca).unwrap();
    Command::new(env!("CARGO_BIN_EXE_tidegate-bench"))
        .args(["connect", "--json", "--protocol", "raw"])
        .args(others)
        .args(addresses.iter().flat_map(|address| ["--target".into(), format!("wss://{address}/")]))
        .arg("--ca")
        .arg(file.path())
        .output()
        .unwrap()
}

#[test]
fn every_handshake_is_a_full_one() {
    let (config, ca) = server();
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || serve(&listener, &config, 8));
    let output = connect(&[address], &ca, &["-n", "8"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(
        text.contains("\"tls\": \"full\"")
            && text.contains("\"resumed\": 0")
            && text.contains("\"connections\": 8"),
        "{text}"
    );
    assert_eq!(server.join().unwrap(), [true; 8]);
}

#[test]
fn a_ticket_of_one_node_is_used_on_the_other_which_resumes_if_it_has_the_keys() {
    for shared in [true, false] {
        let (config, ca) = server();
        let mut other = (*config).clone();
        if !shared {
            other.ticketer = rustls::crypto::ring::Ticketer::new().unwrap();
        }
        let (mut addresses, mut servers) = (Vec::new(), Vec::new());
        for config in [config, Arc::new(other)] {
            let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
            addresses.push(listener.local_addr().unwrap());
            // Four that collect tickets, then three.
            servers.push(std::thread::spawn(move || serve(&listener, &config, 4 + 3)));
        }
        let output = connect(&addresses, &ca, &["-n", "6", "--tls", "resumed", "--at-once", "2"]);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let resumed = if shared { 6 } else { 0 };
        assert!(text.contains(&format!("\"resumed\": {resumed},")), "{shared}: {text}");
        for server in servers {
            let full = server.join().unwrap().into_iter().filter(|full| *full).count();
            assert!(full == if shared { 4 } else { 7 }, "{shared}: {full} were full");
        }
    }
}

#[test]
fn a_server_of_another_authority_is_not_trusted() {
    let (config, _) = server();
    let (_, other) = server();
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || serve(&listener, &config, 1));
    let output = connect(&[address], &other, &["-n", "1"]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("invalid peer certificate"), "{text}");
    assert_eq!(server.join().unwrap(), [false]);
}
