//! The WebSocket handshake: an ordinary request to the actix-web App.
//!
//! Checks the origin, validates the handshake, negotiates the subprotocol, takes the permit and leaves a [`Takeover`]
//! in the request's extensions. The socket is taken over by [`super::takeover`], which also writes what is answered
//! here.

use std::sync::Arc;

use actix_web::http::Version;
use actix_web::http::header::{ORIGIN, RETRY_AFTER, SEC_WEBSOCKET_PROTOCOL};
use actix_web::{HttpMessage as _, HttpRequest, HttpResponse, web};
use tidegate_hub::Opening;
use tidegate_protocol::Codec;

use super::admission::{Admission, Permit};
use super::origin;
use crate::metrics::{Metrics, Rejection};
use crate::proxy::Proxy;
use crate::proxy::headers::Kept;
use crate::settings::Settings;

/// The subprotocols a client may ask for, and the codec each means.
const SUBPROTOCOLS: [(&str, Codec); 2] =
    [("centrifuge-json", Codec::Json), ("centrifuge-protobuf", Codec::Protobuf)];

/// Seconds a refused client is asked to stay away: from the first to the second, at random.
const RETRY_SECONDS: std::ops::RangeInclusive<u32> = 2..=10;

/// What the public App's handlers share.
pub(crate) struct Gate {
    pub(crate) admission: Arc<Admission>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) proxy: Arc<Proxy>,
}

/// Marks a request that came through the upgrade service. One that did not, because actix-http did not take it for an
/// upgrade (`Upgrade: websocket, foo`), has no raw socket to take over, whatever its headers say.
pub(super) struct Upgradable;

/// A handshake that was accepted: what the upgrade service needs to hand the socket to the worker.
pub(super) struct Takeover {
    pub(super) permit: Permit,
    pub(super) opening: Opening,
    /// What backends want of the request's headers.
    pub(super) kept: Kept,
    pub(super) echo: bool,
}

/// The routes of the public port.
pub(crate) fn routes(config: &mut web::ServiceConfig) {
    config.route("/connection/websocket", web::get().to(websocket)).route("/", web::get().to(page));
    #[cfg(feature = "echo")]
    config.route("/echo", web::get().to(echo));
}

async fn websocket(request: HttpRequest, body: web::Payload, gate: web::Data<Gate>) -> HttpResponse {
    open(&request, body, &gate, false)
}

#[cfg(feature = "echo")]
async fn echo(request: HttpRequest, body: web::Payload, gate: web::Data<Gate>) -> HttpResponse {
    open(&request, body, &gate, true)
}

fn open(request: &HttpRequest, body: web::Payload, gate: &Gate, echo: bool) -> HttpResponse {
    if let Some(origin) = request.headers().get(ORIGIN)
        && !origin::allowed(origin.as_bytes(), &gate.settings)
    {
        gate.metrics.rejected(Rejection::Origin);
        return HttpResponse::Forbidden().body(
            "this origin may not connect: add it to auth.origins in the gateway's settings if it should\n",
        );
    }
    if request.extensions().get::<Upgradable>().is_none() || request.version() < Version::HTTP_11 {
        gate.metrics.rejected(Rejection::BadRequest);
        return HttpResponse::BadRequest().body(
            "a WebSocket handshake is wanted here, as RFC 6455, 4.1, has it: Connection: Upgrade, Upgrade: websocket\n",
        );
    }
    let names = SUBPROTOCOLS.map(|(name, _)| name);
    let response = match actix_ws::handle_with_protocols(request, body, &names) {
        Ok((response, _session, _messages)) => response,
        Err(error) => {
            gate.metrics.rejected(Rejection::BadRequest);
            return HttpResponse::from_error(error);
        }
    };
    let given = request.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    let Ok(kept) = gate.proxy.keep(given) else {
        gate.metrics.rejected(Rejection::BadRequest);
        return HttpResponse::RequestHeaderFieldsTooLarge().body("cookies or other headers are too large\n");
    };
    let opening = opening(request, &response);
    match gate.admission.admit(request.peer_addr().map(|peer| peer.ip()), opening.codec) {
        Ok(permit) => {
            request.extensions_mut().insert(Takeover { permit, opening, kept, echo });
            response
        }
        Err(rejection) => {
            gate.metrics.rejected(rejection);
            refusal(rejection)
        }
    }
}

/// What a client gets that is not let in. `Retry-After` is jittered so that the refused do not come back together.
fn refusal(rejection: Rejection) -> HttpResponse {
    let (mut response, text) = match rejection {
        Rejection::PerIp => {
            (HttpResponse::TooManyRequests(), "too many connections from this address: try again later\n")
        }
        Rejection::Shutdown => (
            HttpResponse::ServiceUnavailable(),
            "the node is shutting down: connect again to reach another\n",
        ),
        _ => (HttpResponse::ServiceUnavailable(), "the node is full: try again later\n"),
    };
    response.insert_header((RETRY_AFTER, fastrand::u32(RETRY_SECONDS).to_string())).body(text)
}

/// The codec and ping mode a client asked for: the subprotocol decides, then the query.
fn opening(request: &HttpRequest, response: &HttpResponse) -> Opening {
    let query = |key: &str, value: &str| {
        request
            .query_string()
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .any(|pair| pair == (key, value))
    };
    let negotiated = response.headers().get(SEC_WEBSOCKET_PROTOCOL).and_then(|chosen| {
        SUBPROTOCOLS.iter().find(|(name, _)| chosen.as_bytes() == name.as_bytes()).map(|(_, codec)| *codec)
    });
    let codec = negotiated.unwrap_or_else(|| {
        let protobuf = query("format", "protobuf") || query("cf_protocol", "protobuf");
        if protobuf { Codec::Protobuf } else { Codec::Json }
    });
    Opening { codec, native_ping: query("cf_ws_frame_ping_pong", "true") }
}

/// In dev mode, a page that speaks to the gateway.
async fn page(gate: web::Data<Gate>) -> HttpResponse {
    if !gate.settings.dev {
        return HttpResponse::NotFound().body("nothing is here; clients connect at /connection/websocket\n");
    }
    HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .insert_header((
            "content-security-policy",
            "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
             connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ))
        .insert_header(("x-content-type-options", "nosniff"))
        .insert_header(("referrer-policy", "no-referrer"))
        .insert_header(("cache-control", "no-store"))
        .body(include_str!("../page/index.html"))
}
