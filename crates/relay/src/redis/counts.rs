//! How many channels the node's workers want, over all parts: each interest counts its own.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Cloning shares it.
#[derive(Clone, Default)]
pub(super) struct Counts(Arc<Mutex<Vec<Arc<AtomicUsize>>>>);

impl Counts {
    pub(super) fn add(&self, count: Arc<AtomicUsize>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(count);
    }

    pub(super) fn sum(&self) -> usize {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }
}
