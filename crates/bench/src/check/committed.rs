//! The committed values: a file that people read and that `--update` writes.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

use super::{Figure, Kind};
use crate::error::Error;

/// How many times the tolerance of instructions is, where another compiler made the committed values.
pub(crate) const OTHER_COMPILER: f64 = 4.0;

/// What stands at the head of the file.
const ABOUT: &str = "What `make bench-check` holds this tree against: docs/guides/benchmarking.md. Written by \
                     `make bench-check ARGS=--update`; tolerances are kept, and may be edited.";

/// The file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Committed {
    about: String,
    /// What the values were made with; none while there are none.
    pub(crate) compiler: Option<Compiler>,
    pub(crate) figures: BTreeMap<String, Entry>,
}

/// What decides which instructions there are, beside the source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Compiler {
    /// The compiler's release.
    rustc: String,
    /// The machine that it compiles for.
    host: String,
    /// Whether the processor has the vectors that libraries look for when they run.
    avx2: bool,
}

/// A committed figure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    pub(crate) value: f64,
    unit: String,
    /// How much it may be off before it counts as another value.
    tolerance_percent: f64,
}

/// How a figure stands to the committed one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Same,
    Better,
    Worse,
}

impl Committed {
    /// Reads the file. It need not be there if it is to be written.
    pub(crate) fn read(path: &Path, may_be_missing: bool) -> Result<Self, Error> {
        let failed = |why: String| {
            let path = path.display();
            Error::Asked(format!("--committed {path}: {why}; run it in the root of the tree"))
        };
        match std::fs::read_to_string(path) {
            Ok(text) => serde_json::from_str(&text).map_err(|error| failed(error.to_string())),
            Err(error) if may_be_missing && error.kind() == std::io::ErrorKind::NotFound => {
                Ok(Self { about: ABOUT.to_owned(), compiler: None, figures: BTreeMap::new() })
            }
            Err(error) => Err(failed(error.to_string())),
        }
    }

    /// Writes the file.
    pub(crate) fn write(&mut self, path: &Path) -> Result<(), Error> {
        ABOUT.clone_into(&mut self.about);
        let text = serde_json::to_string_pretty(self).map_err(|error| Error::Asked(error.to_string()))?;
        std::fs::write(path, text + "\n").map_err(Error::io("write the committed values"))
    }

    /// Takes a value. The tolerance stays, if there was one.
    pub(crate) fn set(&mut self, figure: &Figure, value: f64) {
        let known = self.figures.get(figure.name).map(|entry| entry.tolerance_percent);
        let entry = Entry {
            value: (value * 1000.0).round() / 1000.0,
            unit: figure.unit.to_owned(),
            tolerance_percent: known.unwrap_or(figure.kind.tolerance()),
        };
        self.figures.insert(figure.name.to_owned(), entry);
    }
}

impl Kind {
    /// What a figure may be off, in percent, where the file says nothing yet. Some times what repeated runs differ by.
    const fn tolerance(self) -> f64 {
        match self {
            // Hashers are keyed anew in each process.
            Self::Instructions(..) => 3.0,
            Self::Allocations(..) | Self::Heap(..) => 1.0,
            // Pages, the allocator's own tables, which worker got whom.
            Self::Connection(_) => 15.0,
        }
    }
}

impl Entry {
    /// What the figure may be off now, in percent.
    pub(crate) fn tolerance(&self, kind: Kind, other_compiler: bool) -> f64 {
        match kind {
            Kind::Instructions(..) if other_compiler => self.tolerance_percent * OTHER_COMPILER,
            _ => self.tolerance_percent,
        }
    }

    /// Holds a value against the committed one.
    pub(crate) fn judge(&self, value: f64, tolerance_percent: f64) -> Verdict {
        // A thousandth is what the file rounds to.
        let allowed = self.value.abs() * tolerance_percent / 100.0 + 0.001;
        match value - self.value {
            change if change > allowed => Verdict::Worse,
            change if change < -allowed => Verdict::Better,
            _ => Verdict::Same,
        }
    }
}

impl Compiler {
    /// The one that cargo uses here, and this machine.
    pub(crate) fn here() -> Result<Self, Error> {
        let failed = |why: String| Error::Start { what: "rustc -vV".into(), why };
        let output = Command::new("rustc").arg("-vV").output().map_err(|error| failed(error.to_string()))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let field = |name: &str| {
            let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            found.map(str::to_owned).ok_or_else(|| failed(format!("it said no {name}")))
        };
        Ok(Self { rustc: field("release")?, host: field("host")?, avx2: avx2() })
    }
}

#[cfg(target_arch = "x86_64")]
fn avx2() -> bool {
    std::arch::is_x86_feature_detected!("avx2")
}

#[cfg(not(target_arch = "x86_64"))]
const fn avx2() -> bool {
    false
}

impl fmt::Display for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let vectors = if self.avx2 { "with" } else { "without" };
        write!(f, "rustc {} for {} {vectors} AVX2", self.rustc, self.host)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failing test is what should happen")]
    use super::*;

    const KIND: Kind = Kind::Instructions("fanout-one", 1);

    fn entry(value: f64, tolerance_percent: f64) -> Entry {
        Entry { value, unit: "instructions".into(), tolerance_percent }
    }

    #[test]
    fn a_value_is_worse_only_beyond_its_tolerance() {
        let entry = entry(200.0, 3.0);
        for (value, expected) in [
            (200.0, Verdict::Same),
            (205.9, Verdict::Same),
            (206.2, Verdict::Worse),
            (194.1, Verdict::Same),
            (193.8, Verdict::Better),
        ] {
            assert_eq!(entry.judge(value, entry.tolerance(KIND, false)), expected, "{value}");
        }
        assert_eq!(entry.judge(220.0, entry.tolerance(KIND, true)), Verdict::Same, "another compiler");
        let heap = Kind::Allocations("fanout-one", 1);
        assert!((entry.tolerance(heap, true) - 3.0).abs() < 1e-9, "no compiler decides about allocations");
    }

    #[test]
    fn a_figure_of_nothing_may_not_become_something() {
        assert_eq!(entry(0.0, 3.0).judge(0.0, 3.0), Verdict::Same);
        assert_eq!(entry(0.0, 3.0).judge(1.0, 3.0), Verdict::Worse);
    }

    #[test]
    fn an_update_keeps_a_tolerance_that_was_edited() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("check.json");
        assert!(Committed::read(&path, false).unwrap_err().to_string().contains("check.json"));
        let mut committed = Committed::read(&path, true).unwrap();
        let figure = Figure { name: "a", unit: "instructions", kind: KIND };
        committed.set(&figure, 100.0004);
        assert_eq!(committed.figures["a"], entry(100.0, 3.0));
        committed.figures.get_mut("a").unwrap().tolerance_percent = 7.0;
        committed.set(&figure, 50.0);
        committed.write(&path).unwrap();
        let read = Committed::read(&path, false).unwrap();
        assert_eq!(read.figures["a"], entry(50.0, 7.0));
        assert_eq!(read, committed);
    }
}
