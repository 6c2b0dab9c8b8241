//! What is wrong with the settings, in words for whoever wrote them.

use std::fmt;

/// One thing to put right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// The key, such as `limits.max_connections`, or the name of a file.
    pub key: String,
    /// The value as written; masked where it may be a secret.
    pub value: Option<String>,
    /// Where it was written: a file's name, an environment variable, a flag.
    pub origin: String,
    /// What is wrong and what to do.
    pub advice: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)?;
        if let Some(value) = &self.value {
            write!(f, " = {value}")?;
        }
        write!(f, "  ({})\n      {}", self.origin, self.advice)
    }
}

/// Everything that is wrong, sorted by key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        write!(f, "{count} problem{} in the settings", if count == 1 { "" } else { "s" })?;
        for problem in &self.0 {
            write!(f, "\n\n  {problem}")?;
        }
        Ok(())
    }
}
