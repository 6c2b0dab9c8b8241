//! One connection of a client process: from TCP to its end.

use std::collections::HashMap;
use std::io;

use super::socket::Socket;
use crate::channels::Channels;
use crate::clock;
use crate::frame::{self, Kind};
use crate::latency::Latencies;
use crate::ledger::Ledger;
use crate::speech::upgrade::{self, Refusal};
use crate::speech::{self, Line, Position};
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

/// How a connection ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The handshake was answered by something else than a 101.
    Refused(Refusal),
    /// The server sent a Close frame, with this code if there was one.
    Closed(Option<u16>, String),
    /// Anything else, in words.
    Lost(String),
}

/// One connection. Held by the thousand: what it has no use for now, it does not keep.
pub(crate) struct Connection {
    pub(crate) socket: Socket,
    pub(crate) phase: Phase,
    /// How often it was refused before.
    pub(crate) attempt: u8,
    /// Its number among all connections of all client processes.
    pub(crate) number: u32,
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
    pub(crate) token: Option<String>,
    pub(crate) channels: Channels,
    pub(crate) subscribe: bool,
    /// The run that is counted.
    pub(crate) run: u32,
    pub(crate) delivered: u64,
    /// Where connections first stood in channels with history, by their numbers: those who come again ask to go on from
    /// there.
    pub(crate) positions: HashMap<u32, Position>,
    /// Publications of a channel that the connection is not in.
    pub(crate) strayed: u64,
    /// When the first and the last publication of the run came.
    pub(crate) between: (u64, u64),
    pub(crate) latencies: Latencies,
    /// Replies to publications.
    pub(crate) acknowledged: u32,
    /// The first refusal of a publication.
    pub(crate) refused: Option<String>,
}

impl From<String> for End {
    fn from(why: String) -> Self {
        Self::Lost(why)
    }
}

impl End {
    /// In words.
    pub(crate) fn words(&self) -> String {
        match self {
            Self::Refused(refusal) => refusal.why.clone(),
            Self::Closed(Some(code), reason) => format!("the server closed with {code} {reason:?}"),
            Self::Closed(None, _) => "the server closed without a code".into(),
            Self::Lost(why) => why.clone(),
        }
    }
}

impl Connection {
    pub(crate) fn new(socket: Socket, request: &[u8], number: u32) -> Self {
        Self {
            socket,
            phase: Phase::Upgrading,
            attempt: 0,
            number,
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
    pub(crate) fn send(&mut self) -> Result<(), End> {
        match self.socket.write(&mut self.unsent) {
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            other => other.map_err(|error| End::Lost(format!("failed to write: {error}"))),
        }
    }

    /// Puts a frame behind what waits.
    fn say(&mut self, kind: Kind, payload: &[u8]) {
        frame::write(kind, payload, &mut self.unsent);
    }

    /// Puts a publication behind what waits.
    pub(crate) fn publish(&mut self, protocol: Protocol, number: u32, channel: &str, data: &str) {
        speech::publish(protocol, number, channel, data, &mut self.unsent);
    }

    /// Says goodbye.
    pub(crate) fn leave(&mut self) -> Result<(), End> {
        self.phase = Phase::Leaving;
        self.say(Kind::Close, &1_000_u16.to_be_bytes());
        self.send()
    }

    /// Reads all that is there; to the end of the stream if that has been seen. The error is the connection's end.
    pub(crate) fn read(&mut self, to_end: bool, scratch: &mut [u8], shared: &mut Shared) -> Result<(), End> {
        loop {
            match self.socket.read(scratch) {
                Ok(0) => return Err(End::Lost("the server closed the connection".into())),
                Ok(count) => {
                    self.take(&scratch[..count], shared)?;
                    if count < scratch.len() && !to_end && self.socket.short_read_is_all() {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::NotConnected => break,
                Err(error) => return Err(End::Lost(format!("failed to read: {error}"))),
            }
        }
        if self.unsent.is_empty() { Ok(()) } else { self.send() }
    }

    /// Takes bytes as they come; what is not there to its end waits in `unread`.
    fn take(&mut self, bytes: &[u8], shared: &mut Shared) -> Result<(), End> {
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
    fn understand(&mut self, bytes: &[u8], shared: &mut Shared) -> Result<usize, End> {
        let mut used = 0;
        if self.phase == Phase::Upgrading {
            match upgrade::upgraded(bytes, shared.protocol) {
                None => return Ok(0),
                Some(head) => used = head.map_err(End::Refused)?,
            }
            let channel = shared.subscribe.then(|| shared.channels.name(shared.channels.index(self.number)));
            let since = shared.positions.get(&shared.channels.index(self.number));
            let (token, channel) = (shared.token.as_deref(), channel.as_deref());
            speech::join(shared.protocol, token, channel, since, &mut self.unsent);
            let replies = speech::replies(shared.protocol, shared.subscribe);
            self.phase = if replies == 0 { Phase::Open } else { Phase::Joining(replies) };
        }
        while let Some(frame) = frame::next(&bytes[used..]).map_err(|fault| fault.to_string())? {
            used += frame.length;
            match frame.kind {
                Kind::Text | Kind::Binary => {
                    speech::hear(shared.protocol, frame.payload, |line| self.hear(line, shared))?;
                }
                Kind::Ping => self.say(Kind::Pong, frame.payload),
                Kind::Close => return Err(closed(frame.payload)),
                Kind::Pong => {}
            }
        }
        Ok(used)
    }

    /// One thing the server says.
    fn hear(&mut self, line: Line, shared: &mut Shared) -> Result<(), String> {
        match line {
            Line::Subscribed(subscribed) => {
                shared.positions.entry(shared.channels.index(self.number)).or_insert(subscribed.position);
                for stamp in subscribed.missed {
                    self.hear(Line::Publication(stamp), shared)?;
                }
                self.hear(Line::Reply(0, None), shared)?;
            }
            Line::Publication(stamp) if stamp.run == shared.run => {
                if stamp.channel != shared.channels.index(self.number) {
                    shared.strayed += 1;
                    return Ok(());
                }
                let now = clock::now();
                self.ledger.came(stamp.number);
                shared.latencies.record(now.saturating_sub(stamp.at));
                shared.delivered += 1;
                if shared.between.0 == 0 {
                    shared.between.0 = now;
                }
                shared.between.1 = now;
            }
            Line::Ping => speech::pong(shared.protocol, &mut self.unsent),
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
            Line::Publication(_) | Line::Other => {}
        }
        Ok(())
    }
}

/// The code and reason of a Close frame.
fn closed(payload: &[u8]) -> End {
    match payload {
        [high, low, reason @ ..] => {
            End::Closed(Some(u16::from_be_bytes([*high, *low])), String::from_utf8_lossy(reason).into_owned())
        }
        _ => End::Closed(None, String::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_takes_little_memory_of_the_load() {
        assert!(size_of::<Connection>() <= 144, "{}", size_of::<Connection>());
    }

    #[test]
    fn an_end_is_told_by_its_code() {
        assert_eq!(closed(&[0x0b, 0xc0, b's']).words(), "the server closed with 3008 \"s\"");
        assert_eq!(closed(&[]).words(), "the server closed without a code");
    }
}
