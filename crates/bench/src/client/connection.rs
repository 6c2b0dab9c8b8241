//! One connection of a client process: from TCP to its end.

use std::io;

use super::socket::Socket;
use crate::clock;
use crate::frame::{self, Kind};
use crate::latency::Latencies;
use crate::ledger::Ledger;
use crate::speech::{self, Line};
use crate::target::Protocol;

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// TCP, TLS, and the WebSocket handshake.
    Upgrading,
    /// Waiting for so many replies to connect and subscribe.
    Joining(u8),
    /// It is what was wanted.
    Open,
    /// A Close frame was sent.
    Leaving,
}

/// One connection. Held by the thousand: what it has no use for now, it does not keep.
pub(crate) struct Connection {
    pub(crate) socket: Socket,
    pub(crate) phase: Phase,
    /// When it began, by [`clock::now`].
    pub(crate) began: u64,
    pub(crate) ledger: Ledger,
    /// The beginning of what is not there to its end yet.
    unread: Vec<u8>,
    unsent: Vec<u8>,
}

/// What all connections of a client process share: how they speak, and what they count together.
pub(crate) struct Shared {
    pub(crate) protocol: Protocol,
    pub(crate) subscribe: bool,
    /// The run that is counted.
    pub(crate) run: u32,
    pub(crate) delivered: u64,
    /// When the first and the last publication of the run came.
    pub(crate) between: (u64, u64),
    pub(crate) latencies: Latencies,
    /// Replies to publications.
    pub(crate) acknowledged: u32,
    /// The first refusal of a publication.
    pub(crate) refused: Option<String>,
}

impl Connection {
    pub(crate) fn new(socket: Socket, request: &[u8]) -> Self {
        Self {
            socket,
            phase: Phase::Upgrading,
            began: clock::now(),
            ledger: Ledger::default(),
            unread: Vec::new(),
            unsent: request.to_vec(),
        }
    }

    /// Bytes that wait for the socket.
    pub(crate) fn waiting(&self) -> usize {
        self.unsent.len()
    }

    /// Sends what waits, as far as the socket takes it. The error is the connection's end.
    pub(crate) fn send(&mut self) -> Result<(), String> {
        match self.socket.write(&mut self.unsent) {
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            other => other.map_err(|error| format!("failed to write: {error}")),
        }
    }

    /// Puts a frame behind what waits.
    pub(crate) fn say(&mut self, kind: Kind, payload: &[u8]) {
        frame::write(kind, payload, &mut self.unsent);
    }

    /// Says goodbye.
    pub(crate) fn leave(&mut self) -> Result<(), String> {
        self.phase = Phase::Leaving;
        self.say(Kind::Close, &1_000_u16.to_be_bytes());
        self.send()
    }

    /// Reads all that is there. The error is the connection's end, in words.
    pub(crate) fn read(&mut self, scratch: &mut [u8], shared: &mut Shared) -> Result<(), String> {
        loop {
            match self.socket.read(scratch) {
                Ok(0) => return Err("the server closed the connection".into()),
                Ok(count) => self.take(&scratch[..count], shared)?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::NotConnected => break,
                Err(error) => return Err(format!("failed to read: {error}")),
            }
        }
        if self.unsent.is_empty() { Ok(()) } else { self.send() }
    }

    /// Takes bytes as they come; what is not there to its end waits in `unread`.
    fn take(&mut self, bytes: &[u8], shared: &mut Shared) -> Result<(), String> {
        if self.unread.is_empty() {
            let used = self.understand(bytes, shared)?;
            if used < bytes.len() {
                self.unread = bytes[used..].to_vec();
            }
            return Ok(());
        }
        let mut all = std::mem::take(&mut self.unread);
        all.extend_from_slice(bytes);
        let used = self.understand(&all, shared)?;
        if used < all.len() {
            all.drain(..used);
            self.unread = all;
        }
        Ok(())
    }

    /// Returns how many bytes it used.
    fn understand(&mut self, bytes: &[u8], shared: &mut Shared) -> Result<usize, String> {
        let mut used = 0;
        if self.phase == Phase::Upgrading {
            match speech::upgraded(bytes) {
                None => return Ok(0),
                Some(head) => used = head?,
            }
            self.phase = match shared.protocol {
                Protocol::Raw => Phase::Open,
                Protocol::CentrifugeJson => {
                    self.say(Kind::Text, speech::join(shared.subscribe).as_bytes());
                    Phase::Joining(if shared.subscribe { 2 } else { 1 })
                }
            };
        }
        while let Some(frame) = frame::next(&bytes[used..]).map_err(|fault| fault.to_string())? {
            used += frame.length;
            match frame.kind {
                Kind::Text if shared.protocol == Protocol::CentrifugeJson => {
                    self.hear(frame.payload, shared)?
                }
                Kind::Ping => self.say(Kind::Pong, frame.payload),
                Kind::Close => return Err(close_words(frame.payload)),
                Kind::Text | Kind::Binary | Kind::Pong => {}
            }
        }
        Ok(used)
    }

    /// One message: one or more lines.
    fn hear(&mut self, message: &[u8], shared: &mut Shared) -> Result<(), String> {
        let mut rest = message;
        while !rest.is_empty() {
            let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
            let line = speech::line(&rest[..end]);
            rest = rest.get(end + 1..).unwrap_or_default();
            match line {
                Line::Publication { run, number, at } if run == shared.run => {
                    let now = clock::now();
                    self.ledger.came(number);
                    shared.latencies.record(now.saturating_sub(at));
                    shared.delivered += 1;
                    if shared.between.0 == 0 {
                        shared.between.0 = now;
                    }
                    shared.between.1 = now;
                }
                Line::Ping => self.say(Kind::Text, b"{}"),
                Line::Reply(id, error) if id >= speech::FIRST_PUBLICATION => {
                    shared.acknowledged += 1;
                    if shared.refused.is_none() {
                        shared.refused = error;
                    }
                }
                Line::Reply(_, Some(error)) => return Err(format!("the server answered {error}")),
                Line::Reply(_, None) => {
                    if let Phase::Joining(replies) = self.phase {
                        self.phase = if replies > 1 { Phase::Joining(replies - 1) } else { Phase::Open };
                    }
                }
                Line::Publication { .. } | Line::Other => {}
            }
        }
        Ok(())
    }
}

/// The code and reason of a Close frame, in words.
fn close_words(payload: &[u8]) -> String {
    match payload {
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            format!("the server closed with {code} {:?}", String::from_utf8_lossy(reason))
        }
        _ => "the server closed without a code".into(),
    }
}
