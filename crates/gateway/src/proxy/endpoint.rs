//! One backend: how many ask it at once, how long they wait, what is tried again, when it is left alone.
//!
//! Shared by all workers, so the bounds are the node's. Not here: sockets (`http`), what is said (`question`, `answer`).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::http::Request;
use hyper::{HeaderMap, Method, StatusCode};
use ring::hmac;
use tidegate_hub::Decision;
use tidegate_protocol::{Codec, ErrorCode};
use tidegate_relay::Sparse;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant as Deadline, timeout_at};
use uuid::Uuid;

use super::answer::{self, Unusable};
use super::breaker::{Breaker, Outcome, Pass};
use super::headers::{self, Kept};
use super::http::{self, Fault, Http};
use super::question::{Kind, Question};
use crate::metrics::Metrics;
use crate::settings::EndpointSettings;

/// How long to wait before the second try, in milliseconds: short, and not the same for all whose first try failed.
const PAUSE: std::ops::Range<u64> = 10..100;

/// How often a log line says that an endpoint fails.
const SAY: Duration = Duration::from_secs(5);

/// One backend.
pub(super) struct Endpoint {
    settings: EndpointSettings,
    key: Option<hmac::Key>,
    /// Requests that may be under way at once.
    slots: Semaphore,
    /// How many wait for one of them.
    waiting: AtomicUsize,
    breaker: Mutex<Breaker>,
    said: Sparse,
    metrics: Arc<Metrics>,
}

/// Why a backend has not decided.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// As many as may ask and wait do so already.
    #[error("too many requests are under way and wait already")]
    Busy,
    /// It has failed so often that it is left alone for a while.
    #[error("the backend failed too often and is left alone for a while")]
    Open,
    /// No connection could be made: nothing was sent.
    #[error("no connection: {0}")]
    Unreachable(String),
    /// The connection ended before the answer.
    #[error("the connection ended before the answer: {0}")]
    Broken(String),
    /// It took too long.
    #[error("no answer in time")]
    Timeout,
    /// It answered with something else than 200.
    #[error("answered with status {0}")]
    Status(StatusCode),
    /// It answered with something that is no answer.
    #[error("answered with what is no answer: {0}")]
    Unusable(#[from] Unusable),
}

impl Failure {
    /// What the client is told: always temporary.
    pub(crate) const fn code(&self) -> ErrorCode {
        match self {
            Self::Busy => ErrorCode::TooManyRequests,
            _ => ErrorCode::Internal,
        }
    }

    /// The metric label.
    pub(crate) const fn label(&self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Open => "open",
            Self::Unreachable(_) => "unreachable",
            Self::Broken(_) => "broken",
            Self::Timeout => "timeout",
            Self::Status(_) => "status",
            Self::Unusable(_) => "unusable",
        }
    }

    /// Whether it says that the backend is not well. A status below 500 is about the request.
    fn outcome(&self) -> Outcome {
        match self {
            Self::Busy | Self::Open => Outcome::Unknown,
            Self::Status(status) if !status.is_server_error() => Outcome::Succeeded,
            _ => Outcome::Failed,
        }
    }
}

