//! What stands beside a question: identity of the request, its trace, its signature, and what the client's browser sent.
//!
//! A client's headers reach a backend only by an endpoint's list, and never over a header that the node sets itself.

use std::fmt::Write as _;
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use ring::hmac;
use uuid::Uuid;

/// The request's id, the same for a repeated one; also in the node's log.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// W3C Trace Context.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// `t=<seconds>,v1=<hex of HMAC-SHA256 over "<seconds>.<body>">`.
const SIGNATURE: HeaderName = HeaderName::from_static("x-tidegate-signature");

/// The most bytes of headers that a session keeps for backends.
pub(crate) const MAX_KEPT: usize = 8 * 1024;

/// Headers that belong to one connection or to the node: neither settings nor clients may give them.
const RESERVED: [&str; 18] = [
    "accept",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "x-request-id",
    "x-tidegate-signature",
    "sec-websocket-key",
    "sec-websocket-version",
];

/// What a session keeps of its handshake for backends; shared by its questions. A pointer, for most keep nothing.
pub(crate) type Kept = Option<Rc<Headers>>;

/// A few headers, in no more room than they take: a map has some for eight.
#[derive(Debug, PartialEq)]
pub(crate) struct Headers(Box<[(HeaderName, HeaderValue)]>);

impl FromIterator<(HeaderName, HeaderValue)> for Headers {
    fn from_iter<T: IntoIterator<Item = (HeaderName, HeaderValue)>>(headers: T) -> Self {
        Self(headers.into_iter().collect())
    }
}

/// Reads a header's name as settings have it. Errors: what to do.
pub(crate) fn name(text: &str) -> Result<HeaderName, String> {
    let name = HeaderName::try_from(text).map_err(|_| "not the name of a header".to_owned())?;
    if RESERVED.contains(&name.as_str()) {
        return Err("the node or the connection sets this header".to_owned());
    }
    Ok(name)
}

/// Everything beside a question's body. `sent` are the endpoint's own headers, `forward` the names it wants of `kept`.
pub(super) fn of(sent: &HeaderMap, forward: &[HeaderName], kept: &Kept, request: Uuid) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Some(kept) = kept {
        for (name, value) in kept.0.iter().filter(|(name, _)| forward.contains(name)) {
            headers.append(name.clone(), value.clone());
        }
    }
    for (name, value) in sent {
        headers.insert(name.clone(), value.clone());
    }
    if !headers.get(TRACEPARENT).is_some_and(is_traceparent) {
        headers.insert(TRACEPARENT, ascii(&traceparent(fastrand::u128(1..), fastrand::u64(1..))));
    }
    headers.insert(REQUEST_ID, ascii(&request.to_string()));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("tidegate/", env!("CARGO_PKG_VERSION"))));
    headers
}

/// Adds the signature of a body that is sent now.
pub(super) fn sign(headers: &mut HeaderMap, key: &hmac::Key, body: &[u8]) {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    headers.insert(SIGNATURE, ascii(&signature(key, seconds, body)));
}

fn signature(key: &hmac::Key, seconds: u64, body: &[u8]) -> String {
    let mut context = hmac::Context::with_key(key);
    context.update(format!("{seconds}.").as_bytes());
    context.update(body);
    let mut text = format!("t={seconds},v1=");
    for byte in context.sign().as_ref() {
        // Writing to a text does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// A trace that begins here. Sampled: whether it is kept is for those to say who record traces.
fn traceparent(trace: u128, span: u64) -> String {
    format!("00-{trace:032x}-{span:016x}-01")
}

/// Whether a client's value is one that may be passed on (version 00 of W3C Trace Context).
fn is_traceparent(value: &HeaderValue) -> bool {
    let Ok(text) = value.to_str() else { return false };
    let parts: Vec<&str> = text.split('-').collect();
    let hex = |part: &str, length: usize| {
        part.len() == length && part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let some = |part: &str| part.bytes().any(|b| b != b'0');
    match parts.as_slice() {
        ["00", trace, span, flags] => {
            hex(trace, 32) && hex(span, 16) && hex(flags, 2) && some(trace) && some(span)
        }
        _ => false,
    }
}

/// A value of digits, letters and dashes.
fn ascii(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failing test is what should happen")]
    use super::*;

    fn handshake(pairs: &[(&str, &str)]) -> Kept {
        let pair = |(name, value): &(&str, &str)| {
            (HeaderName::try_from(*name).unwrap(), HeaderValue::from_str(value).unwrap())
        };
        Some(Rc::new(pairs.iter().map(pair).collect()))
    }

    fn map(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(HeaderName::try_from(*name).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        map
    }

    #[test]
    fn only_what_the_endpoint_lists_is_passed_on_and_its_own_headers_win() {
        let kept = handshake(&[("cookie", "a=1"), ("authorization", "Bearer client"), ("x-other", "1")]);
        let forward = [name("cookie").unwrap(), name("authorization").unwrap()];
        let sent = map(&[("authorization", "Bearer node")]);
        let headers = of(&sent, &forward, &kept, Uuid::nil());
        assert_eq!(headers.get("cookie").unwrap(), "a=1");
        assert_eq!(headers.get_all("authorization").iter().collect::<Vec<_>>(), ["Bearer node"]);
        assert!(headers.get("x-other").is_none());
        assert_eq!(headers.get("x-request-id").unwrap(), "00000000-0000-0000-0000-000000000000");
        assert_eq!(headers.get("content-type").unwrap(), "application/json");
    }

    #[test]
    fn a_trace_is_passed_on_where_the_endpoint_wants_it_and_made_where_there_is_none() {
        let given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
        let kept = handshake(&[("traceparent", given)]);
        let forward = [name("traceparent").unwrap()];
        assert_eq!(of(&HeaderMap::new(), &forward, &kept, Uuid::nil()).get("traceparent").unwrap(), given);
        let made = of(&HeaderMap::new(), &[], &kept, Uuid::nil()).get("traceparent").unwrap().clone();
        assert!(is_traceparent(&made) && made != given, "{made:?}");
        for bad in
            ["", "00-0-0-0", "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00", &given.to_uppercase()]
        {
            let kept = handshake(&[("traceparent", bad)]);
            let made =
                of(&HeaderMap::new(), &forward, &kept, Uuid::nil()).get("traceparent").unwrap().clone();
            assert!(is_traceparent(&made), "{bad}: {made:?}");
        }
    }

    #[test]
    fn what_belongs_to_the_connection_is_nobodys_to_set() {
        for reserved in
            ["Host", "content-length", "Transfer-Encoding", "x-request-id", "X-Tidegate-Signature"]
        {
            assert!(name(reserved).is_err(), "{reserved}");
        }
        assert!(name("a b").is_err() && name("").is_err());
        assert_eq!(name("Cookie").unwrap(), "cookie");
    }

    #[test]
    fn a_signature_is_of_the_time_and_the_body() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"secret");
        // printf '1700000000.{}' | openssl dgst -sha256 -hmac secret
        assert_eq!(
            signature(&key, 1_700_000_000, b"{}"),
            "t=1700000000,v1=b8569b78799ff9e3cbff0fc2d63a33a2b57f3282abd07c37ae5e8e7d79a5f163"
        );
    }
}
