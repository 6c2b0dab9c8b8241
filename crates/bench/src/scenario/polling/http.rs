//! What a client that polls says and hears: a request with the headers that browsers add, an answer with its length.

use clap::ValueEnum;
use memchr::memmem;
use serde::Serialize;

/// How much a client says of itself with each request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Headers {
    /// What a browser sends with a `fetch` at least, and a session cookie of 32 characters
    Browser,
    /// Host and nothing else: a client written to save bytes
    Minimal,
}

/// What every request says beside its first line and its host.
const BROWSER: &str = "Connection: keep-alive\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like \
                       Gecko) Chrome/142.0.0.0 Safari/537.36\r\nAccept: application/json\r\nAccept-Encoding: gzip, deflate, \
                       br, zstd\r\nAccept-Language: en-US,en;q=0.9\r\nReferer: https://app.example.com/\r\nCookie: \
                       session=0123456789abcdef0123456789abcdef\r\n";

/// What a WebSocket handshake says beside: the same, but for the headers that it sets itself.
const BROWSER_UPGRADE: &str = "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
                               Chrome/142.0.0.0 Safari/537.36\r\nAccept-Encoding: gzip, deflate, br, \
                               zstd\r\nAccept-Language: en-US,en;q=0.9\r\nOrigin: http://127.0.0.1\r\nCookie: \
                               session=0123456789abcdef0123456789abcdef\r\n";

/// A request for what came after `since`; without it, for where the channel is.
pub(super) fn request(path: &str, authority: &str, since: Option<u64>, headers: Headers) -> String {
    let since = since.map(|since| format!("&since={since}")).unwrap_or_default();
    let more = if headers == Headers::Browser { BROWSER } else { "" };
    format!("GET {path}?channel={}{since} HTTP/1.1\r\nHost: {authority}\r\n{more}\r\n", super::CHANNEL)
}

/// The request for a WebSocket. The key is the example of RFC 6455, section 1.3, whose answer is known.
pub(super) fn upgrade(path: &str, authority: &str, headers: Headers) -> String {
    let more = if headers == Headers::Browser { BROWSER_UPGRADE } else { "" };
    format!(
        "GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
    )
}

/// An answer that is there to its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer<'a> {
    pub(super) body: &'a [u8],
    /// How many bytes it took.
    pub(super) length: usize,
}

/// The longest answer that is read.
const LONGEST: usize = 4 * 1024 * 1024;

/// The first answer in `bytes`, if it is there to its end.
pub(super) fn answer(bytes: &[u8]) -> Option<Result<Answer<'_>, String>> {
    let head = match memmem::find(bytes, b"\r\n\r\n") {
        Some(at) => at + 4,
        None if bytes.len() > 16 * 1024 => {
            return Some(Err("the answer's head is longer than 16 KiB".into()));
        }
        None => return None,
    };
    let text = String::from_utf8_lossy(&bytes[..head]);
    let status = text.lines().next().unwrap_or_default();
    if !status.starts_with("HTTP/1.1 200") {
        return Some(Err(format!("the server answered {status:?}")));
    }
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    let length = match length {
        Some(length) if length <= LONGEST => head + length,
        Some(_) => return Some(Err("the answer is longer than 4 MiB".into())),
        None => return Some(Err("the answer has no Content-Length".into())),
    };
    bytes.get(head..length).map(|body| Ok(Answer { body, length }))
}

/// The number of the newest publication, with which an answer's body begins.
pub(super) fn last(body: &[u8]) -> Option<u64> {
    number(body, b"{\"last\":").map(|(last, _)| last)
}

/// The updates in a message or a body, in order: number, and when it was made.
pub(super) fn updates(mut text: &[u8]) -> impl Iterator<Item = (u32, u64)> {
    std::iter::from_fn(move || {
        let at = memmem::find(text, b"{\"n\":")?;
        let (count, rest) = number(&text[at..], b"{\"n\":")?;
        let (moment, rest) = number(rest, b",\"at\":")?;
        text = rest;
        Some((u32::try_from(count).ok()?, moment))
    })
}

/// An update's data of `size` bytes, or as few as its number and moment need.
pub(super) fn update(count: u32, at: u64, size: usize) -> String {
    let mut data = format!("{{\"n\":{count},\"at\":{at},\"fill\":\"");
    data.extend(std::iter::repeat_n('x', size.saturating_sub(data.len() + 2)));
    data.push_str("\"}");
    data
}

/// The digits behind `prefix`, and what follows them.
fn number<'a>(text: &'a [u8], prefix: &[u8]) -> Option<(u64, &'a [u8])> {
    let text = text.strip_prefix(prefix)?;
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let value = std::str::from_utf8(&text[..digits]).ok()?.parse().ok()?;
    Some((value, &text[digits..]))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failing test is what should happen")]
    use super::*;

    #[test]
    fn an_answer_is_waited_for_to_its_end() {
        let bytes = b"HTTP/1.1 200 OK\r\ncontent-Length: 11\r\n\r\n{\"last\":42}HTTP/1.1";
        for end in 0..bytes.len() - 8 {
            assert!(answer(&bytes[..end]).is_none(), "{end}");
        }
        let whole = answer(bytes).unwrap().unwrap();
        assert_eq!((whole.length, last(whole.body)), (bytes.len() - 8, Some(42)));
    }

    #[test]
    fn an_answer_that_cannot_be_used_is_said() {
        for (bytes, words) in [
            (&b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"[..], "404"),
            (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", "Content-Length"),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n", "4 MiB"),
        ] {
            let text = answer(bytes).unwrap().unwrap_err();
            assert!(text.contains(words), "{text}");
        }
    }

    #[test]
    fn updates_are_found_in_a_body_of_several() {
        let body = format!("{{\"last\":7,\"publications\":[{},{}]}}", update(5, 99, 0), update(6, 100, 200));
        assert_eq!(updates(body.as_bytes()).collect::<Vec<_>>(), [(5, 99), (6, 100)]);
        assert_eq!(update(6, 100, 200).len(), 200);
        assert_eq!(updates(b"{\"n\":5,\"at\":").count(), 0);
    }

    #[test]
    fn a_minimal_request_is_smaller_and_both_end() {
        for headers in [Headers::Browser, Headers::Minimal] {
            for text in [request("/poll", "h:1", Some(3), headers), upgrade("/", "h:1", headers)] {
                assert!(text.ends_with("\r\n\r\n") && !text.trim_end().contains("\r\n\r\n"), "{text}");
                assert!(text.lines().all(|line| !line.starts_with(' ') && !line.contains("  ")), "{text}");
            }
        }
        let size = |headers| request("/poll", "h:1", None, headers).len();
        assert!(size(Headers::Minimal) * 3 < size(Headers::Browser));
    }
}
