//! Settings: as written, then checked and resolved. The only module that reads the environment.
//!
//! Nothing past this module sees a raw value: the rest of the node is given [`Settings`], in which every number is
//! within its bounds, every duration a `Duration` and every `auto` a number. The way there: `layers` puts the file, the
//! environment and the flags over each other, `known` finds keys that do not exist, `check` takes the keys out through a
//! `reader` that remembers all problems. Defaults are in `defaults.yaml` alone.

mod certificate;
mod check;
mod effective;
mod known;
mod layers;
mod machine;
mod namespaces;
mod problem;
mod proxy;
mod reader;
mod redis;
mod resolved;
#[cfg(feature = "sabotage")]
pub(crate) mod sabotage;
mod streams;
#[cfg(test)]
mod tests;
mod ticket_keys;
mod value;

pub(crate) use layers::{Assignment, Sources};
pub(crate) use machine::Machine;
pub(crate) use problem::Problems;
pub(crate) use resolved::{
    ApiKey, EndpointSettings, Limits, Log, LogFormat, ProxySettings, RecordLayer, Scope, Settings, Tls,
};
pub(crate) use ticket_keys::{TicketKey, read as read_ticket_keys};

/// Settings that passed every check.
#[derive(Debug, Clone)]
pub(crate) struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// What is allowed but hardly meant; to be logged at start.
    pub warnings: Vec<String>,
    /// The effective settings as YAML, secrets masked, each with where it came from.
    pub effective: String,
}

/// Reads, checks and resolves. Errors: everything that is wrong.
pub(crate) fn load(sources: &Sources, machine: &Machine) -> Result<Loaded, Problems> {
    let known = known::Known::new();
    let mut problems = Vec::new();
    let written = layers::read(sources, &known, &mut problems);
    let mut reader = reader::Reader::new(&known, &written);
    let settings = check::settings(&mut reader, machine);
    problems.append(&mut reader.problems);
    if !problems.is_empty() {
        problems.sort_by(|a, b| a.key.cmp(&b.key));
        return Err(Problems(problems));
    }
    let effective = effective::yaml(&known, &reader, &settings);
    Ok(Loaded { settings, warnings: reader.warnings, effective })
}

/// The environment variables of this process.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
pub(crate) fn environment() -> Vec<(String, String)> {
    let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect()
}
