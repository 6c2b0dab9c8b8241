//! What namespaces say, and what may not be said together.
//!
//! Not here: what clients get by it (`tidegate-hub`), and what the relay keeps (`tidegate-relay`).

use std::time::Duration;

use config::Value;
use tidegate_hub::{Delivery, History, Namespace, Presence, Right};
use tidegate_protocol::ChannelName;
use tidegate_relay::{ChannelRules, OnGap, Retention};

use super::reader::{Item, Reader};
use super::resolved::{EndpointSettings, NamespaceRules, ProxySettings};
use super::value::{duration, flag, number, one_of, word};

const RIGHTS: [(&str, Right); 5] = [
    ("anyone", Right::Anyone),
    ("authenticated", Right::Authenticated),
    ("subscriber", Right::Subscriber),
    ("token", Right::Token),
    ("nobody", Right::Nobody),
];

const DELIVERIES: [(&str, Delivery); 2] = [("every", Delivery::Every), ("latest", Delivery::Latest)];

const ON_GAP: [(&str, OnGap); 2] = [("count", OnGap::Count), ("notify", OnGap::Notify)];

/// The most publications that are kept of a channel. A recovery may have to read all of them.
const MAX_HISTORY: u32 = 100_000;

const SECOND: Duration = Duration::from_secs(1);
const MONTH: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// The namespaces, by name. Which of their questions go to a backend is written into `proxy`.
pub(super) fn all(reader: &mut Reader<'_>, proxy: &mut ProxySettings) -> Vec<(String, NamespaceRules)> {
    let fallback = by_default(reader).clients;
    let mut namespaces: Vec<(String, NamespaceRules)> = Vec::new();
    for item in reader.sections("namespaces") {
        let name = reader.required(&item, "name", namespace_name);
        let mut rules = rules(reader, &item, fallback);
        let subscribe = decided(reader, &item, ("subscribe", "subscribe_proxy"), &proxy.endpoints);
        let publish = decided(reader, &item, ("publish", "publish_proxy"), &proxy.endpoints);
        let Some(name) = name else { continue };
        if namespaces.iter().any(|(other, _)| *other == name) {
            reader.item_problem(&item, "name", "there is one of this name already");
            continue;
        }
        if let Some(endpoint) = subscribe {
            rules.clients.subscribe = Right::Backend;
            proxy.subscribe.insert(name.clone(), endpoint);
        }
        if let Some(endpoint) = publish {
            rules.clients.publish = Right::Backend;
            proxy.publish.insert(name.clone(), endpoint);
        }
        namespaces.push((name, rules));
    }
    namespaces
}

/// The endpoint that decides instead of a right, if the namespace names one.
fn decided(
    reader: &mut Reader<'_>,
    item: &Item,
    (right, field): (&str, &str),
    endpoints: &[EndpointSettings],
) -> Option<usize> {
    let endpoint = reader.field(item, field, |value| {
        let name = word(value)?;
        let found = endpoints.iter().position(|endpoint| endpoint.name == name);
        found.ok_or_else(|| super::proxy::unknown(endpoints))
    })?;
    if item.has(right) {
        let advice = format!("{field} is set too, and the backend decides alone: take one of them out");
        reader.item_problem(item, right, advice);
    }
    Some(endpoint)
}

/// The namespace that is there by default. Its rights are those of every namespace that leaves one out.
pub(super) fn by_default(reader: &mut Reader<'_>) -> NamespaceRules {
    let nobody = Namespace::plain(Right::Nobody, Right::Nobody);
    let item = reader.default_section("namespaces").expect("the defaults have a namespace");
    rules(reader, &item, nobody)
}

