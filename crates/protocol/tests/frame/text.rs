//! Text is UTF-8, and is refused as soon as it cannot become UTF-8 any more (RFC 6455, 8.1).

use tidegate_protocol::frame::{Decoder, FrameError};

use crate::client::*;

/// Byte sequences that are not UTF-8, each with the number of bytes after which that is certain.
const INVALID: &[(&[u8], usize)] = &[
    (b"\xff", 1),
    (b"\x80", 1),             // a continuation byte of nothing
    (b"\xc0\x80", 1),         // overlong
    (b"\xe0\x80\x80", 2),     // overlong
    (b"\xf0\x80\x80\x80", 2), // overlong
    (b"\xed\xa0\x80", 2),     // a surrogate
    (b"\xf4\x90\x80\x80", 2), // past U+10FFFF
    (b"\xf5\x80\x80\x80", 1),
    (b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xf4\x90\x80\x80", 13),
    (b"\xe2\x28\xa1", 2),
];

/// Feeds byte by byte; how many bytes of `payload` had been fed when it failed.
fn fails_after(decoder: &mut Decoder, frame: &Frame) -> Option<usize> {
    let bytes = frame.bytes();
    let header_len = bytes.len() - frame.payload.len();
    bytes.iter().enumerate().find_map(|(index, byte)| {
        match feed(decoder, &[*byte], &LIMITS, &mut Vec::new()) {
            Ok(()) => None,
            Err(FrameError::Utf8) => Some(index + 1 - header_len),
            Err(other) => panic!("{other}"),
        }
    })
}

#[test]
fn invalid_text_is_refused_however_it_arrives() {
    for (bytes, _) in INVALID {
        assert_eq!(hear_frames(&[Frame::new(TEXT, bytes)]), Err(FrameError::Utf8), "{bytes:x?}");
        for split in 0..=bytes.len() {
            let (head, tail) = bytes.split_at(split);
            let frames = [Frame::open(TEXT, head), Frame::new(CONTINUATION, tail)];
            assert_eq!(hear_frames(&frames), Err(FrameError::Utf8), "{bytes:x?} split at {split}");
        }
    }
}

#[test]
fn invalid_text_is_refused_by_the_byte_that_spoils_it_in_an_unfinished_frame() {
    for (bytes, certain) in INVALID {
        let frame = Frame::new(TEXT, [bytes, &b"and then much more"[..]].concat());
        assert_eq!(fails_after(&mut Decoder::default(), &frame), Some(*certain), "{bytes:x?}");
    }
}

#[test]
fn invalid_text_is_refused_at_once_in_a_fragment_that_is_not_the_last() {
    for (bytes, _) in INVALID {
        assert_eq!(hear(&Frame::open(TEXT, bytes).bytes()), Err(FrameError::Utf8), "{bytes:x?}");
    }
}

#[test]
fn a_character_may_be_split_anywhere() {
    let sentence = "aé世𝄞";
    for split in 0..=sentence.len() {
        let (head, tail) = sentence.as_bytes().split_at(split);
        let frames = [Frame::open(TEXT, head), Frame::new(PING, ""), Frame::new(CONTINUATION, tail)];
        assert_eq!(
            hear_frames(&frames),
            Ok(vec![Heard::Ping(Vec::new()), text(sentence)]),
            "split at {split}"
        );
    }
}

#[test]
fn a_message_that_ends_within_a_character_is_refused() {
    for end in [2, 4, 5, 7, 8, 9] {
        let bytes = &"aé世𝄞".as_bytes()[..end];
        assert_eq!(hear_frames(&[Frame::new(TEXT, bytes)]), Err(FrameError::Utf8), "ends at {end}");
        let frames = [Frame::open(TEXT, bytes), Frame::new(CONTINUATION, "")];
        assert_eq!(hear_frames(&frames), Err(FrameError::Utf8), "ends at {end}");
    }
}

#[test]
fn binary_messages_pings_and_pongs_may_carry_anything() {
    for (bytes, _) in INVALID {
        let frames = [Frame::new(BINARY, bytes), Frame::new(PING, bytes), Frame::new(PONG, bytes)];
        let expected = [binary(bytes), Heard::Ping(bytes.to_vec()), Heard::Pong(bytes.to_vec())];
        assert_eq!(hear_frames(&frames), Ok(expected.to_vec()));
        let frames = [Frame::open(BINARY, bytes), Frame::new(CONTINUATION, "")];
        assert_eq!(hear_frames(&frames), Ok(vec![binary(bytes)]));
    }
}
