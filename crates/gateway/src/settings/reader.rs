//! Takes values out of what was written, one key at a time, and remembers everything that was wrong.

use config::{Map, Value, ValueKind};
use tidegate_relay::Secret;

use super::known::{self, Known};
use super::layers::Written;
use super::problem::Problem;
use super::value;

/// Reads keys. A key that is missing or wrong yields its default, so that the rest can still be checked.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    known: &'a Known,
    written: &'a Written,
    dev: bool,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<String>,
}

/// An item of a list of sections.
#[derive(Debug)]
pub(super) struct Item {
    /// What it is called in messages: `namespaces[0]`.
    pub path: String,
    fields: Map<String, Value>,
    origin: String,
}

impl Item {
    /// Whether it has the field.
    pub(super) fn has(&self, field: &str) -> bool {
        self.fields.contains_key(field)
    }
}

impl<'a> Reader<'a> {
    pub(super) fn new(known: &'a Known, written: &'a Written) -> Self {
        let mut reader = Self { known, written, dev: false, problems: Vec::new(), warnings: Vec::new() };
        known.unknown(written, &mut reader.problems);
        reader
    }

    /// From here on, the defaults of dev mode count.
    pub(super) fn dev_mode(&mut self) {
        self.dev = true;
    }

    /// Whether somebody set the key.
    pub(super) fn is_written(&self, key: &str) -> bool {
        self.written(key).is_some()
    }

