//! Takes published messages out of what the pub/sub connection reads, and passes everything else on.
//!
//! Nearly all that arrives are messages, and all of them have one shape: `>3 message <channel> <payload>` (RESP3), or
//! `smessage` for the sharded channels of a cluster. These
//! are cut out of the read buffer in place and handed to a [`Listener`], which learns where a read ends and so can give
//! workers what it brought as one batch. Confirmations, answers and whatever else Redis says go on to the `redis` crate byte for byte, in order: what
//! stands before a message in the stream has been seen by the crate's driver before the message is looked at.
//!
//! One more thing is taken out: `sunsubscribe` that nobody asked for, by which a cluster's server says that it has given a
//! channel's slot away. The crate would take it for the answer to whatever command is under way.
//!
//! Not here: what a message means (`router`), and commands, which the crate writes through to the socket.

use std::io::{Error, ErrorKind, Result};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How much one read takes from the socket at most, unless one message is larger.
const READ_BYTES: usize = 64 * 1024;
/// The longest name of a pub/sub channel: a prefix and a channel's name are far below.
const MAX_NAME_BYTES: usize = 4096;
/// How each message begins, up to the length of its channel's name.
const MESSAGE: &[u8] = b">3\r\n$7\r\nmessage\r\n$";
const SHARDED: &[u8] = b">3\r\n$8\r\nsmessage\r\n$";
/// How the end of a subscription to a sharded channel begins.
const ENDED: &[u8] = b">3\r\n$12\r\nsunsubscribe\r\n$";
/// The most elements that the head of a frame may announce.
const MAX_ELEMENTS: u64 = u32::MAX as u64;

/// Who hears the messages.
pub(super) trait Listener {
    /// The largest payload that can be of use.
    fn most_bytes(&self) -> usize;
    /// Whether anything is still to be taken from the connection.
    fn listens(&self) -> bool;
    /// A message was read at that time.
    fn message(&self, channel: &[u8], payload: &[u8], received: Instant);
    /// A message had a payload of so many bytes, more than can be of use; `beginning` is what is at hand of it.
    fn too_large(&self, channel: &[u8], beginning: &[u8], bytes: usize);
    /// A subscription to a sharded channel has ended. `true`: nobody asked for that, and it is dealt with.
    fn taken_away(&self, channel: &[u8]) -> bool;
    /// Nothing more is at hand: the thread goes on to something else, or waits.
    fn read_is_done(&self);
}

/// A stream whose messages are taken out.
pub(super) struct Sieve<S, L> {
    stream: S,
    listener: L,
    buffer: Vec<u8>,
    /// What was read and not dealt with: `buffer[start..end]`.
    start: usize,
    end: usize,
    /// When that was read.
    received: Instant,
    state: State,
    most: usize,
}

/// Where in the stream the first byte at hand stands.
enum State {
    /// Between two frames.
    Start,
    /// In a frame that is passed on.
    Passing(Rest),
    /// In a message that is too large: so many bytes of it are left.
    Dropping(usize),
}

impl State {
    /// At the first byte of a frame that is passed on.
    const fn passing() -> Self {
        Self::Passing(Rest { values: 1, bytes: 0 })
    }
}

/// What is left of a frame that is passed on.
#[derive(Default)]
struct Rest {
    /// Values whose head was not seen yet.
    values: u64,
    /// Bytes that need not be looked at.
    bytes: usize,
}

/// What stands at the beginning of a frame.
#[derive(Debug, PartialEq, Eq)]
enum Frame<'a> {
    Message {
        channel: &'a [u8],
        payload: &'a [u8],
        length: usize,
    },
    /// A message with a payload larger than asked for; `payload` is what is at hand of it.
    TooLarge {
        channel: &'a [u8],
        payload: &'a [u8],
        announced: usize,
        length: usize,
    },
    /// The end of a subscription to a sharded channel.
    Ended {
        channel: &'a [u8],
        length: usize,
    },
    Other,
    /// It cannot be said before there is more.
    Unfinished,
}

impl<S, L: Listener> Sieve<S, L> {
    pub(super) fn new(stream: S, listener: L) -> Self {
        let most = listener.most_bytes();
        Self {
            stream,
            listener,
            buffer: vec![0; READ_BYTES],
            start: 0,
            end: 0,
            received: Instant::now(),
            state: State::Start,
            most,
        }
    }

