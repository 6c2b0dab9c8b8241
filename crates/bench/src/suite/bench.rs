//! What the parts of a run share: programs, certificates, what was found so far, and how to call a scenario.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::call;
use super::certificates::{self, Certificate};
use crate::error::Error;
use crate::progress::Progress;
use crate::report::{Line, Series, Values, Way};
use crate::scenario::coefficients;
use crate::started::{self, Started};

/// How long a scenario may take at most.
const MOST: Duration = Duration::from_secs(120);

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    Tidegate,
    Baseline,
}

impl Who {
    pub(super) const BOTH: [Self; 2] = [Self::Tidegate, Self::Baseline];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Tidegate => "Tidegate",
            Self::Baseline => "baseline",
        }
    }
}

/// Whether and how a server speaks TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Plain,
    Ecdsa,
    Rsa,
}

/// Makes a certificate in a directory.
type Make = fn(&Path) -> Result<Certificate, Error>;

/// A run.
pub(super) struct Bench {
    program: PathBuf,
    directory: PathBuf,
    ecdsa: Option<Certificate>,
    rsa: Option<Certificate>,
    seen: BTreeMap<String, Values>,
    series: Vec<Series>,
    pub(super) polling: Vec<Way>,
    pub(super) coefficients: BTreeMap<String, coefficients::Value>,
    pub(super) shown: Progress,
    /// The part that runs, for what is said.
    pub(super) part: &'static str,
    quick: bool,
}

/// A server and the options that aim a scenario at it.
pub(super) struct Aimed {
    pub(super) server: Started,
    /// What is said once, however many nodes there are.
    trust: Vec<String>,
    pub(super) options: Vec<String>,
}

impl Bench {
    pub(super) fn new(program: PathBuf, directory: PathBuf, quick: bool) -> Self {
        Self {
            program,
            directory,
            ecdsa: None,
            rsa: None,
            seen: BTreeMap::new(),
            series: Vec::new(),
            polling: Vec::new(),
            coefficients: BTreeMap::new(),
            shown: Progress::new(),
            part: "",
            quick,
        }
    }

    /// A number as it is, or in a quick run a hundredth of it, and at least `least`.
    pub(super) fn scaled(&self, number: f64, least: f64) -> f64 {
        if self.quick { (number / 100.0).round().max(least) } else { number }
    }

    /// What was found: figures and series.
    pub(super) fn found(self) -> (BTreeMap<String, Values>, Vec<Series>, Vec<Way>) {
        (self.seen, self.series, self.polling)
    }

    /// Notes a value of a figure.
    pub(super) fn see(&mut self, who: Who, key: &str, value: f64) {
        let values = self.seen.entry(key.to_owned()).or_default();
        let values = if who == Who::Tidegate { &mut values.tidegate } else { &mut values.baseline };
        values.push(value);
    }

    /// Notes the one value of a figure that follows from others.
    pub(super) fn set(&mut self, who: Who, key: &str, value: f64) {
        self.seen.remove(key);
        self.see(who, key, value);
    }

    /// A file with this text, for as long as the run takes.
    pub(super) fn file(&self, name: &str, text: &str) -> Result<PathBuf, Error> {
        let path = self.directory.join(name);
        std::fs::write(&path, text).map_err(Error::io("write a file for a server"))?;
        Ok(path)
    }

    /// Adds to the one value of a figure that counts something over the whole run.
    pub(super) fn add(&mut self, who: Who, key: &str, value: f64) {
        let values = self.seen.entry(key.to_owned()).or_default();
        let values = if who == Who::Tidegate { &mut values.tidegate } else { &mut values.baseline };
        match values.first_mut() {
            Some(sum) => *sum += value,
            None => values.push(value),
        }
    }

    /// What was noted of a figure so far, as a median.
    pub(super) fn seen(&self, who: Who, key: &str) -> Option<f64> {
        let values = self.seen.get(key)?;
        crate::report::median(if who == Who::Tidegate { &values.tidegate } else { &values.baseline })
    }

    /// Notes a point of a line, in order of x.
    pub(super) fn point(&mut self, (key, x, y): (&str, &str, &str), line: &str, point: (f64, f64)) {
        let at = self.series.iter().position(|series| series.key == key).unwrap_or_else(|| {
            self.series.push(Series { key: key.into(), x: x.into(), y: y.into(), lines: Vec::new() });
            self.series.len() - 1
        });
        let lines = &mut self.series[at].lines;
        match lines.iter_mut().find(|known| known.name == line) {
            Some(known) => {
                known.points.push(point);
                known.points.sort_by(|left, right| left.0.total_cmp(&right.0));
            }
            None => lines.push(Line { name: line.into(), points: vec![point] }),
        }
    }

    /// Notes a coefficient for the calculator.
    pub(super) fn coefficient(&mut self, name: &str, value: f64, unit: &str, origin: &str) {
        // A difference of two measurements that noise has eaten: what an earlier run found says more than nothing.
        if value <= 0.0 {
            return;
        }
        let value = coefficients::Value {
            value: coefficients::rounded(value),
            unit: unit.into(),
            origin: origin.into(),
        };
        self.coefficients.insert(name.into(), value);
    }

