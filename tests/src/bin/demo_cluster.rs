//! Holds many idle connections.
fn main() {}
