//! Log lines at a bounded rate: what happens a thousand times a second is said once, with how often it happened.
//!
//! Decides only whether to speak; the caller writes the line.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lets one line through in each interval and counts the others.
#[derive(Debug)]
pub struct Sparse {
    every: Duration,
    state: Mutex<(Option<Instant>, u64)>,
}

impl Sparse {
    /// Lets a line through each time so long has passed.
    pub const fn new(every: Duration) -> Self {
        Self { every, state: Mutex::new((None, 0)) }
    }

    /// Says whether a line may be written now, and how many were held back since the last one.
    pub fn speak(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, held_back) = &mut *state;
        if last.is_some_and(|last| now.saturating_duration_since(last) < self.every) {
            *held_back += 1;
            return None;
        }
        *last = Some(now);
        Some(std::mem::take(held_back))
    }
}

/// The first bytes of a payload, fit for a log line.
pub(crate) fn sample(payload: &[u8]) -> String {
    payload[..payload.len().min(64)].escape_ascii().to_string()
}

/// A text that may repeat what a peer sent, cut to fit a log line.
pub(crate) fn shortened(text: &str) -> String {
    const MOST: usize = 256;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_makes_one_line_a_second_with_the_count_of_the_others() {
        let sparse = Sparse::new(Duration::from_secs(1));
        let start = Instant::now();
        assert_eq!(sparse.speak(start), Some(0));
        for _ in 0..999 {
            assert_eq!(sparse.speak(start + Duration::from_millis(500)), None);
        }
        assert_eq!(sparse.speak(start + Duration::from_secs(1)), Some(999));
        assert_eq!(sparse.speak(start + Duration::from_secs(3)), Some(0));
    }

    #[test]
    fn a_sample_shows_64_bytes_and_no_raw_control_characters() {
        assert_eq!(sample(b"a\n\x01\xff"), "a\\n\\x01\\xff");
        assert_eq!(sample(&[b'x'; 1000]).len(), 64);
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(shortened("größe"), "größe");
        assert_eq!(shortened(&"ö".repeat(1000)), format!("{}...", "ö".repeat(256)));
    }
}
