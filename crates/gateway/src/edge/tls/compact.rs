//! The record layer of TLS 1.3 for connections that mostly say nothing: what rustls keeps for one is 3 KB, this is a
//! few hundred bytes ([ADR 0008](../../../../../docs/adr/0008-compact-record-layer.md)).
//!
//! rustls shakes hands and gives its keys away (its kernel connection); AEAD and HKDF are ring's. What stands between is
//! here: RFC 8446, sections 5 (records), 4.6.3 (key updates) and 6 (alerts), the server's side after the handshake.
//! Whatever breaks a rule ends the connection, with the alert that the RFC names, and nothing is decrypted or encrypted
//! after that. Keys are wiped when the connection is dropped.
//!
//! A record is encrypted once, into the outgoing bytes, and these leave in their order. No plaintext is handed out
//! before its record has been authenticated.
//!
//! Not here: TLS 1.2, handshakes, tickets (sent before), post-handshake client authentication (not offered, so refused).

use std::io;

use rustls::{AlertDescription, ContentType};

use super::Records;
use super::engine::MAX_PLAINTEXT;
use super::sealing::{HEADER, Half, TAG};

/// The most bytes behind a record's header (RFC 8446, 5.2).
const MAX_CIPHERTEXT: usize = MAX_PLAINTEXT + 256;

/// Records encrypted with one key. AES-GCM is safe for 2^24.5 full ones (RFC 8446, 5.5); rustls stops here too.
const MAX_RECORDS: u64 = if cfg!(test) { 100 } else { 1 << 24 };

/// Records without data in a row, key updates among them. Others allow 16 to 32.
const MAX_IDLE_RECORDS: u8 = 32;

/// A KeyUpdate: type, length in three bytes, whether an answer is requested (RFC 8446, 4.6.3).
const KEY_UPDATE: u8 = 24;
const KEY_UPDATE_SIZE: usize = 5;

/// One connection's records. Holds received bytes only while a record is unfinished, and bytes to send only until the
/// socket has taken them.
pub(crate) struct Compact {
    /// Ours.
    write: Half,
    /// The peer's.
    read: Half,
    /// Received bytes of an unfinished record.
    incoming: Vec<u8>,
    /// Records to send, from `sent` on.
    outgoing: Vec<u8>,
    sent: u32,
    /// An unfinished handshake message.
    message: [u8; KEY_UPDATE_SIZE],
    message_size: u8,
    /// Records without data since the last with some.
    idle_records: u8,
    /// Whether an answer to a key update is among the outgoing bytes.
    answered: bool,
    /// Whether our close_notify has been made: nothing may follow it.
    closing: bool,
    state: State,
}

/// What may still happen. It only moves downwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Open,
    /// The peer said that it will send no more; we may.
    PeerClosed,
    /// A rule was broken, or the peer says so: nothing goes either way but the alert in `outgoing`.
    Failed,
}

/// Why a connection has to end.
#[derive(Debug, thiserror::Error)]
enum Fault {
    /// The peer broke a rule; the alert that says which.
    #[error("tls: {reason}")]
    Peer { alert: AlertDescription, reason: &'static str },
    /// The peer ended the connection by an alert.
    #[error("tls: the peer sent the alert {0:?}")]
    Alerted(AlertDescription),
    /// Something is wrong here.
    #[error("tls: {0}")]
    Here(&'static str),
}

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> Self {
        Self::new(io::ErrorKind::InvalidData, fault)
    }
}

const fn broken(alert: AlertDescription, reason: &'static str) -> Fault {
    Fault::Peer { alert, reason }
}

impl Compact {
    /// Goes on where rustls' record layer was.
    pub(super) const fn new(write: Half, read: Half) -> Self {
        Self {
            write,
            read,
            incoming: Vec::new(),
            outgoing: Vec::new(),
            sent: 0,
            message: [0; KEY_UPDATE_SIZE],
            message_size: 0,
            idle_records: 0,
            answered: false,
            closing: false,
            state: State::Open,
        }
    }

    /// Runs over `input` as far as whole records go; returns how many bytes it is done with.
    fn process(&mut self, input: &mut [u8], plaintext: &mut Vec<u8>) -> Result<usize, Fault> {
        let mut used = 0;
        while self.state == State::Open
            && let Some((header, rest)) = input[used..].split_first_chunk_mut::<HEADER>()
        {
            let size = ciphertext_size(*header)?;
            let Some(body) = rest.get_mut(..size) else { break };
            let (content_type, content) = open(&mut self.read, *header, body)?;
            self.record(content_type, content, plaintext)?;
            used += HEADER + size;
        }
        // What comes behind the end is not looked at.
        Ok(if self.state == State::Open { used } else { input.len() })
    }

