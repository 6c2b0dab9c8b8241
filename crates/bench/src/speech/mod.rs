//! What clients say and hear once the WebSocket stands, in each protocol: the part of it that load needs.
//!
//! It checks what it relies on, and is no validating client: conformance is for other tests.

mod json;
mod protobuf;
mod pusher;
pub(crate) mod upgrade;

use memchr::memmem;

use crate::frame::{self, Kind};
use crate::target::Protocol;

/// The id of a connect command; that of the subscribe is the next. Publications have ids from here on.
pub(crate) const FIRST_PUBLICATION: u32 = 16;

/// A publication's data is `{"tidegate-bench":[run,number,nanoseconds,channel],"fill":"..."}`.
const STAMP: &[u8] = b"tidegate-bench";

/// What identifies a publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Which run it belongs to.
    pub(crate) run: u32,
    /// Its number in the run and the channel, from 0.
    pub(crate) number: u32,
    /// When it was sent, by [`crate::clock::now`].
    pub(crate) at: u64,
    /// The number of the channel it was sent to.
    pub(crate) channel: u32,
}

/// One thing the server says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// To be answered by [`pong`].
    Ping,
    /// One of ours.
    Publication(Stamp),
    /// The answer to a command, with the text of its error if it has one.
    Reply(u32, Option<String>),
    /// The answer to a subscribe command in a channel with history.
    Subscribed(Box<Subscribed>),
    /// Anything else.
    Other,
}

/// Where a subscription stands, and what was given to it behind the position that was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Subscribed {
    pub(crate) position: Position,
    pub(crate) missed: Vec<Stamp>,
}

/// The last that was seen of a channel with history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) epoch: String,
    pub(crate) offset: u64,
}

/// A publication's data of `size` bytes (or as few as the stamp needs).
pub(crate) fn data(stamp: Stamp, size: usize) -> String {
    let Stamp { run, number, at, channel } = stamp;
    let mut data = format!("{{\"tidegate-bench\":[{run},{number},{at},{channel}],\"fill\":\"");
    data.extend(std::iter::repeat_n('x', size.saturating_sub(data.len() + 2)));
    data.push_str("\"}");
    data
}

/// Appends the frame with which a client comes in: connect, and subscribe if there is a channel, in JSON from `since` on.
pub(crate) fn join(
    protocol: Protocol,
    token: Option<&str>,
    channel: Option<&str>,
    since: Option<&Position>,
    out: &mut Vec<u8>,
) {
    match protocol {
        Protocol::Raw => {}
        Protocol::CentrifugeJson => {
            frame::write(Kind::Text, json::join(token, channel, since).as_bytes(), out);
        }
        Protocol::CentrifugeProtobuf => frame::write(Kind::Binary, &protobuf::join(token, channel), out),
        Protocol::Pusher => {
            if let Some(channel) = channel {
                frame::write(Kind::Text, pusher::subscribe(channel).as_bytes(), out);
            }
        }
    }
}

/// How many replies there are until it is in.
pub(crate) fn replies(protocol: Protocol, subscribe: bool) -> u8 {
    if protocol == Protocol::Raw { 0 } else { 1 + u8::from(subscribe) }
}

/// Appends the frame that publishes.
pub(crate) fn publish(protocol: Protocol, number: u32, channel: &str, data: &str, out: &mut Vec<u8>) {
    let id = FIRST_PUBLICATION.saturating_add(number);
    match protocol {
        Protocol::Raw => {}
        Protocol::CentrifugeJson => {
            frame::write(Kind::Text, json::publish(id, channel, data).as_bytes(), out);
        }
        Protocol::CentrifugeProtobuf => {
            frame::write(Kind::Binary, &protobuf::publish(id, channel, data), out);
        }
        Protocol::Pusher => frame::write(Kind::Text, pusher::publish(channel, data).as_bytes(), out),
    }
}

/// Whether the server answers a publication.
pub(crate) fn acknowledged(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::CentrifugeJson | Protocol::CentrifugeProtobuf)
}

