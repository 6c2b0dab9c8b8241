//! Settings as written: one file, then the environment, then flags, each over the one before.
//!
//! Every value keeps where it came from. Nothing is interpreted here but names: what a value means is `check`'s.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use config::{Config, ConfigError, File, FileFormat, Map, Source, Value, ValueKind};

use super::known::{self, Known};
use super::problem::Problem;
use super::value;

/// What environment variables begin with; further `__` separate the parts of a key.
const PREFIX: &str = "TIDEGATE__";

/// Where settings are written.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sources {
    /// The file, if there is one.
    pub file: Option<PathBuf>,
    /// Environment variables, in any order; those of others are ignored.
    pub environment: Vec<(String, String)>,
    /// `key.path=value` of each `--set`, in order, and other flags with a key of their own.
    pub flags: Vec<Assignment>,
}

/// A key and its value, as text.
#[derive(Debug, Clone)]
pub(crate) struct Assignment {
    /// The key's path, such as `limits.max_connections`.
    pub key: String,
    /// The value.
    pub value: String,
    /// What to call the place where it was written.
    pub origin: String,
}

/// Written values by key path. Lists are values; sections are not in it.
pub(super) type Written = BTreeMap<String, Value>;

/// Reads all layers. Problems are collected, so that the rest can still be checked.
pub(super) fn read(sources: &Sources, known: &Known, problems: &mut Vec<Problem>) -> Written {
    let mut builder = Config::builder();
    if let Some(path) = &sources.file {
        match file(path) {
            Ok(mut values) => {
                // `config` would take brackets for a place in a list, however large.
                values.retain(|key, value| {
                    let plain = !key.contains(['[', ']']);
                    if !plain {
                        problems.push(not_a_key(key.clone(), value::origin(value, key)));
                    }
                    plain
                });
                builder = builder.add_source(Fixed(values));
            }
            Err(advice) => problems.push(Problem {
                key: path.display().to_string(),
                value: None,
                origin: "--config".to_owned(),
                advice,
            }),
        }
    }
    let mut assignments = environment(&sources.environment, known);
    assignments.extend(sources.flags.iter().cloned());
    for assignment in assignments {
        if assignment.key.split('.').all(known::is_plain) {
            let value = Value::new(Some(&assignment.origin), ValueKind::String(assignment.value));
            builder = builder.add_source(Fixed(Map::from([(assignment.key, value)])));
        } else {
            problems.push(not_a_key(assignment.key, assignment.origin));
        }
    }

    let mut written = Written::new();
    match builder.build() {
        Ok(merged) => flatten("", merged.cache, &mut written),
        Err(error) => problems.push(Problem {
            key: "settings".to_owned(),
            value: None,
            origin: "all layers".to_owned(),
            advice: error.to_string(),
        }),
    }
    written
}

fn not_a_key(key: String, origin: String) -> Problem {
    let advice = "not a key: write small letters, digits and `_`, with `.` between the parts; a list is set as a whole";
    Problem { key, value: None, origin, advice: advice.to_owned() }
}

/// Reads YAML text, for the compiled-in defaults.
pub(super) fn yaml(text: &str) -> Result<Written, ConfigError> {
    let parsed = Config::builder().add_source(File::from_str(text, FileFormat::Yaml)).build()?;
    let mut written = Written::new();
    flatten("", parsed.cache, &mut written);
    Ok(written)
}

fn file(path: &Path) -> Result<Map<String, Value>, String> {
    let format = match path.extension().and_then(|extension| extension.to_str()) {
        Some("yaml" | "yml") => FileFormat::Yaml,
        Some("toml") => FileFormat::Toml,
        Some("json") => FileFormat::Json,
        _ => return Err("the file's name must end in .yaml, .yml, .toml or .json".to_owned()),
    };
    // `File` would look for other extensions when the file is missing.
    match path.metadata() {
        Ok(found) if found.is_file() => {}
        Ok(_) => return Err("not a file".to_owned()),
        Err(error) => return Err(format!("cannot be read: {error}")),
    }
    let values = File::from(path).format(format).collect().map_err(|error| match error {
        ConfigError::FileParse { cause, .. } => format!("cannot be understood: {cause}"),
        other => format!("cannot be read: {other}"),
    })?;
    // `config` names the file relative to the working directory; operators know it as they wrote it.
    let origin = path.display().to_string();
    Ok(values.into_iter().map(|(key, value)| (key, value::stamped(value, &origin))).collect())
}

/// The variables that are ours. An empty one counts as absent where its key is known: shells, Compose and Helm cannot
/// easily leave one out.
fn environment(variables: &[(String, String)], known: &Known) -> Vec<Assignment> {
    let mut ours: Vec<Assignment> = variables
        .iter()
        .filter_map(|(name, value)| {
            let key = name.strip_prefix(PREFIX)?.to_ascii_lowercase().replace("__", ".");
            if value.is_empty() && known.is_key(&key) {
                return None;
            }
            Some(Assignment { key, value: value.clone(), origin: format!("environment {name}") })
        })
        .collect();
    ours.sort_by(|a, b| a.key.cmp(&b.key));
    ours
}

/// Values that are at hand already, as a source for `config` to merge.
#[derive(Debug, Clone)]
struct Fixed(Map<String, Value>);

impl Source for Fixed {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(self.0.clone())
    }
}

fn flatten(path: &str, value: Value, into: &mut Written) {
    match value.kind {
        ValueKind::Table(table) if !table.is_empty() => {
            for (key, value) in table {
                let path = if path.is_empty() { key } else { format!("{path}.{key}") };
                flatten(&path, value, into);
            }
        }
        ValueKind::Table(_) if path.is_empty() => {}
        ValueKind::Table(_) => {
            into.insert(path.to_owned(), Value::new(None, ValueKind::Nil));
        }
        _ => {
            into.insert(path.to_owned(), value);
        }
    }
}
