//! Close frames: RFC 6455, 5.5.1 and 7.4.

use tidegate_protocol::frame::FrameError;

use crate::client::*;

fn close(code: u16, reason: &[u8]) -> Frame {
    Frame::new(CLOSE, [&code.to_be_bytes(), reason].concat())
}

#[test]
fn a_close_may_be_empty_carry_a_code_or_a_code_with_a_reason() {
    assert_eq!(hear_frames(&[Frame::new(CLOSE, "")]), Ok(vec![Heard::Close(None)]));
    assert_eq!(hear_frames(&[close(1000, b"")]), Ok(vec![Heard::Close(Some((1000, String::new())))]));
    let reason = "é".repeat(61);
    assert_eq!(hear_frames(&[close(4999, reason.as_bytes())]), Ok(vec![Heard::Close(Some((4999, reason)))]));
}

#[test]
fn a_close_between_fragments_is_heard() {
    let frames = [Frame::open(TEXT, "never fin"), close(1001, b"bye")];
    assert_eq!(hear_frames(&frames), Ok(vec![Heard::Close(Some((1001, "bye".to_owned())))]));
}

#[test]
fn half_a_close_code_is_refused() {
    assert!(matches!(hear_frames(&[Frame::new(CLOSE, [3])]), Err(FrameError::Protocol(_))));
}

#[test]
fn only_close_codes_that_may_be_sent_are_accepted() {
    for code in 0..=u16::MAX {
        let allowed = match code {
            1000..=1003 | 1007..=1011 => true, // RFC 6455
            1012..=1014 => true,               // IANA: restart, try again later, bad gateway
            3000..=4999 => true,               // libraries and applications
            _ => false,
        };
        let result = hear(&close(code, b"").bytes());
        if allowed {
            assert_eq!(result, Ok(vec![Heard::Close(Some((code, String::new())))]));
        } else {
            assert!(matches!(result, Err(FrameError::Protocol(_))), "{code} gave {result:?}");
        }
    }
}

#[test]
fn a_reason_that_is_not_utf8_is_refused() {
    assert_eq!(hear_frames(&[close(1000, b"\xce\xba\xe1")]), Err(FrameError::Utf8));
    assert_eq!(hear_frames(&[close(1000, b"\xff")]), Err(FrameError::Utf8));
}
