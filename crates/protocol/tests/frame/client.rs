//! The other side of the wire: client frames with every bit at the test's will, and what was heard of them.

use tidegate_protocol::frame::{Decoder, Event, FrameError, Limits};

pub(crate) const LIMITS: Limits = Limits { max_message_bytes: 65_536, max_fragments: 64 };

pub(crate) const CONTINUATION: u8 = 0;
pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// One client frame. `Frame::new` is a well-formed final one.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub(crate) fin: bool,
    pub(crate) reserved: u8,
    pub(crate) opcode: u8,
    pub(crate) masked: bool,
    pub(crate) key: [u8; 4],
    /// How many bytes the length field has: 0, 2 or 8; `None` for the shortest form.
    pub(crate) length_bytes: Option<usize>,
    /// What the length field says; `None` for the truth.
    pub(crate) declared: Option<u64>,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    pub(crate) fn new(opcode: u8, payload: impl AsRef<[u8]>) -> Self {
        Self {
            fin: true,
            reserved: 0,
            opcode,
            masked: true,
            key: KEY,
            length_bytes: None,
            declared: None,
            payload: payload.as_ref().to_vec(),
        }
    }

    /// With more fragments to come.
    pub(crate) fn open(opcode: u8, payload: impl AsRef<[u8]>) -> Self {
        Self { fin: false, ..Self::new(opcode, payload) }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let length = self.declared.unwrap_or(self.payload.len() as u64);
        let length_bytes = self.length_bytes.unwrap_or(match length {
            0..=125 => 0,
            126..=0xffff => 2,
            _ => 8,
        });
        let mask = u8::from(self.masked) << 7;
        let mut out = vec![u8::from(self.fin) << 7 | self.reserved << 4 | self.opcode];
        match length_bytes {
            0 => out.push(mask | u8::try_from(length).expect("fits seven bits")),
            2 => {
                out.push(mask | 126);
                out.extend(u16::try_from(length).expect("fits 16 bits").to_be_bytes());
            }
            _ => {
                out.push(mask | 127);
                out.extend(length.to_be_bytes());
            }
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

/// The frames one behind the other.
pub(crate) fn wire(frames: &[Frame]) -> Vec<u8> {
    frames.iter().flat_map(Frame::bytes).collect()
}

/// An event that outlives its buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Heard {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
}

impl From<Event<'_>> for Heard {
    fn from(event: Event<'_>) -> Self {
        match event {
            Event::Text(text) => Self::Text(text.to_owned()),
            Event::Binary(bytes) => Self::Binary(bytes.to_vec()),
            Event::Ping(bytes) => Self::Ping(bytes.to_vec()),
            Event::Pong(bytes) => Self::Pong(bytes.to_vec()),
            Event::Close(close) => Self::Close(close.map(|(code, reason)| (code, reason.to_owned()))),
        }
    }
}

/// Feeds one input to the end, as a caller does, and adds what was heard.
pub(crate) fn feed(
    decoder: &mut Decoder,
    input: &[u8],
    limits: &Limits,
    heard: &mut Vec<Heard>,
) -> Result<(), FrameError> {
    let mut buffer = input.to_vec();
    let mut at = 0;
    loop {
        let step = decoder.step(&mut buffer[at..], limits)?;
        at += step.consumed;
        let Some(event) = step.event else { break };
        heard.push(event.into());
    }
    assert_eq!(at, buffer.len(), "without an event all input is used up");
    Ok(())
}

/// What is heard of `bytes` when they arrive at once.
pub(crate) fn hear(bytes: &[u8]) -> Result<Vec<Heard>, FrameError> {
    let mut heard = Vec::new();
    feed(&mut Decoder::default(), bytes, &LIMITS, &mut heard).map(|()| heard)
}

/// What is heard of `bytes` when they arrive one by one.
pub(crate) fn hear_trickled(bytes: &[u8]) -> Result<Vec<Heard>, FrameError> {
    let mut decoder = Decoder::default();
    let mut heard = Vec::new();
    for byte in bytes {
        feed(&mut decoder, &[*byte], &LIMITS, &mut heard)?;
    }
    Ok(heard)
}

/// What is heard of frames, which must not depend on how they arrive.
pub(crate) fn hear_frames(frames: &[Frame]) -> Result<Vec<Heard>, FrameError> {
    let bytes = wire(frames);
    let at_once = hear(&bytes);
    assert_eq!(at_once, hear_trickled(&bytes), "at once and byte by byte differ");
    at_once
}

pub(crate) fn text(text: &str) -> Heard {
    Heard::Text(text.to_owned())
}

pub(crate) fn binary(bytes: &[u8]) -> Heard {
    Heard::Binary(bytes.to_vec())
}
