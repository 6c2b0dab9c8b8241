//! How much a client may send in one message.

use tidegate_protocol::frame::{Decoder, FrameError, Limits};

use crate::client::*;

const SMALL: Limits = Limits { max_message_bytes: 200, max_fragments: 3 };

fn hear_small(frames: &[Frame]) -> Result<Vec<Heard>, FrameError> {
    let mut heard = Vec::new();
    feed(&mut Decoder::default(), &wire(frames), &SMALL, &mut heard).map(|()| heard)
}

#[test]
fn a_message_of_exactly_the_limit_passes_and_one_byte_more_does_not() {
    assert_eq!(hear_small(&[Frame::new(BINARY, [1; 200])]), Ok(vec![binary(&[1; 200])]));
    assert_eq!(hear_small(&[Frame::new(BINARY, [1; 201])]), Err(FrameError::TooLarge));
    let fits = [Frame::open(BINARY, [1; 150]), Frame::new(CONTINUATION, [1; 50])];
    assert_eq!(hear_small(&fits), Ok(vec![binary(&[1; 200])]));
    let over = [Frame::open(BINARY, [1; 150]), Frame::new(CONTINUATION, [1; 51])];
    assert_eq!(hear_small(&over), Err(FrameError::TooLarge));
}

#[test]
fn a_message_too_large_is_refused_by_its_header_alone() {
    for declared in [201, 70_000, u64::from(u32::MAX) + 1, u64::MAX >> 1] {
        let frame = Frame { declared: Some(declared), ..Frame::new(TEXT, "") };
        assert_eq!(hear_small(&[frame]), Err(FrameError::TooLarge), "{declared} declared");
    }
    let last = Frame { declared: Some(51), ..Frame::new(CONTINUATION, "") };
    assert_eq!(hear_small(&[Frame::open(TEXT, [b'a'; 150]), last]), Err(FrameError::TooLarge));
}

#[test]
fn control_frames_between_fragments_do_not_count_towards_the_message() {
    let ping = Frame::new(PING, [1; 125]);
    let frames = [
        Frame::open(BINARY, [1; 199]),
        ping.clone(),
        ping.clone(),
        ping.clone(),
        Frame::new(CONTINUATION, [1]),
    ];
    let pong = Heard::Ping(vec![1; 125]);
    assert_eq!(hear_small(&frames), Ok(vec![pong.clone(), pong.clone(), pong, binary(&[1; 200])]));
}

#[test]
fn a_message_may_have_as_many_fragments_as_the_limit_and_not_one_more() {
    let open = Frame::open(CONTINUATION, "");
    let last = Frame::new(CONTINUATION, "");
    let fits = [Frame::open(TEXT, ""), open.clone(), last.clone()];
    assert_eq!(hear_small(&fits), Ok(vec![text("")]));
    let over = [Frame::open(TEXT, ""), open.clone(), open, last];
    assert_eq!(hear_small(&over), Err(FrameError::TooManyFragments));
}

#[test]
fn the_limits_are_those_of_each_message_not_of_the_connection() {
    let message = [Frame::open(BINARY, [1; 100]), Frame::new(CONTINUATION, [1; 100])];
    let frames: Vec<Frame> = message.iter().cloned().cycle().take(20).collect();
    assert_eq!(hear_small(&frames), Ok(vec![binary(&[1; 200]); 10]));
}