    /// Deals with what is at hand, until something was put into `out` and a message follows, or there is nothing left
    /// that can be dealt with.
    fn sift(&mut self, out: &mut ReadBuf<'_>) -> Result<()> {
        let before = out.filled().len();
        while self.start < self.end {
            let at_hand = &self.buffer[self.start..self.end];
            match &mut self.state {
                State::Start => match frame(at_hand, self.most)? {
                    Frame::Unfinished => break,
                    Frame::Other => self.state = State::passing(),
                    // What was passed on comes first.
                    Frame::Message { .. } | Frame::TooLarge { .. } | Frame::Ended { .. }
                        if out.filled().len() > before =>
                    {
                        break;
                    }
                    Frame::Ended { channel, length } => {
                        if self.listener.taken_away(channel) {
                            self.start += length;
                        } else {
                            self.state = State::passing();
                        }
                    }
                    Frame::Message { channel, payload, length } => {
                        self.listener.message(channel, payload, self.received);
                        self.start += length;
                    }
                    Frame::TooLarge { channel, payload, announced, length } => {
                        self.listener.too_large(channel, payload, announced);
                        self.state = State::Dropping(length);
                    }
                },
                State::Dropping(left) => {
                    let now = at_hand.len().min(*left);
                    self.start += now;
                    *left -= now;
                    if *left == 0 {
                        self.state = State::Start;
                    }
                }
                State::Passing(rest) => {
                    let passed = rest.pass(at_hand, out)?;
                    self.start += passed;
                    if rest.values == 0 && rest.bytes == 0 {
                        self.state = State::Start;
                    } else if passed == 0 {
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    /// Makes room behind what is at hand. The buffer grows only when one frame has filled it, so never because of a
    /// length that was announced.
    fn make_room(&mut self) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            if self.buffer.len() > READ_BYTES {
                self.buffer.truncate(READ_BYTES);
                self.buffer.shrink_to_fit();
            }
        } else if self.buffer.len() - self.end < READ_BYTES / 2 {
            if self.start > 0 {
                self.buffer.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
            }
            if self.end == self.buffer.len() {
                self.buffer.resize(2 * self.end, 0);
            }
        }
    }
}

impl Rest {
    /// Passes on as much as is at hand and fits. Says how much that was.
    fn pass(&mut self, at_hand: &[u8], out: &mut ReadBuf<'_>) -> Result<usize> {
        let mut passed = 0;
        loop {
            let left = &at_hand[passed..];
            if self.bytes > 0 {
                let now = self.bytes.min(left.len()).min(out.remaining());
                out.put_slice(&left[..now]);
                passed += now;
                self.bytes -= now;
                if self.bytes > 0 {
                    return Ok(passed);
                }
            } else if self.values == 0 {
                return Ok(passed);
            } else {
                let Some(end) = memchr::memchr(b'\n', left) else {
                    return if left.len() < READ_BYTES {
                        Ok(passed)
                    } else {
                        Err(broken("a line without end"))
                    };
                };
                self.head(&left[..=end])?;
            }
        }
    }

    /// Takes in the head of a value: a line with its end.
    fn head(&mut self, line: &[u8]) -> Result<()> {
        let content =
            line.strip_suffix(b"\r\n").ok_or_else(|| broken("a line that does not end in CR LF"))?;
        let (kind, about) = content.split_first().ok_or_else(|| broken("an empty line"))?;
        self.bytes = line.len();
        self.values -= 1;
        let elements = |each: u64| -> Result<u64> {
            let count = if about == b"-1" { 0 } else { number(about)? };
            count.checked_mul(each).filter(|n| *n <= MAX_ELEMENTS).ok_or_else(|| broken("too many elements"))
        };
        match kind {
            b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(' => {}
            b'$' | b'!' | b'=' if about == b"-1" => {}
            b'$' | b'!' | b'=' => {
                let length = usize::try_from(number(about)?).ok().and_then(|n| n.checked_add(2 + line.len()));
                self.bytes = length.ok_or_else(|| broken("a length beyond memory"))?;
            }
            b'*' | b'~' | b'>' => self.values = self.values.saturating_add(elements(1)?),
            b'%' => self.values = self.values.saturating_add(elements(2)?),
            // Attributes stand before the value that they describe.
            b'|' => self.values = self.values.saturating_add(elements(2)?).saturating_add(1),
            _ => return Err(broken("a type that is not known")),
        }
        Ok(())
    }
}

/// What frame begins here. Payloads above `most` are too large.
fn frame(at_hand: &[u8], most: usize) -> Result<Frame<'_>> {
    let begins = [MESSAGE, SHARDED, ENDED];
    let Some((begin, after)) = begins.iter().find_map(|begin| Some((*begin, at_hand.strip_prefix(*begin)?)))
    else {
        let unfinished = begins.iter().any(|begin| begin.starts_with(at_hand));
        return Ok(if unfinished { Frame::Unfinished } else { Frame::Other });
    };
    let Some((length, after)) = length(after)? else { return Ok(Frame::Unfinished) };
    if length > MAX_NAME_BYTES {
        return Err(broken("a channel with too long a name"));
    }
    let Some((channel, after)) = after.split_at_checked(length) else { return Ok(Frame::Unfinished) };
    if begin == ENDED {
        // CR LF, and a number on a line of its own.
        let Some(end) = memchr::memchr_iter(b'\n', &after[..after.len().min(32)]).nth(1) else {
            return if after.len() < 32 {
                Ok(Frame::Unfinished)
            } else {
                Err(broken("an end without count"))
            };
        };
        return Ok(Frame::Ended { channel, length: at_hand.len() - after.len() + end + 1 });
    }
    let after = match after.strip_prefix(b"\r\n$") {
        Some(after) => after,
        None if b"\r\n$".starts_with(after) => return Ok(Frame::Unfinished),
        None => return Err(broken("a message without payload")),
    };
    let Some((announced, after)) = self::length(after)? else { return Ok(Frame::Unfinished) };
    let head = at_hand.len() - after.len();
    let length = announced.checked_add(head + 2).ok_or_else(|| broken("a length beyond memory"))?;
    if announced > most {
        let payload = &after[..announced.min(after.len())];
        return Ok(Frame::TooLarge { channel, payload, announced, length });
    }
    let Some((payload, end)) = after.split_at_checked(announced) else { return Ok(Frame::Unfinished) };
    match end {
        [b'\r', b'\n', ..] => Ok(Frame::Message { channel, payload, length }),
        [] | [b'\r'] => Ok(Frame::Unfinished),
        _ => Err(broken("a payload longer than its length")),
    }
}

/// The number on the rest of a line and what follows the line; `None` while the line has no end.
fn length(at_hand: &[u8]) -> Result<Option<(usize, &[u8])>> {
    let window = &at_hand[..at_hand.len().min(24)];
    let Some(end) = window.iter().position(|byte| *byte == b'\n') else {
        return if window.len() < 24 { Ok(None) } else { Err(broken("a length without end")) };
    };
    let digits =
        window[..end].strip_suffix(b"\r").ok_or_else(|| broken("a line that does not end in CR LF"))?;
    let length = usize::try_from(number(digits)?).map_err(|_| broken("a length beyond memory"))?;
    Ok(Some((length, &at_hand[end + 1..])))
}

fn number(digits: &[u8]) -> Result<u64> {
    let digit = |sum: u64, byte: &u8| {
        byte.is_ascii_digit().then(|| sum.checked_mul(10)?.checked_add(u64::from(byte - b'0'))).flatten()
    };
    match digits {
        [] => None,
        digits => digits.iter().try_fold(0, digit),
    }
    .ok_or_else(|| broken("a length that is no number"))
}

fn broken(what: &'static str) -> Error {
    Error::new(ErrorKind::InvalidData, format!("redis sent {what}"))
}

impl<S: AsyncRead + Unpin, L: Listener + Unpin> AsyncRead for Sieve<S, L> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        let before = out.filled().len();
        let sieve = &mut *self;
        loop {
            if !sieve.listener.listens() {
                return Poll::Ready(Err(ErrorKind::ConnectionAborted.into()));
            }
            let sifted = sieve.sift(out);
            // Before the crate sees what comes next, and before this thread waits for more.
            sieve.listener.read_is_done();
            sifted?;
            if out.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
            sieve.make_room();
            let mut room = ReadBuf::new(&mut sieve.buffer[sieve.end..]);
            ready!(Pin::new(&mut sieve.stream).poll_read(context, &mut room))?;
            let count = room.filled().len();
            if count == 0 {
                // The end. The crate makes of it what it makes of every end.
                return Poll::Ready(Ok(()));
            }
            sieve.end += count;
            sieve.received = Instant::now();
        }
    }
}

impl<S: AsyncWrite + Unpin, L: Listener + Unpin> AsyncWrite for Sieve<S, L> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests;
