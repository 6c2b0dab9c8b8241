//! The public port, in the order a client meets it.
