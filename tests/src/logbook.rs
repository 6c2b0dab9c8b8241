//! Lines that a child process wrote, kept in order and waited for.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How many lines are kept; the oldest go first.
const KEPT: usize = 200_000;

/// Lines as they come. Cloning shares them.
#[derive(Debug, Clone, Default)]
pub struct Logbook {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    grown: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<String>,
    closed: bool,
}

impl Logbook {
    /// Reads `source` to its end on a thread of its own.
    pub fn follow(&self, source: impl Read + Send + 'static) {
        let book = self.clone();
        std::thread::spawn(move || {
            let mut reader = BufReader::new(source);
            let mut line = Vec::new();
            loop {
                line.clear();
                match reader.read_until(b'\n', &mut line) {
                    Ok(0) | Err(_) => break,
                    Ok(_) => book.push(String::from_utf8_lossy(&line).trim_end().to_owned()),
                }
            }
            book.lock().closed = true;
            book.shared.grown.notify_all();
        });
    }

    fn push(&self, line: String) {
        let mut state = self.lock();
        if state.lines.len() == KEPT {
            state.lines.pop_front();
        }
        state.lines.push_back(line);
        drop(state);
        self.shared.grown.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first line, past or future, for which `pick` has an answer. The line stays.
    ///
    /// `Err` says why there was none: the deadline passed, or the writer is gone.
    pub fn find<T>(&self, within: Duration, mut pick: impl FnMut(&str) -> Option<T>) -> Result<T, String> {
        let deadline = Instant::now() + within;
        let mut state = self.lock();
        let mut seen = 0;
        loop {
            if let Some(answer) = state.lines.iter().skip(seen).find_map(|line| pick(line)) {
                return Ok(answer);
            }
            seen = state.lines.len();
            state = self.wait(state, deadline, within)?;
        }
    }

    /// Like [`find`](Self::find), but takes the line out.
    pub fn take<T>(&self, within: Duration, mut pick: impl FnMut(&str) -> Option<T>) -> Result<T, String> {
        let deadline = Instant::now() + within;
        let mut state = self.lock();
        let mut seen = 0;
        loop {
            for at in seen..state.lines.len() {
                if let Some(answer) = pick(&state.lines[at]) {
                    state.lines.remove(at);
                    return Ok(answer);
                }
            }
            seen = state.lines.len();
            state = self.wait(state, deadline, within)?;
        }
    }

    fn wait<'a>(
        &'a self,
        state: MutexGuard<'a, State>,
        deadline: Instant,
        within: Duration,
    ) -> Result<MutexGuard<'a, State>, String> {
        if state.closed {
            return Err("the process closed its output".to_owned());
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(format!("not within {within:?}"));
        }
        Ok(self.shared.grown.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0)
    }

    /// Every kept line.
    pub fn lines(&self) -> Vec<String> {
        self.lock().lines.iter().cloned().collect()
    }
}
