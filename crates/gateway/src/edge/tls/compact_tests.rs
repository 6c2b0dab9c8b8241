//! Our record layer against rustls' client. What no good client sends is in [`forged`].

mod forged;

use std::io::{Read as _, Write as _};

use proptest::prelude::*;
use rustls::crypto::ring;
use rustls::{CipherSuite, ClientConnection};

use super::Records;
use super::compact::Compact;
use super::engine::{Engine, MAX_PLAINTEXT};
use super::sealing::{HEADER, TAG};
use super::tests::{exchange, read, trusting};

const SUITES: [CipherSuite; 3] = [
    CipherSuite::TLS13_AES_128_GCM_SHA256,
    CipherSuite::TLS13_AES_256_GCM_SHA384,
    CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
];

/// A client and an engine that have not spoken yet.
fn start(suite: CipherSuite, extraction: bool) -> (ClientConnection, Engine) {
    let mut provider = ring::default_provider();
    provider.cipher_suites.retain(|known| known.suite() == suite);
    let version = if SUITES.contains(&suite) { &rustls::version::TLS13 } else { &rustls::version::TLS12 };
    trusting(provider, &[version], rustls::DEFAULT_VERSIONS, extraction)
}

/// A client and our record layer, with an exchange by rustls' behind them.
fn pair(suite: CipherSuite) -> (ClientConnection, Compact) {
    let (mut client, mut engine) = start(suite, true);
    client.writer().write_all(b"request").expect("room");
    assert_eq!(exchange(&mut client, &mut engine, 1 << 20), b"request");
    engine.send(b"answer").expect("an open connection");
    exchange(&mut client, &mut engine, 1 << 20);
    assert_eq!(read(&mut client, 6), b"answer");
    let compact = Box::new(engine).compact().map_err(|_| "kept").expect("TLS 1.3").expect("its secrets");
    (client, compact)
}

#[test]
fn bytes_arrive_whole_however_records_are_cut() {
    for suite in SUITES {
        for step in [1, 7, 1000, 1 << 20] {
            let (mut client, mut compact) = pair(suite);
            let up: Vec<u8> = (0..50_000_u32).map(|n| n as u8).collect();
            let mut got = Vec::new();
            for part in up.chunks(8_000) {
                client.writer().write_all(part).expect("room for a part");
                got.extend(exchange(&mut client, &mut compact, step));
            }
            assert_eq!(got, up);
            for part in up.chunks(MAX_PLAINTEXT) {
                compact.send(part).expect("an open connection");
                exchange(&mut client, &mut compact, step);
                assert_eq!(read(&mut client, part.len()), part);
            }
            assert_eq!(compact.held_bytes(), 0, "nothing is held between records");
        }
    }
}

#[test]
fn key_updates_of_the_peer_are_followed_and_answered() {
    for suite in SUITES {
        for step in [1, 11, 1 << 20] {
            let (mut client, mut compact) = pair(suite);
            for round in 0..40_u8 {
                // rustls asks for an answer; data stands behind the update in the same bytes.
                client.refresh_traffic_keys().expect("TLS 1.3");
                client.writer().write_all(&[round; 10]).expect("room");
                assert_eq!(exchange(&mut client, &mut compact, step), [round; 10]);
                compact.send(&[round; 20]).expect("an open connection");
                exchange(&mut client, &mut compact, step);
                assert_eq!(read(&mut client, 20), [round; 20]);
            }
        }
    }
}

#[test]
fn a_key_update_is_answered_when_asked_for_and_once_while_nobody_reads() {
    let (mut client, mut compact) = pair(SUITES[0]);
    for _ in 0..20 {
        client.refresh_traffic_keys().expect("TLS 1.3");
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).expect("a vector takes everything");
        }
        compact.receive(&mut wire, &mut Vec::new()).expect("good records");
    }
    // Header, KeyUpdate, type, tag.
    assert_eq!(compact.outgoing().len(), HEADER + 5 + 1 + TAG);
    compact.send(b"still here").expect("an open connection");
    exchange(&mut client, &mut compact, 3);
    assert_eq!(read(&mut client, 10), b"still here");
}

#[test]
fn a_key_is_replaced_before_it_has_seen_too_many_records() {
    for suite in SUITES {
        let (mut client, mut compact) = pair(suite);
        // The number of the next record cannot be set at the client, so count on: the tests' limit is low.
        let mut replaced = 0;
        for round in 0..Compact::MAX_RECORDS_HERE * 3 + 10 {
            let before = compact.records_written();
            compact.send(&round.to_be_bytes()).expect("an open connection");
            // The client opens it, so it has followed the update.
            exchange(&mut client, &mut compact, 1 << 20);
            assert_eq!(read(&mut client, 8), round.to_be_bytes());
            assert!(compact.records_written() <= Compact::MAX_RECORDS_HERE);
            replaced += u32::from(compact.records_written() < before);
        }
        assert_eq!(replaced, 3, "{suite:?}");
    }
}

