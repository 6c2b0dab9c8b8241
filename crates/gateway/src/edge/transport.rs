//! A taken-over socket, plain or TLS, as the worker's poller drives it. Never blocks.

use std::io::{self, IoSlice, Read as _, Write as _};
use std::net::Shutdown;
use std::time::Duration;

use mio::net::TcpStream;
use tidegate_hub::Outbox;

use super::tls::{Compact, Engine, MAX_PLAINTEXT, Records};

/// How many chunks one system call writes at most.
const MAX_SLICES: usize = 64;

/// How many records are encrypted before they are written. In a flood a record is a third of what waits, and a write
/// costs more than encrypting one.
const MAX_RECORDS: usize = 4;

/// A socket and what it needs to carry bytes.
pub(crate) enum Transport {
    /// Bytes as they are.
    Plain(TcpStream),
    /// TLS records by rustls.
    Tls(TcpStream, Box<Engine>),
    /// TLS records by our own record layer.
    Compact(TcpStream, Box<Compact>),
}

/// What a write came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    /// Nothing waits any more.
    All,
    /// The socket is full; the poller will say when it has room.
    Blocked,
}

impl Transport {
    /// The socket, for the poller.
    pub(crate) const fn socket(&mut self) -> &mut TcpStream {
        match self {
            Self::Plain(socket) | Self::Tls(socket, _) | Self::Compact(socket, _) => socket,
        }
    }

    fn records(&self) -> Option<&dyn Records> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(_, engine) => Some(&**engine),
            Self::Compact(_, compact) => Some(&**compact),
        }
    }

    /// The socket, and what makes its bytes records, if it is TLS.
    fn parts(&mut self) -> (&mut TcpStream, Option<&mut dyn Records>) {
        match self {
            Self::Plain(socket) => (socket, None),
            Self::Tls(socket, engine) => (socket, Some(&mut **engine)),
            Self::Compact(socket, compact) => (socket, Some(&mut **compact)),
        }
    }

    /// Reads once. Returns how many bytes came from the socket (0: the peer has ended) and the data in them, which
    /// is a part of `scratch` or, for TLS, of `plaintext`.
    pub(crate) fn read<'a>(
        &mut self,
        scratch: &'a mut [u8],
        plaintext: &'a mut Vec<u8>,
    ) -> io::Result<(usize, &'a mut [u8])> {
        match self.parts() {
            (socket, None) => {
                let size = socket.read(scratch)?;
                Ok((size, &mut scratch[..size]))
            }
            (socket, Some(records)) => Ok((read_tls(socket, records, scratch, plaintext)?, plaintext)),
        }
    }

    /// Whether the peer has said, by TLS' close_notify, that it will send no more; the next read says so too.
    pub(crate) fn peer_closed(&self) -> bool {
        self.records().is_some_and(|records| records.peer_closed())
    }

    /// Whether TLS has something to send that the socket did not take.
    pub(crate) fn has_pending(&self) -> bool {
        self.records().is_some_and(|records| !records.outgoing().is_empty())
    }

    /// Writes as much of the outbox as the socket takes; adds the bytes it took to `sent`.
    pub(crate) fn write(
        &mut self,
        outbox: &mut Outbox,
        scratch: &mut Vec<u8>,
        sent: &mut u64,
    ) -> io::Result<Written> {
        match self.parts() {
            (socket, None) => write_plain(socket, outbox, sent),
            (socket, Some(records)) => write_tls(socket, records, outbox, scratch, sent),
        }
    }

    /// Says that nothing more will be written: close_notify for TLS, then a FIN. Where the socket has no room even for
    /// that, the peer does not read and learns it from the end of the connection.
    pub(crate) fn shutdown(&mut self) -> io::Result<()> {
        let (socket, records) = self.parts();
        if let Some(records) = records {
            records.send_close()?;
            if send(socket, records)? == Written::Blocked {
                return Err(io::ErrorKind::WouldBlock.into());
            }
        }
        socket.shutdown(Shutdown::Write)
    }

    /// Makes the coming close drop what the kernel still holds for a peer that does not read.
    pub(crate) fn abort(&mut self) {
        // A socket that is gone already needs no abort.
        let _ = socket2::SockRef::from(&*self.socket()).set_linger(Some(Duration::ZERO));
    }
}

fn write_plain(socket: &mut TcpStream, outbox: &mut Outbox, sent: &mut u64) -> io::Result<Written> {
    while !outbox.is_empty() {
        let written = match outbox.single() {
            // The usual case, and a cheaper system call.
            Some(frames) => socket.write(frames),
            None => {
                let mut slices = [IoSlice::new(&[]); MAX_SLICES];
                let count = outbox.slices(&mut slices);
                socket.write_vectored(&slices[..count])
            }
        };
        let size = match written {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(size) => size,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Written::Blocked),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        outbox.advance(size);
        *sent += size as u64;
    }
    Ok(Written::All)
}

/// Reads once; what it decrypts to is in `plaintext` then. Returns how many bytes came from the socket.
fn read_tls(
    socket: &mut TcpStream,
    records: &mut dyn Records,
    scratch: &mut [u8],
    plaintext: &mut Vec<u8>,
) -> io::Result<usize> {
    plaintext.clear();
    if records.peer_closed() {
        return Ok(0);
    }
    let size = socket.read(scratch)?;
    if let Err(error) = records.receive(&mut scratch[..size], plaintext) {
        // The alert tells the peer why, if the socket takes it at once.
        let _ = send(socket, records);
        return Err(error);
    }
    // An answer of TLS itself (a key update, an alert) need not wait for the next frame.
    send(socket, records)?;
    Ok(size)
}

fn write_tls(
    socket: &mut TcpStream,
    records: &mut dyn Records,
    outbox: &mut Outbox,
    scratch: &mut Vec<u8>,
    sent: &mut u64,
) -> io::Result<Written> {
    loop {
        // What is encrypted goes before more is: a peer that does not read costs so many records beside its outbox.
        if send(socket, records)? == Written::Blocked {
            return Ok(Written::Blocked);
        }
        if outbox.is_empty() {
            return Ok(Written::All);
        }
        records.reserve(outbox.bytes().min(MAX_RECORDS * MAX_PLAINTEXT));
        for _ in 0..MAX_RECORDS {
            let size = encrypt(records, outbox, scratch)?;
            outbox.advance(size);
            *sent += size as u64;
            if outbox.is_empty() {
                break;
            }
        }
    }
}

/// Makes one record of what waits; returns how much it took.
fn encrypt(records: &mut dyn Records, outbox: &Outbox, scratch: &mut Vec<u8>) -> io::Result<usize> {
    if let Some(frames) = outbox.single() {
        let size = frames.len().min(MAX_PLAINTEXT);
        records.send(&frames[..size])?;
        return Ok(size);
    }
    let mut slices = [IoSlice::new(&[]); MAX_SLICES];
    let count = outbox.slices(&mut slices);
    scratch.clear();
    for slice in &slices[..count] {
        let room = MAX_PLAINTEXT - scratch.len();
        scratch.extend_from_slice(&slice[..slice.len().min(room)]);
        if scratch.len() == MAX_PLAINTEXT {
            break;
        }
    }
    records.send(scratch)?;
    Ok(scratch.len())
}

/// Sends what has been encrypted.
fn send(socket: &mut TcpStream, records: &mut dyn Records) -> io::Result<Written> {
    while !records.outgoing().is_empty() {
        match socket.write(records.outgoing()) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(size) => records.advance(size),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Written::Blocked),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Written::All)
}
