//! From bytes as they arrive to messages.
//!
//! Responsible for the rules that span frames: what may follow what, limits of a message, and who owns the bytes.
//! A message that lies whole in the input is unmasked there and lent out; only what is unfinished is copied.
//!
//! Not here: the rules of a single header (`header`), growth and UTF-8 of a partial message (`message`).

use std::ops::Range;

use super::header::{self, ControlKind, DataKind, Header, Kind};
use super::message::Message;
use super::{Event, FrameError, Limits, close, mask};

/// The state of one connection's inbound side. One pointer while no frame is unfinished; holds bytes only then.
#[derive(Debug, Default)]
pub struct Decoder {
    unfinished: Option<Box<Unfinished>>,
}

/// One step of decoding.
#[derive(Debug)]
pub struct Step<'a> {
    /// How many bytes of the input are used up.
    pub consumed: usize,
    /// What became complete, if anything did.
    pub event: Option<Event<'a>>,
}

/// What is kept between two inputs. Never kept with nothing in it.
#[derive(Debug, Default)]
struct Unfinished {
    /// The frame that has begun and not ended.
    frame: Option<Partial>,
    /// The message that has begun and not ended; control frames may come between its fragments.
    message: Option<Message>,
    /// The payload of an unfinished control frame, as far as it has arrived.
    control: Vec<u8>,
    /// What the last event lends. Dropped by the next step.
    lent: Vec<u8>,
}

/// A frame that has begun and not ended.
#[derive(Debug, Clone, Copy)]
enum Partial {
    Header { bytes: [u8; header::MAX_BYTES], len: usize },
    Payload(Frame),
}

/// A frame whose header was accepted, and how much of it is still to come.
#[derive(Debug, Clone, Copy)]
struct Frame {
    fin: bool,
    kind: Kind,
    /// The key as the next byte meets it.
    mask: [u8; 4],
    remaining: usize,
}

/// What became complete, and where its bytes are.
enum Complete {
    InInput(Whole, Range<usize>),
    Collected(Whole),
}

/// What an event is made of besides its bytes.
#[derive(Clone, Copy)]
enum Whole {
    Data(DataKind),
    Control(ControlKind),
}

impl Decoder {
    /// Decodes as far as the next event. Call again with the rest of the input until `event` is `None`: all
    /// input is used up then, and what the last event lent is freed.
    ///
    /// ```
    /// # use tidegate_protocol::frame::{Decoder, Event, FrameError, Limits};
    /// # fn main() -> Result<(), FrameError> {
    /// # let mut heard = Vec::new();
    /// # let mut handle = |event: Event<'_>| heard.push(format!("{event:?}"));
    /// let limits = Limits { max_message_bytes: 65_536, max_fragments: 64 };
    /// let mut decoder = Decoder::default();
    /// let mut buffer = [0x82, 0x83, 0, 0, 0, 0, 7, 8, 9, 0x89, 0x80, 0, 0, 0, 0];
    /// let mut at = 0;
    /// loop {
    ///     let step = decoder.step(&mut buffer[at..], &limits)?;
    ///     at += step.consumed;
    ///     let Some(event) = step.event else { break };
    ///     handle(event);
    /// }
    /// # assert_eq!(heard, ["Binary([7, 8, 9])", "Ping([])"]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Unmasks in place; a message that is complete within `input` is borrowed from it, not copied. After an error
    /// the stream has no meaning any more: the decoder is not to be used again.
    pub fn step<'a>(&'a mut self, input: &'a mut [u8], limits: &Limits) -> Result<Step<'a>, FrameError> {
        self.release();
        let mut consumed = 0;
        let complete = loop {
            let Some(frame) = self.next_frame(input, &mut consumed, limits)? else {
                return Ok(Step { consumed, event: None });
            };
            if let Some(complete) = self.take_payload(frame, input, &mut consumed, limits)? {
                break complete;
            }
        };
        let event = match complete {
            Complete::InInput(whole, range) => {
                self.shrink();
                whole.event(input.get(range).unwrap_or_default())?
            }
            Complete::Collected(whole) => {
                whole.event(self.unfinished.as_deref().map_or(&[], |unfinished| &unfinished.lent))?
            }
        };
        Ok(Step { consumed, event: Some(event) })
    }

