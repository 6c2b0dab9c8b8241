//! What an operator may rely on when writing settings.
#![expect(clippy::unwrap_used, reason = "a failing test is what should happen")]

mod layers;
mod namespaces;
mod proxy;
mod reference;
mod rules;
mod secrets;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use tidegate_hub::{Delivery, History, Namespace, Presence, Right};
use tidegate_relay::{ChannelRules, OnGap, RelaySettings, Retention, Topology};

use super::problem::Problem;
use super::*;

/// A directory that goes away with the test.
struct Scratch(tempfile::TempDir);

impl Scratch {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

fn machine() -> Machine {
    Machine { cpus: 4, files: 20_200, memory: Some(8 << 30), host: "gull".to_owned() }
}

fn flags(pairs: &[(&str, &str)]) -> Vec<Assignment> {
    pairs
        .iter()
        .map(|(key, value)| Assignment {
            key: (*key).to_owned(),
            value: (*value).to_owned(),
            origin: "--set".to_owned(),
        })
        .collect()
}

fn environment(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn with_flags(pairs: &[(&str, &str)]) -> Result<Loaded, Problems> {
    load(&Sources { flags: flags(pairs), ..Sources::default() }, &machine())
}

fn with_yaml(text: &str) -> Result<Loaded, Problems> {
    let scratch = Scratch::new();
    let file = scratch.write("tidegate.yaml", text);
    load(&Sources { file: Some(file), ..Sources::default() }, &machine())
}

/// The one problem there should be.
fn problem(result: Result<Loaded, Problems>) -> Problem {
    let mut problems = result.unwrap_err().0;
    assert_eq!(problems.len(), 1, "{problems:#?}");
    problems.remove(0)
}