    /// Takes one record's content.
    fn record(
        &mut self,
        content_type: ContentType,
        content: &[u8],
        plaintext: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        if self.message_size > 0 && content_type != ContentType::Handshake {
            return Err(broken(AlertDescription::UnexpectedMessage, "a record within a handshake message"));
        }
        if content_type == ContentType::ApplicationData && !content.is_empty() {
            self.idle_records = 0;
            plaintext.extend_from_slice(content);
            return Ok(());
        }
        self.idle_records += 1;
        if self.idle_records > MAX_IDLE_RECORDS {
            return Err(broken(AlertDescription::UnexpectedMessage, "too many records without data"));
        }
        match content_type {
            // Empty: cover traffic.
            ContentType::ApplicationData => Ok(()),
            ContentType::Handshake => self.handshake(content),
            ContentType::Alert => self.alert(content),
            _ => Err(broken(AlertDescription::UnexpectedMessage, "a record of an unexpected type")),
        }
    }

    /// Takes a handshake message or a part of one. The only one a client may send now is a KeyUpdate, and it ends its
    /// record, since what follows has another key (RFC 8446, 5.1).
    fn handshake(&mut self, content: &[u8]) -> Result<(), Fault> {
        if content.is_empty() {
            return Err(broken(AlertDescription::UnexpectedMessage, "an empty part of a handshake message"));
        }
        for (at, &byte) in content.iter().enumerate() {
            let size = usize::from(self.message_size);
            self.message[size] = byte;
            match (size, byte) {
                (0, KEY_UPDATE) | (1 | 2, 0) | (3, 1) => self.message_size += 1,
                (0, _) => {
                    return Err(broken(
                        AlertDescription::UnexpectedMessage,
                        "an unexpected handshake message",
                    ));
                }
                (4, 0 | 1) if at + 1 == content.len() => {
                    self.message_size = 0;
                    return self.key_update(byte == 1);
                }
                (4, 0 | 1) => {
                    return Err(broken(
                        AlertDescription::UnexpectedMessage,
                        "data behind a key update in its record",
                    ));
                }
                (4, _) => {
                    return Err(broken(AlertDescription::IllegalParameter, "a key update of no known kind"));
                }
                _ => return Err(broken(AlertDescription::DecodeError, "a key update of the wrong size")),
            }
        }
        Ok(())
    }

    /// The peer's next record has its next key.
    fn key_update(&mut self, requested: bool) -> Result<(), Fault> {
        self.read.update().ok_or(Fault::Here("no next key to read with"))?;
        // One answer serves all requests that came before it could be sent (RFC 8446, 4.6.3), so who asks and does not
        // read makes nothing grow here.
        if requested && !self.answered && !self.closing {
            self.update_write_key()?;
            self.answered = true;
        }
        Ok(())
    }

    /// Says that our next record has our next key.
    fn update_write_key(&mut self) -> Result<(), Fault> {
        const NOT_REQUESTED: [u8; KEY_UPDATE_SIZE] = [KEY_UPDATE, 0, 0, 1, 0];
        self.seal(ContentType::Handshake, &NOT_REQUESTED)?;
        self.write.update().ok_or(Fault::Here("no next key to write with"))
    }

    fn alert(&mut self, content: &[u8]) -> Result<(), Fault> {
        let &[_level, description] = content else {
            return Err(broken(AlertDescription::DecodeError, "an alert of the wrong size"));
        };
        match AlertDescription::from(description) {
            AlertDescription::CloseNotify => {
                self.state = State::PeerClosed;
                Ok(())
            }
            // The only alert that ends nothing; a close_notify follows.
            AlertDescription::UserCanceled => Ok(()),
            // Whatever its level says, and known or not (RFC 8446, 6).
            other => Err(Fault::Alerted(other)),
        }
    }

    /// Appends a record to the outgoing bytes.
    fn seal(&mut self, content_type: ContentType, content: &[u8]) -> Result<(), Fault> {
        let start = self.outgoing.len();
        let sealed = self.write.seal(content_type, content, 0, &mut self.outgoing);
        sealed.ok_or_else(|| {
            self.outgoing.truncate(start);
            self.state = State::Failed;
            Fault::Here("a record cannot be encrypted")
        })
    }

