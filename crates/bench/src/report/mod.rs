//! What a run of the suite found, as data; and the page and the pictures that are made of it.
//!
//! The data file is the truth. Page and pictures are functions of it and of nothing else, so that anybody can make them
//! again, and a test can hold that the committed ones are what the committed data says.

pub(crate) mod draw;
pub(crate) mod goals;
pub(crate) mod page;
pub(crate) mod pictures;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::{Deserialize, Serialize};

use self::goals::{DEFINITIONS, Definition};
use crate::error::Error;

/// Everything a run found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Data {
    pub(crate) about: About,
    pub(crate) figures: Vec<Figure>,
    pub(crate) series: Vec<Series>,
    pub(crate) polling: Vec<Way>,
    /// What was to be measured and was not.
    pub(crate) missing: Vec<Missing>,
}

/// When, where and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct About {
    pub(crate) date: String,
    pub(crate) processor: String,
    pub(crate) processors: usize,
    pub(crate) memory_bytes: u64,
    pub(crate) kernel: String,
    pub(crate) version: String,
    pub(crate) commit: String,
    pub(crate) command: String,
    pub(crate) seconds: f64,
    /// Of the minute before it began: what else the machine had to do.
    pub(crate) load_before: f64,
}

/// One figure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figure {
    pub(crate) key: String,
    pub(crate) group: String,
    pub(crate) name: String,
    pub(crate) unit: String,
    pub(crate) goal: Option<Goal>,
    /// Medians.
    pub(crate) tidegate: Option<f64>,
    pub(crate) baseline: Option<f64>,
    /// Tidegate's to the baseline's.
    pub(crate) ratio: Option<f64>,
    pub(crate) verdict: Verdict,
    /// All that was measured, in order.
    pub(crate) tidegate_all: Vec<f64>,
    pub(crate) baseline_all: Vec<f64>,
}

/// What Tidegate's figure should be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Goal {
    AtMost(f64),
    AtLeast(f64),
}

/// Whether it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    Met,
    Missed,
    /// There is no goal.
    NoGoal,
    /// There is a goal and nothing was measured.
    NotMeasured,
}

/// Figures over something that grows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Series {
    pub(crate) key: String,
    pub(crate) x: String,
    pub(crate) y: String,
    pub(crate) lines: Vec<Line>,
}

/// One line of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// One way in which updates reached their clients.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Way {
    pub(crate) name: String,
    pub(crate) sent_per_update: f64,
    pub(crate) received_per_update: f64,
    pub(crate) bytes_per_client_hour: f64,
    pub(crate) cpu_us_per_update: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) lost: f64,
}

/// A part that has no figures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Missing {
    pub(crate) part: String,
    pub(crate) why: String,
}

/// All values of a figure: Tidegate's and the baseline's.
#[derive(Debug, Clone, Default)]
pub(crate) struct Values {
    pub(crate) tidegate: Vec<f64>,
    pub(crate) baseline: Vec<f64>,
}

/// The figures of what was seen, in the order of their definitions. Those with a goal are always there.
pub(crate) fn figures(seen: &BTreeMap<String, Values>) -> Vec<Figure> {
    let none = Values::default();
    let figure = |definition: &Definition| {
        let values = seen.get(definition.key).unwrap_or(&none);
        let (tidegate, baseline) = (median(&values.tidegate), median(&values.baseline));
        if tidegate.is_none() && baseline.is_none() && definition.goal.is_none() {
            return None;
        }
        let verdict = match (definition.goal, tidegate) {
            (None, _) => Verdict::NoGoal,
            (Some(_), None) => Verdict::NotMeasured,
            (Some(Goal::AtMost(most)), Some(value)) if value <= most => Verdict::Met,
            (Some(Goal::AtLeast(least)), Some(value)) if value >= least => Verdict::Met,
            _ => Verdict::Missed,
        };
        Some(Figure {
            key: definition.key.into(),
            group: definition.group.into(),
            name: definition.name.into(),
            unit: definition.unit.into(),
            goal: definition.goal,
            tidegate,
            baseline,
            ratio: tidegate.zip(baseline).filter(|(_, it)| *it > 0.0).map(|(ours, theirs)| ours / theirs),
            verdict,
            tidegate_all: values.tidegate.clone(),
            baseline_all: values.baseline.clone(),
        })
    };
    DEFINITIONS.iter().filter_map(figure).collect()
}

