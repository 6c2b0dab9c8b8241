//! Records that no good client sends: each broken rule has its alert and is the end, and no bytes do harm.

use proptest::prelude::*;
use rustls::{AlertDescription, CipherSuite, ContentType};

use super::{SUITES, pair};
use crate::edge::tls::Records as _;
use crate::edge::tls::compact::Compact;
use crate::edge::tls::engine::MAX_PLAINTEXT;
use crate::edge::tls::sealing::{HEADER, Half, TAG};

/// The two directions of a client whose records the test makes itself.
struct Forger {
    write: Half,
    read: Half,
}

fn forger(suite: CipherSuite) -> (Forger, Compact) {
    let (_, compact) = pair(suite);
    // Each side writes with what the other reads with.
    (Forger { write: compact.read_half(), read: compact.write_half() }, compact)
}

impl Forger {
    fn record(&mut self, content_type: u8, content: &[u8], padding: usize) -> Vec<u8> {
        let mut wire = Vec::new();
        self.write.seal(ContentType::from(content_type), content, padding, &mut wire).expect("a record");
        wire
    }

    /// Opens all that the server has to send: type and content of each record.
    fn open(&mut self, compact: &mut Compact) -> Vec<(u8, Vec<u8>)> {
        let mut wire = compact.outgoing().to_vec();
        compact.advance(wire.len());
        let mut rest = wire.as_mut_slice();
        let mut records = Vec::new();
        while let Some((header, more)) = rest.split_first_chunk_mut::<HEADER>() {
            let size = usize::from(u16::from_be_bytes([header[3], header[4]]));
            let (body, more) = more.split_at_mut(size);
            let inner = self.read.open(*header, body).expect("the server's record");
            let (last, content) = inner.split_last().expect("a type");
            records.push((*last, content.to_vec()));
            rest = more;
        }
        records
    }
}

const DATA: u8 = 23;
const HANDSHAKE: u8 = 22;
const ALERT: u8 = 21;
const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];
const KEY_UPDATE_REQUESTED: [u8; 5] = [24, 0, 0, 1, 1];

/// Gives `wire` to the server, which must refuse it with `alert` and nothing else, and take and say nothing more.
fn refused(what: &str, forger: &mut Forger, compact: &mut Compact, wire: &mut [u8], alert: AlertDescription) {
    let mut plaintext = Vec::new();
    let error = compact.receive(wire, &mut plaintext).expect_err(what);
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData, "{what}: {error}");
    assert_eq!(forger.open(compact), [(ALERT, vec![2, alert.into()])], "{what}: {error}");
    assert!(compact.send(b"more").is_err() && compact.send_close().is_err());
    let mut good = forger.record(DATA, b"more", 0);
    assert!(compact.receive(&mut good, &mut plaintext).is_err());
    assert!(plaintext.is_empty() && compact.outgoing().is_empty());
}

#[test]
fn a_key_update_that_asks_for_no_answer_has_none() {
    let (mut forger, mut compact) = forger(SUITES[0]);
    let mut wire = forger.record(HANDSHAKE, &KEY_UPDATE, 0);
    compact.receive(&mut wire, &mut Vec::new()).expect("good records");
    assert!(compact.outgoing().is_empty(), "nobody asked");
}

#[test]
fn alerts_end_the_connection_without_an_answer_but_for_user_canceled() {
    for (level, description, ends) in
        [(2, 20, true), (1, 40, true), (2, 254, true), (7, 80, true), (1, 90, false)]
    {
        let (mut forger, mut compact) = forger(SUITES[0]);
        let mut wire = forger.record(ALERT, &[level, description], 0);
        assert_eq!(compact.receive(&mut wire, &mut Vec::new()).is_err(), ends, "{level} {description}");
        assert!(compact.outgoing().is_empty());
        assert_eq!(compact.send(b"more").is_err(), ends);
        assert!(!compact.peer_closed());
    }
}

#[test]
fn padding_is_taken_off_and_empty_records_are_taken() {
    let (mut forger, mut compact) = forger(SUITES[0]);
    let mut wire = forger.record(DATA, b"padded", 1000);
    wire.extend(forger.record(DATA, b"", 0));
    wire.extend(forger.record(DATA, b"", 16_000));
    wire.extend(forger.record(DATA, b"ends in zeros\0\0", 3));
    wire.extend(forger.record(DATA, &[b'x'; MAX_PLAINTEXT], 0));
    wire.extend(forger.record(DATA, b"", MAX_PLAINTEXT));
    let mut plaintext = Vec::new();
    compact.receive(&mut wire, &mut plaintext).expect("good records");
    assert_eq!(plaintext[..21], *b"paddedends in zeros\0\0");
    assert_eq!(plaintext.len(), 21 + MAX_PLAINTEXT);
}

