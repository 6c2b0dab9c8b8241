//! The settings that count, each with where it came from: what `tidegate config` prints.

use std::fmt::Write;

use tidegate_relay::RelaySettings;

use super::known::Known;
use super::reader::Reader;
use super::redis;
use super::resolved::Settings;
use super::value;

/// One YAML document that could be given back as a file, but for masked secrets.
pub(super) fn yaml(known: &Known, reader: &Reader<'_>, settings: &Settings) -> String {
    let mut out = String::new();
    let mut open: Vec<&str> = Vec::new();
    for key in known.keys() {
        let Some((value, origin)) = reader.effective(key) else { continue };
        if key == redis::URL && !redis::url_counts(reader) {
            // Its default means nothing here; given back as a file it would be one server too many.
            continue;
        }
        let mut parts: Vec<&str> = key.split('.').collect();
        let name = parts.pop().unwrap_or(key);
        let shared = open.iter().zip(&parts).take_while(|(a, b)| a == b).count();
        for (depth, part) in parts.iter().enumerate().skip(shared) {
            let _ = writeln!(out, "{:indent$}{part}:", "", indent = depth * 2);
        }
        let indent = parts.len() * 2;
        open = parts;

        let note = resolved(key, value::text(value).as_deref(), settings);
        let note = note.map(|note| format!("; here {note}")).unwrap_or_default();
        match value::items(value) {
            Ok(items) if is_list(known, key) && !items.is_empty() => {
                let _ = writeln!(out, "{:indent$}{name}:  # {origin}", "");
                for item in items {
                    let _ = writeln!(out, "{:indent$}  - {}", "", value::shown(key, &item));
                }
            }
            _ => {
                let shown = if is_list(known, key) { "[]".to_owned() } else { value::shown(key, value) };
                let _ = writeln!(out, "{:indent$}{name}: {shown}  # {origin}{note}", "");
            }
        }
    }
    out
}

fn is_list(known: &Known, key: &str) -> bool {
    let default = known.default(key, false);
    default.is_some_and(|(value, _)| matches!(value.kind, config::ValueKind::Array(_)))
}

/// What `auto` means on this machine.
fn resolved(key: &str, written: Option<&str>, settings: &Settings) -> Option<String> {
    if written != Some("auto") {
        return None;
    }
    match key {
        "workers" => Some(settings.workers.to_string()),
        "node.name" => Some(settings.node.name.clone()),
        "relay.redis.ingest.enabled" => {
            let ingests = matches!(&settings.relay, RelaySettings::Redis(redis) if redis.ingest.is_some());
            Some(ingests.to_string())
        }
        "limits.max_connections" => Some(settings.limits.max_connections.to_string()),
        "limits.accept_rate" => Some(settings.limits.accept_rate.to_string()),
        "limits.accept_burst" => Some(settings.limits.accept_burst.to_string()),
        _ => None,
    }
}
