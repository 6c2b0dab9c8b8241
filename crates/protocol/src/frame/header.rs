//! The header of one client frame (RFC 6455, 5.2), checked by itself.
//!
//! Not here: whether the frame fits the message it belongs to (`decoder`).

use super::FrameError;

/// The longest header a client can send: two bytes, a 64-bit length, the masking key.
pub(super) const MAX_BYTES: usize = 14;

/// The largest payload of a control frame (RFC 6455, 5.5).
pub(super) const MAX_CONTROL_BYTES: u64 = 125;

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Data(DataKind),
    Continuation,
    Control(ControlKind),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DataKind {
    Text,
    Binary,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ControlKind {
    Close,
    Ping,
    Pong,
}

/// A header that keeps every rule that can be told from it alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) fin: bool,
    pub(super) kind: Kind,
    /// As declared: no byte of it need be there.
    pub(super) length: u64,
    pub(super) mask: [u8; 4],
}

/// The header at the start of `bytes` and its size, or `None` when more bytes are needed. A broken rule is
/// reported as soon as the bytes that break it are there.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Header, usize)>, FrameError> {
    let [first, second, rest @ ..] = bytes else { return Ok(None) };
    let fin = first & 0x80 != 0;
    if first & 0x70 != 0 {
        return Err(FrameError::Protocol("reserved bits set without an extension"));
    }
    let kind = match first & 0x0f {
        0x0 => Kind::Continuation,
        0x1 => Kind::Data(DataKind::Text),
        0x2 => Kind::Data(DataKind::Binary),
        0x8 => Kind::Control(ControlKind::Close),
        0x9 => Kind::Control(ControlKind::Ping),
        0xa => Kind::Control(ControlKind::Pong),
        _ => return Err(FrameError::Protocol("reserved opcode")),
    };
    if second & 0x80 == 0 {
        return Err(FrameError::Protocol("client frame without a mask"));
    }
    let short = second & 0x7f;
    if let Kind::Control(_) = kind {
        if !fin {
            return Err(FrameError::Protocol("fragmented control frame"));
        }
        if u64::from(short) > MAX_CONTROL_BYTES {
            return Err(FrameError::Protocol("control frame of more than 125 bytes"));
        }
    }
    // "the minimal number of bytes MUST be used to encode the length" (RFC 6455, 5.2).
    let (length, length_bytes) = match short {
        126 => {
            let Some(field) = rest.first_chunk::<2>() else { return Ok(None) };
            let length = u64::from(u16::from_be_bytes(*field));
            if length < 126 {
                return Err(FrameError::Protocol("length not in its shortest form"));
            }
            (length, field.len())
        }
        127 => {
            let Some(field) = rest.first_chunk::<8>() else { return Ok(None) };
            let length = u64::from_be_bytes(*field);
            if length >> 63 != 0 {
                return Err(FrameError::Protocol("highest bit of a 64-bit length set"));
            }
            if length <= u64::from(u16::MAX) {
                return Err(FrameError::Protocol("length not in its shortest form"));
            }
            (length, field.len())
        }
        short => (u64::from(short), 0),
    };
    let Some(mask) = rest.get(length_bytes..).and_then(|key| key.first_chunk::<4>()) else { return Ok(None) };
    Ok(Some((Header { fin, kind, length, mask: *mask }, 2 + length_bytes + mask.len())))
}
