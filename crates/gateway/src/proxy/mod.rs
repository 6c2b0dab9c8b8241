//! Backends that decide: questions of clients over HTTP, and what came of them. The contract is
//! `docs/reference/proxy.md`; why it is made so, ADR 0018.
//!
//! A question is a local task of its worker: nothing waits for it but the session that asked. Bounds and the state of
//! each backend are the node's, connections are a worker's.
//!
//! Not here: which commands ask (the hub), and the session to answer, which may be gone by then.

mod answer;
mod breaker;
mod endpoint;
pub(crate) mod headers;
mod http;
mod question;
#[cfg(test)]
mod tests;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use hyper::header::{HeaderName, HeaderValue};
use rustls::ClientConfig;
use tidegate_hub::Decision;
use tidegate_protocol::Codec;

use self::endpoint::Endpoint;
pub(crate) use self::endpoint::Failure;
use self::headers::{Kept, MAX_KEPT};
use self::http::Http;
pub(crate) use self::question::{Kind, Question};
use crate::metrics::Metrics;
use crate::settings::ProxySettings;

/// The backends of a node.
pub(crate) struct Proxy {
    /// By the number that the settings' routes have.
    endpoints: Vec<(Endpoint, ClientConfig)>,
    routes: ProxySettings,
    /// Every header that some endpoint wants of a client's handshake.
    wanted: Vec<HeaderName>,
    metrics: Arc<Metrics>,
}

/// A client's headers are more than a session may keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooMany;

impl Proxy {
    /// Errors: the certificates of an endpoint cannot be read.
    pub(crate) fn new(settings: &ProxySettings, metrics: &Arc<Metrics>) -> Result<Self, String> {
        let mut endpoints = Vec::with_capacity(settings.endpoints.len());
        let mut wanted: Vec<HeaderName> = Vec::new();
        for endpoint in &settings.endpoints {
            let tls = http::tls(endpoint).map_err(|error| format!("{}: {error}", endpoint.name))?;
            wanted.extend(endpoint.forward_headers.iter().cloned());
            endpoints.push((Endpoint::new(endpoint.clone(), Arc::clone(metrics)), tls));
        }
        wanted.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        wanted.dedup();
        Ok(Self { endpoints, routes: settings.clone(), wanted, metrics: Arc::clone(metrics) })
    }

    /// Which backend decides about a question, if one does: by the method's longest prefix, or the channel's namespace.
    pub(crate) fn route(&self, kind: Kind, method: &str, namespace: &str) -> Option<usize> {
        match kind {
            Kind::Connect => self.routes.connect,
            Kind::Rpc => self.routes.rpc(method),
            Kind::Subscribe => self.routes.subscribe.get(namespace).copied(),
            Kind::Publish => self.routes.publish.get(namespace).copied(),
        }
    }

    /// What a session keeps of its handshake: what some endpoint wants, `MAX_KEPT` bytes at most.
    pub(crate) fn keep<'a>(&self, given: impl Iterator<Item = (&'a str, &'a [u8])>) -> Result<Kept, TooMany> {
        if self.wanted.is_empty() {
            return Ok(None);
        }
        let mut kept = Vec::new();
        let mut bytes = 0;
        for (name, value) in given {
            let Some(wanted) = self.wanted.iter().find(|wanted| *wanted == name) else { continue };
            let Ok(value) = HeaderValue::from_bytes(value) else { continue };
            bytes += name.len() + value.len();
            if bytes > MAX_KEPT {
                return Err(TooMany);
            }
            kept.push((wanted.clone(), value));
        }
        Ok((!kept.is_empty()).then(|| Rc::new(kept.into_iter().collect())))
    }
}

/// A worker's way to the backends.
pub(crate) struct Caller {
    proxy: Arc<Proxy>,
    pools: Vec<Http>,
}

impl Caller {
    /// To be used on the worker's runtime alone.
    pub(crate) fn new(proxy: Arc<Proxy>) -> Self {
        let pools =
            proxy.endpoints.iter().map(|(endpoint, tls)| http::client(endpoint.settings(), tls.clone()));
        Self { pools: pools.collect(), proxy }
    }

    /// Asks the backend of this number, within its timeout.
    pub(crate) async fn ask(
        &self,
        endpoint: usize,
        kind: Kind,
        codec: Codec,
        question: &Question,
        kept: &Kept,
    ) -> Result<Decision, Failure> {
        let began = Instant::now();
        let (Some((backend, _)), Some(pool)) = (self.proxy.endpoints.get(endpoint), self.pools.get(endpoint))
        else {
            // A route that settings checked names an endpoint that exists.
            return Err(Failure::Open);
        };
        let answer = backend.ask(pool, kind, codec, question, kept).await;
        let result = match &answer {
            Ok(Decision::Granted(_)) => "granted",
            Ok(Decision::Refused { .. }) => "refused",
            Ok(Decision::Disconnect(_)) => "disconnect",
            // No backend can answer that.
            Ok(Decision::Failed(_)) => "unusable",
            Err(failure) => failure.label(),
        };
        self.proxy.metrics.proxy.asked(kind, result, began.elapsed());
        answer
    }
}