/// Appends the answer to a ping.
pub(crate) fn pong(protocol: Protocol, out: &mut Vec<u8>) {
    match protocol {
        Protocol::Raw => {}
        Protocol::CentrifugeJson => frame::write(Kind::Text, b"{}", out),
        Protocol::CentrifugeProtobuf => frame::write(Kind::Binary, &[0], out),
        Protocol::Pusher => frame::write(Kind::Text, pusher::PONG.as_bytes(), out),
    }
}

/// Reads one message: each thing in it, in order.
pub(crate) fn hear(
    protocol: Protocol,
    message: &[u8],
    mut each: impl FnMut(Line) -> Result<(), String>,
) -> Result<(), String> {
    match protocol {
        Protocol::Raw => Ok(()),
        Protocol::CentrifugeJson => {
            let mut rest = message;
            while !rest.is_empty() {
                let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
                each(json::line(&rest[..end]))?;
                rest = rest.get(end + 1..).unwrap_or_default();
            }
            Ok(())
        }
        Protocol::CentrifugeProtobuf => {
            let mut rest = message;
            while !rest.is_empty() {
                let (reply, behind) =
                    protobuf::delimited(rest).ok_or("the server sent Protobuf that is cut off")?;
                each(protobuf::line(reply))?;
                rest = behind;
            }
            Ok(())
        }
        Protocol::Pusher => each(pusher::line(message)),
    }
}

/// The stamp of a publication, wherever in `message` it is. Publications are recognised by it and not parsed further:
/// this is what a client process does a million times a second. Data that is JSON in a string has its quotes escaped.
fn stamp(message: &[u8]) -> Option<Stamp> {
    let rest = &message[memmem::find(message, STAMP)? + STAMP.len()..];
    let begin = memchr::memchr(b'[', rest).filter(|at| *at <= 3)?;
    let end = memchr::memchr(b']', rest)?;
    let mut numbers = rest.get(begin + 1..end)?.split(|byte| *byte == b',').map(number);
    let mut next = || numbers.next()?;
    let (run, number, at, channel) = (next()?, next()?, next()?, next()?);
    Some(Stamp {
        run: run.try_into().ok()?,
        number: number.try_into().ok()?,
        at,
        channel: channel.try_into().ok()?,
    })
}

/// Digits as a number; none if there are no digits, other bytes, or too many.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |sum, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failing test is what should happen")]
    use super::*;

    pub(super) const STAMPED: Stamp = Stamp { run: 3, number: 17, at: 123_456_789_012, channel: 5 };

    /// Everything heard in a message.
    pub(super) fn heard(protocol: Protocol, message: &[u8]) -> Vec<Line> {
        let mut lines = Vec::new();
        hear(protocol, message, |line| {
            lines.push(line);
            Ok(())
        })
        .unwrap();
        lines
    }

    #[test]
    fn data_is_json_of_its_size_with_its_stamp() {
        for size in [0, 128, 1_000] {
            let data = data(STAMPED, size);
            assert!(size == 0 || data.len() == size, "{}", data.len());
            serde_json::from_str::<serde_json::Value>(&data).unwrap();
            assert_eq!(stamp(data.as_bytes()), Some(STAMPED));
            let escaped = serde_json::to_string(&data).unwrap();
            assert_eq!(stamp(escaped.as_bytes()), Some(STAMPED));
        }
    }

    #[test]
    fn what_only_looks_like_a_stamp_is_none() {
        for text in [
            "tidegate-bench",
            "tidegate-bench\":[1,2,3]",
            "tidegate-bench\":[1,x,3,4]",
            "tidegate-bench\":[1,,3,4]",
            "tidegate-bench\":[4294967296,2,3,4]",
            "tidegate-bench\":[1,2,99999999999999999999,4]",
            "tidegate-bench\":[1,2,3,4",
            "tidegate-bench is [1,2,3,4]",
        ] {
            assert_eq!(stamp(text.as_bytes()), None, "{text}");
        }
    }
}