#[test]
fn every_broken_rule_has_its_alert_and_is_the_end() {
    use AlertDescription as A;
    let cases: [(&str, u8, &[u8], usize, A); 22] = [
        ("only zeros", 0, b"", 0, A::UnexpectedMessage),
        ("only zeros, many", 0, b"", 500, A::UnexpectedMessage),
        ("too much content", DATA, &[1; MAX_PLAINTEXT + 1], 0, A::RecordOverflow),
        ("too much padding", DATA, b"", MAX_PLAINTEXT + 1, A::RecordOverflow),
        ("as much as fits", DATA, b"x", MAX_PLAINTEXT + 256 - TAG - 2, A::RecordOverflow),
        ("change_cipher_spec", 20, &[1], 0, A::UnexpectedMessage),
        ("heartbeat", 24, &[1], 0, A::UnexpectedMessage),
        ("an unknown type", 99, &[1], 0, A::UnexpectedMessage),
        ("an empty handshake record", HANDSHAKE, b"", 0, A::UnexpectedMessage),
        ("a ClientHello", HANDSHAKE, &[1, 0, 0, 1, 0], 0, A::UnexpectedMessage),
        ("a Certificate", HANDSHAKE, &[11, 0, 0, 0], 0, A::UnexpectedMessage),
        ("a Finished", HANDSHAKE, &[20, 0, 0, 1, 0], 0, A::UnexpectedMessage),
        ("a ticket", HANDSHAKE, &[4, 0, 0, 1, 0], 0, A::UnexpectedMessage),
        ("a key update without content", HANDSHAKE, &[24, 0, 0, 0], 0, A::DecodeError),
        ("a key update that is too long", HANDSHAKE, &[24, 0, 0, 2, 0, 0], 0, A::DecodeError),
        ("a key update that claims 16 MB", HANDSHAKE, &[24, 255, 255, 255], 0, A::DecodeError),
        ("a key update of a third kind", HANDSHAKE, &[24, 0, 0, 1, 2], 0, A::IllegalParameter),
        ("two key updates", HANDSHAKE, &[24, 0, 0, 1, 0, 24, 0, 0, 1, 0], 0, A::UnexpectedMessage),
        ("a byte behind a key update", HANDSHAKE, &[24, 0, 0, 1, 0, 0], 0, A::UnexpectedMessage),
        ("an empty alert", ALERT, b"", 0, A::DecodeError),
        ("half an alert", ALERT, &[1], 0, A::DecodeError),
        ("two alerts", ALERT, &[1, 0, 1, 0], 0, A::DecodeError),
    ];
    for (what, content_type, content, padding, alert) in cases {
        let (mut forger, mut compact) = forger(SUITES[0]);
        let mut wire = forger.record(content_type, content, padding);
        refused(what, &mut forger, &mut compact, &mut wire, alert);
    }
}

#[test]
fn records_that_are_wrong_from_outside_are_refused_before_they_are_there() {
    use AlertDescription as A;
    for (header, alert) in [
        ([22, 3, 3, 0, 40], A::UnexpectedMessage),
        ([21, 3, 3, 0, 2], A::UnexpectedMessage),
        ([20, 3, 3, 0, 1], A::UnexpectedMessage),
        (*b"GET /", A::UnexpectedMessage),
        ([23, 3, 3, 0x41, 0x01], A::RecordOverflow),
        ([23, 3, 3, 0xff, 0xff], A::RecordOverflow),
        ([23, 3, 3, 0, 0], A::BadRecordMac),
        ([23, 3, 3, 0, 16], A::BadRecordMac),
    ] {
        let (mut forger, mut compact) = forger(SUITES[0]);
        refused("broken", &mut forger, &mut compact, &mut header.clone(), alert);
        assert_eq!(compact.held_bytes(), 0);
    }
}

#[test]
fn a_record_with_any_bit_changed_is_refused() {
    for suite in SUITES {
        let size = HEADER + 4 + 1 + TAG;
        // The type and the size have rules of their own.
        for at in (1..3).chain(HEADER..size) {
            let (mut forger, mut compact) = forger(suite);
            let mut wire = forger.record(DATA, b"good", 0);
            wire[at] ^= 0x10;
            refused("broken", &mut forger, &mut compact, &mut wire, AlertDescription::BadRecordMac);
        }
    }
}

