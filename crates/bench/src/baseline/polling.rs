//! The same publications for clients without WebSocket: those who ask now and then, and those who ask and wait.

use std::sync::Arc;
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::header::CACHE_CONTROL;
use actix_web::web::{Data, Query, ServiceConfig, get};
use serde::Deserialize;
use tokio::time::timeout;

use super::channels::Channels;

/// How long a long poll waits: less than what proxies commonly allow.
const WAIT: Duration = Duration::from_secs(25);

#[derive(Deserialize)]
struct Asked {
    channel: String,
    /// The number of the last publication seen; none asks where the channel is.
    since: Option<u64>,
}

pub(super) fn routes(config: &mut ServiceConfig) {
    config.route("/poll", get().to(poll)).route("/wait", get().to(wait));
}

/// What there is, at once.
async fn poll(asked: Query<Asked>, channels: Data<Channels>) -> HttpResponse {
    let (newest, data) = channels.after(&asked.channel, asked.since.unwrap_or(u64::MAX));
    answer(newest, &data)
}

/// What there is, or what comes next.
async fn wait(asked: Query<Asked>, channels: Data<Channels>) -> HttpResponse {
    let since = asked.since.unwrap_or(0);
    let mut newest = channels.newest(&asked.channel);
    // After a time without anything the answer is an empty one.
    let _ = timeout(WAIT, newest.wait_for(|newest| *newest > since)).await;
    let (newest, data) = channels.after(&asked.channel, since);
    answer(newest, &data)
}

fn answer(newest: u64, data: &[Arc<str>]) -> HttpResponse {
    let body = format!("{{\"last\":{newest},\"publications\":[{}]}}", data.join(","));
    HttpResponse::Ok().insert_header((CACHE_CONTROL, "no-store")).content_type("application/json").body(body)
}
