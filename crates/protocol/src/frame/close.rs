//! The payload of a Close frame (RFC 6455, 5.5.1 and 7.4).

use super::FrameError;

/// The code and reason a client gave, if any.
pub(super) fn parse(payload: &[u8]) -> Result<Option<(u16, &str)>, FrameError> {
    let (code, reason) = match payload {
        [] => return Ok(None),
        [_] => return Err(FrameError::Protocol("close frame with half a code")),
        [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
    };
    if !may_be_sent(code) {
        return Err(FrameError::Protocol("close code that may not be sent"));
    }
    let reason = simdutf8::basic::from_utf8(reason).map_err(|_| FrameError::Utf8)?;
    Ok(Some((code, reason)))
}

/// Whether an endpoint may put `code` on the wire: the codes of RFC 6455, 7.4.1 and of IANA's registry
/// (1012 to 1014), and the ranges for libraries and applications. 1004 has no meaning; 1005, 1006 and 1015 stand
/// for what was not on the wire.
const fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}