/// What one namespace says. Rights that it leaves out are those of `fallback`; anything else is off.
fn rules(reader: &mut Reader<'_>, item: &Item, fallback: Namespace) -> NamespaceRules {
    let subscribe = reader.field(item, "subscribe", |value| match one_of(&RIGHTS)(value)? {
        Right::Subscriber => Err("nobody is a subscriber before they subscribed: choose another".to_owned()),
        right => Ok(right),
    });
    let publish = reader.field(item, "publish", one_of(&RIGHTS));
    let read_history = reader.field(item, "read_history", one_of(&RIGHTS));
    let read_presence = reader.field(item, "read_presence", one_of(&RIGHTS));
    let delivery = reader.field(item, "delivery", one_of(&DELIVERIES)).unwrap_or_default();
    let on_gap = reader.field(item, "on_gap", one_of(&ON_GAP)).unwrap_or_default();
    let events_data = reader.field(item, "events_data", flag).unwrap_or_default();
    let retention = retention(reader, item);
    let (history, presence) = (history(reader, item, retention), presence(reader, item));
    if retention.is_some() && delivery == Delivery::Latest {
        reader.item_problem(
            item,
            "delivery",
            "latest skips publications, and history_size promises that none is missing: take one of them out",
        );
    }
    if retention.is_some() && on_gap == OnGap::Notify {
        reader.item_problem(
            item,
            "on_gap",
            "is for channels without history: with history_size the node reads again what it missed, and always says \
             so when it cannot",
        );
    }
    NamespaceRules {
        clients: Namespace {
            subscribe: subscribe.unwrap_or(fallback.subscribe),
            publish: publish.unwrap_or(fallback.publish),
            read_history: read_history.unwrap_or(fallback.read_history),
            read_presence: read_presence.unwrap_or(fallback.read_presence),
            delivery,
            history,
            presence,
            events_data,
        },
        channels: ChannelRules { retention, join_leave: presence == Presence::Told, on_gap },
    }
}

/// How much is kept: nothing, or a number of publications for a time.
fn retention(reader: &mut Reader<'_>, item: &Item) -> Option<Retention> {
    let problems = reader.problems.len();
    let size = reader.field(item, "history_size", number(0..=MAX_HISTORY)).unwrap_or_default();
    let seconds = duration(SECOND..=MONTH);
    let ttl = reader.field(item, "history_ttl", |value| match seconds(value)? {
        whole if whole.subsec_nanos() == 0 => Ok(whole),
        _ => Err("must be whole seconds, in which Redis is told".to_owned()),
    });
    // What is wrong by itself says nothing about the other.
    let whole = reader.problems.len() == problems;
    match (size, ttl) {
        (0, Some(_)) if whole => {
            let advice = "without effect: history_size is 0, so nothing is kept; set it, or take this out";
            reader.item_problem(item, "history_ttl", advice);
            None
        }
        (1.., None) if whole => {
            let advice = "missing: history_size is set, and what nobody asks for any more must go some day";
            reader.item_problem(item, "history_ttl", advice);
            None
        }
        (0, _) | (_, None) => None,
        (size, Some(ttl)) => Some(Retention { size, ttl }),
    }
}

fn history(reader: &mut Reader<'_>, item: &Item, retention: Option<Retention>) -> History {
    let recover = reader.field(item, "recover", flag).unwrap_or_default();
    match (retention, recover) {
        (None, true) => {
            let advice = "needs history: what is not kept cannot be given to who comes back; set history_size and \
                          history_ttl";
            // A history that is wrong has been told already.
            if !reader
                .problems
                .iter()
                .any(|problem| problem.key.starts_with(&format!("{}.history", item.path)))
            {
                reader.item_problem(item, "recover", advice);
            }
            History::None
        }
        (None, false) => History::None,
        (Some(_), false) => History::Kept,
        (Some(_), true) => History::Recoverable,
    }
}

fn presence(reader: &mut Reader<'_>, item: &Item) -> Presence {
    let presence = reader.field(item, "presence", flag).unwrap_or_default();
    match (presence, reader.field(item, "join_leave", flag).unwrap_or_default()) {
        (false, true) => {
            let advice =
                "needs presence: whose presence is not kept neither joins nor leaves; set presence: true";
            reader.item_problem(item, "join_leave", advice);
            Presence::None
        }
        (false, false) => Presence::None,
        (true, false) => Presence::Kept,
        (true, true) => Presence::Told,
    }
}

fn namespace_name(value: &Value) -> Result<String, String> {
    let name = word(value)?;
    match ChannelName::parse(&name) {
        Ok(_) if name.contains(':') => {
            Err("may not contain `:`, which ends a channel's namespace".to_owned())
        }
        Ok(_) => Ok(name),
        Err(error) => Err(error.to_string()),
    }
}
