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

mod engine;
mod material;
mod stream;
#[cfg(test)]
mod tests;
mod tickets;

pub(crate) use engine::Engine;
pub(crate) use material::{Material, TlsError, load};
pub(crate) use stream::TlsStream;
