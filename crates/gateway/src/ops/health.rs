//! Health: what probes ask.
//!
//! Liveness depends on nothing but the process. Readiness is whether to send clients here.

use std::sync::atomic::Ordering;

use actix_web::{HttpResponse, web};
use serde_json::json;
use tidegate_relay::RelaySettings;

use crate::api::ApiState;

/// Whether the process runs: that it answers is the answer. Depends on nothing else, least of all on Redis.
pub(crate) async fn live(state: web::Data<ApiState>) -> HttpResponse {
    HttpResponse::Ok().json(json!({
        "live": true,
        "version": env!("CARGO_PKG_VERSION"),
        "uptime": state.started.elapsed().as_secs(),
    }))
}

/// Whether to send clients here. Redis is shown but does not count: an outage of Redis must not also empty the fleet.
pub(crate) async fn ready(state: web::Data<ApiState>) -> HttpResponse {
    let relay = state.relay.status();
    let kind = match state.settings.relay {
        RelaySettings::Memory(_) => "memory",
        RelaySettings::Redis(_) => "redis",
    };
    let mut body = json!({
        "ready": true,
        "relay": {"kind": kind, "up": relay.up, "seconds": relay.since.as_secs()},
    });
    if state.ready.load(Ordering::Acquire) {
        return HttpResponse::Ok().json(body);
    }
    body["ready"] = json!(false);
    body["reason"] = json!("the node takes no connections: it is starting or draining");
    HttpResponse::ServiceUnavailable().json(body)
}
