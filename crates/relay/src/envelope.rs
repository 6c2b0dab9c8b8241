//! The wire envelope: what nodes and scripts put on a pub/sub channel when there is more to say than the data.
//!
//! ```text
//! 0x01  version  space  header  newline  data
//! \x01  1        ' '    {...}   \n       {"text":"hello"}
//! ```
//!
//! The first byte begins no JSON text, so a backend's raw payload is never taken for an envelope. The version is ASCII
//! digits; a version that is not known is refused, since the node cannot know what it would lose. The header is one
//! line of a JSON object, which Lua writes with `cjson.encode`; fields that are not known are ignored, so that fields
//! can be added without a new version. The data is the rest, and there is none where the header says that somebody joined
//! or left.
//!
//! Pure. Not here: whether the data is valid JSON (`tidegate_protocol::codec::json::payload`) and how large it may be.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tidegate_protocol::ClientInfo;

/// The first byte of an envelope. No JSON text begins with it.
pub(crate) const MARK: u8 = 0x01;

/// The largest header, in bytes: room for what tokens say of a client and for tags.
pub(crate) const MAX_HEADER_BYTES: usize = 64 * 1024;

const VERSION: &[u8] = b"1";

/// What was taken out of an envelope.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Opened {
    /// The payload, unchecked.
    pub(crate) data: Bytes,
    /// Who published it.
    pub(crate) info: Option<ClientInfo>,
    /// Tags in the order of their names.
    pub(crate) tags: Vec<(String, String)>,
    /// The publication's place in the channel's history; 0 where it has none.
    pub(crate) offset: u64,
    /// Of which epoch the offset is; empty where there is none.
    pub(crate) epoch: Bytes,
    /// Who joined or left, where the message says that instead of carrying data.
    pub(crate) presence: Option<Presence>,
}

/// A change of who is present.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Presence {
    Join(ClientInfo),
    Leave(ClientInfo),
}

/// Why an envelope could not be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EnvelopeError {
    #[error("not an envelope")]
    NoMark,
    #[error("envelope version {0:?} is not known to this node")]
    Version(String),
    #[error("the envelope's header has no end within {MAX_HEADER_BYTES} bytes")]
    NoHeader,
    #[error("the envelope's header is not a JSON object: {0}")]
    Header(String),
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Header<'a> {
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    info: Option<Info<'a>>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    tags: BTreeMap<String, String>,
    #[serde(default, skip_serializing)]
    offset: u64,
    #[serde(borrow, default, skip_serializing)]
    epoch: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing)]
    join: Option<Info<'a>>,
    #[serde(borrow, default, skip_serializing)]
    leave: Option<Info<'a>>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Info<'a> {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    user: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    client: String,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    conn_info: Option<&'a RawValue>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    chan_info: Option<&'a RawValue>,
}

/// Whether the payload says that it is an envelope.
pub(crate) fn is_envelope(payload: &[u8]) -> bool {
    payload.first() == Some(&MARK)
}

/// Wraps `data`. Client info that is not JSON is left out: it could not be read again.
pub(crate) fn seal(data: &[u8], info: Option<&ClientInfo>, tags: &[(String, String)]) -> Vec<u8> {
    let (conn_info, chan_info) = match info {
        Some(info) => (one_line(&info.conn_info), one_line(&info.chan_info)),
        None => Default::default(),
    };
    let header = Header {
        info: info.map(|info| Info::new(info, &conn_info, &chan_info)),
        tags: tags.iter().cloned().collect(),
        ..Header::default()
    };
    let mut out = Vec::with_capacity(64 + data.len());
    out.push(MARK);
    out.extend_from_slice(VERSION);
    out.push(b' ');
    let start = out.len();
    if serde_json::to_writer(&mut out, &header).is_err() {
        // Strings, maps and checked raw values: cannot happen, and an empty header still carries the data.
        out.truncate(start);
        out.extend_from_slice(b"{}");
    }
    out.push(b'\n');
    out.extend_from_slice(data);
    out
}

