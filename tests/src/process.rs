//! A child process: its log kept, its end certain.

use std::io::Read;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::deadline::{PATIENCE, eventually};
use crate::logbook::Logbook;

/// How many lines of a process's log a failing test prints.
const SHOWN: usize = 60;

/// A child process. Killed when dropped; when a test fails, what it wrote last is printed.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    /// What it wrote on stdout.
    pub out: Logbook,
    /// What it wrote on stderr.
    pub err: Logbook,
    status: Option<ExitStatus>,
}

impl Process {
    /// Starts `command`; `name` is what a failing test calls it.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(name: impl Into<String>, command: &mut Command) -> Self {
        let name = name.into();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {name} ({:?}): {e}", command.get_program()));
        let (out, err) = (Logbook::default(), Logbook::default());
        if let Some(source) = child.stdout.take() {
            out.follow(source);
        }
        if let Some(source) = child.stderr.take() {
            err.follow(source);
        }
        Self { name, child, out, err, status: None }
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its stdin, once.
    pub fn stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Sends a signal; nothing if it has ended.
    pub fn signal(&mut self, signal: Signal) {
        if self.exited().is_some() {
            return;
        }
        if let Some(pid) = i32::try_from(self.pid()).ok().and_then(Pid::from_raw) {
            // It may end between the look and the call.
            let _ = kill_process(pid, signal);
        }
    }

    /// How it ended, if it has.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().ok().flatten();
        }
        self.status
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it has not ended `within`.
    pub fn wait(&mut self, within: Duration) -> ExitStatus {
        let what = format!("{} ends", self.name);
        eventually(&what, within, || self.exited())
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        // A stopped process takes SIGKILL too.
        let _ = self.child.wait().map(|status| self.status = Some(status));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            show(&self.name, "stdout", &self.out);
            show(&self.name, "stderr", &self.err);
        }
        self.kill();
    }
}

#[expect(clippy::print_stderr, reason = "what a failing test shows")]
fn show(name: &str, stream: &str, book: &Logbook) {
    let lines = book.lines();
    if lines.is_empty() {
        return;
    }
    eprintln!("--- {name}, {stream}, {} lines, the last:", lines.len());
    for line in &lines[lines.len().saturating_sub(SHOWN)..] {
        eprintln!("    {line}");
    }
}

/// What a short-lived command said.
#[derive(Debug)]
pub struct Said {
    /// How it ended.
    pub status: ExitStatus,
    /// Its stdout, trimmed at the end.
    pub out: String,
    /// Its stderr, trimmed at the end.
    pub err: String,
}

/// Runs `command` to its end.
///
/// # Panics
/// When it cannot be started, or takes longer than [`PATIENCE`].
pub fn run(command: &mut Command) -> Said {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("cannot start {:?}: {e}", command.get_program()));
    let out = drain(child.stdout.take());
    let err = drain(child.stderr.take());
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            _ if Instant::now() > deadline => {
                let _ = child.kill();
                let _ = child.wait();
                panic!("{:?} took longer than {PATIENCE:?}", command.get_program());
            }
            _ => crate::deadline::pause(Duration::from_millis(2)),
        }
    };
    let text =
        |thread: std::thread::JoinHandle<String>| thread.join().unwrap_or_default().trim_end().to_owned();
    Said { status, out: text(out), err: text(err) }
}

fn drain(source: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut source) = source {
            let _ = source.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
