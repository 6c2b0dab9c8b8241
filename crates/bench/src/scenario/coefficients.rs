//! What things cost, as measured: the file that the calculator reckons with and that the suite writes.
//!
//! Each value says where it comes from. A value that is not there is not guessed: what needs it is refused.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// The values that this program was built with.
const BUILT_IN: &str = include_str!("coefficients.json");

/// All values, and the run that they are from.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Coefficients {
    /// What measured them.
    pub(crate) source: String,
    /// When.
    pub(crate) date: String,
    /// On what.
    pub(crate) machine: String,
    /// Of which state of the code.
    pub(crate) commit: String,
    /// By name.
    pub(crate) values: BTreeMap<String, Value>,
}

/// One value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Value {
    pub(crate) value: f64,
    pub(crate) unit: String,
    /// The scenario that measured it, or `assumed: ` and why.
    pub(crate) origin: String,
}

impl Coefficients {
    /// Those of a file, or those that this program was built with.
    pub(crate) fn load(file: Option<&Path>) -> Result<Self, Error> {
        let Some(file) = file else {
            return Self::parse(BUILT_IN, "the built-in coefficients");
        };
        let name = format!("--coefficients {}", file.display());
        let text = std::fs::read_to_string(file).map_err(|error| Error::Asked(format!("{name}: {error}")))?;
        Self::parse(&text, &name)
    }

    fn parse(text: &str, name: &str) -> Result<Self, Error> {
        let read: Self =
            serde_json::from_str(text).map_err(|error| Error::Asked(format!("{name}: {error}")))?;
        match read.values.iter().find(|(_, it)| !it.value.is_finite() || it.value < 0.0) {
            Some((key, it)) => Err(Error::Asked(format!("{name}: {key} is {}", it.value))),
            None => Ok(read),
        }
    }

    /// Writes them to a file. Errors: it cannot be written.
    pub(crate) fn write(&self, file: &Path) -> Result<(), Error> {
        let text = serde_json::to_string_pretty(self).map_err(|error| Error::Asked(error.to_string()))?;
        std::fs::write(file, text + "\n")
            .map_err(|error| Error::Asked(format!("--coefficients {}: {error}", file.display())))
    }

    /// A value. Errors: it is not there.
    pub(crate) fn get(&self, name: &str) -> Result<f64, Error> {
        self.values.get(name).map(|it| it.value).ok_or_else(|| {
            Error::Asked(format!(
                "the coefficients of {} have no {name}: run the suite where it can be measured, and name its file \
                 with --coefficients",
                self.date
            ))
        })
    }
}

/// To three significant digits: more would claim more than was measured.
pub(crate) fn rounded(value: f64) -> f64 {
    format!("{value:.2e}").parse().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failing test is what should happen")]
    use super::*;

    #[test]
    fn the_built_in_values_say_where_they_come_from() {
        let built_in = Coefficients::load(None).unwrap();
        assert!(!built_in.source.is_empty() && !built_in.date.is_empty() && !built_in.machine.is_empty());
        for (name, it) in &built_in.values {
            assert!(!it.origin.is_empty() && !it.unit.is_empty() && it.value > 0.0, "{name}: {it:?}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_reckoned_with_is_refused_by_name() {
        let text = BUILT_IN.replacen("\"value\": ", "\"value\": -", 1);
        let error = Coefficients::parse(&text, "--coefficients x").unwrap_err().to_string();
        assert!(error.starts_with("--coefficients x: ") && error.contains(" is -"), "{error}");
        let error = Coefficients::load(Some(Path::new("/nowhere/x.json"))).unwrap_err().to_string();
        assert!(error.contains("/nowhere/x.json"), "{error}");
    }
}