    /// Whether a frame or a fragmented message has begun and not ended: its age is the caller's to bound.
    pub fn unfinished(&self) -> bool {
        self.unfinished.as_ref().is_some_and(|unfinished| unfinished.begun())
    }

    /// Whether a fragmented message, or a part of an unfragmented one, has arrived and its end has not. Control
    /// frames in between leave it so: its age must not start again with them.
    pub fn within_message(&self) -> bool {
        self.unfinished.as_ref().is_some_and(|unfinished| unfinished.within_message())
    }

    /// Heap bytes held for what is unfinished, and for what the last event lent until the next step.
    pub fn held_bytes(&self) -> usize {
        self.unfinished.as_ref().map_or(0, |unfinished| {
            size_of::<Unfinished>()
                + unfinished.message.as_ref().map_or(0, Message::held_bytes)
                + unfinished.control.capacity()
                + unfinished.lent.capacity()
        })
    }

    /// Frees what the last event lent. `step` does so by itself; a caller that decodes no further until more
    /// bytes arrive may call this.
    pub fn release(&mut self) {
        if let Some(unfinished) = &mut self.unfinished {
            unfinished.lent = Vec::new();
            self.shrink();
        }
    }

    fn shrink(&mut self) {
        if self.unfinished.as_ref().is_some_and(|unfinished| !unfinished.begun()) {
            self.unfinished = None;
        }
    }

    fn unfinished_mut(&mut self) -> &mut Unfinished {
        self.unfinished.get_or_insert_default()
    }

    /// The frame that goes on or begins at `consumed`; `None` when its header is not complete yet.
    fn next_frame(
        &mut self,
        input: &[u8],
        consumed: &mut usize,
        limits: &Limits,
    ) -> Result<Option<Frame>, FrameError> {
        let rest = input.get(*consumed..).unwrap_or_default();
        let (mut bytes, known) = match self.unfinished.as_mut().and_then(|unfinished| unfinished.frame.take())
        {
            Some(Partial::Payload(frame)) if rest.is_empty() => {
                self.unfinished_mut().frame = Some(Partial::Payload(frame));
                return Ok(None);
            }
            Some(Partial::Payload(frame)) => return Ok(Some(frame)),
            Some(Partial::Header { bytes, len }) => (bytes, len),
            None => {
                // The usual case: a header that lies whole in the input.
                if let Some((header, size)) = header::parse(rest)? {
                    *consumed += size;
                    return self.begin(header, limits).map(Some);
                }
                ([0; header::MAX_BYTES], 0)
            }
        };
        let mut len = known;
        for (slot, byte) in bytes.iter_mut().skip(known).zip(rest) {
            *slot = *byte;
            len += 1;
        }
        match header::parse(bytes.get(..len).unwrap_or_default())? {
            Some((header, size)) => {
                *consumed += size - known;
                self.begin(header, limits).map(Some)
            }
            None => {
                *consumed += len - known;
                if len > 0 {
                    self.unfinished_mut().frame = Some(Partial::Header { bytes, len });
                }
                Ok(None)
            }
        }
    }

    /// Holds a header against the message it belongs to and against the limits, before any of its payload is
    /// looked at.
    fn begin(&mut self, header: Header, limits: &Limits) -> Result<Frame, FrameError> {
        let message = self.unfinished.as_mut().and_then(|unfinished| unfinished.message.as_mut());
        let most = match (header.kind, message) {
            (Kind::Control(_), _) => header::MAX_CONTROL_BYTES as usize,
            (Kind::Continuation, None) => {
                return Err(FrameError::Protocol("continuation of no message"));
            }
            (Kind::Data(_), Some(_)) => {
                return Err(FrameError::Protocol("new message within a fragmented one"));
            }
            (Kind::Continuation, Some(message)) => {
                message.begin_fragment(limits)?;
                limits.max_message_bytes.saturating_sub(message.len())
            }
            (Kind::Data(_), None) if limits.max_fragments == 0 => return Err(FrameError::TooManyFragments),
            (Kind::Data(_), None) => limits.max_message_bytes,
        };
        let remaining = usize::try_from(header.length)
            .ok()
            .filter(|&length| length <= most)
            .ok_or(FrameError::TooLarge)?;
        Ok(Frame { fin: header.fin, kind: header.kind, mask: header.mask, remaining })
    }

