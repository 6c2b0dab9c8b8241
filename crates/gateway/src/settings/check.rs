//! From what was written to what the node uses: every bound and every rule between keys.
//!
//! Not here: what namespaces say (`namespaces`).

use std::collections::HashSet;
use std::time::Duration;

use config::Value;
use tidegate_protocol::EventKinds;
use tidegate_relay::{MemorySettings, RelaySettings};

use super::machine::{self, Machine, RESERVED_FILES};
use super::namespaces;
use super::reader::Reader;
use super::redis;
use super::resolved::{
    Api, ApiKey, Auth, Bound, Drain, Heartbeat, Limits, Listen, Log, LogFormat, Node, Outbox, RecordLayer,
    Scope, Settings, Tls,
};
use super::streams;
use super::value::{address, duration, flag, number, one_of, path, size, word};

/// The most connections a node can be asked to take.
pub(super) const MAX_CONNECTIONS: usize = 10_000_000;

const SCOPES: [(&str, Scope); 3] =
    [("read", Scope::Read), ("publish", Scope::Publish), ("admin", Scope::Admin)];

const FORMATS: [(&str, LogFormat); 3] =
    [("auto", LogFormat::Auto), ("human", LogFormat::Human), ("json", LogFormat::Json)];

const RECORD_LAYERS: [(&str, RecordLayer); 2] =
    [("rustls", RecordLayer::Rustls), ("compact", RecordLayer::Compact)];

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// Checks everything. What is returned is only whole if the reader has no problems then.
pub(super) fn settings(reader: &mut Reader<'_>, machine: &Machine) -> Settings {
    let dev = reader.take("dev.enabled", flag);
    if dev {
        reader.dev_mode();
        reader.warnings.push(
            "DEV MODE (--dev): anyone who reaches this node may connect, subscribe and publish. Never in production."
                .to_owned(),
        );
    }
    let workers = reader.auto("workers", number(1..=64)).unwrap_or_else(|| machine.cpus.clamp(1, 64));
    let tls = tls(reader);
    let limits = limits(reader, machine, workers, tls.is_some());
    let (relay, events) = relay(reader);
    let outbox = Outbox { max_bytes: reader.take("outbox.max_bytes", size(1024..=1 << 30)) };
    if let RelaySettings::Redis(redis) = &relay
        && redis.max_publication_bytes > outbox.max_bytes
    {
        reader.warnings.push(format!(
            "relay.redis.max_publication_bytes ({}) is more than outbox.max_bytes ({}): a publication of that size \
             ends every subscription's connection with 3008",
            redis.max_publication_bytes, outbox.max_bytes
        ));
    }
    let mut proxy = super::proxy::all(reader);
    let namespaces = namespaces::all(reader, &mut proxy);
    Settings {
        listen: listen(reader, dev),
        workers,
        node: Node { name: reader.auto("node.name", word).unwrap_or_else(|| machine.host.clone()) },
        tls,
        relay,
        limits,
        heartbeat: heartbeat(reader),
        outbox,
        auth: Auth {
            anonymous: reader.take("auth.anonymous", flag),
            origins: reader.list("auth.origins", origin),
        },
        api: Api { keys: api_keys(reader) },
        events,
        any_namespace: dev.then(|| namespaces::by_default(reader)),
        namespaces,
        proxy,
        drain: Drain {
            delay: reader.take("drain.delay", duration(Duration::ZERO..=10 * MINUTE)),
            duration: reader.take("drain.duration", duration(Duration::ZERO..=60 * MINUTE)),
        },
        log: Log {
            level: reader.take("log.level", level),
            format: reader.take("log.format", one_of(&FORMATS)),
        },
        dev,
    }
}

fn listen(reader: &mut Reader<'_>, dev: bool) -> Listen {
    let listen = Listen {
        public: reader.take("listen.public", address),
        internal: reader.take("listen.internal", address),
    };
    if listen.public == listen.internal && listen.public.port() != 0 {
        reader
            .problem("listen.internal", "the same as listen.public: they are two servers, give each a port");
    }
    let anywhere = reader.take("dev.listen_anywhere", flag);
    for (key, address) in [("listen.public", listen.public), ("listen.internal", listen.internal)] {
        if dev && !anywhere && !address.ip().to_canonical().is_loopback() {
            reader.problem(
                key,
                "dev mode lets anyone do anything, so it listens on loopback only: use 127.0.0.1, or say \
                 --dev-listen-anywhere",
            );
        }
    }
    listen
}

fn tls(reader: &mut Reader<'_>) -> Option<Tls> {
    let cert = reader.optional("tls.cert", path);
    let key = reader.optional("tls.key", path);
    for (set, key, other) in [("tls.cert", "tls.key", &key), ("tls.key", "tls.cert", &cert)] {
        if reader.is_written(set) && other.is_none() && !reader.is_written(key) {
            reader.problem(key, format!("missing: {set} is set, and TLS needs both"));
        }
    }
    let ticket_keys = reader.optional("tls.ticket_keys", path);
    if ticket_keys.is_some() && !reader.is_written("tls.cert") {
        reader.problem("tls.ticket_keys", "only works with TLS: set tls.cert and tls.key too");
    }
    if let Some(Err(advice)) = ticket_keys.as_deref().map(super::ticket_keys::read) {
        reader.problem("tls.ticket_keys", advice);
    }
    let record_layer = reader.take("tls.record_layer", one_of(&RECORD_LAYERS));
    let tls = Tls { cert: cert?, key: key?, ticket_keys, record_layer };
    if let Err((key, advice)) = super::certificate::check(&tls) {
        reader.problem(key, advice);
    }
    Some(tls)
}

