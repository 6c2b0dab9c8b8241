//! TLS records to plaintext and back, without I/O.

use std::io;
use std::sync::Arc;

use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus, WriteTraffic};
use rustls::{HandshakeKind, ProtocolVersion, ServerConfig};

use super::sealing::{Half, supported};
use super::secrets::Heard;
use super::{Compact, Records};

/// The largest plaintext of one record (RFC 8446, 5.1).
pub(crate) const MAX_PLAINTEXT: usize = 16 * 1024;

/// What a record may have beyond its plaintext: header, content type, tag, and TLS 1.2's explicit nonce.
const RECORD_OVERHEAD: usize = 64;

/// The most bytes that may wait for the rest of a record or handshake message. A record has 16 KiB and a little; a
/// handshake message in fragments is bounded to 64 KiB by rustls itself.
const MAX_INCOMING: usize = 80 * 1024;

/// One connection's TLS state. Holds received bytes only while a record is unfinished, and bytes to send only until
/// the socket has taken them.
pub(crate) struct Engine {
    conn: UnbufferedServerConnection,
    /// Received bytes of an unfinished record.
    incoming: Vec<u8>,
    /// Encoded bytes to send, from `sent` on.
    outgoing: Vec<u8>,
    sent: usize,
    handshaking: bool,
    peer_closed: bool,
    /// Whether anything was received since the last record was sent.
    unanswered: bool,
    /// Hears the secrets, if the settings ask for our own record layer after the handshake.
    heard: Option<Arc<Heard>>,
}

impl Engine {
    /// A connection that has yet to shake hands.
    pub(crate) fn new(config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        let (config, heard) = if config.enable_secret_extraction {
            let (config, heard) = Heard::of_one(&config);
            (config, Some(heard))
        } else {
            (config, None)
        };
        Ok(Self {
            conn: UnbufferedServerConnection::new(config)?,
            incoming: Vec::new(),
            outgoing: Vec::new(),
            sent: 0,
            handshaking: true,
            peer_closed: false,
            unanswered: false,
            heard,
        })
    }

    /// Whether the session was resumed by a ticket; known once the handshake is over.
    pub(crate) fn resumed(&self) -> bool {
        self.conn.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// Whether all that waits to be sent is tickets, for which no client waits: in TLS 1.3 they are the only thing that a
    /// server sends behind the client's last message.
    pub(crate) fn only_tickets(&self) -> bool {
        !self.handshaking && self.conn.protocol_version() == Some(ProtocolVersion::TLSv1_3)
    }

    /// Whether the handshake is still going on.
    pub(crate) const fn handshaking(&self) -> bool {
        self.handshaking
    }

    /// Runs rustls over `input` as far as it goes; returns how many bytes it is done with.
    fn process(&mut self, input: &mut [u8], plaintext: &mut Vec<u8>) -> io::Result<usize> {
        let mut used = 0;
        loop {
            let UnbufferedStatus { mut discard, state } = self.conn.process_tls_records(&mut input[used..]);
            let mut waiting = false;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(invalid)?;
                        discard += record.discard;
                        plaintext.extend_from_slice(record.payload);
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    append(&mut self.outgoing, 1024, |out| {
                        data.encode(out).map_err(|error| match error {
                            EncodeError::InsufficientSize(size) => Grow::To(size.required_size),
                            error @ EncodeError::AlreadyEncoded => Grow::Failed(error.to_string()),
                        })
                    })?;
                }
                // What was encoded stands in `outgoing`, which is sent before anything else.
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::BlockedHandshake) => waiting = true,
                Ok(ConnectionState::WriteTraffic(_)) => {
                    self.handshaking = false;
                    waiting = true;
                }
                Ok(ConnectionState::PeerClosed) => self.peer_closed = true,
                Ok(ConnectionState::Closed) => {
                    self.peer_closed = true;
                    waiting = true;
                }
                // Early data is not offered, and a state unknown to us cannot be served.
                Ok(_) => return Err(io::Error::new(io::ErrorKind::InvalidData, "tls: unexpected state")),
                Err(error) => {
                    used += discard;
                    self.encode_alert(&mut input[used..]);
                    return Err(invalid(error));
                }
            }
            used += discard;
            if waiting {
                return Ok(used);
            }
        }
    }

    /// After a failure rustls has an alert to send: takes it out, so that the peer learns the reason.
    fn encode_alert(&mut self, unfinished: &mut [u8]) {
        let status = self.conn.process_tls_records(unfinished);
        if let Ok(ConnectionState::EncodeTlsData(mut data)) = status.state {
            let mut alert = [0; 256];
            if let Ok(size) = data.encode(&mut alert) {
                self.outgoing.extend_from_slice(&alert[..size]);
            }
        }
    }

    /// Appends what `encode` writes, behind what TLS itself has to say (a key update's answer).
    ///
    /// rustls remembers places in the unfinished input, so it is shown that input even when only writing: an empty
    /// slice in its stead would make it look beyond the end.
    fn writing(
        &mut self,
        room: usize,
        mut encode: impl FnMut(
            &mut WriteTraffic<'_, ServerConnectionData>,
            &mut [u8],
        ) -> Result<usize, EncryptError>,
    ) -> io::Result<()> {
        let mut incoming = std::mem::take(&mut self.incoming);
        // What is unfinished was run already and decrypts to nothing more.
        let used = self.process(&mut incoming, &mut Vec::new())?;
        incoming.drain(..used);
        let status = self.conn.process_tls_records(&mut incoming);
        let written = match status.state {
            Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                append(&mut self.outgoing, room, |out| encode(&mut traffic, out).map_err(Grow::from))
            }
            _ => Err(io::Error::new(io::ErrorKind::NotConnected, "tls: not ready to send")),
        };
        if !incoming.is_empty() {
            self.incoming = incoming;
        }
        written
    }

    /// Gives the connection to our own record layer, if the settings ask for it and it can go on where rustls stands;
    /// else gives itself back.
    pub(crate) fn compact(mut self: Box<Self>) -> Result<io::Result<Compact>, Box<Self>> {
        // Asked once: whoever stays with rustls needs the secrets no more.
        let heard = self.heard.take().and_then(|heard| heard.take());
        let tls13 = self.conn.protocol_version() == Some(ProtocolVersion::TLSv1_3);
        let supported = self.conn.negotiated_cipher_suite().is_some_and(|suite| supported(suite.suite()));
        // What rustls has not finished cannot be taken from it: a record or handshake message cut in two, or what it
        // means to send with the next record, such as the answer to a key update.
        let idle =
            self.incoming.is_empty() && self.outgoing().is_empty() && !self.unanswered && !self.peer_closed;
        if !(tls13 && supported && idle && !self.handshaking) {
            return Err(self);
        }
        let Some((client, server)) = heard else { return Err(self) };
        // Of the kernel connection itself nothing is needed: what it would keep is heard of already, in a tenth of the
        // bytes.
        let (keys, _) = match self.conn.dangerous_into_kernel_connection() {
            Ok(taken) => taken,
            Err(error) => return Ok(Err(invalid(error))),
        };
        let halves = (Half::new(keys.tx, server), Half::new(keys.rx, client));
        Ok(match halves {
            (Some(write), Some(read)) => Ok(Compact::new(write, read)),
            _ => Err(io::Error::other("tls: the keys are not those of the handshake")),
        })
    }
}

