//! The framing rules of RFC 6455, chapter 5, one by one.

use tidegate_protocol::frame::FrameError;

use crate::client::*;

fn refused(frames: &[Frame]) {
    let result = hear_frames(frames);
    assert!(matches!(result, Err(FrameError::Protocol(_))), "{frames:?} gave {result:?}");
}

#[test]
fn messages_are_heard_as_they_were_sent_whatever_their_length_form() {
    for length in [0, 1, 2, 3, 4, 7, 8, 9, 125, 126, 127, 1000, 65_535, 65_536] {
        let payload: Vec<u8> = (0..length).map(|i| u8::try_from(i % 251).expect("below 251")).collect();
        assert_eq!(
            hear_frames(&[Frame::new(BINARY, &payload)]),
            Ok(vec![binary(&payload)]),
            "{length} bytes"
        );
        let letters = "a".repeat(length);
        assert_eq!(hear_frames(&[Frame::new(TEXT, &letters)]), Ok(vec![text(&letters)]), "{length} bytes");
    }
}

#[test]
fn every_masking_key_is_undone() {
    for key in [[0; 4], [0xff; 4], [1, 2, 3, 4], [0x80, 0, 0, 1]] {
        let frame = Frame { key, ..Frame::new(TEXT, "Grüße, 世界") };
        assert_eq!(hear_frames(&[frame]), Ok(vec![text("Grüße, 世界")]));
    }
}

#[test]
fn frames_pipelined_in_one_read_are_heard_in_order() {
    let frames = [
        Frame::new(TEXT, "one"),
        Frame::new(PING, "?"),
        Frame::new(BINARY, [2]),
        Frame::new(PONG, ""),
        Frame::new(TEXT, ""),
    ];
    let expected = [text("one"), Heard::Ping(b"?".to_vec()), binary(&[2]), Heard::Pong(Vec::new()), text("")];
    assert_eq!(hear_frames(&frames), Ok(expected.to_vec()));
}

#[test]
fn an_unmasked_frame_is_refused() {
    for opcode in [TEXT, BINARY, PING, PONG, CLOSE] {
        refused(&[Frame { masked: false, ..Frame::new(opcode, "") }]);
        refused(&[Frame { masked: false, ..Frame::new(opcode, "abc") }]);
    }
}

#[test]
fn reserved_bits_are_refused() {
    for reserved in 1..=7 {
        for opcode in [TEXT, BINARY, PING, PONG, CLOSE] {
            refused(&[Frame { reserved, ..Frame::new(opcode, "") }]);
        }
        refused(&[Frame::open(TEXT, "a"), Frame { reserved, ..Frame::new(CONTINUATION, "b") }]);
    }
}

#[test]
fn reserved_opcodes_are_refused() {
    for opcode in (3..=7).chain(11..=15) {
        refused(&[Frame::new(opcode, "")]);
        refused(&[Frame::new(opcode, "abc")]);
        refused(&[Frame::open(TEXT, "a"), Frame::new(opcode, "abc")]);
    }
}

#[test]
fn a_control_frame_carries_125_bytes_and_not_one_more() {
    let most = [7; 125];
    assert_eq!(hear_frames(&[Frame::new(PING, most)]), Ok(vec![Heard::Ping(most.to_vec())]));
    assert_eq!(hear_frames(&[Frame::new(PONG, most)]), Ok(vec![Heard::Pong(most.to_vec())]));
    for opcode in [CLOSE, PING, PONG] {
        refused(&[Frame::new(opcode, [7; 126])]);
        refused(&[Frame { length_bytes: Some(8), ..Frame::new(opcode, "ab") }]);
    }
}

#[test]
fn an_oversized_control_frame_is_refused_by_its_second_byte() {
    let bytes = Frame::new(PING, [7; 126]).bytes();
    assert!(matches!(hear(&bytes[..2]), Err(FrameError::Protocol(_))));
}

#[test]
fn a_fragmented_control_frame_is_refused() {
    for opcode in [CLOSE, PING, PONG] {
        refused(&[Frame::open(opcode, "")]);
        refused(&[Frame::open(opcode, "ab")]);
    }
}

#[test]
fn fragments_are_joined() {
    let frames =
        [Frame::open(TEXT, "Hel"), Frame::open(CONTINUATION, "lo, "), Frame::new(CONTINUATION, "you")];
    assert_eq!(hear_frames(&frames), Ok(vec![text("Hello, you")]));
    let frames = [Frame::open(BINARY, [1]), Frame::open(CONTINUATION, []), Frame::new(CONTINUATION, [2, 3])];
    assert_eq!(hear_frames(&frames), Ok(vec![binary(&[1, 2, 3])]));
    let empty = [Frame::open(TEXT, ""), Frame::open(CONTINUATION, ""), Frame::new(CONTINUATION, "")];
    assert_eq!(hear_frames(&empty), Ok(vec![text("")]));
}

#[test]
fn control_frames_are_heard_between_fragments_and_do_not_disturb_them() {
    let frames = [
        Frame::open(TEXT, "Hel"),
        Frame::new(PING, "a"),
        Frame::open(CONTINUATION, "lo"),
        Frame::new(PONG, "b"),
        Frame::new(PING, [9; 125]),
        Frame::new(CONTINUATION, "!"),
        Frame::new(TEXT, "next"),
    ];
    let expected = [
        Heard::Ping(b"a".to_vec()),
        Heard::Pong(b"b".to_vec()),
        Heard::Ping(vec![9; 125]),
        text("Hello!"),
        text("next"),
    ];
    assert_eq!(hear_frames(&frames), Ok(expected.to_vec()));
}

#[test]
fn a_continuation_of_nothing_is_refused() {
    refused(&[Frame::new(CONTINUATION, "a")]);
    refused(&[Frame::open(CONTINUATION, "a")]);
    refused(&[Frame::new(TEXT, "done"), Frame::new(CONTINUATION, "a")]);
    refused(&[Frame::open(TEXT, "a"), Frame::new(CONTINUATION, "b"), Frame::new(CONTINUATION, "c")]);
}

#[test]
fn a_new_message_within_a_fragmented_one_is_refused() {
    for opcode in [TEXT, BINARY] {
        refused(&[Frame::open(TEXT, "a"), Frame::new(opcode, "b")]);
        refused(&[Frame::open(BINARY, "a"), Frame::open(opcode, "b")]);
    }
}

#[test]
fn a_length_not_in_its_shortest_form_is_refused() {
    for length in [0, 1, 125] {
        refused(&[Frame { length_bytes: Some(2), ..Frame::new(BINARY, vec![0; length]) }]);
    }
    for length in [0, 125, 126, 65_535] {
        refused(&[Frame { length_bytes: Some(8), ..Frame::new(BINARY, vec![0; length]) }]);
    }
}

#[test]
fn the_highest_bit_of_a_64_bit_length_is_refused() {
    for declared in [1 << 63, u64::MAX, (1 << 63) | 5] {
        refused(&[Frame { length_bytes: Some(8), declared: Some(declared), ..Frame::new(BINARY, "") }]);
    }
}

#[test]
fn a_broken_rule_does_not_swallow_what_came_before_it() {
    let bytes = wire(&[Frame::new(TEXT, "good"), Frame::new(PING, "p"), Frame::new(CONTINUATION, "bad")]);
    let mut heard = Vec::new();
    let result = feed(&mut Default::default(), &bytes, &LIMITS, &mut heard);
    assert!(matches!(result, Err(FrameError::Protocol(_))));
    assert_eq!(heard, [text("good"), Heard::Ping(b"p".to_vec())]);
}
