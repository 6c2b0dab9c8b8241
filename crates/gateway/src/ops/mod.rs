//! Operations: drain, and the first words of dev mode.

pub(crate) mod drain;
pub(crate) mod welcome;