impl Records for Engine {
    fn receive(&mut self, received: &mut [u8], plaintext: &mut Vec<u8>) -> io::Result<()> {
        self.unanswered = true;
        if self.incoming.is_empty() {
            let used = self.process(received, plaintext)?;
            if used < received.len() {
                self.incoming.extend_from_slice(&received[used..]);
            }
        } else {
            self.incoming.extend_from_slice(received);
            let mut incoming = std::mem::take(&mut self.incoming);
            let used = self.process(&mut incoming, plaintext)?;
            if used < incoming.len() {
                incoming.drain(..used);
                self.incoming = incoming;
            }
        }
        if self.incoming.len() > MAX_INCOMING {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "tls: unfinished record is too large"));
        }
        Ok(())
    }

    fn reserve(&mut self, plaintext: usize) {
        let records = plaintext.div_ceil(MAX_PLAINTEXT);
        self.outgoing.reserve_exact(plaintext + records * RECORD_OVERHEAD);
    }

    fn send(&mut self, plaintext: &[u8]) -> io::Result<()> {
        debug_assert!(plaintext.len() <= MAX_PLAINTEXT);
        self.writing(plaintext.len() + RECORD_OVERHEAD, |traffic, out| traffic.encrypt(plaintext, out))?;
        self.unanswered = false;
        Ok(())
    }

    fn send_close(&mut self) -> io::Result<()> {
        self.writing(RECORD_OVERHEAD, |traffic, out| traffic.queue_close_notify(out))
    }

    fn outgoing(&self) -> &[u8] {
        &self.outgoing[self.sent..]
    }

    fn advance(&mut self, size: usize) {
        self.sent += size;
        if self.sent >= self.outgoing.len() {
            self.outgoing = Vec::new();
            self.sent = 0;
        }
    }

    fn peer_closed(&self) -> bool {
        self.peer_closed
    }
}

#[cfg(test)]
impl Engine {
    /// Bytes held between calls, beside rustls' own state.
    pub(super) const fn held_bytes(&self) -> usize {
        self.incoming.len() + self.outgoing.len() - self.sent
    }
}

/// Why an encoding did not fit.
enum Grow {
    To(usize),
    Failed(String),
}

impl From<EncryptError> for Grow {
    fn from(error: EncryptError) -> Self {
        match error {
            EncryptError::InsufficientSize(size) => Self::To(size.required_size),
            error => Self::Failed(error.to_string()),
        }
    }
}

/// Appends what `encode` writes, giving it `room` bytes first and then as many as it asks for.
fn append(
    out: &mut Vec<u8>,
    room: usize,
    mut encode: impl FnMut(&mut [u8]) -> Result<usize, Grow>,
) -> io::Result<()> {
    let start = out.len();
    let mut room = room;
    loop {
        out.resize(start + room, 0);
        match encode(&mut out[start..]) {
            Ok(size) => {
                out.truncate(start + size);
                return Ok(());
            }
            Err(Grow::To(size)) if size > room => room = size,
            Err(Grow::To(_)) => {
                out.truncate(start);
                return Err(io::Error::other("tls: encoding does not fit"));
            }
            Err(Grow::Failed(reason)) => {
                out.truncate(start);
                return Err(io::Error::other(format!("tls: {reason}")));
            }
        }
    }
}

fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
