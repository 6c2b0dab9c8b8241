//! A scenario as its user calls it: this program once more, with `--json`, watched until it ends.
//!
//! The suite knows scenarios by their command line and their output alone, so it finds what a reader of the guide
//! would find, and a scenario that fails takes nothing else with it.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::clock;
use crate::error::Error;
use crate::fleet::itself;

/// Runs a scenario to its end and returns what it printed. What it says meanwhile is passed on.
///
/// Errors: it failed, in its own words; or it took longer than `most`, and was ended.
pub(super) fn scenario(
    arguments: &[String],
    most: Duration,
    mut said: impl FnMut(&str),
) -> Result<Value, Error> {
    let name = arguments.first().map(String::as_str).unwrap_or_default().to_owned();
    let failed = |why: String| Error::Scenario { name: name.clone(), why };
    let mut child = itself()
        .args(arguments)
        .arg("--json")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    let (Some(mut out), Some(err)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(failed("it has no pipes".into()));
    };
    let printed = std::thread::spawn(move || {
        let mut text = String::new();
        out.read_to_string(&mut text).map(|_| text)
    });
    // It says a line in seconds. When nobody listens it waits, and only with talking.
    let (sender, lines) = sync_channel(256);
    std::thread::spawn(move || {
        for line in BufReader::new(err).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    let began = Instant::now();
    let mut last = String::new();
    let status = loop {
        while let Ok(line) = lines.try_recv() {
            said(&line);
            last = telling(last, line);
        }
        if let Some(status) = child.try_wait().map_err(|error| failed(error.to_string()))? {
            break status;
        }
        if began.elapsed() > most {
            // It may have ended this moment.
            let _ = child.kill();
            let _ = child.wait();
            return Err(failed(format!(
                "it was not through after {} s; it last said {last:?}",
                most.as_secs()
            )));
        }
        clock::pass(Duration::from_millis(20));
    };
    let text = printed.join().map_err(|_| failed("its output could not be read".into()))?;
    let text = text.map_err(|error| failed(error.to_string()))?;
    if !status.success() {
        while let Ok(line) = lines.recv_timeout(Duration::from_millis(100)) {
            last = telling(last, line);
        }
        return Err(failed(last.trim_start_matches("tidegate-bench: ").to_owned()));
    }
    serde_json::from_str(&text).map_err(|error| failed(format!("its output is no JSON: {error}")))
}

/// Which of two lines says more of why a scenario ended: the one that calls itself an error, else the later.
fn telling(before: String, now: String) -> String {
    let tells = |line: &str| line.starts_with("tidegate-bench: ") || line.starts_with("error: ");
    if tells(&before) && !tells(&now) { before } else { now }
}

/// A number of a result, by its path such as `/delivery/cpu_seconds`. Errors: it is not there.
pub(super) fn number(result: &Value, path: &str) -> Result<f64, Error> {
    let name = result.get("scenario").and_then(Value::as_str).unwrap_or("scenario").to_owned();
    result
        .pointer(path)
        .and_then(Value::as_f64)
        .ok_or_else(|| Error::Scenario { name, why: format!("its result has no number {path}") })
}
