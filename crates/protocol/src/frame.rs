//! RFC 6455 frames, the server's side: an incremental decoder and an encoder.

/// What a decoder accepts.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The largest message, over all its fragments, in bytes.
    pub max_message_bytes: usize,
    /// The most fragments of one message.
    pub max_fragments: u32,
}

/// Something complete that a client sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A text message: valid UTF-8.
    Text(&'a str),
    /// A binary message.
    Binary(&'a [u8]),
    /// A ping, to be answered with the same bytes.
    Ping(&'a [u8]),
    /// A pong.
    Pong(&'a [u8]),
    /// A Close frame: the code, if there was one, and its reason.
    Close(Option<(u16, &'a str)>),
}

/// Why a connection cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A rule of RFC 6455 was broken: close with 1002.
    #[error("{0}")]
    Protocol(&'static str),
    /// Text that is not UTF-8: close with 1007.
    #[error("text is not UTF-8")]
    Utf8,
    /// A message larger than the limit: close with 3501.
    #[error("message larger than limits.max_message_bytes")]
    TooLarge,
    /// A message in more fragments than the limit: close with 3501.
    #[error("message in more fragments than limits.max_fragments")]
    TooManyFragments,
}

/// The state of one connection's inbound side. Small while no frame is unfinished; holds bytes only then.
#[derive(Debug, Default)]
pub struct Decoder {
    _state: (),
}

/// One step of decoding.
#[derive(Debug)]
pub struct Step<'a> {
    /// How many bytes of the input are used up.
    pub consumed: usize,
    /// What became complete, if anything did.
    pub event: Option<Event<'a>>,
}

impl Decoder {
    /// Decodes as far as the next event. Call again with the rest of the input while `consumed` leaves any; an
    /// `event` of `None` means that all input is used up. Unmasks in place; a message that is complete within
    /// `input` is borrowed from it, not copied.
    pub fn step<'a>(&'a mut self, _input: &'a mut [u8], _limits: &Limits) -> Result<Step<'a>, FrameError> {
        todo!()
    }

    /// Whether a frame or a fragmented message has begun and not ended: its age is the caller's to bound.
    pub fn unfinished(&self) -> bool {
        todo!()
    }

    /// Heap bytes held for what is unfinished.
    pub fn held_bytes(&self) -> usize {
        todo!()
    }
}

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

/// Appends one unfragmented, unmasked frame.
pub fn encode(_opcode: Opcode, _payload: &[u8], _out: &mut Vec<u8>) {
    todo!()
}

/// Appends a Close frame; a reason of more than 123 bytes is cut at a character boundary.
pub fn encode_close(_code: u16, _reason: &str, _out: &mut Vec<u8>) {
    todo!()
}
