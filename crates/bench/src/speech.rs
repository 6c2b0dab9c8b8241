//! What clients say and hear: the WebSocket handshake and the part of Centrifuge v2 in JSON that load needs.
//!
//! It checks what it relies on, and is no validating client: conformance is for other tests.

use memchr::memmem;
use serde_json::Value;

use crate::target::Target;

/// The channel that everyone is in.
pub(crate) const CHANNEL: &str = "bench";

/// The id of a connect command; that of the subscribe is the next. Publications have ids from here on.
pub(crate) const FIRST_PUBLICATION: u32 = 16;

/// Where the stamp begins in a publication's data, which is `{"tidegate-bench":[run,number,nanoseconds],"fill":"..."}`.
const STAMP: &[u8] = b"\"tidegate-bench\":[";

/// The request that asks for the WebSocket. The key is the example of RFC 6455, section 1.3, so that the answer is
/// known: a random one protects against caches, of which there are none here.
pub(crate) fn request(target: &Target) -> Vec<u8> {
    format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        target.path, target.authority
    )
    .into_bytes()
}

/// The server's answer to the handshake, if it is there to its end: how many bytes it took, or why it is a refusal.
pub(crate) fn upgraded(bytes: &[u8]) -> Option<Result<usize, String>> {
    let end = match memmem::find(bytes, b"\r\n\r\n") {
        Some(at) => at + 4,
        None if bytes.len() > 16 * 1024 => {
            return Some(Err("the answer's head is longer than 16 KiB".into()));
        }
        None => return None,
    };
    let head = String::from_utf8_lossy(&bytes[..end]);
    let status = head.lines().next().unwrap_or_default();
    if !status.starts_with("HTTP/1.1 101") {
        return Some(Err(format!("the server answered {status:?}")));
    }
    if !head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=") {
        return Some(Err("the server's Sec-WebSocket-Accept is wrong".into()));
    }
    Some(Ok(end))
}

/// Connect, and subscribe if asked, in one message.
pub(crate) fn join(subscribe: bool) -> String {
    let connect = r#"{"id":1,"connect":{"name":"tidegate-bench"}}"#;
    if subscribe {
        format!("{connect}\n{{\"id\":2,\"subscribe\":{{\"channel\":\"{CHANNEL}\"}}}}")
    } else {
        connect.to_owned()
    }
}

/// A publication's data of `size` bytes (or as few as the stamp needs).
pub(crate) fn data(run: u32, number: u32, at: u64, size: usize) -> String {
    let mut data = format!("{{\"tidegate-bench\":[{run},{number},{at}],\"fill\":\"");
    data.extend(std::iter::repeat_n('x', size.saturating_sub(data.len() + 2)));
    data.push_str("\"}");
    data
}

/// The command that publishes it.
pub(crate) fn publish(run: u32, number: u32, at: u64, size: usize) -> String {
    let (id, data) = (FIRST_PUBLICATION.saturating_add(number), data(run, number, at, size));
    format!("{{\"id\":{id},\"publish\":{{\"channel\":\"{CHANNEL}\",\"data\":{data}}}}}")
}

/// One line of what the server says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// To be answered by the same.
    Ping,
    /// One of ours.
    Publication {
        /// Which run it belongs to.
        run: u32,
        /// Its number in the run, from 0.
        number: u32,
        /// When it was sent, by [`crate::clock::now`].
        at: u64,
    },
    /// The answer to a command, with the text of its error if it has one.
    Reply(u32, Option<String>),
    /// Anything else.
    Other,
}

/// Reads one line. Publications are recognised by their stamp and not parsed further: this is what a client process
/// does a million times a second.
pub(crate) fn line(line: &[u8]) -> Line {
    if line == b"{}" {
        return Line::Ping;
    }
    if line.starts_with(b"{\"push\"")
        && let Some(at) = memmem::find(line, STAMP)
    {
        return stamp(&line[at + STAMP.len()..]).unwrap_or(Line::Other);
    }
    let Ok(value) = serde_json::from_slice::<Value>(line) else { return Line::Other };
    let id = value.get("id").and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok());
    match id {
        Some(id) => Line::Reply(id, value.get("error").map(ToString::to_string)),
        None => Line::Other,
    }
}

/// `run,number,at]`.
fn stamp(text: &[u8]) -> Option<Line> {
    let end = memchr::memchr(b']', text)?;
    let mut numbers = std::str::from_utf8(&text[..end]).ok()?.split(',');
    let run = numbers.next()?.parse().ok()?;
    let number = numbers.next()?.parse().ok()?;
    let at = numbers.next()?.parse().ok()?;
    Some(Line::Publication { run, number, at })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failing test is what should happen")]
    use super::*;

    #[test]
    fn a_publication_is_recognised_with_its_stamp() {
        for size in [0, 128, 1_000] {
            let data = data(3, 17, 123_456_789_012, size);
            assert!(size == 0 || data.len() == size, "{}", data.len());
            serde_json::from_str::<Value>(&data).unwrap();
            let push = format!("{{\"push\":{{\"channel\":\"bench\",\"pub\":{{\"data\":{data}}}}}}}");
            let expected = Line::Publication { run: 3, number: 17, at: 123_456_789_012 };
            assert_eq!(line(push.as_bytes()), expected);
        }
    }

    #[test]
    fn replies_errors_and_pings_are_told_apart() {
        assert_eq!(line(b"{}"), Line::Ping);
        assert_eq!(line(br#"{"id":2,"subscribe":{}}"#), Line::Reply(2, None));
        let refused = line(br#"{"id":2,"error":{"code":103,"message":"permission denied"}}"#);
        assert!(matches!(refused, Line::Reply(2, Some(text)) if text.contains("permission denied")));
        assert_eq!(line(br#"{"push":{"channel":"bench","pub":{"data":1}}}"#), Line::Other);
        assert_eq!(line(br#"{"push":{"pub":{"data":{"tidegate-bench":[1,x,3]}}}}"#), Line::Other);
        assert_eq!(line(b"not json"), Line::Other);
    }

    #[test]
    fn commands_are_json() {
        for text in [&join(true), &join(false), &publish(1, 0, 5, 128)] {
            for part in text.lines() {
                serde_json::from_str::<Value>(part).unwrap();
            }
        }
        assert_eq!(join(true).lines().count(), 2);
    }

    #[test]
    fn only_a_whole_and_right_answer_is_an_upgrade() {
        let right =
            b"HTTP/1.1 101 Switching Protocols\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
        assert_eq!(upgraded(right), Some(Ok(right.len())));
        assert_eq!(upgraded(&[&right[..], b"\x81\x02{}"].concat()), Some(Ok(right.len())));
        assert_eq!(upgraded(&right[..right.len() - 1]), None);
        let full = upgraded(b"HTTP/1.1 503 Service Unavailable\r\n\r\n").unwrap().unwrap_err();
        assert!(full.contains("503"), "{full}");
        assert!(upgraded(b"HTTP/1.1 101 Switching Protocols\r\n\r\n").unwrap().is_err());
    }
}