/// Unwraps an envelope. The data shares the payload's memory.
pub(crate) fn open(payload: &Bytes) -> Result<Opened, EnvelopeError> {
    let rest = payload.strip_prefix(&[MARK]).ok_or(EnvelopeError::NoMark)?;
    let window = &rest[..rest.len().min(MAX_HEADER_BYTES)];
    let end = memchr::memchr(b'\n', window).ok_or(EnvelopeError::NoHeader)?;
    let line = &rest[..end];
    let space = memchr::memchr(b' ', line).unwrap_or(line.len());
    let (version, header) = line.split_at(space);
    if version != VERSION {
        let shown = &version[..version.len().min(16)];
        return Err(EnvelopeError::Version(shown.escape_ascii().to_string()));
    }
    // A sequence would pass for a struct too, by the order of fields.
    if header.get(1) != Some(&b'{') {
        return Err(EnvelopeError::Header("it does not begin with {".into()));
    }
    let header: Header<'_> =
        serde_json::from_slice(header).map_err(|error| EnvelopeError::Header(error.to_string()))?;
    let presence = match (header.join, header.leave) {
        (Some(info), _) => Some(Presence::Join(info.of(payload))),
        (None, Some(info)) => Some(Presence::Leave(info.of(payload))),
        (None, None) => None,
    };
    Ok(Opened {
        data: payload.slice(1 + end + 1..),
        info: header.info.map(|info| info.of(payload)),
        tags: header.tags.into_iter().collect(),
        offset: header.offset,
        epoch: match header.epoch {
            Cow::Borrowed("") => Bytes::new(),
            Cow::Borrowed(epoch) => payload.slice_ref(epoch.as_bytes()),
            Cow::Owned(epoch) => epoch.into(),
        },
        presence,
    })
}

/// Client info as JSON in one line.
pub(crate) fn write_info(info: &ClientInfo) -> Vec<u8> {
    let (conn_info, chan_info) = (one_line(&info.conn_info), one_line(&info.chan_info));
    serde_json::to_vec(&Info::new(info, &conn_info, &chan_info)).unwrap_or_else(|_| b"{}".to_vec())
}

/// Client info from JSON that stands by itself.
pub(crate) fn read_info(json: &Bytes) -> Option<ClientInfo> {
    let info: Info<'_> = serde_json::from_slice(json).ok()?;
    Some(info.of(json))
}

/// Tags as JSON in one line.
pub(crate) fn write_tags(tags: &[(String, String)]) -> Vec<u8> {
    let tags: BTreeMap<&str, &str> =
        tags.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    serde_json::to_vec(&tags).unwrap_or_else(|_| b"{}".to_vec())
}

/// Tags from JSON that stands by itself.
pub(crate) fn read_tags(json: &[u8]) -> Option<Vec<(String, String)>> {
    let tags: BTreeMap<String, String> = serde_json::from_slice(json).ok()?;
    Some(tags.into_iter().collect())
}

impl<'a> Info<'a> {
    /// The JSON parts of `info` are handed in as they may stand in one line.
    fn new(info: &ClientInfo, conn_info: &'a [u8], chan_info: &'a [u8]) -> Self {
        Info {
            user: info.user.clone(),
            client: info.client.clone(),
            conn_info: checked(conn_info),
            chan_info: checked(chan_info),
        }
    }

    /// Shares the memory of `text`, in which it was read.
    fn of(self, text: &Bytes) -> ClientInfo {
        let raw =
            |value: Option<&RawValue>| value.map_or_else(Bytes::new, |v| text.slice_ref(v.get().as_bytes()));
        ClientInfo {
            conn_info: raw(self.conn_info),
            chan_info: raw(self.chan_info),
            user: self.user,
            client: self.client,
        }
    }
}

/// JSON as it may stand on the header's line: a line break in JSON is never more than white space.
fn one_line(json: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr2(b'\n', b'\r', json).is_none() {
        return Cow::Borrowed(json);
    }
    json.iter().map(|b| if matches!(b, b'\n' | b'\r') { b' ' } else { *b }).collect()
}

