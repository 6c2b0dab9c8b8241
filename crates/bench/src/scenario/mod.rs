//! The scenarios: what is done to a server and what is read off it. One file each.

pub(crate) mod chat;
pub(crate) mod coefficients;
pub(crate) mod connect;
pub(crate) mod delivery;
pub(crate) mod direct;
pub(crate) mod fanout;
pub(crate) mod idle;
pub(crate) mod polling;
pub(crate) mod publisher;
pub(crate) mod recover;
pub(crate) mod setup;
pub(crate) mod size;
pub(crate) mod slope;
pub(crate) mod slow;
pub(crate) mod soak;
pub(crate) mod storm;

use std::io::{self, Write};

use serde::Serialize;

use crate::error::Error;
use crate::latency::{Counted, Latencies, Summary};

/// A result that can be shown as a table.
pub(crate) trait Rows {
    /// (what, value with its unit).
    fn rows(&self) -> Vec<(String, String)>;
}

/// Prints a result, as JSON or as a table.
pub(crate) fn print(result: &(impl Serialize + Rows), json: bool) -> Result<(), Error> {
    let text = if json {
        let text = serde_json::to_string_pretty(result).map_err(|error| Error::Asked(error.to_string()))?;
        text + "\n"
    } else {
        let rows = result.rows();
        let width = rows.iter().map(|(what, _)| what.chars().count()).max().unwrap_or(0);
        rows.iter().map(|(what, value)| format!("{what:<width$}  {value}\n")).collect()
    };
    io::stdout().lock().write_all(text.as_bytes()).map_err(Error::io("write the result"))
}

/// What several client processes recorded, as one.
pub(crate) fn merged<'a>(counted: impl IntoIterator<Item = &'a Counted>) -> Option<Summary> {
    let mut latencies = Latencies::new();
    counted.into_iter().for_each(|counted| latencies.merge(counted));
    latencies.summary()
}

/// A row for latencies.
pub(crate) fn latency_row(what: &str, summary: Option<Summary>) -> (String, String) {
    let text = summary.map_or_else(
        || "none".to_owned(),
        |it| format!("p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms", it.p50_ms, it.p99_ms, it.max_ms),
    );
    (what.to_owned(), text)
}

/// Bytes as MiB.
pub(crate) fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", crate::process::to_f64(bytes) / 1_048_576.0)
}
