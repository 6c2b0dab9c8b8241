//! Operations: health, drain, registry.

pub(crate) mod drain;
