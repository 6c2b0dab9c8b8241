//! The WebSocket handshake, the client's side (RFC 6455, section 4).

use memchr::memmem;

use crate::target::{Node, Protocol};

/// A server's answer that is no 101.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The status, 0 if there is none.
    pub(crate) status: u16,
    /// Seconds of `Retry-After`.
    pub(crate) retry_after: Option<u32>,
    /// In words.
    pub(crate) why: String,
}

/// The request that asks for the WebSocket. The key is the example of RFC 6455, section 1.3, so that the answer is
/// known: a random one protects against caches, of which there are none here.
pub(crate) fn request(node: &Node, protocol: Protocol) -> Vec<u8> {
    let subprotocol = match protocol {
        Protocol::CentrifugeProtobuf => "Sec-WebSocket-Protocol: centrifuge-protobuf\r\n",
        Protocol::CentrifugeJson | Protocol::Raw | Protocol::Pusher => "",
    };
    format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         {subprotocol}Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        node.path, node.authority
    )
    .into_bytes()
}

/// The server's answer to the handshake, if it is there to its end: how many bytes it took, or why it is a refusal.
pub(crate) fn upgraded(bytes: &[u8], protocol: Protocol) -> Option<Result<usize, Refusal>> {
    let refusal = |status, retry_after, why| Some(Err(Refusal { status, retry_after, why }));
    let end = match memmem::find(bytes, b"\r\n\r\n") {
        Some(at) => at + 4,
        None if bytes.len() > 16 * 1024 => {
            return refusal(0, None, "the answer's head is longer than 16 KiB".into());
        }
        None => return None,
    };
    let head = String::from_utf8_lossy(&bytes[..end]);
    let first = head.lines().next().unwrap_or_default();
    if !first.starts_with("HTTP/1.1 101") {
        let status = first.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        return refusal(status, retry_after(&head), format!("the server answered {first:?}"));
    }
    if !head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=") {
        return refusal(101, None, "the server's Sec-WebSocket-Accept is wrong".into());
    }
    if protocol == Protocol::CentrifugeProtobuf && !head.contains("centrifuge-protobuf") {
        return refusal(101, None, "the server did not take the subprotocol centrifuge-protobuf".into());
    }
    Some(Ok(end))
}

/// Seconds of a `Retry-After` header; a date is left alone.
fn retry_after(head: &str) -> Option<u32> {
    let fields = head.lines().filter_map(|line| line.split_once(':'));
    let mut named = fields.filter(|(name, _)| name.eq_ignore_ascii_case("retry-after"));
    named.next()?.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failing test is what should happen")]
    use super::*;

    #[test]
    fn only_a_whole_and_right_answer_is_an_upgrade() {
        let json = Protocol::CentrifugeJson;
        let right =
            b"HTTP/1.1 101 Switching Protocols\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
        assert_eq!(upgraded(right, json), Some(Ok(right.len())));
        assert_eq!(upgraded(&[&right[..], b"\x81\x02{}"].concat(), json), Some(Ok(right.len())));
        assert_eq!(upgraded(&right[..right.len() - 1], json), None);
        assert!(upgraded(b"HTTP/1.1 101 Switching Protocols\r\n\r\n", json).unwrap().is_err());
        let other = upgraded(right, Protocol::CentrifugeProtobuf).unwrap().unwrap_err();
        assert!(other.why.contains("centrifuge-protobuf"), "{other:?}");
    }

    #[test]
    fn a_refusal_says_when_to_come_back() {
        let full = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 7\r\ncontent-length: 0\r\n\r\n";
        let refusal = upgraded(full, Protocol::Raw).unwrap().unwrap_err();
        assert_eq!((refusal.status, refusal.retry_after), (503, Some(7)));
        assert!(refusal.why.contains("503"), "{refusal:?}");
        let none = upgraded(b"HTTP/1.1 404 Not Found\r\n\r\n", Protocol::Raw).unwrap().unwrap_err();
        assert_eq!((none.status, none.retry_after), (404, None));
        assert_eq!(upgraded(b"nonsense\r\n\r\n", Protocol::Raw).unwrap().unwrap_err().status, 0);
    }
}
