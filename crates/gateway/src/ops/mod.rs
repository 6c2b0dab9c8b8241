//! Operations: drain, health, what a connection costs, and the first words of dev mode.

pub(crate) mod drain;
pub(crate) mod health;
pub(crate) mod memory;
pub(crate) mod welcome;
