//! When, where and of which state of the code a run is.

use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::report::About;

/// What is known before the run.
pub(super) fn about() -> About {
    let meminfo = read("/proc/meminfo");
    let memory = field(&meminfo, "MemTotal").and_then(|value| value.split_whitespace().next()?.parse().ok());
    let load = read("/proc/loadavg");
    About {
        date: today(),
        processor: field(&read("/proc/cpuinfo"), "model name").unwrap_or("unknown").to_owned(),
        processors: std::thread::available_parallelism().map_or(1, usize::from),
        memory_bytes: memory.unwrap_or(0_u64) * 1_024,
        kernel: format!("Linux {}", read("/proc/sys/kernel/osrelease").trim()),
        version: env!("CARGO_PKG_VERSION").into(),
        commit: commit(),
        command: command(),
        seconds: 0.0,
        load_before: load.split_whitespace().next().and_then(|value| value.parse().ok()).unwrap_or(0.0),
    }
}

/// How this program was called.
fn command() -> String {
    let words = read("/proc/self/cmdline");
    let words = words.trim_end_matches('\0').split('\0').skip(1);
    std::iter::once("tidegate-bench").chain(words).collect::<Vec<_>>().join(" ")
}

/// What cannot be read is empty: it is told, not measured.
fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}

/// The commit of the working directory, with a mark if there is more than was committed.
fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    match (git(&["rev-parse", "--short", "HEAD"]), git(&["status", "--porcelain", "--untracked-files=no"])) {
        (Some(commit), Some(changed)) if changed.is_empty() => commit,
        (Some(commit), _) => format!("{commit} with changes"),
        _ => "unknown".into(),
    }
}

fn today() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    date(since.as_secs() / 86_400)
}

/// The date of a day, counted from 1970-01-01, in UTC.
fn date(mut day: u64) -> String {
    let leap = |year: u64| (year.is_multiple_of(4) && !year.is_multiple_of(100)) || year.is_multiple_of(400);
    let mut year = 1970;
    while day >= 365 + u64::from(leap(year)) {
        day -= 365 + u64::from(leap(year));
        year += 1;
    }
    let mut month = 1;
    for length in [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    format!("{year}-{month:02}-{:02}", day + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_has_its_date() {
        for (day, text) in [
            (0, "1970-01-01"),
            (59, "1970-03-01"),
            (19_782, "2024-02-29"),
            (20_088, "2024-12-31"),
            (20_779, "2026-11-22"),
        ] {
            assert_eq!(date(day), text);
        }
    }
}
