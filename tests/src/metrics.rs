//! A node's metrics as a scrape shows them.

use std::collections::BTreeMap;

/// Samples by their name with labels, as written: `tidegate_disconnects_total{code="3008"}`.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    samples: BTreeMap<String, f64>,
}

impl Metrics {
    /// Reads the text exposition format.
    ///
    /// # Panics
    /// On a line that is none.
    pub fn parse(text: &str) -> Self {
        let samples = text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(|line| {
                let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line:?}"));
                (name.to_owned(), value.parse().unwrap_or_else(|_| panic!("no number: {line:?}")))
            })
            .collect();
        Self { samples }
    }

    /// The sum over every sample of the family; 0 where there is none.
    pub fn sum(&self, family: &str) -> f64 {
        self.with(family, &[])
    }

    /// The sum over the family's samples that have all these labels.
    pub fn with(&self, family: &str, labels: &[(&str, &str)]) -> f64 {
        self.samples
            .iter()
            .filter(|(name, _)| {
                let (base, rest) = name.split_once('{').unwrap_or((name, ""));
                base == family && labels.iter().all(|(label, value)| has(rest, label, value))
            })
            .map(|(_, value)| value)
            .sum()
    }

    /// Whether the family has any sample.
    pub fn has(&self, family: &str) -> bool {
        self.samples.keys().any(|name| name.split('{').next() == Some(family))
    }

    /// Every sample's name, with labels.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.samples.keys().map(String::as_str)
    }
}

fn has(labels: &str, label: &str, value: &str) -> bool {
    let wanted = format!("{label}=\"{value}\"");
    labels.trim_end_matches('}').split(',').any(|pair| pair == wanted)
}
