//! TLS of the public port: rustls' unbuffered API from the accept on.
//!
//! The unbuffered API leaves the buffers to the caller, so a connection keeps bytes only while a record is
//! unfinished, and the worker's scratch serves all of them. [`engine`] turns records into plaintext and back without
//! any I/O; [`stream`] drives it under tokio for the handshake and the HTTP phase; the worker's shard drives the same
//! engine under its own poller afterwards.
//!
//! Not here: client certificates, reloading, session tickets shared by nodes.

mod engine;
mod material;
mod stream;
#[cfg(test)]
mod tests;

pub(crate) use engine::Engine;
pub(crate) use material::{TlsError, load};
pub(crate) use stream::TlsStream;
