//! The suite: Tidegate and the baseline through all scenarios in one run, in less than ten minutes.
//!
//! Each scenario runs on servers that were just started. What fails is said and left out; the rest goes on. What is
//! found becomes a data file, the page docs/benchmarks.md with its pictures, and the coefficients of the calculator.

mod bench;
mod call;
mod certificates;
mod machine;
mod parts;
mod redis_server;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use self::bench::Bench;
use self::parts::{PARTS, Part};
use crate::error::Error;
use crate::report::{self, Data, Missing, Verdict, page};
use crate::scenario::Rows;
use crate::scenario::coefficients::Coefficients;
use crate::started;

/// How much later than asked it may be through, rather than leave a part out.
const LATE: Duration = Duration::from_secs(25);

/// Options.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// The gateway, built for release; by default `tidegate` beside this program: target/release/tidegate
    #[arg(long, value_name = "FILE")]
    pub(crate) gateway: Option<PathBuf>,
    /// Only these parts, with commas between them
    #[arg(long, value_name = "PARTS", value_delimiter = ',')]
    pub(crate) only: Vec<String>,
    /// A hundredth of everything, to see whether it works: figures mean nothing
    #[arg(long)]
    pub(crate) quick: bool,
    /// Seconds in which all is to be through; while there are some left, what is cheap is done again, for medians
    #[arg(long, value_name = "SECONDS", default_value_t = 570)]
    pub(crate) time: u64,
    /// Write what was found there, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) data: Option<PathBuf>,
    /// Write benchmarks.md and pictures/bench-*.svg there
    #[arg(long, value_name = "DIRECTORY", conflicts_with_all = ["only", "quick"])]
    pub(crate) docs: Option<PathBuf>,
    /// Write what the calculator reckons with there; what was not measured stays as it is
    #[arg(long, value_name = "FILE", conflicts_with_all = ["only", "quick"])]
    pub(crate) coefficients: Option<PathBuf>,
}

/// What was found.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
pub(crate) struct Outcome(Data);

/// Runs it.
pub(crate) fn run(options: &Options) -> Result<Outcome, Error> {
    let parts = chosen(&options.only)?;
    let program = started::gateway_program(options.gateway.as_deref())?;
    let directory = tempfile::tempdir().map_err(Error::io("make a directory for certificates"))?;
    let began = Instant::now();
    let mut about = machine::about();
    let until = began + Duration::from_secs(options.time);
    let mut bench = Bench::new(program, directory.path().to_owned(), options.quick);
    let mut missing = Vec::new();
    let mut clock = Estimate::default();
    for (index, part) in parts.iter().enumerate() {
        let rest = clock.of(parts[index..].iter().copied());
        let words = format!("== {} ({} of {}), about {rest:.0} s to go", part.name, index + 1, parts.len());
        if Instant::now() + Duration::from_secs_f64(clock.of([*part])) > until + LATE {
            let why = format!("no time was left of {} s; --time gives more", options.time);
            bench.shown.phase(&format!("== {} is left out: {why}", part.name));
            missing.push(Missing { part: part.name.into(), why });
        } else if let Err(why) = clock.run(part, &mut bench, &words) {
            bench.shown.phase(&format!("== {} failed: {why}", part.name));
            missing.push(Missing { part: part.name.into(), why: why.to_string() });
        }
    }
    // Medians, as long as there is time, of what worked.
    let failed = |part: &Part| missing.iter().any(|missing: &Missing| missing.part == part.name);
    let again: Vec<_> = parts.iter().copied().filter(|part| part.again && !failed(part)).collect();
    for round in 2..=5 {
        for part in &again {
            let needs = Duration::from_secs_f64(clock.of([*part]) * 1.1);
            if options.quick || Instant::now() + needs > until {
                continue;
            }
            let left = until.saturating_duration_since(Instant::now()).as_secs();
            let words = format!("== {} for the {round}. time, at most {left} s to go", part.name);
            if let Err(why) = clock.run(part, &mut bench, &words) {
                missing.push(Missing {
                    part: format!("{} for the {round}. time", part.name),
                    why: why.to_string(),
                });
            }
        }
    }
    about.seconds = began.elapsed().as_secs_f64().round();
    if let Some(path) = &options.coefficients {
        coefficients(path, &bench, &about)?;
    }
    let (seen, series, polling) = bench.found();
    let mut figures = report::figures(&seen);
    if !options.only.is_empty() {
        // Who asks for a part does not want to read that the others were not measured.
        figures.retain(|figure| figure.verdict != Verdict::NotMeasured);
    }
    let data = Data { about, figures, series, polling, missing };
    let text = data.text()?;
    if let Some(path) = &options.data {
        std::fs::write(path, &text)
            .map_err(|error| Error::Asked(format!("--data {}: {error}", path.display())))?;
    }
    // The page is made of what the file says: a number that is read again may differ in its last bit, and be rounded
    // to another digit.
    let data: Data = serde_json::from_str(&text).map_err(|error| Error::Asked(error.to_string()))?;
    if let Some(docs) = &options.docs {
        data.write(docs)?;
    }
    Ok(Outcome(data))
}

/// How long parts take here: their estimates, by what the last ones took of theirs.
#[derive(Default)]
struct Estimate {
    planned: f64,
    took: f64,
    of_part: std::collections::BTreeMap<&'static str, f64>,
}

