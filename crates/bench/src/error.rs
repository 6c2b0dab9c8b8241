//! What can go wrong with a measurement, in words for the person who asked for it.

use std::io;
use std::path::PathBuf;

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The address of the server cannot be used.
    #[error("--target {target}: {why}; write ws://HOST:PORT/PATH or wss://HOST:PORT/PATH")]
    Target {
        /// As it was typed.
        target: String,
        /// What is wrong with it.
        why: String,
    },
    /// A certificate authority cannot be used.
    #[error("--ca {}: {why}", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The server's process cannot be looked at.
    #[error("--pid {pid}: failed to read /proc/{pid}/{file}: {why}")]
    Process {
        /// The process.
        pid: u32,
        /// Which of its files.
        file: &'static str,
        /// What was wrong.
        why: String,
    },
    /// Something of the operating system.
    #[error("failed to {doing}: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// What it answered.
        source: io::Error,
    },
    /// A server did not start.
    #[error("{what} did not start: {why}")]
    Start {
        /// Which one.
        what: String,
        /// What was seen of it.
        why: String,
    },
    /// A client process ended or spoke nonsense.
    #[error("client process {index}: {why}")]
    Client {
        /// Which one, from 0.
        index: usize,
        /// What happened.
        why: String,
    },
    /// Not all connections could be opened, so no figure would mean what it says.
    #[error("only {opened} of {asked} connections were opened: {why}")]
    Opening {
        /// How many stand.
        opened: u64,
        /// How many were asked for.
        asked: u64,
        /// The first reason.
        why: String,
    },
    /// Nothing moved any more.
    #[error("{what} made no progress for {seconds} s")]
    Stalled {
        /// What was waited for.
        what: &'static str,
        /// How long.
        seconds: u64,
    },
    /// A scenario that the suite called has no result.
    #[error("{name}: {why}")]
    Scenario {
        /// Which one.
        name: String,
        /// In its own words.
        why: String,
    },
    /// A publication was refused.
    #[error("the server refused a publication: {0}")]
    Refused(String),
    /// A figure is worse than the committed one by more than it may be.
    #[error(
        "slower than committed, or not committed yet:\n  {}\nIf that is meant, say why in the commit and take the new values: make bench-check ARGS=--update",
        figures.join("\n  ")
    )]
    Slower {
        /// The lines of the table that say so.
        figures: Vec<String>,
    },
    /// Memory of the server grows with time.
    #[error(
        "the server's memory grows: by {growth_kib} KiB in the {minutes:.1} minutes that were looked at, and \
         {allowed_kib} KiB are allowed"
    )]
    Grew {
        /// By how much, by its slope.
        growth_kib: u64,
        /// How much is no verdict.
        allowed_kib: u64,
        /// In how long.
        minutes: f64,
    },
    /// The options contradict each other or the machine.
    #[error("{0}")]
    Asked(String),
}

impl Error {
    /// For `map_err`: an error of the system with what was tried.
    pub(crate) fn io(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing, source }
    }
}