/// The middle one; of an even number the mean of the two in the middle.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let value = *values.get(middle)?;
    Some(if values.len() % 2 == 1 { value } else { f64::midpoint(values[middle - 1], value) })
}

impl Data {
    /// A figure by its key.
    pub(crate) fn figure(&self, key: &str) -> Option<&Figure> {
        self.figures.iter().find(|figure| figure.key == key)
    }

    pub(crate) fn text(&self) -> Result<String, Error> {
        let text = serde_json::to_string_pretty(self).map_err(|error| Error::Asked(error.to_string()))?;
        Ok(text + "\n")
    }

    /// Page and pictures: (path within the directory of the docs, text).
    pub(crate) fn files(&self) -> Result<Vec<(PathBuf, String)>, Error> {
        let pictures = pictures::all(self)?;
        let mut files = vec![(PathBuf::from("benchmarks.md"), page::page(self, &pictures))];
        files.extend(pictures.into_iter().map(|picture| {
            let path = Path::new("pictures").join(format!("bench-{}.svg", picture.name));
            (path, picture.svg)
        }));
        Ok(files)
    }

    /// Writes page and pictures.
    pub(crate) fn write(&self, docs: &Path) -> Result<(), Error> {
        for (path, text) in self.files()? {
            let path = docs.join(path);
            std::fs::write(&path, text)
                .map_err(|error| Error::Asked(format!("--docs: {}: {error}", path.display())))?;
        }
        Ok(())
    }
}

/// Options of `report`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// The data of a run, as the suite wrote it
    #[arg(long, value_name = "FILE")]
    pub(crate) data: PathBuf,
    /// Where to write benchmarks.md and pictures/bench-*.svg
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) docs: PathBuf,
}

/// Makes page and pictures of a data file.
pub(crate) fn run(options: &Options) -> Result<(), Error> {
    let failed = |why: String| Error::Asked(format!("--data {}: {why}", options.data.display()));
    let text = std::fs::read_to_string(&options.data).map_err(|error| failed(error.to_string()))?;
    let data: Data = serde_json::from_str(&text).map_err(|error| failed(error.to_string()))?;
    data.write(&options.docs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_in_the_middle() {
        for (values, expected) in [
            (&[3.0, 1.0, 2.0][..], Some(2.0)),
            (&[4.0, 1.0], Some(2.5)),
            (&[7.0], Some(7.0)),
            (&[], None),
            (&[-1.0, 9.0, 5.0], Some(5.0)),
        ] {
            assert_eq!(median(values), expected, "{values:?}");
        }
    }

    #[test]
    fn a_verdict_is_of_the_median_and_what_was_not_measured_is_not_met() {
        let one = |values: &[f64]| {
            let values = Values { tidegate: values.to_vec(), baseline: vec![1_024.0] };
            figures(&BTreeMap::from([("idle.plain".to_owned(), values)]))
        };
        let of = |figures: &[Figure], key: &str| figures.iter().find(|it| it.key == key).cloned();
        let met = of(&one(&[9_000.0, 512.0, 100.0]), "idle.plain").expect("it was measured");
        assert_eq!((met.verdict, met.tidegate, met.ratio), (Verdict::Met, Some(512.0), Some(0.5)));
        let missed = of(&one(&[512.1]), "idle.plain").expect("it was measured");
        assert_eq!(missed.verdict, Verdict::Missed);
        let not = of(&one(&[1.0]), "direct.rate").expect("it has a goal");
        assert_eq!((not.verdict, not.ratio), (Verdict::NotMeasured, None));
        assert!(of(&one(&[1.0]), "paced.p50").is_none(), "it has no goal and was not measured");
    }
}