#[test]
fn both_sides_can_say_that_they_end() {
    let (mut client, mut compact) = pair(SUITES[0]);
    client.writer().write_all(b"last").expect("room");
    client.send_close_notify();
    assert_eq!(exchange(&mut client, &mut compact, 5), b"last");
    assert!(compact.peer_closed());
    // What comes behind is not looked at.
    compact.receive(&mut [0xff; 100], &mut Vec::new()).expect("ignored");
    compact.send(b"and ours").expect("our side is open");
    compact.send_close().expect("once");
    compact.send_close().expect("a second time says nothing");
    assert!(compact.send(b"more").is_err(), "nothing follows close_notify");
    exchange(&mut client, &mut compact, 5);
    assert_eq!(read(&mut client, 8), b"and ours");
    assert_eq!(client.reader().read(&mut [0; 1]).expect("a clean end"), 0);
}

#[test]
fn what_rustls_has_not_finished_stays_with_rustls() {
    // TLS 1.2; secrets that may not be taken.
    for (suite, extraction) in
        [(CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, true), (SUITES[0], false)]
    {
        let (mut client, mut engine) = start(suite, extraction);
        exchange(&mut client, &mut engine, 1 << 20);
        engine.send(b"answer").expect("an open connection");
        exchange(&mut client, &mut engine, 1 << 20);
        assert!(Box::new(engine).compact().is_err());
    }
    // A handshake that goes on; a record cut in two; bytes to send; something received that may want an answer.
    let (_, engine) = start(SUITES[0], true);
    assert!(engine.handshaking() && Box::new(engine).compact().is_err());
    for what in ["cut", "unsent", "unanswered", "closed"] {
        let (mut client, mut engine) = start(SUITES[0], true);
        exchange(&mut client, &mut engine, 1 << 20);
        let mut wire = Vec::new();
        match what {
            "cut" => client.writer().write_all(b"data").expect("room"),
            "closed" => client.send_close_notify(),
            _ => client.refresh_traffic_keys().expect("TLS 1.3"),
        }
        while client.wants_write() {
            client.write_tls(&mut wire).expect("a vector takes everything");
        }
        let size = if what == "cut" { wire.len() - 1 } else { wire.len() };
        engine.receive(&mut wire[..size], &mut Vec::new()).expect("good records");
        if what != "unanswered" {
            engine.send(b"answer").expect("an open connection");
        }
        if what != "unsent" {
            engine.advance(engine.outgoing().len());
        }
        let kept = Box::new(engine).compact().map(|_| ()).err();
        assert!(kept.is_some(), "{what}");
    }
}

#[test]
fn a_connection_costs_a_tenth_of_what_rustls_keeps() {
    // The next size of the allocator is 320.
    assert!(size_of::<Compact>() <= 320, "{}", size_of::<Compact>());
}

#[test]
fn keys_are_found_after_updates_that_rustls_handled() {
    for suite in SUITES {
        let (mut client, mut engine) = start(suite, true);
        exchange(&mut client, &mut engine, 1 << 20);
        for _ in 0..5 {
            client.refresh_traffic_keys().expect("TLS 1.3");
            exchange(&mut client, &mut engine, 1 << 20);
            engine.send(b"answer").expect("an open connection");
            exchange(&mut client, &mut engine, 1 << 20);
            assert_eq!(read(&mut client, 6), b"answer");
        }
        let mut compact =
            Box::new(engine).compact().map_err(|_| "kept").expect("TLS 1.3").expect("its secrets");
        client.refresh_traffic_keys().expect("TLS 1.3");
        client.writer().write_all(b"on").expect("room");
        assert_eq!(exchange(&mut client, &mut compact, 1 << 20), b"on");
        compact.send(b"and on").expect("an open connection");
        exchange(&mut client, &mut compact, 1 << 20);
        assert_eq!(read(&mut client, 6), b"and on");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_cut_of_any_records_gives_the_same_bytes(
        parts in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..300), 0_usize..40, any::<bool>()), 1..20),
        cuts in prop::collection::vec(1_usize..200, 1..60),
    ) {
        let (mut client, mut compact) = pair(SUITES[0]);
        let mut sent = Vec::new();
        let mut wire = Vec::new();
        for (data, _, update) in &parts {
            client.writer().write_all(data).expect("room");
            sent.extend_from_slice(data);
            if *update && !data.is_empty() {
                client.refresh_traffic_keys().expect("TLS 1.3");
            }
            while client.wants_write() {
                client.write_tls(&mut wire).expect("a vector takes everything");
            }
        }
        let mut got = Vec::new();
        let mut rest = wire.as_mut_slice();
        let mut cuts = cuts.iter().cycle();
        while !rest.is_empty() {
            let size = (*cuts.next().expect("a cycle")).min(rest.len());
            let (chunk, more) = rest.split_at_mut(size);
            compact.receive(chunk, &mut got).expect("good records");
            rest = more;
        }
        prop_assert_eq!(got, sent);
        prop_assert_eq!(compact.held_bytes(), compact.outgoing().len());
    }
}