    fn written(&self, key: &str) -> Option<&'a Value> {
        self.written.get(key).filter(|value| !matches!(value.kind, ValueKind::Nil))
    }

    /// The key's default, that of dev mode in dev mode.
    pub(super) fn default(&self, key: &str) -> Option<&'a Value> {
        self.known.default(key, self.dev).map(|(value, _)| value)
    }

    /// What counts for the key and what to call its origin.
    pub(super) fn effective(&self, key: &str) -> Option<(&'a Value, String)> {
        match self.written(key) {
            Some(value) => Some((value, value::origin(value, key))),
            None => self.known.default(key, self.dev).map(|(value, origin)| (value, origin.to_owned())),
        }
    }

    /// Reports the key's value.
    pub(super) fn problem(&mut self, key: &str, advice: impl Into<String>) {
        let (value, origin) = match self.effective(key) {
            Some((value, origin)) => (Some(value::shown(key, value)), origin),
            None => (None, String::new()),
        };
        self.problems.push(Problem { key: key.to_owned(), value, origin, advice: advice.into() });
    }

    /// The key's value, or its default.
    pub(super) fn take<T>(&mut self, key: &str, parse: impl Fn(&Value) -> Result<T, String>) -> T {
        if let Some(value) = self.written(key) {
            match parse(value) {
                Ok(parsed) => return parsed,
                Err(advice) => self.problem(key, advice),
            }
        }
        let default = self.default(key).expect("every key that is read has a default");
        parse(default).expect("every default passes its own check")
    }

    /// The value of a key that is off by default.
    pub(super) fn optional<T>(
        &mut self,
        key: &str,
        parse: impl Fn(&Value) -> Result<T, String>,
    ) -> Option<T> {
        match parse(self.written(key)?) {
            Ok(parsed) => Some(parsed),
            Err(advice) => {
                self.problem(key, advice);
                None
            }
        }
    }

    /// The value of a key that may be `auto`: `None`.
    pub(super) fn auto<T>(&mut self, key: &str, parse: impl Fn(&Value) -> Result<T, String>) -> Option<T> {
        self.take(key, |value| match value::text(value).as_deref() {
            Some("auto") => Ok(None),
            _ => parse(value).map(Some).map_err(|advice| format!("{advice}, or auto")),
        })
    }

    /// A secret, given as it is or as the name of a file that holds it.
    pub(super) fn secret(&mut self, key: &str) -> Option<Secret> {
        let file_key = format!("{key}_file");
        let direct = self.optional(key, value::secret);
        if self.is_written(key) && self.is_written(&file_key) {
            self.problem(&file_key, format!("{key} is set too: take one of them out"));
            return direct.map(Secret::new);
        }
        let from_file = self.optional(&file_key, read_secret);
        direct.or(from_file).map(Secret::new)
    }

    /// A list of plain values.
    pub(super) fn list<T>(&mut self, key: &str, parse: impl Fn(&Value) -> Result<T, String>) -> Vec<T> {
        let items = self.take(key, value::items);
        let origin = self.effective(key).map(|(_, origin)| origin).unwrap_or_default();
        let mut parsed = Vec::with_capacity(items.len());
        for (at, item) in items.iter().enumerate() {
            match parse(item) {
                Ok(item) => parsed.push(item),
                Err(advice) => self.problems.push(Problem {
                    key: format!("{key}[{at}]"),
                    value: Some(value::shown(key, item)),
                    origin: origin.clone(),
                    advice,
                }),
            }
        }
        parsed
    }

    /// A list of sections; keys that an item may not have are reported.
    pub(super) fn sections(&mut self, key: &str) -> Vec<Item> {
        let items = self.take(key, value::items);
        let origin = self.effective(key).map(|(_, origin)| origin).unwrap_or_default();
        let mut sections = Vec::with_capacity(items.len());
        for (at, item) in items.into_iter().enumerate() {
            let path = format!("{key}[{at}]");
            let ValueKind::Table(fields) = item.kind else {
                let shown = value::shown(&path, &item);
                let keys = known::item_keys(key).join(", ");
                self.problems.push(Problem {
                    key: path,
                    value: Some(shown),
                    origin: origin.clone(),
                    advice: format!("must be a section with the keys {keys}"),
                });
                continue;
            };
            let mut unknown: Vec<&String> =
                fields.keys().filter(|field| !known::item_keys(key).contains(&field.as_str())).collect();
            unknown.sort();
            for field in unknown {
                let full = format!("{path}.{field}");
                let advice = Known::item_advice(key, field);
                self.problems.push(Problem {
                    value: Some(value::shown_unknown(&full, &fields[field], &advice)),
                    key: full,
                    origin: origin.clone(),
                    advice,
                });
            }
            sections.push(Item { path, fields, origin: origin.clone() });
        }
        sections
    }

    /// The first item of a list of sections that is there by default: that of dev mode in dev mode.
    pub(super) fn default_section(&self, key: &str) -> Option<Item> {
        let ValueKind::Array(items) = &self.default(key)?.kind else { return None };
        let ValueKind::Table(fields) = &items.first()?.kind else { return None };
        Some(Item { path: format!("{key}[0]"), fields: fields.clone(), origin: String::new() })
    }

    /// Reports a field of an item.
    pub(super) fn item_problem(&mut self, item: &Item, field: &str, advice: impl Into<String>) {
        let key = format!("{}.{field}", item.path);
        let value = item.fields.get(field).map(|value| value::shown(&key, value));
        self.problems.push(Problem { key, value, origin: item.origin.clone(), advice: advice.into() });
    }

    /// A field of an item, if it is there and right.
    pub(super) fn field<T>(
        &mut self,
        item: &Item,
        field: &str,
        parse: impl Fn(&Value) -> Result<T, String>,
    ) -> Option<T> {
        let value = item.fields.get(field).filter(|value| !matches!(value.kind, ValueKind::Nil))?;
        match parse(value) {
            Ok(parsed) => Some(parsed),
            Err(advice) => {
                self.item_problem(item, field, advice);
                None
            }
        }
    }

    /// A field of an item that must be there; its absence is reported.
    pub(super) fn required<T>(
        &mut self,
        item: &Item,
        field: &str,
        parse: impl Fn(&Value) -> Result<T, String>,
    ) -> Option<T> {
        if !item.fields.contains_key(field) {
            self.item_problem(item, field, "missing: every item needs it");
            return None;
        }
        self.field(item, field, parse)
    }

    /// A secret of an item that must be there, as it is or in a file.
    pub(super) fn item_secret(&mut self, item: &Item, field: &str) -> Option<Secret> {
        let file_field = format!("{field}_file");
        if !item.fields.contains_key(field) && !item.fields.contains_key(&file_field) {
            self.item_problem(item, field, format!("missing: set it, or {file_field}"));
        }
        self.item_optional_secret(item, field)
    }

    /// A secret of an item that may be left out, as it is or in a file.
    pub(super) fn item_optional_secret(&mut self, item: &Item, field: &str) -> Option<Secret> {
        let file_field = format!("{field}_file");
        match (item.fields.contains_key(field), item.fields.contains_key(&file_field)) {
            (true, true) => {
                self.item_problem(item, &file_field, format!("{field} is set too: take one of them out"));
                None
            }
            (true, false) => self.field(item, field, value::secret).map(Secret::new),
            (false, true) => self.field(item, &file_field, read_secret).map(Secret::new),
            (false, false) => None,
        }
    }
}

/// Reads a secret from the file that `value` names. The newline at its end is an editor's, not the secret's.
fn read_secret(value: &Value) -> Result<String, String> {
    let path = value::path(value)?;
    let text = std::fs::read_to_string(&path).map_err(|error| format!("cannot be read: {error}"))?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err("the file is empty".to_owned()),
        secret => Ok(secret.to_owned()),
    }
}
