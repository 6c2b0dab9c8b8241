//! What single values look like as written, and what they mean.

use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use config::{Value, ValueKind};

/// What is shown instead of a secret.
pub(super) const MASK: &str = "***";

/// Whether a key's value must not be shown. Goes by words, so that a misspelt key is masked too.
pub(super) fn is_secret(key: &str) -> bool {
    let last = key.rsplit('.').next().unwrap_or(key);
    let secret = ["pass", "secret", "token", "credential"].iter().any(|word| last.contains(word))
        || (last == "key" && !key.starts_with("tls."))
        // What a backend knows the node by.
        || key.contains(".headers.");
    secret && !last.ends_with("_file")
}

/// Whether the key is a list whose items have secrets, or one of its items.
fn is_secret_list(key: &str) -> bool {
    key == "api.keys" || (key.starts_with("api.keys[") && key.ends_with(']'))
}

/// A value as text, as it was written; `None` for lists, sections and nothing.
pub(super) fn text(value: &Value) -> Option<String> {
    match &value.kind {
        ValueKind::String(text) => Some(text.clone()),
        ValueKind::Boolean(it) => Some(it.to_string()),
        ValueKind::I64(it) => Some(it.to_string()),
        ValueKind::I128(it) => Some(it.to_string()),
        ValueKind::U64(it) => Some(it.to_string()),
        ValueKind::U128(it) => Some(it.to_string()),
        ValueKind::Float(it) => Some(it.to_string()),
        ValueKind::Nil | ValueKind::Table(_) | ValueKind::Array(_) => None,
    }
}

/// A value as an operator may see it: one line of YAML flow style, secrets masked.
pub(super) fn shown(key: &str, value: &Value) -> String {
    if is_secret(key) && !matches!(value.kind, ValueKind::Nil) {
        return MASK.to_owned();
    }
    match &value.kind {
        ValueKind::Nil => "~".to_owned(),
        // A list or an item of secrets that is not what it should be may be a bare secret.
        ValueKind::String(text) if is_secret_list(key) => match serde_json::from_str(text) {
            Ok(json @ serde_json::Value::Array(_)) => shown(key, &from_json(json, "")),
            _ => MASK.to_owned(),
        },
        ValueKind::String(text) if text.contains("://") => quoted(&without_password(text)),
        ValueKind::String(text) if text.trim_start().starts_with(['[', '{']) => {
            match serde_json::from_str::<serde_json::Value>(text) {
                Ok(json) => shown(key, &from_json(json, "")),
                Err(_) => quoted(text),
            }
        }
        ValueKind::String(text) => quoted(text),
        ValueKind::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| shown(key, item)).collect();
            format!("[{}]", items.join(", "))
        }
        ValueKind::Table(table) => {
            let mut fields: Vec<(&String, &Value)> = table.iter().collect();
            // The name says which item it is, so it comes first.
            fields.sort_by_key(|(name, _)| (name.as_str() != "name", name.as_str()));
            let fields: Vec<String> = fields
                .iter()
                .map(|(name, value)| format!("{name}: {}", shown(&format!("{key}.{name}"), value)))
                .collect();
            format!("{{{}}}", fields.join(", "))
        }
        _ => text(value).unwrap_or_default(),
    }
}

/// The value of a key that does not exist: masked as well where a secret seems to have been meant, by the words of
/// the advice.
pub(super) fn shown_unknown(key: &str, value: &Value, advice: &str) -> String {
    let meant = advice.strip_suffix('?').and_then(|advice| advice.rsplit(' ').next()).unwrap_or_default();
    if is_secret(meant) || key.starts_with("api.keys") { MASK.to_owned() } else { shown(key, value) }
}

/// Text as YAML reads it back: plain where nothing is lost that way, else in double quotes.
fn quoted(text: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/');
    let word = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/') && text.chars().all(safe);
    let number = text.parse::<i64>().is_ok_and(|number| number.to_string() == text);
    let amount = text.starts_with(|c: char| c.is_ascii_digit())
        && text.ends_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric())
        && text.parse::<f64>().is_err()
        && !text.starts_with("0x")
        && !text.starts_with("0o");
    let address = text.parse::<SocketAddr>().is_ok_and(|address| address.is_ipv4());
    let plain = (word || number || amount || address) && !["null", "Null", "NULL"].contains(&text);
    if plain { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}

/// A URL without its password.
pub(super) fn without_password(text: &str) -> String {
    // A list of URLs, or one whose password has a comma: nobody knows where a password begins.
    if text.contains(',') && text.contains('@') {
        return MASK.to_owned();
    }
    match url::Url::parse(text) {
        Ok(mut url) if url.password().is_some() => match url.set_password(Some(MASK)) {
            Ok(()) => url.to_string(),
            Err(()) => MASK.to_owned(),
        },
        Ok(_) => text.to_owned(),
        Err(_) if text.contains('@') => MASK.to_owned(),
        Err(_) => text.to_owned(),
    }
}

/// Where a value was written.
pub(super) fn origin(value: &Value, path: &str) -> String {
    let of_item = || match &value.kind {
        ValueKind::Array(items) => items.first()?.origin().map(str::to_owned),
        _ => None,
    };
    value.origin().map(str::to_owned).or_else(of_item).unwrap_or_else(|| path.to_owned())
}

/// The value as if it had been written there.
pub(super) fn stamped(value: Value, origin: &String) -> Value {
    let kind = match value.kind {
        ValueKind::Array(items) => {
            ValueKind::Array(items.into_iter().map(|item| stamped(item, origin)).collect())
        }
        ValueKind::Table(fields) => {
            ValueKind::Table(fields.into_iter().map(|(key, value)| (key, stamped(value, origin))).collect())
        }
        plain => plain,
    };
    Value::new(Some(origin), kind)
}

