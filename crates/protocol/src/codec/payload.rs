//! Payloads: checked once where they enter, embedded as they are from then on.

use bytes::Bytes;
use serde::de::IgnoredAny;

/// The most arrays and objects that a payload may have inside one another.
///
/// The usual bound of JSON libraries is of this size or larger; text nested deeper than its reader allows would
/// break every subscriber of the channel.
pub const MAX_PAYLOAD_DEPTH: usize = 128;

/// Why a payload was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotJson {
    /// Bytes that are not text.
    #[error("not JSON: not UTF-8")]
    Utf8,
    /// Text that is not one JSON value.
    #[error("not JSON: not exactly one JSON value")]
    Syntax,
    /// More than [`MAX_PAYLOAD_DEPTH`] arrays and objects inside one another.
    #[error("JSON nested deeper than {MAX_PAYLOAD_DEPTH} levels")]
    TooDeep,
}

/// Checks that `data` is one JSON value and takes a copy of it, byte for byte, but with each newline and carriage
/// return as a space: clients split a message at its newlines.
///
/// In valid JSON these stand only between tokens, where a space means the same. Does not recurse.
pub fn payload(data: &[u8]) -> Result<Bytes, NotJson> {
    check(data)?;
    Ok(if has_newline(data) { without_newlines(data) } else { Bytes::copy_from_slice(data) })
}

/// The same as [`payload`] without the copy where there is no newline.
pub fn payload_from(data: Bytes) -> Result<Bytes, NotJson> {
    check(&data)?;
    Ok(if has_newline(&data) { without_newlines(&data) } else { data })
}

fn check(data: &[u8]) -> Result<(), NotJson> {
    let text = simdutf8::basic::from_utf8(data).map_err(|_| NotJson::Utf8)?;
    serde_json::from_str::<IgnoredAny>(text).map_err(|_| NotJson::Syntax)?;
    if is_deep(data) { Err(NotJson::TooDeep) } else { Ok(()) }
}

fn has_newline(data: &[u8]) -> bool {
    memchr::memchr2(b'\n', b'\r', data).is_some()
}

fn without_newlines(data: &[u8]) -> Bytes {
    let mut copy = data.to_vec();
    for byte in &mut copy {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    Bytes::from(copy)
}

/// Whether `json`, which is valid, is nested deeper than [`MAX_PAYLOAD_DEPTH`].
fn is_deep(json: &[u8]) -> bool {
    // Most payloads have fewer brackets in all than levels are allowed.
    if memchr::memchr2_iter(b'[', b'{', json).nth(MAX_PAYLOAD_DEPTH).is_none() {
        return false;
    }
    let (mut depth, mut in_string, mut escaped) = (0, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'[' | b'{' => {
                depth += 1;
                if depth > MAX_PAYLOAD_DEPTH {
                    return true;
                }
            }
            b']' | b'}' => depth -= 1,
            _ => {}
        }
    }
    false
}
