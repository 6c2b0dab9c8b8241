//! What holds for any stream and any way it arrives.

use proptest::collection::vec;
use proptest::prelude::*;
use tidegate_protocol::frame::{Decoder, Limits};

use crate::client::*;

/// A valid conversation: whole and fragmented messages with control frames between the fragments.
fn conversation() -> impl Strategy<Value = (Vec<Frame>, Vec<Heard>)> {
    vec(message(), 0..6).prop_map(|messages| {
        let mut frames = Vec::new();
        let mut heard = Vec::new();
        for (mut of_message, events) in messages {
            frames.append(&mut of_message);
            heard.extend(events);
        }
        (frames, heard)
    })
}

fn control() -> impl Strategy<Value = (Frame, Heard)> {
    (any::<bool>(), vec(any::<u8>(), 0..=125), any::<[u8; 4]>()).prop_map(|(ping, payload, key)| {
        let frame = Frame { key, ..Frame::new(if ping { PING } else { PONG }, &payload) };
        (frame, if ping { Heard::Ping(payload) } else { Heard::Pong(payload) })
    })
}

fn message() -> impl Strategy<Value = (Vec<Frame>, Vec<Heard>)> {
    let payload = prop_oneof![
        4 => ".{0,200}".prop_map(Heard::Text),
        4 => "[世é𝄞a]{0,60}".prop_map(Heard::Text),
        4 => vec(any::<u8>(), 0..200).prop_map(Heard::Binary),
        1 => (65_530..=65_536_usize, any::<u8>()).prop_map(|(len, byte)| Heard::Binary(vec![byte; len])),
    ];
    let cuts = vec((any::<prop::sample::Index>(), proptest::option::of(control())), 0..4);
    (payload, cuts, any::<[u8; 4]>()).prop_map(|(message, cuts, key)| {
        let (opcode, bytes) = match &message {
            Heard::Text(text) => (TEXT, text.as_bytes()),
            Heard::Binary(bytes) => (BINARY, bytes.as_slice()),
            _ => unreachable!("only messages are made above"),
        };
        let mut at: Vec<_> = cuts.iter().map(|(index, _)| index.index(bytes.len() + 1)).collect();
        at.sort_unstable();
        let mut frames = Vec::new();
        let mut heard = Vec::new();
        let mut begin = 0;
        for (end, (_, between)) in at.into_iter().zip(cuts) {
            let opcode = if frames.is_empty() { opcode } else { CONTINUATION };
            frames.push(Frame { key, ..Frame::open(opcode, &bytes[begin..end]) });
            if let Some((frame, event)) = between {
                frames.push(frame);
                heard.push(event);
            }
            begin = end;
        }
        let opcode = if frames.is_empty() { opcode } else { CONTINUATION };
        frames.push(Frame { key, ..Frame::new(opcode, &bytes[begin..]) });
        heard.push(message);
        (frames, heard)
    })
}

/// Bytes that come near to being frames, so that they reach deeper than noise does.
fn near_frames() -> impl Strategy<Value = Vec<u8>> {
    let frame = (
        proptest::bool::weighted(0.6),
        prop_oneof![9 => Just(0_u8), 1 => 1..8_u8],
        prop_oneof![4 => 0..3_u8, 2 => 8..11_u8, 1 => 0..16_u8],
        proptest::bool::weighted(0.95),
        proptest::option::weighted(0.1, any::<u64>()),
        vec(any::<u8>(), 0..300),
    )
        .prop_map(|(fin, reserved, opcode, masked, declared, payload)| {
            let length_bytes = declared.map(|_| 8);
            Frame { fin, reserved, masked, declared, length_bytes, ..Frame::new(opcode, payload) }
        });
    prop_oneof![vec(frame, 0..6).prop_map(|frames| wire(&frames)), vec(any::<u8>(), 0..600)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_split_of_a_valid_stream_gives_the_events_of_the_whole(
        (frames, expected) in conversation(),
        cuts in vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let bytes = wire(&frames);
        let mut at: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        at.sort_unstable();
        at.push(bytes.len());
        let mut decoder = Decoder::default();
        let mut heard = Vec::new();
        let mut begin = 0;
        for end in at {
            feed(&mut decoder, &bytes[begin..end], &LIMITS, &mut heard)?;
            begin = end;
        }
        prop_assert_eq!(heard, expected);
        prop_assert!(!decoder.unfinished());
        prop_assert_eq!(decoder.held_bytes(), 0);
    }

    #[test]
    fn any_bytes_never_panic_and_never_hold_more_than_the_limit(
        bytes in near_frames(),
        pieces in vec(1..64_usize, 1..40),
        max_message_bytes in 0..400_usize,
        max_fragments in 0..4_u32,
    ) {
        let limits = Limits { max_message_bytes, max_fragments };
        let mut decoder = Decoder::default();
        let mut heard = Vec::new();
        let mut rest = bytes.as_slice();
        let mut whole = true;
        for piece in pieces.into_iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (now, later) = rest.split_at(piece.min(rest.len()));
            rest = later;
            let result = feed(&mut decoder, now, &limits, &mut heard);
            // 125 bytes of a control frame may be held beside a message.
            prop_assert!(decoder.held_bytes() <= max_message_bytes + 512);
            if result.is_err() {
                whole = false;
                break;
            }
        }
        // However it was cut, what was heard up to an error is what is heard when all arrives at once.
        let mut at_once = Vec::new();
        let result = feed(&mut Decoder::default(), &bytes, &limits, &mut at_once);
        prop_assert_eq!(heard, at_once);
        prop_assert_eq!(result.is_ok(), whole);
    }
}
