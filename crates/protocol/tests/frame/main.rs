//! What the frame decoder and encoder promise, seen from a client that may put any bits on the wire.

mod client;
mod closing;
mod limits;
mod memory;
mod properties;
mod rules;
mod server;
mod text;
