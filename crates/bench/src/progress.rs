//! What is happening, said on standard error while it happens.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// On a terminal one line that changes; elsewhere a line when a phase begins and every ten seconds.
pub(crate) struct Progress {
    terminal: bool,
    silent: bool,
    said: Option<Instant>,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self { terminal: io::stderr().is_terminal(), silent: false, said: None }
    }

    /// Says nothing: for what happens beside something that is said.
    pub(crate) fn silent() -> Self {
        Self { terminal: false, silent: true, said: None }
    }

    /// A phase begins.
    pub(crate) fn phase(&mut self, words: &str) {
        self.said = None;
        self.say(words);
    }

    /// How far it is. Said at most five times a second on a terminal.
    pub(crate) fn say(&mut self, words: &str) {
        let every = if self.terminal { Duration::from_millis(200) } else { Duration::from_secs(10) };
        if self.silent || self.said.is_some_and(|said| said.elapsed() < every) {
            return;
        }
        self.said = Some(Instant::now());
        // Who does not read it misses nothing that is not in the result.
        let mut out = io::stderr().lock();
        let _ = if self.terminal { write!(out, "\r\x1b[K{words}") } else { writeln!(out, "{words}") };
        let _ = out.flush();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.terminal && self.said.is_some() {
            let _ = write!(io::stderr().lock(), "\r\x1b[K");
        }
    }
}
