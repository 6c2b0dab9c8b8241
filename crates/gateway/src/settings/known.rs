//! Which keys there are, and which one was meant by a key that does not exist.

use super::layers::{self, Written};
use super::problem::Problem;
use super::value;

/// The compiled-in file: defaults, then what dev mode puts before them.
const DEFAULTS: &str = include_str!("defaults.yaml");

/// Keys of items in lists.
const ITEM_KEYS: [(&str, &[&str]); 4] = [
    (
        "namespaces",
        &[
            "name",
            "subscribe",
            "publish",
            "subscribe_proxy",
            "publish_proxy",
            "read_history",
            "read_presence",
            "delivery",
            "history_size",
            "history_ttl",
            "recover",
            "presence",
            "join_leave",
            "on_gap",
            "events_data",
        ],
    ),
    ("api.keys", &["name", "key", "key_file", "scope"]),
    (
        "proxy.endpoints",
        &[
            "name",
            "url",
            "timeout",
            "concurrency",
            "queue",
            "max_response_bytes",
            "headers",
            "forward_headers",
            "ca",
            "secret",
            "secret_file",
        ],
    ),
    ("proxy.rpc_methods", &["prefix", "endpoint"]),
];

/// Keys that the design has and this version has not.
const LATER: [&str; 13] = [
    "admin",
    "auth.jwt",
    "cluster",
    "history",
    "limits.byte_rate",
    "limits.max_connections_per_user",
    "limits.message_rate",
    "listen.proxy_protocol",
    "listen.trusted_proxies",
    "namespaces[].user_limited",
    "outbox.node_bytes",
    "rebalance",
    "tls.client_ca",
];

/// The keys there are, with their defaults.
#[derive(Debug)]
pub(super) struct Known {
    /// In the order of the file.
    keys: Vec<String>,
    defaults: Written,
    dev: Written,
}

impl Known {
    /// Reads the compiled-in file.
    pub(super) fn new() -> Self {
        let (defaults, dev) = DEFAULTS.split_once("\n---\n").unwrap_or((DEFAULTS, ""));
        // A test reads both documents, so neither can be broken in a build that passed.
        let read = |text| layers::yaml(text).expect("the compiled-in defaults are valid YAML");
        Self { keys: keys_in_order(defaults), defaults: read(defaults), dev: read(dev) }
    }

    /// All keys, in the order of the file.
    pub(super) fn keys(&self) -> &[String] {
        &self.keys
    }

    /// Whether there is such a key.
    pub(super) fn is_key(&self, key: &str) -> bool {
        self.defaults.contains_key(key)
    }

    /// A key's default and what to call its origin.
    pub(super) fn default(&self, key: &str, dev: bool) -> Option<(&config::Value, &'static str)> {
        let in_dev = self.dev.get(key).filter(|_| dev).map(|value| (value, "default of dev mode"));
        in_dev.or_else(|| self.defaults.get(key).map(|value| (value, "default")))
    }

