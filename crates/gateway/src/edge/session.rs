//! A connection's inbound side: bytes to frames to messages to the shard.

use std::io;
use std::time::Instant;

use tidegate_hub::{SessionKey, Tick};
use tidegate_protocol::Disconnect;
use tidegate_protocol::frame::{Decoder, Event, FrameError};

use super::admission::Permit;
use super::transport::Transport;
use super::worker::Worker;
use crate::proxy::headers::Kept;

/// How many sockets that have an end, or more than their share, one turn reads. To end a connection takes some twenty
/// microseconds: a thousand at once, as after a lost network, would hold up everyone who stayed.
const UNREAD_A_TURN: usize = 32;

/// How many reads one turn grants a socket before the others get theirs.
const READS_A_TURN: usize = 2;

/// A connection's socket and what the edge must know of it.
pub(super) struct Session {
    pub(super) key: SessionKey,
    pub(super) transport: Transport,
    decoder: Decoder,
    /// Given back when the session is dropped, and by nothing else.
    _permit: Permit,
    /// What backends want of the handshake's headers.
    pub(super) kept: Kept,
    pub(super) opened: Instant,
    pub(super) phase: Phase,
    /// When the message that is unfinished now began.
    pub(super) unfinished: Option<Tick>,
    /// Since when the socket has taken nothing of what waits for it.
    pub(super) stalled: Option<Tick>,
    /// Whether the session is in the worker's list of watched ones.
    pub(super) watched: bool,
    /// Whether the session is in the worker's list of those with more to read.
    unread: bool,
    #[cfg_attr(not(feature = "echo"), expect(dead_code, reason = "only conformance builds echo"))]
    echo: bool,
}

/// Where a connection is in its life. It only moves downwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Frames go both ways.
    Open,
    /// The shard has ended the session: the outbox is being written, the peer is given time to close.
    Ending {
        /// Why.
        reason: Disconnect,
        /// When the socket is dropped whatever the peer does.
        deadline: Tick,
    },
}

impl Session {
    pub(super) fn new(key: SessionKey, transport: Transport, permit: Permit, kept: Kept, echo: bool) -> Self {
        Self {
            key,
            transport,
            decoder: Decoder::default(),
            _permit: permit,
            kept,
            opened: Instant::now(),
            phase: Phase::Open,
            unfinished: None,
            stalled: None,
            watched: false,
            unread: false,
            echo,
        }
    }
}

impl Worker {
    /// Reads what a socket has, within the turn's share. `to_the_end`: the peer has closed its side, so a short read
    /// is not the last one.
    pub(super) fn read(&mut self, key: SessionKey, to_the_end: bool) {
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut plaintext = std::mem::take(&mut self.plaintext);
        let scratch_size = scratch.len();
        let mut reads = 0;
        while let Some(session) = self.session(key) {
            if reads == READS_A_TURN {
                // The poller will not say again that there is more.
                self.read_later(key);
                break;
            }
            reads += 1;
            match session.transport.read(&mut scratch, &mut plaintext) {
                Ok((0, _)) => {
                    self.peer_gone(key);
                    break;
                }
                Ok((size, data)) => {
                    let more = size == scratch_size || to_the_end || session.transport.peer_closed();
                    self.bytes_received += data.len() as u64;
                    self.input(key, data);
                    // A read that did not fill the buffer has emptied the socket: the next bytes make a new event.
                    if !more {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    tracing::debug!(%error, "reading from a client failed");
                    self.peer_gone(key);
                    break;
                }
            }
        }
        self.await_room(key);
        plaintext.clear();
        self.scratch = scratch;
        self.plaintext = plaintext;
    }

    /// Reads a socket when its turn comes, in [`read_unread`](Self::read_unread).
    pub(super) fn read_later(&mut self, key: SessionKey) {
        if let Some(session) = self.session(key)
            && !session.unread
        {
            session.unread = true;
            self.unread.push_back(key);
        }
    }

    /// Goes on with some of the sockets that have more to read than their share, or an end.
    pub(super) fn read_unread(&mut self) {
        for _ in 0..self.unread.len().min(UNREAD_A_TURN) {
            let Some(key) = self.unread.pop_front() else { return };
            if let Some(session) = self.session(key) {
                session.unread = false;
                self.read(key, true);
            }
        }
    }

    /// Bytes of a client, without TLS. Everything behind the end of a session is ignored.
    pub(super) fn input(&mut self, key: SessionKey, bytes: &mut [u8]) {
        let Self { sessions, shard, auth, limits, now, .. } = self;
        let Some(session) = sessions.get_mut(key.index) else { return };
        if session.phase != Phase::Open {
            return;
        }
        let mut at = 0;
        let mut finished = false;
        // The step that has no event is the last: with it the decoder frees what it lent out.
        let failed = loop {
            let step = match session.decoder.step(&mut bytes[at..], limits) {
                Ok(step) => step,
                Err(error) => break Some(error),
            };
            at += step.consumed;
            let Some(event) = step.event else { break None };
            match event {
                #[cfg(feature = "echo")]
                Event::Text(text) if session.echo => shard.echo(key, true, text.as_bytes()),
                #[cfg(feature = "echo")]
                Event::Binary(data) if session.echo => shard.echo(key, false, data),
                Event::Text(text) => shard.message(key, true, text.as_bytes(), auth, *now),
                Event::Binary(data) => shard.message(key, false, data, auth, *now),
                Event::Ping(payload) => shard.native_ping(key, payload),
                Event::Pong(_) => shard.native_pong(key, *now),
                Event::Close(close) => {
                    shard.closed_by_peer(key, close.map(|(code, _)| code));
                    break None;
                }
            }
            // A ping between fragments finishes nothing.
            finished |= !session.decoder.within_message();
        };
        match failed {
            Some(error) => {
                tracing::debug!(%error, "a client broke the framing");
                shard.end(key, reason(error));
            }
            None if session.decoder.unfinished() => {
                // Its age is that of the message, not of the bytes: a trickle does not make it younger.
                if finished || session.unfinished.is_none() {
                    session.unfinished = Some(*now);
                    self.watch(key);
                }
            }
            None => session.unfinished = None,
        }
    }
}

/// What ends a connection whose frames cannot be understood.
const fn reason(error: FrameError) -> Disconnect {
    match error {
        FrameError::Protocol(_) => Disconnect::FrameError,
        FrameError::Utf8 => Disconnect::InvalidUtf8,
        FrameError::TooLarge | FrameError::TooManyFragments => Disconnect::BadRequest,
    }
}
