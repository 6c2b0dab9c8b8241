//! The fields of a call, taken out one by one, so that what is wrong can be said with the field's name.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::answer::Failure;

/// The fields of a JSON object, each raw.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    fields: BTreeMap<String, &'a RawValue>,
    /// Those that were asked for, for the message about those that nobody asked for.
    known: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    /// Takes an object apart; nothing at all counts as an empty one.
    pub(super) fn parse(json: &'a [u8]) -> Result<Self, Failure> {
        if json.trim_ascii().is_empty() {
            return Ok(Self { fields: BTreeMap::new(), known: Vec::new() });
        }
        let fields = serde_json::from_slice(json)
            .map_err(|error| Failure::bad_request(format!("the body must be a JSON object: {error}")))?;
        Ok(Self { fields, known: Vec::new() })
    }

    /// A field as it is written.
    pub(super) fn raw(&mut self, name: &'static str) -> Option<&'a RawValue> {
        self.known.push(name);
        self.fields.remove(name)
    }

    /// A field that may be absent, which `null` is the same as. `kind` says what it must be.
    pub(super) fn optional<T>(&mut self, name: &'static str, kind: &str) -> Result<Option<T>, Failure>
    where
        T: Deserialize<'a>,
    {
        let Some(raw) = self.raw(name).filter(|raw| raw.get() != "null") else { return Ok(None) };
        let parsed = serde_json::from_str(raw.get());
        parsed.map(Some).map_err(|_| Failure::bad_request(format!("`{name}` must be {kind}")))
    }

    /// A field that must be there.
    pub(super) fn required<T: DeserializeOwned>(
        &mut self,
        name: &'static str,
        kind: &str,
    ) -> Result<T, Failure> {
        let value = self.optional(name, kind)?;
        value.ok_or_else(|| Failure::bad_request(format!("`{name}` is missing: it must be {kind}")))
    }

    /// Text that may be absent, which is the same as empty.
    pub(super) fn text(&mut self, name: &'static str) -> Result<String, Failure> {
        Ok(self.optional(name, "text")?.unwrap_or_default())
    }

    /// `true` or `false`, the latter if absent.
    pub(super) fn flag(&mut self, name: &'static str) -> Result<bool, Failure> {
        Ok(self.optional(name, "true or false")?.unwrap_or_default())
    }

    /// A field of the API that promises what this version cannot keep; harmless only if empty or false.
    pub(super) fn not_yet(&mut self, name: &'static str) -> Result<(), Failure> {
        match self.raw(name).map(RawValue::get) {
            None | Some("null" | "false" | "\"\"" | "0" | "{}" | "[]") => Ok(()),
            Some(_) => Err(Failure::not_available(&format!("`{name}`"))),
        }
    }

    /// Errors: a field that nobody asked for.
    pub(super) fn end(self) -> Result<(), Failure> {
        let Some(name) = self.fields.keys().next() else { return Ok(()) };
        let message = match self.known.iter().min_by_key(|known| strsim::damerau_levenshtein(known, name)) {
            Some(near) => format!("there is no field `{name}`; did you mean `{near}`?"),
            None => format!("there is no field `{name}`; this takes none"),
        };
        Err(Failure::bad_request(message))
    }
}
