//! The engine against rustls' own buffered client: same promises as the stock server connection.

use std::io::{Read as _, Write as _};
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, SupportedProtocolVersion};

use super::engine::MAX_PLAINTEXT;
use super::{Engine, Records};

/// A client and an engine that trust each other, with nothing exchanged yet.
fn pair(version: &'static SupportedProtocolVersion) -> (ClientConnection, Engine) {
    trusting(ring::default_provider(), rustls::DEFAULT_VERSIONS, &[version], false)
}

/// The same with what each side is to know, and whether the engine is to give its secrets away.
pub(super) fn trusting(
    provider: CryptoProvider,
    servers: &[&'static SupportedProtocolVersion],
    clients: &[&'static SupportedProtocolVersion],
    extraction: bool,
) -> (ClientConnection, Engine) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).expect("a root");
    let provider = Arc::new(provider);
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(servers)
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("a server configuration");
    server.enable_secret_extraction = extraction;
    let client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(clients)
        .expect("a version")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").expect("a name");
    let client = ClientConnection::new(Arc::new(client), name).expect("a client");
    (client, Engine::new(Arc::new(server)).expect("an engine"))
}

/// Carries bytes both ways, `step` at a time, until nothing moves. Returns what the server decrypted.
pub(super) fn exchange(client: &mut ClientConnection, server: &mut dyn Records, step: usize) -> Vec<u8> {
    let mut plaintext = Vec::new();
    loop {
        let mut moved = false;
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).expect("a vector takes everything");
        }
        for chunk in wire.chunks_mut(step) {
            moved = true;
            server.receive(chunk, &mut plaintext).expect("good records");
        }
        while !server.outgoing().is_empty() {
            moved = true;
            let size = server.outgoing().len().min(step);
            let mut chunk = &server.outgoing()[..size];
            client.read_tls(&mut chunk).expect("a slice gives everything");
            client.process_new_packets().expect("good records");
            server.advance(size - chunk.len());
        }
        if !moved {
            return plaintext;
        }
    }
}

pub(super) fn read(client: &mut ClientConnection, size: usize) -> Vec<u8> {
    let mut out = vec![0; size];
    client.reader().read_exact(&mut out).expect("as much as was sent");
    out
}

#[test]
fn bytes_arrive_whole_however_records_are_cut() {
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for step in [1, 7, 1000, 1 << 20] {
            let (mut client, mut engine) = pair(version);
            exchange(&mut client, &mut engine, step);
            assert!(!engine.handshaking() && !client.is_handshaking());

            let up: Vec<u8> = (0..50_000_u32).map(|n| n as u8).collect();
            let mut got = Vec::new();
            // The buffered client holds a bounded amount, so it is fed as it drains.
            for part in up.chunks(8_000) {
                client.writer().write_all(part).expect("room for a part");
                got.extend(exchange(&mut client, &mut engine, step));
            }
            assert_eq!(got, up);

            for part in up.chunks(MAX_PLAINTEXT) {
                engine.send(part).expect("an open connection");
                exchange(&mut client, &mut engine, step);
                assert_eq!(read(&mut client, part.len()), part);
            }
        }
    }
}

#[test]
fn nothing_is_held_between_records() {
    let (mut client, mut engine) = pair(&rustls::version::TLS13);
    exchange(&mut client, &mut engine, 100);
    client.writer().write_all(b"hello").expect("room");
    exchange(&mut client, &mut engine, 3);
    engine.send(b"hello").expect("an open connection");
    exchange(&mut client, &mut engine, 3);
    assert_eq!(engine.held_bytes(), 0);
}

#[test]
fn a_key_update_is_answered_and_data_goes_on_both_ways() {
    let (mut client, mut engine) = pair(&rustls::version::TLS13);
    exchange(&mut client, &mut engine, 1 << 20);
    for round in 0..3_u8 {
        client.refresh_traffic_keys().expect("TLS 1.3");
        client.writer().write_all(&[round; 10]).expect("room");
        assert_eq!(exchange(&mut client, &mut engine, 11), [round; 10]);
        engine.send(&[round; 20]).expect("an open connection");
        exchange(&mut client, &mut engine, 11);
        assert_eq!(read(&mut client, 20), [round; 20]);
    }
}

#[test]
fn both_sides_can_say_that_they_end() {
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let (mut client, mut engine) = pair(version);
        exchange(&mut client, &mut engine, 1 << 20);
        client.writer().write_all(b"last words").expect("room");
        client.send_close_notify();
        assert_eq!(exchange(&mut client, &mut engine, 1 << 20), b"last words");
        assert!(engine.peer_closed());
        engine.send(b"and ours").expect("our side is still open");
        engine.send_close().expect("our side is still open");
        exchange(&mut client, &mut engine, 1 << 20);
        assert_eq!(read(&mut client, 8), b"and ours");
        assert_eq!(client.reader().read(&mut [0; 1]).expect("a clean end"), 0);
    }
}

#[test]
fn a_forged_record_is_an_error_with_an_alert() {
    let (mut client, mut engine) = pair(&rustls::version::TLS13);
    exchange(&mut client, &mut engine, 1 << 20);
    client.writer().write_all(b"hello").expect("room");
    let mut wire = Vec::new();
    client.write_tls(&mut wire).expect("a vector takes everything");
    *wire.last_mut().expect("a record") ^= 1;
    let mut plaintext = Vec::new();
    assert!(engine.receive(&mut wire, &mut plaintext).is_err());
    assert!(plaintext.is_empty());
    assert!(!engine.outgoing().is_empty(), "the peer learns the reason");
}

#[test]
fn what_is_not_tls_is_an_error_and_not_held() {
    let (_, mut engine) = pair(&rustls::version::TLS13);
    let mut plaintext = Vec::new();
    assert!(engine.receive(&mut b"GET / HTTP/1.1\r\n\r\n".to_vec(), &mut plaintext).is_err());
    assert_eq!(engine.held_bytes(), engine.outgoing().len());
}

/// The bytes of a record of the handshake type, as a client may cut its messages.
fn handshake_record(body: &[u8]) -> Vec<u8> {
    let mut record = vec![0x16, 3, 1, 0, body.len() as u8];
    record.extend_from_slice(body);
    record
}

#[test]
fn a_cut_handshake_message_with_something_else_behind_it_is_an_error_and_no_panic() {
    let (_, mut engine) = pair(&rustls::version::TLS13);
    let mut plaintext = Vec::new();
    // The first bytes of a ClientHello of 512 bytes, then application data.
    let mut wire = handshake_record(&[1, 0, 2, 0, 3]);
    wire.extend([0x17, 3, 3, 0, 1, 0]);
    assert!(engine.receive(&mut wire, &mut plaintext).is_err());
}

#[test]
fn writing_while_a_handshake_message_is_unfinished_does_no_harm() {
    // A ClientHello cut at every place, with our side asked to write in between: refused, and the handshake goes on.
    let (mut client, mut engine) = pair(&rustls::version::TLS13);
    let mut hello = Vec::new();
    client.write_tls(&mut hello).expect("a vector takes everything");
    let body = hello.split_off(5);
    let mut plaintext = Vec::new();
    for part in body.chunks(40) {
        assert!(engine.send_close().is_err(), "nothing can be written yet");
        assert!(engine.send(b"early").is_err(), "nothing can be written yet");
        engine.receive(&mut handshake_record(part), &mut plaintext).expect("a part of a good message");
    }
    exchange(&mut client, &mut engine, 1 << 20);
    assert!(!engine.handshaking() && !client.is_handshaking());
}
