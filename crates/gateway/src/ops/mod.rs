//! Operations: drain, health, and the first words of dev mode.

pub(crate) mod drain;
pub(crate) mod health;
pub(crate) mod welcome;