    /// Takes what has arrived of a frame's payload.
    fn take_payload(
        &mut self,
        mut frame: Frame,
        input: &mut [u8],
        consumed: &mut usize,
        limits: &Limits,
    ) -> Result<Option<Complete>, FrameError> {
        let arrived = frame.remaining.min(input.len() - *consumed);
        let range = *consumed..*consumed + arrived;
        *consumed = range.end;
        let payload = input.get_mut(range.clone()).unwrap_or_default();
        mask::apply(payload, frame.mask);
        let left = frame.remaining - arrived;
        let complete = match frame.kind {
            Kind::Control(kind) => self.take_control(kind, payload, left, range),
            Kind::Data(_) | Kind::Continuation => self.take_data(&frame, payload, left, range, limits)?,
        };
        if left > 0 {
            frame.mask = mask::advance(frame.mask, arrived);
            frame.remaining = left;
            self.unfinished_mut().frame = Some(Partial::Payload(frame));
        }
        Ok(complete)
    }

    fn take_control(
        &mut self,
        kind: ControlKind,
        payload: &[u8],
        left: usize,
        range: Range<usize>,
    ) -> Option<Complete> {
        let collected = self.unfinished.as_ref().is_some_and(|unfinished| !unfinished.control.is_empty());
        if left == 0 && !collected {
            return Some(Complete::InInput(Whole::Control(kind), range));
        }
        let unfinished = self.unfinished_mut();
        unfinished.control.extend_from_slice(payload);
        (left == 0).then(|| {
            unfinished.lent = std::mem::take(&mut unfinished.control);
            Complete::Collected(Whole::Control(kind))
        })
    }

    fn take_data(
        &mut self,
        frame: &Frame,
        payload: &[u8],
        left: usize,
        range: Range<usize>,
        limits: &Limits,
    ) -> Result<Option<Complete>, FrameError> {
        let begun = self.unfinished.as_ref().is_some_and(|unfinished| unfinished.message.is_some());
        if let Kind::Data(kind) = frame.kind
            && !begun
        {
            if left == 0 && frame.fin {
                return Ok(Some(Complete::InInput(Whole::Data(kind), range)));
            }
            if payload.is_empty() && left > 0 {
                // Only a header so far: if the rest comes in one piece, it can be lent without a copy.
                return Ok(None);
            }
            self.unfinished_mut().message = Some(Message::new(kind));
        }
        let unfinished = self.unfinished_mut();
        let Some(message) = &mut unfinished.message else { return Ok(None) };
        let most = if frame.fin { message.len() + payload.len() + left } else { limits.max_message_bytes };
        message.append(payload, most)?;
        if left > 0 || !frame.fin {
            return Ok(None);
        }
        let whole = Whole::Data(message.kind());
        unfinished.lent = unfinished.message.take().map(Message::into_bytes).unwrap_or_default();
        Ok(Some(Complete::Collected(whole)))
    }
}

impl Unfinished {
    fn begun(&self) -> bool {
        self.frame.is_some() || self.message.is_some()
    }

    fn within_message(&self) -> bool {
        let payload_awaited = |frame: &Partial| matches!(frame, Partial::Payload(frame) if !matches!(frame.kind, Kind::Control(_)));
        self.message.is_some() || self.frame.as_ref().is_some_and(payload_awaited)
    }
}

impl Whole {
    fn event(self, bytes: &[u8]) -> Result<Event<'_>, FrameError> {
        Ok(match self {
            Self::Data(DataKind::Text) => {
                Event::Text(simdutf8::basic::from_utf8(bytes).map_err(|_| FrameError::Utf8)?)
            }
            Self::Data(DataKind::Binary) => Event::Binary(bytes),
            Self::Control(ControlKind::Ping) => Event::Ping(bytes),
            Self::Control(ControlKind::Pong) => Event::Pong(bytes),
            Self::Control(ControlKind::Close) => Event::Close(close::parse(bytes)?),
        })
    }
}
