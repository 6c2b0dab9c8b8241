//! Centrifuge v2 in Protobuf: each command and reply with its length before it.
//!
//! The few fields that load needs, written and read by their tags.

use super::Line;

/// Wire types: a varint, and bytes behind their length.
const VARINT: u64 = 0;
const BYTES: u64 = 2;

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(u8::try_from(value & 0x7f).unwrap_or(0) | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap_or(0));
}

fn bytes(tag: u64, value: &[u8], out: &mut Vec<u8>) {
    varint(tag << 3 | BYTES, out);
    varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

/// Appends a command with its id, its tag and its request.
fn command(id: u32, tag: u64, request: &[u8], out: &mut Vec<u8>) {
    let mut command = Vec::with_capacity(request.len() + 16);
    varint(1 << 3 | VARINT, &mut command);
    varint(id.into(), &mut command);
    bytes(tag, request, &mut command);
    varint(command.len() as u64, out);
    out.extend_from_slice(&command);
}

/// Connect, and subscribe if asked, in one message.
pub(super) fn join(token: Option<&str>, channel: Option<&str>) -> Vec<u8> {
    let (mut connect, mut out) = (Vec::new(), Vec::new());
    if let Some(token) = token {
        bytes(1, token.as_bytes(), &mut connect);
    }
    bytes(4, b"tidegate-bench", &mut connect);
    command(1, 4, &connect, &mut out);
    if let Some(channel) = channel {
        let mut subscribe = Vec::new();
        bytes(1, channel.as_bytes(), &mut subscribe);
        command(2, 5, &subscribe, &mut out);
    }
    out
}

/// The command that publishes.
pub(super) fn publish(id: u32, channel: &str, data: &str) -> Vec<u8> {
    let (mut publish, mut out) = (Vec::new(), Vec::new());
    bytes(1, channel.as_bytes(), &mut publish);
    bytes(2, data.as_bytes(), &mut publish);
    command(id, 7, &publish, &mut out);
    out
}

/// A varint and what is behind it.
fn read(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0_u64;
    for (at, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f).checked_shl(u32::try_from(at * 7).ok()?)?;
        if byte & 0x80 == 0 {
            return Some((value, &bytes[at + 1..]));
        }
    }
    None
}

/// Bytes that follow their length, and what is behind them.
pub(super) fn delimited(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = read(input)?;
    rest.split_at_checked(usize::try_from(length).ok()?)
}

/// A field.
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The first field of `input`: its tag, its value, what is behind it. None for wire types that the protocol has not.
fn field(input: &[u8]) -> Option<(u64, Field<'_>, &[u8])> {
    let (key, rest) = read(input)?;
    match key & 7 {
        VARINT => read(rest).map(|(value, rest)| (key >> 3, Field::Number(value), rest)),
        BYTES => delimited(rest).map(|(value, rest)| (key >> 3, Field::Bytes(value), rest)),
        _ => None,
    }
}

/// Reads one reply.
pub(super) fn line(reply: &[u8]) -> Line {
    if reply.is_empty() {
        return Line::Ping;
    }
    let (mut rest, mut id, mut error) = (reply, 0, None);
    while !rest.is_empty() {
        let Some((tag, value, behind)) = field(rest) else { return Line::Other };
        match (tag, value) {
            (1, Field::Number(number)) => id = u32::try_from(number).unwrap_or(0),
            (2, Field::Bytes(message)) => error = Some(words(message)),
            (4, Field::Bytes(push)) => return super::stamp(push).map_or(Line::Other, Line::Publication),
            _ => {}
        }
        rest = behind;
    }
    if id == 0 { Line::Other } else { Line::Reply(id, error) }
}

/// An error's code and message.
fn words(error: &[u8]) -> String {
    let (mut rest, mut code, mut text) = (error, 0, String::new());
    while let Some((tag, value, behind)) = field(rest) {
        match (tag, value) {
            (1, Field::Number(number)) => code = number,
            (2, Field::Bytes(message)) => text = String::from_utf8_lossy(message).into_owned(),
            _ => {}
        }
        rest = behind;
    }
    format!("{code} {text}")
}

#[cfg(test)]
mod tests {
    use super::super::tests::{STAMPED, heard};
    use super::*;
    use crate::target::Protocol;

    /// A reply as a server sends it.
    fn reply(fields: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        varint(fields.len() as u64, &mut out);
        out.extend_from_slice(fields);
        out
    }

    /// The push of a publication with an offset, as a server sends it.
    fn push() -> Vec<u8> {
        let (mut publication, mut push, mut fields) = (Vec::new(), Vec::new(), Vec::new());
        bytes(4, super::super::data(STAMPED, 300).as_bytes(), &mut publication);
        bytes(2, b"bench", &mut push);
        bytes(4, &publication, &mut push);
        bytes(4, &push, &mut fields);
        reply(&fields)
    }

    #[test]
    fn commands_are_what_the_schema_says() {
        let joined = join(Some("t"), Some("b"));
        let name = b"tidegate-bench";
        let connect = [&[8, 1, 0x22, 19, 10, 1, b't', 0x22, 14][..], name].concat();
        let subscribe = [8, 2, 0x2a, 3, 10, 1, b'b'];
        let expected = [&[23][..], &connect, &[7], &subscribe].concat();
        assert_eq!(joined, expected);
        assert_eq!(publish(300, "b", "1"), [11, 8, 0xac, 2, 0x3a, 6, 10, 1, b'b', 0x12, 1, b'1']);
    }

    #[test]
    fn several_replies_in_one_message_are_heard_in_order() {
        let refused = reply(&[&[8, 2, 0x12, 6, 8, 103, 0x12, 2][..], b"no"].concat());
        let message = [reply(&[8, 1, 0x2a, 0]), push(), vec![0], refused].concat();
        let expected = [
            Line::Reply(1, None),
            Line::Publication(STAMPED),
            Line::Ping,
            Line::Reply(2, Some("103 no".into())),
        ];
        assert_eq!(heard(Protocol::CentrifugeProtobuf, &message), expected);
    }

    #[test]
    fn what_is_cut_off_is_an_error_and_what_is_strange_is_passed_over() {
        let whole = push();
        let cut = |end: usize| super::super::hear(Protocol::CentrifugeProtobuf, &whole[..end], |_| Ok(()));
        assert!(cut(whole.len() - 1).is_err() && cut(1).is_err() && cut(whole.len()).is_ok());
        assert_eq!(line(&[0x0d, 1, 2, 3, 4]), Line::Other);
        assert_eq!(line(&[0xff; 12]), Line::Other);
    }
}