#[test]
fn a_record_cannot_be_replayed_left_out_or_swapped() {
    for order in [&[0, 0][..], &[1], &[1, 0]] {
        let (mut forger, mut compact) = forger(SUITES[0]);
        let records = [forger.record(DATA, b"one", 0), forger.record(DATA, b"two", 0)];
        let mut wire: Vec<u8> = order.iter().flat_map(|&at: &usize| records[at].clone()).collect();
        let mut plaintext = Vec::new();
        assert!(compact.receive(&mut wire, &mut plaintext).is_err(), "{order:?}");
        assert_eq!(forger.open(&mut compact), [(ALERT, vec![2, AlertDescription::BadRecordMac.into()])]);
    }
}

#[test]
fn a_key_update_in_parts_is_one_and_nothing_may_come_between() {
    let (mut client, mut compact) = forger(SUITES[0]);
    let mut wire = Vec::new();
    for byte in KEY_UPDATE_REQUESTED {
        wire.extend(client.record(HANDSHAKE, &[byte], 0));
    }
    compact.receive(&mut wire, &mut Vec::new()).expect("a key update");
    assert_eq!(client.open(&mut compact), [(HANDSHAKE, KEY_UPDATE.to_vec())]);
    // Its next record has another key now.
    let mut old = client.record(DATA, b"old", 0);
    assert!(compact.receive(&mut old, &mut Vec::new()).is_err());

    for (content_type, content) in [(DATA, &b"data"[..]), (DATA, b""), (ALERT, &[1, 0])] {
        let (mut forger, mut compact) = forger(SUITES[0]);
        let mut first = forger.record(HANDSHAKE, &KEY_UPDATE[..3], 0);
        compact.receive(&mut first, &mut Vec::new()).expect("a part of a key update");
        let mut between = forger.record(content_type, content, 0);
        refused("broken", &mut forger, &mut compact, &mut between, AlertDescription::UnexpectedMessage);
    }
}

#[test]
fn records_without_data_are_bounded_and_data_makes_up_for_them() {
    let (mut forger, mut compact) = forger(SUITES[0]);
    for _ in 0..4 {
        for _ in 0..32 {
            let mut empty = forger.record(DATA, b"", 7);
            compact.receive(&mut empty, &mut Vec::new()).expect("cover traffic");
        }
        let mut data = forger.record(DATA, b"data", 0);
        compact.receive(&mut data, &mut Vec::new()).expect("data");
    }
    for _ in 0..32 {
        let mut cancel = forger.record(ALERT, &[1, 90], 0);
        compact.receive(&mut cancel, &mut Vec::new()).expect("a few");
    }
    let mut last = forger.record(DATA, b"", 0);
    refused("broken", &mut forger, &mut compact, &mut last, AlertDescription::UnexpectedMessage);
}

#[test]
fn the_last_number_is_used_once_and_there_is_none_after_it() {
    let (forger, _) = forger(SUITES[0]);
    let mut half = forger.write;
    half.set(u64::MAX - 1);
    let mut out = Vec::new();
    assert!(half.seal(ContentType::ApplicationData, b"last", 0, &mut out).is_some());
    assert!(half.seal(ContentType::ApplicationData, b"none", 0, &mut out).is_none());
    assert!(half.open([23, 3, 3, 0, 20], &mut [0; 20]).is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_bytes_make_it_panic_or_hold_more_than_a_record(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..400), 0..8),
        like_data in any::<bool>(),
    ) {
        let (_, mut compact) = forger(SUITES[0]);
        let mut plaintext = Vec::new();
        for mut chunk in chunks {
            if like_data && chunk.len() > 3 {
                chunk[..4].copy_from_slice(&[23, 3, 3, 1]);
            }
            let _ = compact.receive(&mut chunk, &mut plaintext);
            prop_assert!(compact.held_bytes() <= HEADER + MAX_PLAINTEXT + 256 + 64);
        }
        prop_assert!(plaintext.is_empty());
    }

    #[test]
    fn no_content_in_good_records_makes_it_panic(
        records in prop::collection::vec((20_u8..25, prop::collection::vec(any::<u8>(), 0..12), 0_usize..20), 0..20),
    ) {
        let (mut forger, mut compact) = forger(SUITES[0]);
        let mut plaintext = Vec::new();
        for (content_type, content, padding) in records {
            let mut wire = forger.record(content_type, &content, padding);
            if compact.receive(&mut wire, &mut plaintext).is_err() {
                prop_assert!(compact.send(b"more").is_err());
            }
        }
    }
}