    /// The certificate for a kind of key, made when it is first wanted.
    fn certificate(&mut self, key: Key) -> Result<Option<Certificate>, Error> {
        let (slot, make): (_, Make) = match key {
            Key::Plain => return Ok(None),
            Key::Ecdsa => (&mut self.ecdsa, certificates::ecdsa),
            Key::Rsa => (&mut self.rsa, certificates::rsa),
        };
        if slot.is_none() {
            *slot = Some(make(&self.directory)?);
        }
        Ok(slot.clone())
    }

    /// A new server, with the gateway's settings beside (each `key.path=value`).
    pub(super) fn server(&mut self, who: Who, key: Key, settings: &[String]) -> Result<Aimed, Error> {
        let certificate = self.certificate(key)?;
        let server = match (who, &certificate) {
            (Who::Tidegate, certificate) => {
                // A gateway spreads what comes at once. Only the storm is about that; the others need not wait.
                let mut all = vec!["limits.accept_rate=0".to_owned()];
                all.extend_from_slice(settings);
                if let Some(it) = certificate {
                    all.push(format!("tls.cert={}", it.cert.display()));
                    all.push(format!("tls.key={}", it.key.display()));
                }
                started::gateway(&self.program, &all)?
            }
            (Who::Baseline, None) => started::baseline(&[])?,
            (Who::Baseline, Some(it)) => {
                let files = [&it.cert, &it.key].map(|path| path.display().to_string());
                let [cert, key] = files;
                started::baseline(&["--cert".into(), cert, "--key".into(), key])?
            }
        };
        let scheme = if certificate.is_some() { "wss" } else { "ws" };
        let options = words(&format!("--target {} --pid {}", server.url(scheme), server.pid()));
        let trust = certificate.map(|it| vec!["--ca".into(), it.cert.display().to_string()]);
        Ok(Aimed { server, options, trust: trust.unwrap_or_default() })
    }

    /// Calls a scenario on a server, of one process or several, and notes what it lost.
    pub(super) fn call(
        &mut self,
        who: Who,
        name: &str,
        nodes: &[&Aimed],
        options: &str,
    ) -> Result<Value, Error> {
        let mut arguments = words(name);
        nodes.iter().for_each(|aimed| arguments.extend_from_slice(&aimed.options));
        arguments.extend(nodes.iter().take(1).flat_map(|aimed| aimed.trust.clone()));
        arguments.extend(words(options));
        let (part, shown) = (self.part, &mut self.shown);
        let result =
            call::scenario(&arguments, MOST, |line| shown.say(&format!("{part}, {}: {line}", who.name())))?;
        self.count(who, &result);
        Ok(result)
    }

    /// Calls a scenario on both servers at the same time.
    pub(super) fn call_both(
        &mut self,
        name: &str,
        both: [&Aimed; 2],
        options: &str,
    ) -> Result<[Value; 2], Error> {
        let arguments =
            both.map(|it| [words(name), it.options.clone(), it.trust.clone(), words(options)].concat());
        let (part, shown) = (self.part, &mut self.shown);
        let [ours, theirs] = &arguments;
        let (ours, theirs) = std::thread::scope(|scope| {
            let second = scope.spawn(|| call::scenario(theirs, MOST, |_| ()));
            let first = call::scenario(ours, MOST, |line| shown.say(&format!("{part}, both: {line}")));
            (first, second.join())
        });
        let theirs = theirs.map_err(|_| Error::Asked("a thread of the suite panicked".into()))?;
        let both = [ours?, theirs?];
        for (who, result) in Who::BOTH.into_iter().zip(&both) {
            self.count(who, result);
        }
        Ok(both)
    }

    /// Whatever a scenario lost or broke counts, wherever in its result it stands.
    fn count(&mut self, who: Who, result: &Value) {
        let (lost, broken) = (sum(result, &["lost", "duplicated"]), sum(result, &["broken"]));
        self.add(who, "lost", lost);
        self.add(who, "broken", broken);
    }
}

/// The sum of all numbers of these names, at any depth.
fn sum(value: &Value, names: &[&str]) -> f64 {
    match value {
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| match value.as_f64() {
                Some(number) if names.contains(&name.as_str()) => number,
                _ => sum(value, names),
            })
            .sum(),
        Value::Array(items) => items.iter().map(|item| sum(item, names)).sum(),
        _ => 0.0,
    }
}

/// Options as they are typed, without quotes.
pub(super) fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_was_lost_is_counted_wherever_it_stands() {
        let result = serde_json::json!({
            "broken": 1, "lost": "no number",
            "burst": {"delivery": {"account": {"lost": 2, "duplicated": 3, "received": 100}, "broken": 0}},
            "ways": [{"account": {"lost": 4}}, {"account": {"lost": 0}}]
        });
        assert_eq!((sum(&result, &["lost", "duplicated"]), sum(&result, &["broken"])), (9.0, 1.0));
    }
}
