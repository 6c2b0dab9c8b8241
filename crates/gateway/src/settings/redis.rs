//! How to reach Redis: `relay.redis`, checked and resolved.
//!
//! Not here: whether anything answers there.

use std::time::Duration;

use config::Value;
use tidegate_relay::{RedisSettings, Secret, SentinelSettings, Topology};

use super::reader::Reader;
use super::value::{duration, items, number, path, size, text, word};

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// Each names the servers, so only one of them can be set; the first where none is.
pub(super) const URL: &str = "relay.redis.url";
const SENTINEL: &str = "relay.redis.sentinel.nodes";
const CLUSTER: &str = "relay.redis.cluster.nodes";
const SHARDS: &str = "relay.redis.shards";

/// Whether the one server of `relay.redis.url` is meant.
pub(super) fn url_counts(reader: &Reader<'_>) -> bool {
    ![SENTINEL, CLUSTER, SHARDS].iter().any(|key| names_any(reader, key))
}

/// Whether the list has items, be they right or wrong.
fn names_any(reader: &Reader<'_>, key: &str) -> bool {
    let items = reader.effective(key).and_then(|(value, _)| items(value).ok());
    items.is_some_and(|items| !items.is_empty())
}

pub(super) fn settings(reader: &mut Reader<'_>) -> RedisSettings {
    let mut username = reader.optional("relay.redis.username", word);
    let mut password = reader.secret("relay.redis.password");
    let servers = servers(reader);
    if let Some(in_url) = servers.username {
        if username.is_some() {
            reader.problem("relay.redis.username", "relay.redis.url has one too: take one of them out");
        }
        username = Some(in_url);
    }
    if let Some(in_url) = servers.password {
        if password.is_some() {
            reader.problem(URL, "relay.redis.password is set too: take one of them out");
        }
        password = Some(in_url);
    }
    with_password(reader, "relay.redis", username.is_some(), password.is_some());
    let ca = reader.optional("relay.redis.ca", path);
    if let Some(ca) = &ca {
        if !servers.tls {
            let advice = format!("without effect: {} does not begin with rediss://", servers.key);
            reader.problem("relay.redis.ca", advice);
        }
        if let Err(advice) = super::certificate::authorities(ca) {
            reader.problem("relay.redis.ca", advice);
        }
    }
    RedisSettings {
        topology: servers.topology,
        username,
        password,
        ca,
        prefix: reader.take("relay.redis.prefix", prefix),
        command_timeout: reader.take("relay.redis.command_timeout", duration(50 * MILLISECOND..=MINUTE)),
        pool_size: reader.take("relay.redis.pool_size", number(RedisSettings::LEAST_POOL_SIZE..=1024)),
        linger: reader.take("relay.redis.linger", duration(Duration::ZERO..=10 * MINUTE)),
        heartbeat: reader.take("relay.redis.heartbeat", duration(200 * MILLISECOND..=5 * MINUTE)),
        max_publication_bytes: reader.take("relay.redis.max_publication_bytes", size(64..=64 << 20)),
        probe_interval: reader.take("relay.redis.probe_interval", duration(200 * MILLISECOND..=MINUTE)),
        wait_replicas: reader.take("relay.redis.wait_replicas", number(0..=64)),
        wait_timeout: reader.take("relay.redis.wait_timeout", duration(MILLISECOND..=MINUTE)),
        presence_ttl: reader.take("relay.redis.presence_ttl", duration(SECOND..=60 * MINUTE)),
        ingest: None,
        events: None,
    }
}

/// What was written of the servers.
struct Servers {
    topology: Topology,
    /// Of the URL of a single server.
    username: Option<String>,
    password: Option<Secret>,
    tls: bool,
    /// Where their URLs stand.
    key: &'static str,
}

fn servers(reader: &mut Reader<'_>) -> Servers {
    let url = reader.take(URL, redis_url);
    let sentinel = sentinel(reader);
    let shards = shards(reader);
    let (cluster, cluster_tls) = nodes(reader, CLUSTER, node_url);
    let cluster = names_any(reader, CLUSTER).then_some(cluster);
    let written = [
        (URL, reader.is_written(URL)),
        (SENTINEL, sentinel.is_some()),
        (CLUSTER, cluster.is_some()),
        (SHARDS, shards.is_some()),
    ];
    let mut written = written.into_iter().filter(|(_, is)| *is).map(|(key, _)| key);
    if let (Some(first), Some(second)) = (written.next(), written.next()) {
        reader.problem(first, format!("{second} is set too: take one of them out"));
    }
    let several = |topology, tls, key| Servers { topology, username: None, password: None, tls, key };
    match (sentinel, cluster, shards) {
        (Some((sentinel, tls)), ..) => several(Topology::Sentinel(Box::new(sentinel)), tls, SENTINEL),
        (None, Some(nodes), _) => several(Topology::Cluster(nodes), cluster_tls, CLUSTER),
        (None, None, Some((urls, tls))) => several(Topology::Shards(urls), tls, SHARDS),
        (None, None, None) => Servers {
            topology: Topology::Server(url.bare),
            username: url.username,
            password: url.password,
            tls: url.tls,
            key: URL,
        },
    }
}

