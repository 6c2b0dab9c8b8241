//! What a scrape may rely on.
#![expect(clippy::unwrap_used, reason = "a failing test is what should happen")]
use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// Label names, each with its values.
type Labels = BTreeMap<String, BTreeSet<String>>;

fn value(metrics: &Metrics, line: &str) -> String {
    let text = metrics.render();
    let found = text.lines().find_map(|each| each.strip_prefix(line)?.strip_prefix(' ').map(str::to_owned));
    found.unwrap_or_else(|| panic!("{line} is not in\n{text}"))
}

#[test]
fn what_is_counted_is_shown_under_its_label() {
    let metrics = Metrics::new().unwrap();
    let mut tally = Tally { slow_consumers: 2, heartbeat_timeouts: 3, ..Tally::default() };
    tally.received[1] = 5;
    tally.sent[3] = 7;
    metrics.tally(&tally);
    assert_eq!(value(&metrics, "tidegate_messages_received_total{command=\"subscribe\"}"), "5");
    assert_eq!(value(&metrics, "tidegate_messages_sent_total{kind=\"ping\"}"), "7");
    assert_eq!(value(&metrics, "tidegate_slow_consumers_total"), "2");
    assert_eq!(value(&metrics, "tidegate_heartbeat_timeouts_total"), "3");
    for rejection in Rejection::ALL {
        metrics.rejected(rejection);
        let line = format!("tidegate_connections_rejected_total{{reason=\"{}\"}}", rejection.label());
        assert_eq!(value(&metrics, &line), "1");
    }
    for source in Source::ALL {
        metrics.published(source, 4);
        let line = format!("tidegate_publications_total{{source=\"{}\"}}", source.label());
        assert_eq!(value(&metrics, &line), "4");
    }
    for reason in Disconnect::ALL {
        metrics.disconnected(*reason, Duration::from_secs(1));
        let line = format!("tidegate_disconnects_total{{code=\"{}\"}}", reason.label());
        assert_eq!(value(&metrics, &line), "1");
    }
    let ended = Disconnect::ALL.len().to_string();
    assert_eq!(value(&metrics, "tidegate_connection_age_seconds_count"), ended);
}

#[test]
fn the_relay_shows_when_it_is_up_and_what_it_lost() {
    let metrics = Metrics::new().unwrap();
    metrics.observe(Observation::Up);
    assert_eq!(value(&metrics, "tidegate_relay_up"), "1");
    metrics.observe(Observation::Down { channels: 12 });
    metrics.observe(Observation::Missed { channels: 3 });
    metrics.observe(Observation::Reconnected);
    metrics.observe(Observation::Dropped(9));
    for reason in ["not_json", "envelope", "too_large", "channel_name", "control"] {
        metrics.observe(Observation::Refused(reason));
        let line = format!("tidegate_publication_rejected_total{{reason=\"{reason}\"}}");
        assert_eq!(value(&metrics, &line), "1");
    }
    metrics.observe(Observation::Command("publish", Duration::from_millis(3)));
    metrics.observe(Observation::Command("something new", Duration::from_millis(3)));
    for (line, expected) in [
        ("tidegate_relay_up", "0"),
        ("tidegate_relay_gaps_total", "15"),
        ("tidegate_relay_reconnects_total", "1"),
        ("tidegate_relay_dropped_publications_total", "9"),
        ("tidegate_relay_command_seconds_count{command=\"publish\"}", "1"),
        ("tidegate_relay_command_seconds_count{command=\"other\"}", "1"),
    ] {
        assert_eq!(value(&metrics, line), expected, "{line}");
    }
}

#[test]
fn memory_a_connection_is_not_a_number_until_it_is_known() {
    let metrics = Metrics::new().unwrap();
    assert_eq!(value(&metrics, "tidegate_memory_per_connection_bytes"), "NaN");
    metrics.memory_per_connection.set(512.5);
    assert_eq!(value(&metrics, "tidegate_memory_per_connection_bytes"), "512.5");
}

#[test]
fn the_reference_has_every_family_with_its_type_and_labels_and_no_other() {
    let metrics = Metrics::new().unwrap();
    metrics.render();
    let mut families: BTreeMap<String, (String, Labels)> = BTreeMap::new();
    for family in metrics.registry.gather() {
        let kind = format!("{:?}", family.get_field_type()).to_lowercase();
        let mut labels = Labels::new();
        for pair in family.get_metric().iter().flat_map(|metric| metric.get_label()) {
            labels.entry(pair.name().to_owned()).or_default().insert(pair.value().to_owned());
        }
        families.insert(family.name().to_owned(), (kind, labels));
    }

    let page = include_str!("../../../../docs/reference/metrics.md");
    let rows =
        page.lines().filter(|line| line.starts_with("| `tidegate_") || line.starts_with("| `process_"));
    for row in rows {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let name = cells[1].trim_matches('`');
        let (kind, labels) = families.remove(name).unwrap_or_else(|| panic!("there is no family {name}"));
        assert_eq!(cells[2], kind, "{name}");
        let mut documented = Labels::new();
        for label in cells[3].split(';').map(str::trim).filter(|label| !label.is_empty()) {
            let (label, values) = label.split_once(':').unwrap();
            let label = label.trim_matches('`').to_owned();
            let listed: BTreeSet<String> = values
                .split(',')
                .filter_map(|value| Some(value.trim().strip_prefix('`')?.strip_suffix('`')?.to_owned()))
                .collect();
            // A set that is described elsewhere is not listed here.
            let values =
                if listed.is_empty() { labels.get(&label).cloned().unwrap_or_default() } else { listed };
            documented.insert(label, values);
        }
        assert_eq!(documented, labels, "{name}");
        if let Some(reasons) = labels.get("reason") {
            for reason in reasons {
                assert!(page.contains(&format!("\n| `{reason}` | ")), "{name}: {reason} is not explained");
            }
        }
    }
    assert!(families.is_empty(), "not in the reference: {:?}", families.keys());
}
