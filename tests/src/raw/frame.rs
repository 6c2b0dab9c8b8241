//! Frames, bit by bit: those of the client as a test wants them, those of the server as they came.

use super::Error;

pub(super) const CONTINUATION: u8 = 0;
pub(super) const TEXT: u8 = 1;
pub(super) const BINARY: u8 = 2;
pub(super) const CLOSE: u8 = 8;
pub(super) const PING: u8 = 9;
pub(super) const PONG: u8 = 10;

/// Any key will do: a test server cannot be attacked through a proxy's cache.
const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// One client frame. The constructors make well-formed ones; every field may then be changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Whether the message ends with this frame.
    pub fin: bool,
    /// The three reserved bits, as a number of 0 to 7.
    pub reserved: u8,
    /// The opcode, 0 to 15.
    pub opcode: u8,
    /// Whether the payload is masked.
    pub masked: bool,
    /// The masking key.
    pub key: [u8; 4],
    /// How many bytes the extended length has: 0, 2 or 8; `None` for the shortest form.
    pub length_bytes: Option<u8>,
    /// What the length says; `None` for the truth.
    pub declared: Option<u64>,
    /// The payload, unmasked.
    pub payload: Vec<u8>,
}

impl Frame {
    /// A final frame of any opcode.
    pub fn new(opcode: u8, payload: impl Into<Vec<u8>>) -> Self {
        Self {
            fin: true,
            reserved: 0,
            opcode,
            masked: true,
            key: KEY,
            length_bytes: None,
            declared: None,
            payload: payload.into(),
        }
    }

    /// A whole text message.
    pub fn text(text: &str) -> Self {
        Self::new(TEXT, text)
    }

    /// The first fragment of a text message.
    pub fn open_text(text: &str) -> Self {
        Self { fin: false, ..Self::new(TEXT, text) }
    }

    /// A whole binary message.
    pub fn binary(payload: &[u8]) -> Self {
        Self::new(BINARY, payload)
    }

    /// The first fragment of a binary message.
    pub fn open_binary(payload: &[u8]) -> Self {
        Self { fin: false, ..Self::new(BINARY, payload) }
    }

    /// The last fragment of a message.
    pub fn continuation(payload: impl Into<Vec<u8>>) -> Self {
        Self::new(CONTINUATION, payload)
    }

    /// A fragment between the first and the last.
    pub fn open_continuation(payload: impl Into<Vec<u8>>) -> Self {
        Self { fin: false, ..Self::new(CONTINUATION, payload) }
    }

    /// A ping.
    pub fn ping(payload: &[u8]) -> Self {
        Self::new(PING, payload)
    }

    /// A pong.
    pub fn pong(payload: &[u8]) -> Self {
        Self::new(PONG, payload)
    }

    /// A Close frame with a code and a reason.
    pub fn close(code: u16, reason: &str) -> Self {
        Self::new(CLOSE, [&code.to_be_bytes(), reason.as_bytes()].concat())
    }

    /// The frame as it goes over the wire.
    ///
    /// # Panics
    /// When a field has no place in a frame: an opcode of 16, a declared length too large for `length_bytes`.
    pub fn bytes(&self) -> Vec<u8> {
        assert!(self.opcode < 16 && self.reserved < 8, "no such bits: {self:?}");
        let length = self.declared.unwrap_or(self.payload.len() as u64);
        let length_bytes = self.length_bytes.unwrap_or(match length {
            0..=125 => 0,
            126..=0xffff => 2,
            _ => 8,
        });
        let mask = u8::from(self.masked) << 7;
        let mut out = Vec::with_capacity(14 + self.payload.len());
        out.push((u8::from(self.fin) << 7) | (self.reserved << 4) | self.opcode);
        match length_bytes {
            0 => {
                let length = u8::try_from(length).ok().filter(|length| *length < 126);
                out.push(mask | length.expect("a length that fits seven bits"));
            }
            2 => {
                out.push(mask | 126);
                out.extend(u16::try_from(length).expect("a length that fits 16 bits").to_be_bytes());
            }
            8 => {
                out.push(mask | 127);
                out.extend(length.to_be_bytes());
            }
            other => panic!("a frame has 0, 2 or 8 bytes of extended length, not {other}"),
        }
        if self.masked {
            out.extend(self.key);
            out.extend(self.payload.iter().zip(self.key.iter().cycle()).map(|(byte, key)| byte ^ key));
        } else {
            out.extend(&self.payload);
        }
        out
    }
}

/// One frame of the server, as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// Whether the message ends with this frame.
    pub fin: bool,
    /// The three reserved bits.
    pub reserved: u8,
    /// The opcode.
    pub opcode: u8,
    /// The payload.
    pub payload: Vec<u8>,
}

impl Received {
    /// The payload of a whole text message.
    pub fn text(&self) -> Result<&str, Error> {
        if (self.fin, self.opcode) != (true, TEXT) {
            return Err(Error::Protocol(format!("not a whole text message: {self:?}")));
        }
        std::str::from_utf8(&self.payload)
            .map_err(|e| Error::Protocol(format!("text that is not UTF-8: {e}")))
    }

    /// Whether it is a ping.
    pub fn is_ping(&self) -> bool {
        self.opcode == PING
    }

    /// Whether it is a pong.
    pub fn is_pong(&self) -> bool {
        self.opcode == PONG
    }

    /// Whether it is a Close frame.
    pub fn is_close(&self) -> bool {
        self.opcode == CLOSE
    }

    /// The code and the reason of a Close frame; `None` for an empty one.
    pub fn close(&self) -> Result<Option<(u16, String)>, Error> {
        match (self.opcode, self.payload.as_slice()) {
            (CLOSE, []) => Ok(None),
            (CLOSE, [high, low, reason @ ..]) => {
                let reason = std::str::from_utf8(reason)
                    .map_err(|e| Error::Protocol(format!("a reason that is not UTF-8: {e}")))?;
                Ok(Some((u16::from_be_bytes([*high, *low]), reason.to_owned())))
            }
            _ => Err(Error::Protocol(format!("not a Close frame: {self:?}"))),
        }
    }
}

/// The frame at the start of `bytes` and its size on the wire; `None` while it is incomplete.
pub(super) fn parse(bytes: &[u8], most: usize) -> Result<Option<(Received, usize)>, Error> {
    let [first, second, rest @ ..] = bytes else { return Ok(None) };
    if second & 0x80 != 0 {
        return Err(Error::Protocol("a masked frame from the server".to_owned()));
    }
    let (length, length_bytes) = match second {
        126 => {
            let Some(field) = rest.first_chunk::<2>() else { return Ok(None) };
            (u64::from(u16::from_be_bytes(*field)), 2)
        }
        127 => {
            let Some(field) = rest.first_chunk::<8>() else { return Ok(None) };
            (u64::from_be_bytes(*field), 8)
        }
        short => (u64::from(*short), 0),
    };
    let Some(length) = usize::try_from(length).ok().filter(|length| *length <= most) else {
        return Err(Error::Protocol(format!("a frame of {length} bytes")));
    };
    let Some(payload) = rest.get(length_bytes..length_bytes + length) else { return Ok(None) };
    let frame = Received {
        fin: first & 0x80 != 0,
        reserved: (first >> 4) & 7,
        opcode: first & 15,
        payload: payload.to_vec(),
    };
    Ok(Some((frame, 2 + length_bytes + length)))
}
