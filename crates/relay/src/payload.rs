//! What may be published: one JSON value.

use bytes::Bytes;

/// The payload as it may reach clients, or `None` where it is not JSON.
pub(crate) fn checked(payload: &Bytes) -> Option<Bytes> {
    serde_json::from_slice::<serde::de::IgnoredAny>(payload).ok()?;
    if memchr::memchr2(b'\n', b'\r', payload).is_none() {
        return Some(payload.clone());
    }
    Some(payload.iter().map(|b| if matches!(b, b'\n' | b'\r') { b' ' } else { *b }).collect())
}
