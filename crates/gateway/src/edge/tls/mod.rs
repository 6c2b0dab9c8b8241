//! TLS of the public port: rustls' unbuffered API from the accept on.
//!
//! The unbuffered API leaves the buffers to the caller, so a connection keeps bytes only while a record is
//! unfinished, and the worker's scratch serves all of them. [`engine`] turns records into plaintext and back without
//! any I/O; [`stream`] drives it under tokio for the handshake and the HTTP phase; the worker's shard drives the same
//! engine under its own poller afterwards.
//!
//! [`tickets`] lets a client that comes back, to this node or another, resume its session.
//!
//! Not here: client certificates, reloading of certificates, early data.

use std::io;

mod compact;
#[cfg(test)]
mod compact_tests;
mod engine;
mod material;
mod sealing;
mod secrets;
mod stream;
#[cfg(test)]
mod tests;
mod tickets;

pub(crate) use compact::Compact;
pub(crate) use engine::{Engine, MAX_PLAINTEXT};
pub(crate) use material::{Material, TlsError, load};
pub(crate) use stream::TlsStream;

/// Records to plaintext and back, without I/O, once the handshake is over.
pub(crate) trait Records {
    /// Takes received bytes and appends what they decrypt to. Anything to answer (a key update, an alert) is put into the
    /// outgoing bytes; after an error these hold the alert to send.
    fn receive(&mut self, received: &mut [u8], plaintext: &mut Vec<u8>) -> io::Result<()>;

    /// Makes room for records of so much plaintext in all, in one piece.
    fn reserve(&mut self, plaintext: usize);

    /// Encrypts 16 KiB or less into the outgoing bytes.
    fn send(&mut self, plaintext: &[u8]) -> io::Result<()>;

    /// Puts the alert that ends our side into the outgoing bytes.
    fn send_close(&mut self) -> io::Result<()>;

    /// Bytes to send.
    fn outgoing(&self) -> &[u8];

    /// The socket took `size` of the outgoing bytes.
    fn advance(&mut self, size: usize);

    /// Whether the peer said that it will send no more.
    fn peer_closed(&self) -> bool;
}
