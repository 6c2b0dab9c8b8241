//! What a connection holds, and when.

use tidegate_protocol::frame::{Decoder, Event};

use crate::client::*;

/// What is held besides payload while something is unfinished.
const SMALL: usize = 256;

#[test]
fn an_idle_decoder_is_one_pointer() {
    assert_eq!(size_of::<Decoder>(), size_of::<usize>());
    assert_eq!(Decoder::default().held_bytes(), 0);
    assert!(!Decoder::default().unfinished());
}

#[test]
fn a_message_whole_in_the_input_is_lent_from_there() {
    let mut decoder = Decoder::default();
    let mut input = wire(&[Frame::new(TEXT, "hello, hello"), Frame::new(PING, "p")]);
    let within = input.as_ptr_range();
    let step = decoder.step(&mut input, &LIMITS).expect("a good frame");
    let Some(Event::Text(text)) = step.event else { panic!("no text: {step:?}") };
    assert_eq!(text, "hello, hello");
    assert!(within.contains(&text.as_ptr()), "the text was copied");
    assert_eq!(decoder.held_bytes(), 0);
}

#[test]
fn a_payload_that_comes_whole_behind_its_header_is_lent_from_the_input() {
    let mut decoder = Decoder::default();
    let bytes = Frame::new(BINARY, [5; 1000]).bytes();
    feed(&mut decoder, &bytes[..8], &LIMITS, &mut Vec::new()).expect("a good header");
    assert!(decoder.unfinished());
    let mut input = bytes[8..].to_vec();
    let within = input.as_ptr_range();
    let step = decoder.step(&mut input, &LIMITS).expect("a good frame");
    let Some(Event::Binary(payload)) = step.event else { panic!("no message: {step:?}") };
    assert_eq!(payload, [5; 1000]);
    assert!(within.contains(&payload.as_ptr()), "the payload was copied");
    assert_eq!(decoder.held_bytes(), 0);
}

#[test]
fn nothing_is_held_between_whole_frames() {
    let mut decoder = Decoder::default();
    for opcode in [TEXT, BINARY, PING, PONG] {
        feed(&mut decoder, &Frame::new(opcode, [b'a'; 100]).bytes(), &LIMITS, &mut Vec::new())
            .expect("a good frame");
        assert!(!decoder.unfinished());
        assert_eq!(decoder.held_bytes(), 0);
    }
}

#[test]
fn what_was_held_is_given_back_when_the_message_is_done() {
    let mut decoder = Decoder::default();
    let frames = [Frame::open(TEXT, [b'a'; 3000]), Frame::new(PING, "p"), Frame::new(CONTINUATION, "b")];
    let bytes = wire(&frames);
    let mut heard = Vec::new();
    for (count, byte) in bytes.iter().enumerate() {
        assert_eq!(decoder.unfinished(), count > 0, "after {count} bytes");
        feed(&mut decoder, &[*byte], &LIMITS, &mut heard).expect("good frames");
    }
    assert_eq!(heard.len(), 2);
    assert!(!decoder.unfinished());
    assert_eq!(decoder.held_bytes(), 0);
}

#[test]
fn what_an_event_lent_can_be_given_back_at_once() {
    let mut decoder = Decoder::default();
    let mut bytes = wire(&[Frame::open(BINARY, [1; 2000]), Frame::new(CONTINUATION, [2; 2000])]);
    let step = decoder.step(&mut bytes, &LIMITS).expect("good frames");
    assert!(matches!(step.event, Some(Event::Binary(payload)) if payload.len() == 4000));
    assert!(!decoder.unfinished());
    assert!(decoder.held_bytes() >= 4000, "it is held while lent, and says so");
    decoder.release();
    assert_eq!(decoder.held_bytes(), 0);
}

#[test]
fn releasing_within_a_message_loses_nothing() {
    let mut decoder = Decoder::default();
    let mut heard = Vec::new();
    for byte in wire(&[Frame::open(TEXT, "ab"), Frame::new(PING, "p"), Frame::new(CONTINUATION, "c")]) {
        feed(&mut decoder, &[byte], &LIMITS, &mut heard).expect("good frames");
        decoder.release();
    }
    assert_eq!(heard, [Heard::Ping(b"p".to_vec()), text("abc")]);
}

#[test]
fn a_declared_length_costs_nothing_until_its_bytes_arrive() {
    let mut decoder = Decoder::default();
    let header = Frame { declared: Some(65_536), ..Frame::new(BINARY, "") }.bytes();
    feed(&mut decoder, &header, &LIMITS, &mut Vec::new()).expect("a good header");
    assert!(decoder.held_bytes() <= SMALL, "{} bytes held for a header", decoder.held_bytes());
    for arrived in 1..=1000 {
        feed(&mut decoder, &[0], &LIMITS, &mut Vec::new()).expect("a good byte");
        let held = decoder.held_bytes();
        assert!(held <= 2 * arrived + SMALL, "{held} bytes held for {arrived} that arrived");
    }
}

#[test]
fn growth_stops_at_what_the_message_can_be() {
    let mut decoder = Decoder::default();
    let bytes = Frame::new(BINARY, vec![0; 65_536]).bytes();
    for chunk in bytes[..bytes.len() - 1].chunks(40_000) {
        feed(&mut decoder, chunk, &LIMITS, &mut Vec::new()).expect("a good frame");
        assert!(decoder.held_bytes() <= 65_536 + SMALL);
    }
}

#[test]
fn control_frames_within_a_message_do_not_look_like_its_end() {
    let mut decoder = Decoder::default();
    let mut heard = Vec::new();
    let mut within = |frame: &Frame| {
        feed(&mut decoder, &frame.bytes(), &LIMITS, &mut heard).expect("a good frame");
        (decoder.unfinished(), decoder.within_message())
    };
    assert_eq!(within(&Frame::new(PING, "p")), (false, false));
    assert_eq!(within(&Frame::open(TEXT, "")), (true, true));
    assert_eq!(within(&Frame::new(PING, "p")), (true, true));
    assert_eq!(within(&Frame::new(CONTINUATION, "b")), (false, false));

    for (opcode, expected) in [(PING, false), (TEXT, true)] {
        let bytes = Frame::new(opcode, "abc").bytes();
        for arrived in [6, 7] {
            let mut decoder = Decoder::default();
            feed(&mut decoder, &bytes[..arrived], &LIMITS, &mut Vec::new()).expect("a good start");
            assert!(decoder.unfinished());
            assert_eq!(decoder.within_message(), expected, "{arrived} bytes of opcode {opcode}");
        }
    }
}

#[test]
fn a_control_frame_that_came_in_pieces_within_a_message_is_given_back() {
    let mut decoder = Decoder::default();
    feed(&mut decoder, &Frame::open(TEXT, "ab").bytes(), &LIMITS, &mut Vec::new()).expect("a good frame");
    let held = decoder.held_bytes();
    for byte in Frame::new(PING, [7; 125]).bytes() {
        feed(&mut decoder, &[byte], &LIMITS, &mut Vec::new()).expect("a good frame");
    }
    assert_eq!(decoder.held_bytes(), held);
}
