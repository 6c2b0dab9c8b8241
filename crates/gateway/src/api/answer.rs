//! What a call is answered with: `{"result": ...}`, or `{"error": {"code", "message"}}`.
//!
//! A call that was understood is answered with 200, also if it failed; other statuses are for what never reached a
//! method. Codes are those that clients meet (`tidegate_protocol::ErrorCode`); the message adds what was wrong here.

use actix_web::body::BoxBody;
use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, Responder};
use serde_json::{Value, json};
use tidegate_protocol::ErrorCode;
use tidegate_relay::RelayError;

/// A call that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    status: StatusCode,
    code: ErrorCode,
    message: String,
}

impl Failure {
    fn new(status: StatusCode, code: ErrorCode, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    /// The call makes no sense.
    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::OK, ErrorCode::BadRequest, message)
    }

    /// What is asked is not in this version.
    pub(super) fn not_available(what: &str) -> Self {
        Self::new(StatusCode::OK, ErrorCode::NotAvailable, format!("{what} is not available in this version"))
    }

    /// More is asked than one call may.
    pub(super) fn limit(message: impl Into<String>) -> Self {
        Self::new(StatusCode::OK, ErrorCode::LimitExceeded, message)
    }

    /// The channel is in no namespace.
    pub(super) fn unknown_channel(namespace: &str) -> Self {
        let message = format!("unknown channel: there is no namespace {namespace:?}");
        Self::new(StatusCode::OK, ErrorCode::UnknownChannel, message)
    }

    /// What is asked needs history, and the channel's namespace has none.
    pub(super) fn without_history(what: &str) -> Self {
        let message = format!("{what} needs history, which the channel's namespace has not (history_size)");
        Self::new(StatusCode::OK, ErrorCode::NotAvailable, message)
    }

    /// What is asked needs presence, and the channel's namespace has none.
    pub(super) fn without_presence() -> Self {
        let message = "this needs presence, which the channel's namespace has not (presence)";
        Self::new(StatusCode::OK, ErrorCode::NotAvailable, message)
    }

    /// The relay could not.
    pub(super) fn relay(error: &RelayError) -> Self {
        let code = match error {
            RelayError::Unavailable => ErrorCode::NotAvailable,
            RelayError::Unrecoverable => ErrorCode::UnrecoverablePosition,
            RelayError::Away(_) | RelayError::Refused(_) | RelayError::Busy | RelayError::Settings(_) => {
                ErrorCode::Internal
            }
        };
        Self::new(StatusCode::OK, code, error.to_string())
    }

    /// It took too long.
    pub(super) fn too_late() -> Self {
        Self::new(StatusCode::OK, ErrorCode::Internal, "no answer in time; it may have happened or not")
    }

    /// No key, or none that is known.
    pub(super) fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, ErrorCode::Unauthorized, message)
    }

    /// Not for this caller.
    pub(super) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, ErrorCode::PermissionDenied, message)
    }

    /// There is no such method.
    pub(super) fn no_method(name: &str) -> Self {
        let message = format!("there is no method {name:?}");
        Self::new(StatusCode::NOT_FOUND, ErrorCode::MethodNotFound, message)
    }

    /// There is nothing at this path.
    pub(super) fn no_route() -> Self {
        let message = "nothing here; there are POST /api/<method>, GET /metrics, /health/live, /health/ready";
        Self::new(StatusCode::NOT_FOUND, ErrorCode::MethodNotFound, message)
    }

    /// A method was called with another HTTP method.
    pub(super) fn post_only() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, ErrorCode::MethodNotFound, "methods are called with POST")
    }

    /// The same with another HTTP status.
    #[must_use]
    pub(super) fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    /// The error as JSON.
    pub(super) fn json(&self) -> Value {
        json!({"error": {"code": self.code.code(), "message": self.message}})
    }
}

impl From<Failure> for HttpResponse {
    fn from(failure: Failure) -> Self {
        Self::build(failure.status).json(failure.json())
    }
}

impl Responder for Failure {
    type Body = BoxBody;

    fn respond_to(self, _: &HttpRequest) -> HttpResponse {
        self.into()
    }
}