impl Estimate {
    fn of<'a>(&self, parts: impl IntoIterator<Item = &'a Part>) -> f64 {
        let factor = if self.planned > 0.0 { self.took / self.planned } else { 1.0 };
        let known = |part: &Part| self.of_part.get(part.name).copied().unwrap_or(part.seconds * factor);
        parts.into_iter().map(known).sum()
    }

    fn run(&mut self, part: &Part, bench: &mut Bench, words: &str) -> Result<(), Error> {
        bench.shown.phase(words);
        bench.part = part.name;
        let began = Instant::now();
        let result = (part.run)(bench);
        let took = began.elapsed().as_secs_f64();
        if result.is_ok() {
            self.planned += part.seconds;
            self.took += took;
            self.of_part.insert(part.name, took);
        }
        result
    }
}

/// The parts that were asked for, in their order. Errors: there is no such part.
fn chosen(only: &[String]) -> Result<Vec<&'static Part>, Error> {
    let names = || PARTS.iter().map(|part| part.name).collect::<Vec<_>>().join(", ");
    if let Some(unknown) = only.iter().find(|name| PARTS.iter().all(|part| part.name != name.as_str())) {
        return Err(Error::Asked(format!("--only {unknown}: there is no such part; there are {}", names())));
    }
    Ok(PARTS.iter().filter(|part| only.is_empty() || only.iter().any(|name| name == part.name)).collect())
}

/// Writes the calculator's file: what was measured replaces what was there.
fn coefficients(path: &std::path::Path, bench: &Bench, about: &report::About) -> Result<(), Error> {
    let mut known = Coefficients::load(path.is_file().then_some(path))?;
    known.source = "tidegate-bench suite".into();
    known.date.clone_from(&about.date);
    known.machine = format!("{} processors, {}, {}", about.processors, about.processor, about.kernel);
    known.commit.clone_from(&about.commit);
    known.values.extend(bench.coefficients.iter().map(|(name, value)| (name.clone(), value.clone())));
    known.write(path)
}

impl Outcome {
    /// Whether all that was asked for was measured. Errors: what was not, as one.
    pub(crate) fn complete(&self) -> Result<(), Error> {
        match self.0.missing.as_slice() {
            [] => Ok(()),
            [first, rest @ ..] => {
                let more =
                    if rest.is_empty() { String::new() } else { format!(" (and {} more)", rest.len()) };
                Err(Error::Asked(format!("not everything was measured: {}: {}{more}", first.part, first.why)))
            }
        }
    }
}

impl Rows for Outcome {
    fn rows(&self) -> Vec<(String, String)> {
        let head = format!("{:>12}  {:>12}  {:>12}  {:>8}  verdict", "goal", "Tidegate", "baseline", "ratio");
        let about = &self.0.about;
        let mut rows = vec![
            ("machine".into(), format!("{}, {} processors", about.processor, about.processors)),
            ("run".into(), format!("{}, commit {}, {:.0} s", about.date, about.commit, about.seconds)),
            (String::new(), head),
        ];
        for figure in &self.0.figures {
            let value = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), page::number);
            let verdict = match figure.verdict {
                Verdict::Met => "met",
                Verdict::Missed => "MISSED",
                Verdict::NoGoal => "",
                Verdict::NotMeasured => "not measured",
            };
            let unit = if figure.unit.is_empty() { String::new() } else { format!(" ({})", figure.unit) };
            let ratio = figure.ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.3}"));
            let text = format!(
                "{:>12}  {:>12}  {:>12}  {ratio:>8}  {verdict}",
                page::goal(figure.goal),
                value(figure.tidegate),
                value(figure.baseline),
            );
            rows.push((format!("{}{unit}", figure.name), text));
        }
        rows.extend(
            self.0.missing.iter().map(|missing| (format!("FAILED {}", missing.part), missing.why.clone())),
        );
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_chosen_by_name_and_a_wrong_name_lists_them() {
        let names = |only: &[&str]| {
            let only: Vec<_> = only.iter().map(|name| (*name).to_owned()).collect();
            chosen(&only).map(|parts| parts.iter().map(|part| part.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&["flood", "idle"]).expect("they exist"), ["idle", "flood"]);
        assert_eq!(names(&[]).expect("all").len(), PARTS.len());
        let error = names(&["flod"]).expect_err("there is none").to_string();
        assert!(error.starts_with("--only flod: ") && error.contains("idle, idle-tls"), "{error}");
    }

    #[test]
    fn the_whole_run_fits_into_ten_minutes() {
        let seconds: f64 = PARTS.iter().map(|part| part.seconds).sum();
        assert!(seconds <= 560.0, "{seconds} s");
    }

    #[test]
    fn an_estimate_follows_what_parts_took() {
        let mut clock = Estimate::default();
        assert!((clock.of(PARTS.iter().take(1)) - PARTS[0].seconds).abs() < 1e-9);
        (clock.planned, clock.took) = (100.0, 150.0);
        assert!((clock.of(PARTS.iter().take(1)) - 1.5 * PARTS[0].seconds).abs() < 1e-9);
        clock.of_part.insert(PARTS[0].name, 7.0);
        assert!((clock.of(PARTS.iter().take(1)) - 7.0).abs() < 1e-9);
    }
}
