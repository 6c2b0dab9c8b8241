//! RFC 6455 frames, the server's side: an incremental decoder and an encoder.
//!
//! The decoder takes what arrived in whatever pieces it arrived, and lends out complete messages. It holds bytes
//! only while a frame or a message is unfinished, never more than `Limits::max_message_bytes` of them, and never
//! because of a number that the client merely declared.
//!
//! Not here: when to answer a ping or a Close, how long a message may stay unfinished (the caller's clock),
//! extensions (none is negotiated, so the reserved bits must be 0), the handshake.

mod close;
mod decoder;
mod encoder;
mod header;
mod mask;
mod message;

pub use decoder::{Decoder, Step};
pub use encoder::{MAX_HEADER_BYTES, MAX_REASON_BYTES, Opcode, encode, encode_close, encoded_len, header};

/// What a decoder accepts.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The largest message, over all its fragments, in bytes.
    pub max_message_bytes: usize,
    /// The most fragments of one message. An unfragmented message counts as one.
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
    /// A Close frame: the code, if there was one, and its reason. What follows it on the wire means nothing
    /// (RFC 6455, 5.5.1): answer and decode no further.
    Close(Option<(u16, &'a str)>),
}

/// Why a connection cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A rule of RFC 6455 was broken: close with 1002.
    #[error("{0}")]
    Protocol(&'static str),
    /// Text, or the reason in a Close frame, that is not UTF-8: close with 1007.
    #[error("text is not UTF-8")]
    Utf8,
    /// A message larger than the limit: close with 3501.
    #[error("message larger than limits.max_message_bytes")]
    TooLarge,
    /// A message in more fragments than the limit: close with 3501.
    #[error("message in more fragments than limits.max_fragments")]
    TooManyFragments,
}
