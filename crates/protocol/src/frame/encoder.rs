//! Frames from the server: one frame a message, never masked.

/// The longest header of a server's frame: two bytes and a 64-bit length.
pub const MAX_HEADER_BYTES: usize = 10;

/// The most bytes of reason that fit a Close frame beside its code.
pub const MAX_REASON_BYTES: usize = 123;

/// The opcodes a server writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    /// A text message.
    Text = 1,
    /// A binary message.
    Binary = 2,
    /// A Close frame.
    Close = 8,
    /// A ping.
    Ping = 9,
    /// A pong.
    Pong = 10,
}

/// The header of an unfragmented frame, for a payload that is written from elsewhere: the bytes, of which the
/// first so many count.
///
/// A control frame (Close, ping, pong) may have 125 bytes of payload at most; that is the caller's to keep.
pub const fn header(opcode: Opcode, payload_len: usize) -> ([u8; MAX_HEADER_BYTES], usize) {
    let first = 0x80 | opcode as u8;
    match payload_len {
        0..=125 => ([first, payload_len as u8, 0, 0, 0, 0, 0, 0, 0, 0], 2),
        126..=0xffff => {
            let [a, b] = (payload_len as u16).to_be_bytes();
            ([first, 126, a, b, 0, 0, 0, 0, 0, 0], 4)
        }
        _ => {
            let [a, b, c, d, e, f, g, h] = (payload_len as u64).to_be_bytes();
            ([first, 127, a, b, c, d, e, f, g, h], 10)
        }
    }
}

/// How long the frame is that encoded bytes begin with, or what there is of them if not even its header is whole.
pub fn encoded_len(bytes: &[u8]) -> usize {
    match bytes {
        [_, 127, a, b, c, d, e, f, g, h, ..] => {
            let payload = u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]);
            usize::try_from(payload).unwrap_or(usize::MAX).saturating_add(10)
        }
        [_, 126, a, b, ..] => usize::from(u16::from_be_bytes([*a, *b])) + 4,
        [_, payload, ..] => usize::from(*payload) + 2,
        _ => bytes.len(),
    }
}

/// Appends one unfragmented, unmasked frame. A control frame's payload is at most 125 bytes.
pub fn encode(opcode: Opcode, payload: &[u8], out: &mut Vec<u8>) {
    debug_assert!(
        matches!(opcode, Opcode::Text | Opcode::Binary) || payload.len() <= 125,
        "a control frame has 125 bytes of payload at most"
    );
    let (header, header_len) = header(opcode, payload.len());
    out.reserve(header_len + payload.len());
    out.extend_from_slice(header.split_at(header_len).0);
    out.extend_from_slice(payload);
}

/// Appends a Close frame; a reason of more than 123 bytes is cut at a character boundary.
pub fn encode_close(code: u16, reason: &str, out: &mut Vec<u8>) {
    let reason = reason.split_at(reason.floor_char_boundary(MAX_REASON_BYTES)).0;
    let (header, header_len) = header(Opcode::Close, 2 + reason.len());
    out.extend_from_slice(header.split_at(header_len).0);
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(reason.as_bytes());
}
