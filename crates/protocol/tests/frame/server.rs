//! What the server writes.

use tidegate_protocol::frame::{MAX_HEADER_BYTES, Opcode, encode, encode_close, encoded_len, header};

fn encoded(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode(opcode, payload, &mut out);
    out
}

#[test]
fn frames_have_the_bytes_of_the_rfc_examples() {
    // RFC 6455, 5.7.
    assert_eq!(encoded(Opcode::Text, b"Hello"), [b"\x81\x05".as_slice(), b"Hello"].concat());
    assert_eq!(encoded(Opcode::Ping, b"Hello"), [b"\x89\x05".as_slice(), b"Hello"].concat());
    let mid = vec![3; 256];
    assert_eq!(encoded(Opcode::Binary, &mid), [&[0x82, 0x7e, 0x01, 0x00], mid.as_slice()].concat());
    let large = vec![3; 65_536];
    assert_eq!(encoded(Opcode::Binary, &large), [&[0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0], &large[..]].concat());
    assert_eq!(encoded(Opcode::Pong, b""), [0x8a, 0]);
}

#[test]
fn lengths_are_in_their_shortest_form() {
    for (length, expected) in [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, MAX_HEADER_BYTES)] {
        assert_eq!(header(Opcode::Text, length).1, expected, "{length} bytes");
    }
}

#[test]
fn the_first_of_several_frames_is_found_by_its_length() {
    for length in [0, 1, 125, 126, 65_535, 65_536] {
        let first = encoded(Opcode::Binary, &vec![3; length]);
        let both = [&first[..], &encoded(Opcode::Text, b"next")].concat();
        assert_eq!(encoded_len(&both), first.len());
    }
    assert_eq!(encoded_len(b"\x82"), 1);
}

#[test]
fn encoding_appends() {
    let mut out = b"before".to_vec();
    encode(Opcode::Text, b"a", &mut out);
    encode_close(3001, "shutdown", &mut out);
    assert_eq!(out, b"before\x81\x01a\x88\x0a\x0b\xb9shutdown");
}

#[test]
fn a_long_reason_is_cut_at_a_character_boundary() {
    for reason in ["é".repeat(100), format!("a{}", "世".repeat(100)), "x".repeat(500)] {
        let mut out = Vec::new();
        encode_close(1000, &reason, &mut out);
        let (head, sent) = out.split_at(4);
        let sent = std::str::from_utf8(sent).expect("the cut reason is UTF-8");
        assert_eq!(head, [0x88, u8::try_from(2 + sent.len()).expect("short"), 0x03, 0xe8]);
        assert!(reason.starts_with(sent));
        assert!((120..=123).contains(&sent.len()), "{} bytes of reason", sent.len());
    }
}