    /// The keys of a section, without what comes before.
    fn keys_of(&self, section: &str) -> Vec<&str> {
        let mut keys: Vec<&str> = Vec::new();
        for rest in self.keys.iter().filter_map(|key| key.strip_prefix(section)?.strip_prefix('.')) {
            let key = rest.split('.').next().unwrap_or(rest);
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        keys
    }

    fn is_section(&self, path: &str) -> bool {
        !self.keys_of(path).is_empty()
    }

    /// Reports what is written under keys that do not exist.
    pub(super) fn unknown(&self, written: &Written, problems: &mut Vec<Problem>) {
        for (path, value) in written {
            if self.is_key(path) {
                continue;
            }
            let origin = value::origin(value, path);
            if self.is_section(path) {
                if !matches!(value.kind, config::ValueKind::Nil) {
                    problems.push(Problem {
                        key: path.clone(),
                        value: Some(value::shown(path, value)),
                        origin,
                        advice: format!(
                            "a section, not a value: set one of its keys ({})",
                            self.keys_of(path).join(", ")
                        ),
                    });
                }
                continue;
            }
            if let Some(key) = self.keys.iter().find(|key| is_below(path, key)) {
                problems.push(Problem {
                    key: key.clone(),
                    value: None,
                    origin,
                    advice: "takes a value, not a section".to_owned(),
                });
                continue;
            }
            let (key, cut) = self.cut(path);
            if problems.iter().any(|problem| problem.key == key) {
                continue;
            }
            let advice = self.advice(&key);
            // A whole section that does not exist has no one value to show.
            let value = (!cut).then(|| value::shown_unknown(path, value, &advice));
            problems.push(Problem { key, value, origin, advice });
        }
    }

    /// The path up to the first part that does not exist, and whether that left something out.
    fn cut(&self, path: &str) -> (String, bool) {
        for (at, _) in path.match_indices('.') {
            if !self.is_section(&path[..at]) {
                return (path[..at].to_owned(), true);
            }
        }
        (path.to_owned(), false)
    }

    fn advice(&self, key: &str) -> String {
        if LATER.iter().any(|later| *later == key || is_below(key, later)) {
            return "not in this version: take it out".to_owned();
        }
        let mut candidates: Vec<&str> = self.keys.iter().map(String::as_str).collect();
        for key in &self.keys {
            candidates.extend(key.match_indices('.').map(|(at, _)| &key[..at]));
        }
        // The section that it is in already is no help.
        candidates.retain(|section| !is_below(key, section));
        match nearest(key, &candidates) {
            Some(near) => format!("unknown key; did you mean {near}?"),
            None => "unknown key".to_owned(),
        }
    }

    /// What to say about an unknown key of an item in `list`.
    pub(super) fn item_advice(list: &str, key: &str) -> String {
        if LATER.contains(&format!("{list}[].{key}").as_str()) {
            return "not in this version: take it out".to_owned();
        }
        match nearest(key, item_keys(list)) {
            Some(near) => format!("unknown key; did you mean {near}?"),
            None => "unknown key".to_owned(),
        }
    }
}

/// The keys an item of `list` may have; none where items are plain values.
pub(super) fn item_keys(list: &str) -> &'static [&'static str] {
    ITEM_KEYS.iter().find(|(name, _)| *name == list).map_or(&[], |(_, keys)| keys)
}

/// Whether a part of a key is written as keys are.
pub(super) fn is_plain(part: &str) -> bool {
    !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

fn is_below(path: &str, section: &str) -> bool {
    path.strip_prefix(section).is_some_and(|rest| rest.starts_with('.'))
}

/// The candidate that takes the fewest edits. One whose last part is about the same was only put in the wrong place.
fn nearest<'a>(key: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let last = |path: &str| path.rsplit('.').next().unwrap_or(path).to_owned();
    let name = last(key);
    candidates.iter().copied().min_by_key(|candidate| {
        let edits = strsim::damerau_levenshtein(key, candidate);
        let misplaced = strsim::damerau_levenshtein(&name, &last(candidate));
        if misplaced * 3 <= name.len() { edits.min(misplaced + 2) } else { edits }
    })
}

/// The keys of the defaults in the order they are written: the merged tree has none.
fn keys_in_order(yaml: &str) -> Vec<String> {
    let mut open: Vec<(usize, &str)> = Vec::new();
    let mut keys = Vec::new();
    for line in yaml.lines() {
        let name = line.trim_start();
        let indent = line.len() - name.len();
        let Some((name, rest)) = name.split_once(':').filter(|(name, _)| is_plain(name)) else { continue };
        open.retain(|(outer, _)| *outer < indent);
        let path: Vec<&str> = open.iter().map(|(_, name)| *name).chain([name]).collect();
        keys.push((path.join("."), rest.trim().is_empty()));
        open.push((indent, name));
    }
    // A name without a value is a section if others follow below it, else a list.
    let sections: Vec<String> = keys
        .iter()
        .filter(|(key, bare)| *bare && keys.iter().any(|(other, _)| is_below(other, key)))
        .map(|(key, _)| key.clone())
        .collect();
    keys.into_iter().map(|(key, _)| key).filter(|key| !sections.contains(key)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_read_in_the_order_they_are_written() {
        let known = Known::new();
        let mut ordered = known.keys().to_vec();
        assert_eq!(ordered.first().map(String::as_str), Some("listen.public"));
        ordered.sort();
        let read: Vec<String> = known.defaults.keys().cloned().collect();
        assert_eq!(ordered, read);
        for key in known.dev.keys() {
            assert!(known.is_key(key), "{key} has a default in dev mode only");
        }
    }

    #[test]
    fn nothing_is_both_known_and_left_for_later() {
        let known = Known::new();
        for later in LATER {
            assert!(!known.is_key(later) && !known.is_section(later), "{later}");
        }
    }
}