/// A JSON value as a setting.
pub(super) fn from_json(json: serde_json::Value, origin: &str) -> Value {
    let origin_text = origin.to_owned();
    let kind = match json {
        serde_json::Value::Null => ValueKind::Nil,
        serde_json::Value::Bool(it) => ValueKind::Boolean(it),
        serde_json::Value::Number(it) => match it.as_i64() {
            Some(whole) => ValueKind::I64(whole),
            None => ValueKind::Float(it.as_f64().unwrap_or(f64::NAN)),
        },
        serde_json::Value::String(it) => ValueKind::String(it),
        serde_json::Value::Array(items) => {
            ValueKind::Array(items.into_iter().map(|item| from_json(item, origin)).collect())
        }
        serde_json::Value::Object(fields) => {
            ValueKind::Table(fields.into_iter().map(|(key, value)| (key, from_json(value, origin))).collect())
        }
    };
    Value::new(Some(&origin_text), kind)
}

/// The items of a list: as the file has them, or JSON, or separated by commas.
pub(super) fn items(value: &Value) -> Result<Vec<Value>, String> {
    let origin = value.origin().unwrap_or_default();
    match &value.kind {
        ValueKind::Nil => Ok(Vec::new()),
        ValueKind::Array(items) => Ok(items.clone()),
        ValueKind::String(text) if text.trim_start().starts_with('[') => {
            match serde_json::from_str::<serde_json::Value>(text) {
                Ok(serde_json::Value::Array(items)) => {
                    Ok(items.into_iter().map(|item| from_json(item, origin)).collect())
                }
                Ok(_) => Err("not a list".to_owned()),
                Err(error) => Err(format!("not a list in JSON: {error}")),
            }
        }
        ValueKind::String(text) => {
            let origin = origin.to_owned();
            let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
            Ok(parts.map(|part| Value::new(Some(&origin), ValueKind::String(part.to_owned()))).collect())
        }
        _ => Err("not a list: write [a, b], or a,b in a variable or flag".to_owned()),
    }
}

/// Plain text that is not empty.
pub(super) fn word(value: &Value) -> Result<String, String> {
    match text(value) {
        Some(text) if !text.trim().is_empty() => Ok(text),
        Some(_) => Err("may not be empty".to_owned()),
        None => Err("must be text".to_owned()),
    }
}

/// Text in which every character counts: what a file makes a number of is refused, for `007` would become 7.
pub(super) fn secret(value: &Value) -> Result<String, String> {
    match &value.kind {
        ValueKind::String(text) if text.is_empty() => Err("may not be empty".to_owned()),
        ValueKind::String(text) => Ok(text.clone()),
        _ => Err("must be text: put it in quotes, or a number loses its zeros".to_owned()),
    }
}

/// `true` or `false`.
pub(super) fn flag(value: &Value) -> Result<bool, String> {
    match text(value).as_deref() {
        Some("true") => Ok(true),
        Some("false") => Ok(false),
        _ => Err("must be true or false".to_owned()),
    }
}

/// A path.
pub(super) fn path(value: &Value) -> Result<PathBuf, String> {
    word(value).map(PathBuf::from)
}

/// An address to listen on.
pub(super) fn address(value: &Value) -> Result<SocketAddr, String> {
    word(value)?.parse().map_err(|_| {
        "must be an IP address and a port, such as 127.0.0.1:8000, 0.0.0.0:8000 or [::]:8000".to_owned()
    })
}

/// A whole number within bounds.
pub(super) fn number<N>(bounds: RangeInclusive<N>) -> impl Fn(&Value) -> Result<N, String>
where
    N: FromStr + PartialOrd + Display,
{
    move |value| {
        let number = text(value).and_then(|text| text.parse().ok()).filter(|number| bounds.contains(number));
        number.ok_or_else(|| format!("must be a whole number from {} to {}", bounds.start(), bounds.end()))
    }
}

/// Bytes within bounds: `64KiB`, `1MiB`, `65536`.
pub(super) fn size(bounds: RangeInclusive<usize>) -> impl Fn(&Value) -> Result<usize, String> {
    move |value| {
        let read = text(value).and_then(|text| text.parse::<bytesize::ByteSize>().ok());
        let Some(size) = read.and_then(|size| usize::try_from(size.as_u64()).ok()) else {
            return Err("must be a size: a number of bytes, or with a unit, such as 64KiB or 1MiB".to_owned());
        };
        if bounds.contains(&size) {
            return Ok(size);
        }
        let shown = |bytes: &usize| bytesize::ByteSize(*bytes as u64).display().iec().to_string();
        Err(format!("must be from {} to {}", shown(bounds.start()), shown(bounds.end())))
    }
}

/// A duration within bounds: `250ms`, `5s`, `2m`.
pub(super) fn duration(bounds: RangeInclusive<Duration>) -> impl Fn(&Value) -> Result<Duration, String> {
    move |value| {
        let read = text(value).and_then(|text| humantime::parse_duration(&text).ok());
        let Some(duration) = read else {
            return Err("must be a duration: a number and a unit, such as 250ms, 5s or 2m".to_owned());
        };
        if bounds.contains(&duration) {
            return Ok(duration);
        }
        let shown = |duration: &Duration| humantime::format_duration(*duration).to_string();
        Err(format!("must be from {} to {}", shown(bounds.start()), shown(bounds.end())))
    }
}

/// One of a few words.
pub(super) fn one_of<T: Copy>(words: &[(&str, T)]) -> impl Fn(&Value) -> Result<T, String> {
    move |value| {
        let text = text(value).unwrap_or_default();
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning);
        found.ok_or_else(|| {
            let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            format!("must be one of {}", words.join(", "))
        })
    }
}