/// The servers that channels are spread over, and whether their URLs ask for TLS; `None` where there are none.
fn shards(reader: &mut Reader<'_>) -> Option<(Vec<String>, bool)> {
    let (urls, tls) = nodes(reader, SHARDS, shard_url);
    if !names_any(reader, SHARDS) {
        return None;
    }
    if urls.len() == 1 {
        reader.problem(SHARDS, format!("one server is not a list to spread over: set {URL} instead"));
    }
    if urls.iter().enumerate().any(|(at, url)| urls[..at].contains(url)) {
        reader.problem(SHARDS, "names a server twice: its channels would be heard twice");
    }
    Some((urls, tls))
}

/// The section `relay.redis.sentinel`, and whether its URLs ask for TLS; `None` where it names no sentinel.
fn sentinel(reader: &mut Reader<'_>) -> Option<(SentinelSettings, bool)> {
    let master = reader.optional("relay.redis.sentinel.master", word);
    let username = reader.optional("relay.redis.sentinel.username", word);
    let password = reader.secret("relay.redis.sentinel.password");
    with_password(reader, "relay.redis.sentinel", username.is_some(), password.is_some());
    let (nodes, tls) = nodes(reader, SENTINEL, node_url);
    if !names_any(reader, SENTINEL) {
        for key in ["master", "username", "password", "password_file"] {
            let key = format!("relay.redis.sentinel.{key}");
            if reader.is_written(&key) {
                reader.problem(&key, format!("without effect: {SENTINEL} names no sentinel"));
            }
        }
        return None;
    }
    if !reader.is_written("relay.redis.sentinel.master") {
        let advice = format!("missing: {SENTINEL} is set, and the sentinels must be asked for a name");
        reader.problem("relay.redis.sentinel.master", advice);
    }
    Some((SentinelSettings { master: master.unwrap_or_default(), nodes, username, password }, tls))
}

/// The URLs of servers that belong together, and whether they ask for TLS.
fn nodes(
    reader: &mut Reader<'_>,
    key: &str,
    parse: impl Fn(&Value) -> Result<RedisUrl, String>,
) -> (Vec<String>, bool) {
    let urls = reader.list(key, parse);
    let tls = urls.first().is_some_and(|url| url.tls);
    if urls.iter().any(|url| url.tls != tls) {
        reader.problem(key, "must be redis:// or rediss:// throughout: some are one and some the other");
    }
    (urls.into_iter().map(|url| url.bare).collect(), tls)
}

/// A user needs a password; one that is written and wrong is a problem of its own.
fn with_password(reader: &mut Reader<'_>, section: &str, user: bool, password: bool) {
    let key = |name: &str| format!("{section}.{name}");
    let written = reader.is_written(&key("password")) || reader.is_written(&key("password_file"));
    if user && !password && !written {
        reader.problem(&key("username"), format!("without a password: set {section}.password(_file) too"));
    }
}

fn prefix(value: &Value) -> Result<String, String> {
    let prefix = word(value)?;
    RedisSettings::check_prefix(&prefix)?;
    Ok(prefix)
}

/// A Redis URL, taken apart.
struct RedisUrl {
    bare: String,
    username: Option<String>,
    password: Option<Secret>,
    tls: bool,
    database: bool,
}

fn redis_url(value: &Value) -> Result<RedisUrl, String> {
    taken_apart(value, "must be redis://host:port/database, or rediss:// for TLS")
}

/// One of several, for which credentials are written once.
fn shard_url(value: &Value) -> Result<RedisUrl, String> {
    let url = redis_url(value)?;
    if url.username.is_some() || url.password.is_some() {
        return Err("user and password have keys of their own, which hold for all of the list".to_owned());
    }
    Ok(url)
}

/// The same where nobody can choose the database.
fn node_url(value: &Value) -> Result<RedisUrl, String> {
    let url = shard_url(value)?;
    if url.database {
        return Err("must end with the port: there is no choice of a database".to_owned());
    }
    Ok(url)
}

fn taken_apart(value: &Value, advice: &str) -> Result<RedisUrl, String> {
    let mut url = url::Url::parse(&text(value).unwrap_or_default()).map_err(|_| advice.to_owned())?;
    let database = url.path().trim_start_matches('/').to_owned();
    let fits = matches!(url.scheme(), "redis" | "rediss")
        && url.host_str().is_some_and(|host| !host.is_empty())
        && (database.is_empty() || database.parse::<u16>().is_ok());
    if !fits {
        return Err(advice.to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(format!("{advice}; nothing behind it, options have keys of their own"));
    }
    let decoded = |part: &str| {
        let text = percent_encoding::percent_decode_str(part).decode_utf8();
        text.map(|text| text.into_owned()).map_err(|_| "has a user or password that is not UTF-8".to_owned())
    };
    let username = Some(decoded(url.username())?).filter(|name| !name.is_empty());
    let password = url.password().map(decoded).transpose()?.filter(|password| !password.is_empty());
    let cleared = url.set_username("").and_then(|()| url.set_password(None));
    cleared.map_err(|()| advice.to_owned())?;
    Ok(RedisUrl {
        tls: url.scheme() == "rediss",
        bare: url.into(),
        username,
        password: password.map(Secret::new),
        database: !database.is_empty(),
    })
}
