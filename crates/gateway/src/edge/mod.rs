//! The public port, in the order a client meets it: listener, reception (turnstile, rate, tls), stream, admission,
//! origin, handshake, takeover; then auth, session, writer under the worker.
//!
//! A connection is HTTP until its 101 is written. From then on it has no HTTP state, no future and no timer of its own:
//! it is an entry in its worker's tables (ADR 0001).

mod admission;
mod attendance;
mod auth;
mod consulting;
mod drain;
mod effects;
mod handshake;
mod handshakes;
mod listener;
mod origin;
mod poller;
mod rate;
mod reception;
mod session;
mod stream;
mod takeover;
mod tls;
mod transport;
mod turnstile;
mod worker;
mod writer;

pub(crate) use admission::Admission;
pub(crate) use handshake::Gate;
pub(crate) use listener::{Public, bind, serve};
pub(crate) use tls::{TlsError, load as load_tls};
pub(crate) use worker::Common;
