//! The internal port: the server API, metrics and health.
//!
//! For backends and operators, never for clients: it listens apart from the public port, so that load on one never
//! hides the other. A request is met in the order of the files: `access` (who asks), `fields` (what is asked),
//! `call` (do it; `reading` where it only looks), `answer` (say so).

mod access;
mod answer;
mod call;
mod fields;
mod reading;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use tidegate_relay::Relay;
use tokio::time::timeout_at;

use self::answer::Failure;
use self::call::{Call, Method};
use crate::metrics::{self, Metrics};
use crate::ops::health;
use crate::settings::{Scope, Settings};

/// The largest body of a request.
const MAX_BODY_BYTES: usize = 1024 * 1024;

/// How long a request may take, its body's arrival included.
const DEADLINE: Duration = Duration::from_secs(15);

/// What the routes need.
pub(crate) struct ApiState {
    /// What publishes and asks other nodes.
    pub relay: Relay,
    /// The node's settings.
    pub settings: Arc<Settings>,
    /// The node's metrics.
    pub metrics: Arc<Metrics>,
    /// When the node started.
    pub started: Instant,
    /// Whether the node takes connections: true from the end of its start to the begin of its drain.
    pub ready: Arc<AtomicBool>,
}

/// Says at start that the API needs no key, where that is so.
pub(crate) fn warn_if_open(settings: &Settings) {
    if settings.api.keys.is_empty() {
        tracing::warn!(
            internal = %settings.listen.internal,
            "no api.keys: the API answers requests from this machine alone, and those without a key"
        );
    }
}

/// Puts the routes into an app that has `Data<ApiState>`.
pub(crate) fn routes(config: &mut web::ServiceConfig) {
    config
        .service(
            web::resource("/api/{method}")
                .route(web::post().to(api))
                .default_service(web::to(|| async { Failure::post_only() })),
        )
        .route("/metrics", web::get().to(render_metrics))
        .route("/health/live", web::get().to(health::live))
        .route("/health/ready", web::get().to(health::ready))
        .default_service(web::to(|| async { Failure::no_route() }));
}

async fn api(
    request: HttpRequest,
    method: web::Path<String>,
    body: web::Payload,
    state: web::Data<ApiState>,
) -> HttpResponse {
    match answer(&request, &method, body, &state).await {
        Ok(answer) => HttpResponse::Ok().json(answer),
        Err(failure) => failure.into(),
    }
}

async fn answer(
    request: &HttpRequest,
    method: &str,
    body: web::Payload,
    state: &ApiState,
) -> Result<serde_json::Value, Failure> {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    let caller = access::caller(request, &state.settings.api.keys)?;
    let method = Method::parse(method)?;
    caller.must(method.scope())?;
    let body = match timeout_at(deadline, body.to_bytes_limited(MAX_BODY_BYTES)).await {
        Ok(Ok(Ok(body))) => body,
        Ok(Ok(Err(error))) => return Err(Failure::bad_request(format!("the body did not arrive: {error}"))),
        Ok(Err(_)) => {
            let message = format!("the body has more than {MAX_BODY_BYTES} bytes");
            return Err(Failure::bad_request(message).with_status(StatusCode::PAYLOAD_TOO_LARGE));
        }
        Err(_) => {
            let message = format!("the body did not arrive within {} s", DEADLINE.as_secs());
            return Err(Failure::bad_request(message).with_status(StatusCode::REQUEST_TIMEOUT));
        }
    };
    Call { state, caller: &caller, deadline }.answer(method, &body).await
}

async fn render_metrics(state: web::Data<ApiState>) -> HttpResponse {
    HttpResponse::Ok().content_type(metrics::CONTENT_TYPE).body(state.metrics.render())
}

impl Method {
    /// The least scope a key must have.
    const fn scope(self) -> Scope {
        match self {
            Self::Publish | Self::Broadcast => Scope::Publish,
            Self::Subscribe | Self::Unsubscribe | Self::Disconnect | Self::HistoryRemove => Scope::Admin,
            // What a batch carries is checked one by one.
            Self::Channels
            | Self::Info
            | Self::Batch
            | Self::History
            | Self::Presence
            | Self::PresenceStats => Scope::Read,
        }
    }
}
