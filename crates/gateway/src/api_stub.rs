//! The internal port: metrics and health.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use actix_web::{HttpResponse, web};

use crate::metrics::{CONTENT_TYPE, Metrics};
use crate::settings::Settings;

#[expect(dead_code, reason = "the API uses the rest")]
pub(crate) struct ApiState {
    pub(crate) relay: tidegate_relay::Relay,
    pub(crate) settings: Arc<Settings>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) started: Instant,
    pub(crate) ready: Arc<AtomicBool>,
}

pub(crate) fn warn_if_open(_settings: &Settings) {}

pub(crate) fn routes(config: &mut web::ServiceConfig) {
    config
        .route(
            "/metrics",
            web::get().to(|state: web::Data<ApiState>| async move {
                HttpResponse::Ok().content_type(CONTENT_TYPE).body(state.metrics.render())
            }),
        )
        .route("/health/live", web::get().to(HttpResponse::Ok))
        .route(
            "/health/ready",
            web::get().to(|state: web::Data<ApiState>| async move {
                if state.ready.load(Ordering::Acquire) {
                    HttpResponse::Ok()
                } else {
                    HttpResponse::ServiceUnavailable()
                }
                .finish()
            }),
        );
}
