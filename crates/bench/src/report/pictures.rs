//! Which pictures there are, and of which figures.

use super::draw::{self, Group};
use super::{Data, page};
use crate::error::Error;

/// A picture.
pub(crate) struct Picture {
    pub(crate) name: &'static str,
    /// What stands in for it where it is not shown.
    pub(crate) title: String,
    /// The part of the page it belongs to.
    pub(crate) group: &'static str,
    pub(crate) svg: String,
}

/// (name, part of the page, title, figures with a short label each)
type Bars = (&'static str, &'static str, &'static str, &'static [(&'static str, &'static str)]);

const BARS: [Bars; 6] = [
    (
        "memory",
        "Memory",
        "Bytes a connection, user space",
        &[
            ("idle.plain", "idle, plain"),
            ("idle.tls", "idle, TLS 1.3"),
            ("idle.tls_compact", "idle, TLS 1.3, compact"),
            ("idle.burst", "after 2,000 publications"),
            ("idle.left", "left by a former one"),
        ],
    ),
    (
        "cpu",
        "Deliveries",
        "CPU seconds a million deliveries, one frame a write",
        &[("paced.plain", "plain"), ("paced.tls", "TLS 1.3")],
    ),
    (
        "flood",
        "Deliveries",
        "CPU seconds a million deliveries, a flood to 5,000",
        &[("flood.plain", "plain"), ("flood.tls", "TLS 1.3")],
    ),
    (
        "latency",
        "Deliveries",
        "Publish to received, ms",
        &[
            ("paced.p50", "one channel, p50"),
            ("paced.p99", "one channel, p99"),
            ("direct.p50", "through Redis, p50"),
            ("direct.p99", "through Redis, p99"),
            ("storm.calm_ms", "before a storm, p99"),
            ("storm.storm_ms", "in a storm, p99"),
        ],
    ),
    (
        "connect",
        "Letting in",
        "CPU to let one client in, ms",
        &[
            ("connect.plain", "plain"),
            ("connect.ecdsa", "TLS, ECDSA P-256"),
            ("connect.ecdsa_resumed", "TLS resumed, ECDSA P-256"),
            ("connect.rsa", "TLS, RSA 2048"),
            ("connect.rsa_resumed", "TLS resumed, RSA 2048"),
        ],
    ),
    (
        "heartbeats",
        "Memory",
        "Heartbeats of 19,000 connections, % of a processor",
        &[("idle.heartbeats", "at 25 s")],
    ),
];

/// (name, part of the page, title, series)
const LINES: [(&str, &str, &str, &str); 3] = [
    ("slope", "Memory", "Memory above the start, MiB, by connections", "slope"),
    ("nodes", "Scaling", "Deliveries a second by nodes on one Redis", "nodes"),
    ("workers", "Scaling", "Deliveries a second by workers of one node", "workers"),
];

/// All that there is something to show in.
pub(crate) fn all(data: &Data) -> Result<Vec<Picture>, Error> {
    let mut pictures = Vec::new();
    for (name, group, title, of) in BARS {
        let groups: Vec<_> = of.iter().filter_map(|(key, label)| bars_of(data, key, label)).collect();
        if !groups.is_empty() {
            let svg = draw::bars(title, &["Tidegate", "baseline"], &groups)?;
            pictures.push(Picture { name, title: title.into(), group, svg });
        }
    }
    if !data.polling.is_empty() {
        let title = "Bytes on the wire for an update to a client, both ways";
        let bar = |way: &super::Way| {
            let bytes = way.sent_per_update + way.received_per_update;
            let line = usize::from(!way.name.ends_with("Tidegate"));
            Group { label: way.name.clone(), bars: vec![(line, bytes, page::number(bytes))] }
        };
        let groups: Vec<_> = data.polling.iter().map(bar).collect();
        let svg = draw::bars(title, &["Tidegate", "baseline"], &groups)?;
        pictures.push(Picture { name: "polling", title: title.into(), group: "Polling", svg });
    }
    for (name, group, title, key) in LINES {
        if let Some(series) = data.series.iter().find(|series| series.key == key) {
            let lines: Vec<_> =
                series.lines.iter().map(|line| (line.name.as_str(), line.points.clone())).collect();
            let svg = draw::lines(title, (&series.x, &series.y), &lines)?;
            pictures.push(Picture { name, title: title.into(), group, svg });
        }
    }
    Ok(pictures)
}

fn bars_of(data: &Data, key: &str, label: &str) -> Option<Group> {
    let figure = data.figure(key)?;
    let both = [(0, figure.tidegate), (1, figure.baseline)];
    let bars: Vec<_> = both
        .iter()
        .filter_map(|(line, value)| value.map(|value| (*line, value, page::number(value))))
        .collect();
    (!bars.is_empty()).then(|| Group { label: label.to_owned(), bars })
}
