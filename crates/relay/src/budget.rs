//! A bound in bytes for a queue that is bounded in items already.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What each item costs besides its payload.
const ITEM_BYTES: usize = 256;

/// How many bytes a queue may hold.
#[derive(Debug)]
pub(crate) struct Budget {
    most: usize,
    held: AtomicUsize,
}

/// Bytes of a queue's budget; given back when dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    pub(crate) const fn new(most: usize) -> Self {
        Self { most, held: AtomicUsize::new(0) }
    }

    /// Room for a payload, unless there is none. One alone always has room, or it could never pass.
    pub(crate) fn claim(self: &Arc<Self>, payload: usize) -> Option<Claim> {
        let bytes = payload.saturating_add(ITEM_BYTES);
        let fits = |held: usize| held.checked_add(bytes).filter(|sum| *sum <= self.most || held == 0);
        self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).ok()?;
        Some(Claim { budget: Arc::clone(self), bytes })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.budget.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_given_back() {
        let budget = Arc::new(Budget::new(1000));
        let first = budget.claim(500);
        assert!(first.is_some());
        assert!(budget.claim(500).is_none());
        drop(first);
        let second = budget.claim(500);
        assert!(second.is_some());
        assert!(budget.claim(usize::MAX).is_none());
        drop(second);
        assert!(budget.claim(5000).is_some(), "alone it may be larger than the bound");
    }
}