/// The relay, and which events it is given to write.
fn relay(reader: &mut Reader<'_>) -> (RelaySettings, EventKinds) {
    let is_redis = reader.take("relay.kind", one_of(&[("memory", false), ("redis", true)]));
    // Read either way, so that mistakes are found before the day it is switched on.
    let mut redis = redis::settings(reader);
    redis.ingest = streams::ingest(reader, is_redis, redis.command_timeout);
    let (events, most_events) = streams::events(reader, is_redis);
    redis.events = (!events.is_empty()).then_some(most_events);
    let memory =
        MemorySettings { history_bytes: reader.take("relay.memory.history_bytes", size(1 << 20..=64 << 30)) };
    (if is_redis { RelaySettings::Redis(redis) } else { RelaySettings::Memory(memory) }, events)
}

fn limits(reader: &mut Reader<'_>, machine: &Machine, workers: usize, tls: bool) -> Limits {
    let accept_rate = reader
        .auto("limits.accept_rate", number(0..=1_000_000))
        .unwrap_or_else(|| machine::accept_rate(workers, tls));
    let asked = reader.auto("limits.max_connections", number(1..=MAX_CONNECTIONS));
    if let Some(asked) = asked
        && asked > machine.connections_by_files()
    {
        reader.warnings.push(format!(
            "limits.max_connections is {asked}, but this process may hold {} files, {RESERVED_FILES} of them for other \
             ends: raise RLIMIT_NOFILE (ulimit -n), or lower the limit",
            machine.files
        ));
    }
    let (max_connections, max_connections_by) =
        asked.map_or_else(|| machine.connections(workers, tls), |asked| (asked, Bound::Settings));
    let patience = || duration(100 * MILLISECOND..=10 * MINUTE);
    Limits {
        max_connections,
        max_connections_by,
        max_connections_per_ip: reader.take("limits.max_connections_per_ip", number(0..=u32::MAX)),
        accept_rate,
        accept_burst: reader
            .auto("limits.accept_burst", number(1..=1_000_000))
            .unwrap_or_else(|| machine::accept_burst(accept_rate)),
        max_handshakes: reader.take("limits.max_handshakes", number(1..=1_000_000)),
        handshake_timeout: reader.take("limits.handshake_timeout", patience()),
        connect_timeout: reader.take("limits.connect_timeout", patience()),
        max_message_bytes: reader.take("limits.max_message_bytes", size(128..=16 << 20)),
        max_fragments: reader.take("limits.max_fragments", number(1..=1_048_576)),
        message_timeout: reader.take("limits.message_timeout", patience()),
        max_subscriptions: reader.take("limits.max_subscriptions", number(1..=1_000_000)),
        write_timeout: reader.take("limits.write_timeout", patience()),
    }
}

fn heartbeat(reader: &mut Reader<'_>) -> Heartbeat {
    let interval = duration(SECOND..=10 * MINUTE);
    let heartbeat = Heartbeat {
        interval: reader.take("heartbeat.interval", |value| match interval(value)? {
            whole if whole.subsec_nanos() == 0 => Ok(whole),
            _ => Err("must be whole seconds: clients are told in seconds".to_owned()),
        }),
        timeout: reader.take("heartbeat.timeout", duration(250 * MILLISECOND..=10 * MINUTE)),
    };
    if heartbeat.timeout > heartbeat.interval {
        reader.problem(
            "heartbeat.timeout",
            "longer than heartbeat.interval: a pong must come before the next ping",
        );
    }
    heartbeat
}

fn api_keys(reader: &mut Reader<'_>) -> Vec<ApiKey> {
    let mut names = HashSet::new();
    let mut keys: Vec<ApiKey> = Vec::new();
    for item in reader.sections("api.keys") {
        let name = reader.required(&item, "name", word);
        let key = reader.item_secret(&item, "key");
        let scope = reader.required(&item, "scope", one_of(&SCOPES));
        if let Some(name) = &name
            && !names.insert(name.clone())
        {
            reader.item_problem(&item, "name", "used twice: logs could not tell the keys apart");
        }
        let (Some(name), Some(key), Some(scope)) = (name, key, scope) else { continue };
        if keys.iter().any(|other| other.key == key) {
            reader.item_problem(&item, "key", "used twice: give each key a secret of its own");
        }
        if key.expose().len() < 16 {
            reader.warnings.push(format!("the API key {name} is shorter than 16 characters: easy to guess"));
        }
        keys.push(ApiKey { name, key, scope });
    }
    keys
}

fn level(value: &Value) -> Result<String, String> {
    let level = word(value)?;
    let advice = "must be error, warn, info, debug, trace or off, or directives such as info,tidegate=debug";
    // A filter would take any other word for the name of a module, and silence all the rest.
    if !level.contains(['=', ',']) && !LEVELS.iter().any(|known| level.eq_ignore_ascii_case(known)) {
        return Err(advice.to_owned());
    }
    match tracing_subscriber::EnvFilter::try_new(&level) {
        Ok(_) => Ok(level),
        Err(error) => Err(format!("{advice} ({error})")),
    }
}

/// An origin as a browser sends it: lower case, a default port left out.
fn origin(value: &Value) -> Result<String, String> {
    let written = word(value)?;
    if written == "*" {
        return Ok(written);
    }
    let advice =
        || "must be a scheme, a host and perhaps a port, such as https://app.example.com; or *".to_owned();
    let url = url::Url::parse(&written).map_err(|_| advice())?;
    let bare = url.has_host()
        && matches!(url.path(), "" | "/")
        && !written.ends_with('/')
        && url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty();
    if !bare {
        return Err(advice());
    }
    let origin = url.origin();
    Ok(if origin.is_tuple() { origin.ascii_serialization() } else { written.to_lowercase() })
}