impl Endpoint {
    pub(super) fn new(settings: EndpointSettings, metrics: Arc<Metrics>) -> Self {
        let key = settings.secret.as_ref();
        Self {
            key: key.map(|secret| hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes())),
            slots: Semaphore::new(settings.concurrency),
            waiting: AtomicUsize::new(0),
            breaker: Mutex::new(Breaker::new(Instant::now())),
            said: Sparse::new(SAY),
            metrics,
            settings,
        }
    }

    pub(super) const fn settings(&self) -> &EndpointSettings {
        &self.settings
    }

    /// Asks once, or twice where that is safe, within the endpoint's timeout over everything.
    pub(super) async fn ask(
        &self,
        http: &Http,
        kind: Kind,
        codec: Codec,
        question: &Question,
        kept: &Kept,
    ) -> Result<Decision, Failure> {
        let deadline = Deadline::now() + self.settings.timeout;
        let request = Uuid::new_v4();
        let body = question.body(kind, codec);
        let headers = headers::of(&self.settings.headers, &self.settings.forward_headers, kept, request);
        let mut answer = self.attempt(http, &headers, &body, kind, codec, deadline).await;
        let again = match &answer {
            Err(Failure::Unreachable(_)) => true,
            Err(Failure::Broken(_)) => kind.may_repeat(),
            _ => false,
        };
        if again {
            let pause = Duration::from_millis(fastrand::u64(PAUSE));
            if Deadline::now() + pause < deadline {
                tokio::time::sleep(pause).await;
                answer = self.attempt(http, &headers, &body, kind, codec, deadline).await;
            }
        }
        if let Err(failure) = &answer
            && let Some(held_back) = self.said.speak(Instant::now())
        {
            let (endpoint, kind) = (self.settings.name.as_str(), kind.label());
            tracing::warn!(endpoint, kind, %request, %failure, held_back, "a backend has not decided");
        }
        answer
    }

    async fn attempt(
        &self,
        http: &Http,
        headers: &HeaderMap,
        body: &Bytes,
        kind: Kind,
        codec: Codec,
        deadline: Deadline,
    ) -> Result<Decision, Failure> {
        let _slot = self.slot(deadline).await?;
        let mut trial = Trial::begin(self)?;
        let result = self.send(http, headers.clone(), body, deadline).await.and_then(|body| {
            // To read it costs little beside what it took to come here.
            answer::read(kind, codec, &body).map_err(Failure::from)
        });
        trial.outcome = result.as_ref().map_or_else(Failure::outcome, |_| Outcome::Succeeded);
        result
    }

    async fn send(
        &self,
        http: &Http,
        headers: HeaderMap,
        body: &Bytes,
        deadline: Deadline,
    ) -> Result<Bytes, Failure> {
        let mut request = Request::new(http::body(body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.settings.url.clone();
        *request.headers_mut() = headers;
        if let Some(key) = &self.key {
            headers::sign(request.headers_mut(), key, body);
        }
        match timeout_at(deadline, http::send(http, request, self.settings.max_response_bytes)).await {
            Ok(Ok(body)) => Ok(body),
            Ok(Err(fault)) => Err(match fault {
                Fault::Unreachable(error) => Failure::Unreachable(error),
                Fault::Broken(error) => Failure::Broken(error),
                Fault::Status(status) => Failure::Status(status),
                Fault::TooLarge => {
                    let most = self.settings.max_response_bytes;
                    Failure::Unusable(Unusable::new(format!("more than max_response_bytes ({most})")))
                }
            }),
            Err(_) => Err(Failure::Timeout),
        }
    }

    /// One of the requests that may be under way at once; waits for it if not too many do.
    async fn slot(&self, deadline: Deadline) -> Result<SemaphorePermit<'_>, Failure> {
        if self.lock().holds_back(Instant::now()) {
            return Err(Failure::Open);
        }
        if let Ok(slot) = self.slots.try_acquire() {
            return Ok(slot);
        }
        let _place = Place::take(&self.waiting, self.settings.queue).ok_or(Failure::Busy)?;
        match timeout_at(deadline, self.slots.acquire()).await {
            // The semaphore is never closed.
            Ok(slot) => slot.map_err(|_| Failure::Busy),
            Err(_) => Err(Failure::Busy),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place among those who wait, given back when dropped.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(waiting: &'a AtomicUsize, most: usize) -> Option<Self> {
        let more = |waiting: usize| (waiting < most).then_some(waiting + 1);
        waiting.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok()?;
        Some(Self(waiting))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A request that the breaker let through: whatever becomes of it, the breaker is told.
struct Trial<'a> {
    endpoint: &'a Endpoint,
    pass: Pass,
    outcome: Outcome,
}

impl<'a> Trial<'a> {
    fn begin(endpoint: &'a Endpoint) -> Result<Self, Failure> {
        let pass = endpoint.lock().admit(Instant::now()).ok_or(Failure::Open)?;
        endpoint.metrics.proxy.in_flight.inc();
        Ok(Self { endpoint, pass, outcome: Outcome::Unknown })
    }
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        let Endpoint { metrics, settings, .. } = self.endpoint;
        metrics.proxy.in_flight.dec();
        let (was_open, is_open) = {
            let mut breaker = self.endpoint.lock();
            let was_open = breaker.is_open();
            breaker.report(self.pass, self.outcome, Instant::now(), fastrand::f64());
            (was_open, breaker.is_open())
        };
        let endpoint = settings.name.as_str();
        match (was_open, is_open) {
            (false, true) => {
                metrics.proxy.breaker_open.inc();
                tracing::warn!(
                    endpoint,
                    "half of the requests to a backend failed: it is left alone for a while"
                );
            }
            (true, false) => {
                metrics.proxy.breaker_open.dec();
                tracing::info!(endpoint, "a backend answers again");
            }
            _ => {}
        }
    }
}
