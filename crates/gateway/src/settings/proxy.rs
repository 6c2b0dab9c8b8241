//! Backends that decide: where they are, and which questions they are asked.
//!
//! Not here: how they are asked (`proxy`).

use std::time::Duration;

use config::{Value, ValueKind};
use hyper::http::uri::Scheme;
use hyper::{HeaderMap, Uri, header::HeaderValue};
use url::{Host, Url};

use super::reader::{Item, Reader};
use super::resolved::{EndpointSettings, ProxySettings};
use super::value::{duration, items, number, path, size, word};
use crate::proxy::headers;

const TIMEOUT: Duration = Duration::from_secs(2);
const CONCURRENCY: usize = 64;
const QUEUE: usize = 256;
const MAX_RESPONSE_BYTES: usize = 64 * 1024;

/// The section `proxy`, without what namespaces say.
pub(super) fn all(reader: &mut Reader<'_>) -> ProxySettings {
    let endpoints = endpoints(reader);
    let find = |name: &str| endpoints.iter().position(|endpoint| endpoint.name == name);
    let one = |reader: &mut Reader<'_>, key: &str| {
        reader.optional(key, |value| {
            let name = word(value)?;
            find(&name).ok_or_else(|| unknown(&endpoints))
        })
    };
    let connect = one(reader, "proxy.connect");
    let mut rpc: Vec<(String, usize)> = Vec::new();
    if let Some(default) = one(reader, "proxy.rpc") {
        rpc.push((String::new(), default));
    }
    for item in reader.sections("proxy.rpc_methods") {
        let prefix = reader.required(&item, "prefix", word);
        let endpoint = reader
            .required(&item, "endpoint", |value| find(&word(value)?).ok_or_else(|| unknown(&endpoints)));
        let (Some(prefix), Some(endpoint)) = (prefix, endpoint) else { continue };
        if rpc.iter().any(|(other, _)| *other == prefix) {
            reader.item_problem(&item, "prefix", "there is one of this prefix already");
            continue;
        }
        rpc.push((prefix, endpoint));
    }
    // The longest that fits is meant.
    rpc.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
    ProxySettings { endpoints, connect, rpc, ..ProxySettings::default() }
}

/// What to say about a name that no endpoint has.
pub(super) fn unknown(endpoints: &[EndpointSettings]) -> String {
    let names: Vec<&str> = endpoints.iter().map(|endpoint| endpoint.name.as_str()).collect();
    match names.as_slice() {
        [] => "names an endpoint, and there is none: add it to proxy.endpoints".to_owned(),
        _ => format!("must be the name of an endpoint: one of {}", names.join(", ")),
    }
}

fn endpoints(reader: &mut Reader<'_>) -> Vec<EndpointSettings> {
    let mut endpoints: Vec<EndpointSettings> = Vec::new();
    for item in reader.sections("proxy.endpoints") {
        let endpoint = endpoint(reader, &item);
        let Some(endpoint) = endpoint else { continue };
        if endpoints.iter().any(|other| other.name == endpoint.name) {
            reader.item_problem(&item, "name", "there is one of this name already");
            continue;
        }
        endpoints.push(endpoint);
    }
    endpoints
}

fn endpoint(reader: &mut Reader<'_>, item: &Item) -> Option<EndpointSettings> {
    let name = reader.required(item, "name", word);
    let url = reader.required(item, "url", url);
    let timeout =
        reader.field(item, "timeout", duration(Duration::from_millis(50)..=Duration::from_secs(60)));
    let concurrency = reader.field(item, "concurrency", number(1..=65_536));
    let queue = reader.field(item, "queue", number(0..=65_536));
    let max_response_bytes = reader.field(item, "max_response_bytes", size(1024..=16 << 20));
    let headers = reader.field(item, "headers", sent).unwrap_or_default();
    let forward_headers = reader.field(item, "forward_headers", |value| {
        items(value)?.iter().map(|item| headers::name(&word(item)?)).collect()
    });
    let secret = reader.item_optional_secret(item, "secret");
    let ca = reader.field(item, "ca", |value| {
        let path = path(value)?;
        super::certificate::authorities(&path).map(|()| path)
    });
    let (name, Endpoint { url, secure, loopback }) = (name?, url?);
    if ca.is_some() && !secure {
        reader.item_problem(item, "ca", "without effect: the url does not begin with https://");
    }
    if !secure && !loopback {
        reader.warnings.push(format!(
            "the proxy endpoint {name} is asked over plain http: whoever is on the way reads what clients say and decides \
             for the backend; use https"
        ));
    }
    Some(EndpointSettings {
        name,
        url,
        timeout: timeout.unwrap_or(TIMEOUT),
        concurrency: concurrency.unwrap_or(CONCURRENCY),
        queue: queue.unwrap_or(QUEUE),
        max_response_bytes: max_response_bytes.unwrap_or(MAX_RESPONSE_BYTES),
        headers,
        forward_headers: forward_headers.unwrap_or_default(),
        ca,
        secret,
    })
}

/// A URL, and what its words mean for security.
struct Endpoint {
    url: Uri,
    secure: bool,
    loopback: bool,
}

fn url(value: &Value) -> Result<Endpoint, String> {
    let advice = || "must be https://host/path, or http:// where the way to the backend is safe".to_owned();
    let parsed = Url::parse(&word(value)?).map_err(|_| advice())?;
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Err(
            "may not have a user or password in it: put them into headers, as authorization".to_owned()
        );
    }
    if parsed.fragment().is_some() {
        return Err("may not have a fragment (#), which never reaches a server".to_owned());
    }
    let loopback = match parsed.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => return Err(advice()),
    };
    let url: Uri = parsed.as_str().parse().map_err(|_| advice())?;
    let secure = match url.scheme() {
        Some(scheme) if *scheme == Scheme::HTTPS => true,
        Some(scheme) if *scheme == Scheme::HTTP => false,
        _ => return Err(advice()),
    };
    Ok(Endpoint { url, secure, loopback })
}

/// The headers that the node sends of its own.
fn sent(value: &Value) -> Result<HeaderMap, String> {
    let ValueKind::Table(fields) = &value.kind else {
        return Err("must be a section of names and values, such as {authorization: Bearer ...}".to_owned());
    };
    let mut sent = HeaderMap::new();
    for (key, value) in fields {
        let name = headers::name(key).map_err(|advice| format!("{key}: {advice}"))?;
        let text = super::value::secret(value).map_err(|advice| format!("{key}: {advice}"))?;
        let mut value = HeaderValue::try_from(text)
            .map_err(|_| format!("{key}: has characters that no header may have"))?;
        value.set_sensitive(true);
        sent.insert(name, value);
    }
    Ok(sent)
}