/// The text as JSON, or nothing.
fn checked(json: &[u8]) -> Option<&RawValue> {
    serde_json::from_slice(json).ok()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    fn opened(data: &str) -> Opened {
        Opened {
            data: Bytes::copy_from_slice(data.as_bytes()),
            info: None,
            tags: Vec::new(),
            offset: 0,
            epoch: Bytes::new(),
            presence: None,
        }
    }

    #[test]
    fn what_a_script_writes_by_hand_is_understood() {
        let by_hand = Bytes::from_static(b"\x011 {}\n{\"text\":\"hello\"}");
        assert_eq!(open(&by_hand).unwrap(), opened(r#"{"text":"hello"}"#));
        let from_the_future = Bytes::from_static(b"\x011 {\"offset\":7,\"epoch\":\"ab\",\"time\":1.5}\n[1]");
        let placed = Opened { offset: 7, epoch: Bytes::from_static(b"ab"), ..opened("[1]") };
        assert_eq!(open(&from_the_future).unwrap(), placed);
    }

    #[test]
    fn who_joined_is_understood() {
        let by_hand = Bytes::from_static(b"\x011 {\"join\":{\"user\":\"42\",\"client\":\"c1\"}}\n");
        let info = ClientInfo { user: "42".into(), client: "c1".into(), ..ClientInfo::default() };
        assert_eq!(open(&by_hand).unwrap().presence, Some(Presence::Join(info)));
    }

    #[test]
    fn the_bytes_are_pinned() {
        let info = ClientInfo {
            user: "42".into(),
            client: "c1".into(),
            conn_info: Bytes::from_static(b"{\"name\":\"Ada\"}"),
            chan_info: Bytes::new(),
        };
        let tags = [("k".to_owned(), "v".to_owned())];
        assert_eq!(
            seal(b"1", Some(&info), &tags).escape_ascii().to_string(),
            "\\x011 {\\\"info\\\":{\\\"user\\\":\\\"42\\\",\\\"client\\\":\\\"c1\\\",\\\"conn_info\\\":{\\\"name\\\":\\\"Ada\\\"}},\
             \\\"tags\\\":{\\\"k\\\":\\\"v\\\"}}\\n1"
        );
    }

    #[test]
    fn an_unknown_version_is_refused() {
        for version in ["2", "11", "", "x"] {
            let payload = Bytes::from(format!("\x01{version} {{}}\n1"));
            assert_eq!(open(&payload), Err(EnvelopeError::Version(version.into())));
        }
    }

    #[test]
    fn a_header_without_an_end_is_refused() {
        let endless = Bytes::from([b"\x011 ".as_slice(), &vec![b' '; 2 * MAX_HEADER_BYTES], b"\n1"].concat());
        assert_eq!(open(&endless), Err(EnvelopeError::NoHeader));
        for header in ["", "[]", "{", "{} {}", "null", "{\"tags\":1}"] {
            let payload = Bytes::from(format!("\x011 {header}\n1"));
            assert!(matches!(open(&payload), Err(EnvelopeError::Header(_))), "{header}");
        }
    }

    fn json() -> impl Strategy<Value = Bytes> {
        prop_oneof![
            Just(Bytes::new()),
            any::<i64>().prop_map(|n| Bytes::from(n.to_string())),
            any::<String>().prop_map(|s| Bytes::from(serde_json::to_vec(&s).unwrap())),
            any::<String>().prop_map(|s| Bytes::from(serde_json::json!({ s: [1, null] }).to_string())),
        ]
    }

    fn info() -> impl Strategy<Value = Option<ClientInfo>> {
        proptest::option::of((any::<String>(), any::<String>(), json(), json()).prop_map(
            |(user, client, conn_info, chan_info)| ClientInfo { user, client, conn_info, chan_info },
        ))
    }

    proptest! {
        #[test]
        fn what_is_sealed_is_opened_again(
            data in any::<Vec<u8>>(),
            info in info(),
            tags in proptest::collection::btree_map(any::<String>(), any::<String>(), 0..4),
        ) {
            let tags: Vec<_> = tags.into_iter().collect();
            let sealed = Bytes::from(seal(&data, info.as_ref(), &tags));
            prop_assert!(is_envelope(&sealed));
            let expected = Opened { data: data.into(), info: info.clone(), tags: tags.clone(), ..opened("") };
            prop_assert_eq!(open(&sealed).unwrap(), expected);
            prop_assert_eq!(read_tags(&write_tags(&tags)).unwrap(), tags);
            let alone = info.map(|info| (read_info(&write_info(&info).into()).unwrap(), info));
            prop_assert!(alone.is_none_or(|(read, written)| read == written));
        }

        #[test]
        fn arbitrary_bytes_never_panic(mut payload in any::<Vec<u8>>(), mark in any::<bool>()) {
            if mark {
                payload.splice(0..0, *b"\x011 {");
            }
            let _ = open(&payload.into());
        }

        #[test]
        fn a_raw_json_payload_is_never_taken_for_an_envelope(payload in any::<Vec<u8>>(), value in json()) {
            for text in [payload.as_slice(), &value] {
                if serde_json::from_slice::<serde::de::IgnoredAny>(text).is_ok() {
                    prop_assert!(!is_envelope(text));
                }
            }
        }
    }
}
