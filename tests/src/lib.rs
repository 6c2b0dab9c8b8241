//! The harness: real nodes, real Redis, real clients.
