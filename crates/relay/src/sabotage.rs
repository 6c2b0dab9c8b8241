//! Ways to break the delivery promise on purpose, so that the delivery checker can be seen to find them. Only with the
//! feature `sabotage`, which no release has.

use std::sync::OnceLock;

/// What is done wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// What was missed is read from the log and not delivered.
    DropRepairs,
    /// Connections are not probed.
    SkipProbes,
}

static CHOSEN: OnceLock<Sabotage> = OnceLock::new();

/// From now on this is done wrong.
pub fn choose(sabotage: Sabotage) {
    let _ = CHOSEN.set(sabotage);
}

pub(crate) fn drops_repairs() -> bool {
    CHOSEN.get() == Some(&Sabotage::DropRepairs)
}

pub(crate) fn skips_probes() -> bool {
    CHOSEN.get() == Some(&Sabotage::SkipProbes)
}