    /// Nothing goes either way from here; the peer is told why, if it is not the one who told us.
    fn fail(&mut self, fault: Fault) -> io::Error {
        const FATAL: u8 = 2;
        if self.state < State::Failed
            && !self.closing
            && let Fault::Peer { alert, .. } = fault
        {
            // If even the alert cannot be encrypted, there is nothing more to say.
            let _ = self.seal(ContentType::Alert, &[FATAL, alert.into()]);
        }
        self.state = State::Failed;
        self.incoming = Vec::new();
        fault.into()
    }
}

/// How many bytes follow the header of a record. Refuses what can be no good record before its bytes are there.
fn ciphertext_size(header: [u8; HEADER]) -> Result<usize, Fault> {
    let [content_type, _, _, high, low] = header;
    // Every record is encrypted by now, and looks like data from outside. The version has no meaning any more (5.1), but
    // is authenticated with the rest of the header.
    if ContentType::from(content_type) != ContentType::ApplicationData {
        return Err(broken(AlertDescription::UnexpectedMessage, "a record that is not encrypted"));
    }
    let size = usize::from(u16::from_be_bytes([high, low]));
    if size > MAX_CIPHERTEXT {
        return Err(broken(AlertDescription::RecordOverflow, "a record that is too long"));
    }
    if size <= TAG {
        return Err(broken(AlertDescription::BadRecordMac, "a record that is too short"));
    }
    Ok(size)
}

/// Decrypts a record in place; returns its real type and content.
fn open<'a>(
    read: &mut Half,
    header: [u8; HEADER],
    body: &'a mut [u8],
) -> Result<(ContentType, &'a [u8]), Fault> {
    let inner: &[u8] = read
        .open(header, body)
        .ok_or(broken(AlertDescription::BadRecordMac, "a record that was not the peer's"))?;
    if inner.len() > MAX_PLAINTEXT + 1 {
        return Err(broken(AlertDescription::RecordOverflow, "a record with too much in it"));
    }
    // Content, its type, zeros. Where there are only zeros there is no type.
    let last = inner.iter().rposition(|&byte| byte != 0);
    match last {
        Some(last) => Ok((ContentType::from(inner[last]), &inner[..last])),
        None => Err(broken(AlertDescription::UnexpectedMessage, "a record without a type")),
    }
}

impl Records for Compact {
    fn receive(&mut self, received: &mut [u8], plaintext: &mut Vec<u8>) -> io::Result<()> {
        if self.state != State::Open {
            // After close_notify nothing is looked at; after a failure nothing is to be expected.
            return if self.state == State::PeerClosed {
                Ok(())
            } else {
                Err(io::ErrorKind::NotConnected.into())
            };
        }
        let processed = if self.incoming.is_empty() {
            self.process(received, plaintext).map(|used| {
                if used < received.len() {
                    self.incoming.extend_from_slice(&received[used..]);
                }
            })
        } else {
            let mut incoming = std::mem::take(&mut self.incoming);
            incoming.extend_from_slice(received);
            self.process(&mut incoming, plaintext).map(|used| {
                if used < incoming.len() {
                    incoming.drain(..used);
                    self.incoming = incoming;
                }
            })
        };
        processed.map_err(|fault| self.fail(fault))
    }

    fn reserve(&mut self, plaintext: usize) {
        // Header, type and tag of each.
        let records = plaintext.div_ceil(MAX_PLAINTEXT);
        self.outgoing.reserve_exact(plaintext + records * (HEADER + 1 + TAG));
    }

    fn send(&mut self, plaintext: &[u8]) -> io::Result<()> {
        debug_assert!(plaintext.len() <= MAX_PLAINTEXT);
        if self.state == State::Failed || self.closing {
            return Err(io::ErrorKind::NotConnected.into());
        }
        let updated = if self.write.records() >= MAX_RECORDS { self.update_write_key() } else { Ok(()) };
        let sealed = updated.and_then(|()| self.seal(ContentType::ApplicationData, plaintext));
        sealed.map_err(|fault| self.fail(fault))
    }

    fn send_close(&mut self) -> io::Result<()> {
        const CLOSE_NOTIFY: [u8; 2] = [1, 0];
        if self.state == State::Failed {
            return Err(io::ErrorKind::NotConnected.into());
        }
        if !std::mem::replace(&mut self.closing, true) {
            self.seal(ContentType::Alert, &CLOSE_NOTIFY)?;
        }
        Ok(())
    }

    fn outgoing(&self) -> &[u8] {
        &self.outgoing[self.sent as usize..]
    }

    fn advance(&mut self, size: usize) {
        // A few records of data and what TLS says by itself: far from 2^32 bytes.
        self.sent += size as u32;
        if self.sent as usize >= self.outgoing.len() {
            self.outgoing = Vec::new();
            self.sent = 0;
            self.answered = false;
        }
    }

    fn peer_closed(&self) -> bool {
        self.state == State::PeerClosed
    }
}

#[cfg(test)]
impl Compact {
    /// The limit in tests, which cannot send sixteen million records.
    pub(super) const MAX_RECORDS_HERE: u64 = MAX_RECORDS;

    /// Bytes held between calls, beside what every connection has.
    pub(super) const fn held_bytes(&self) -> usize {
        self.incoming.capacity() + self.outgoing.len() - self.sent as usize
    }

    /// The peer's direction, for a test that plays the peer.
    pub(super) fn read_half(&self) -> Half {
        self.read.copy()
    }

    /// Ours.
    pub(super) fn write_half(&self) -> Half {
        self.write.copy()
    }

    /// Records that our current key has seen.
    pub(super) fn records_written(&self) -> u64 {
        self.write.records()
    }
}
