//! Who may call: by key, or from this machine while there is no key.

use actix_web::HttpRequest;
use actix_web::http::header::{AUTHORIZATION, ORIGIN};
use ring::digest::{SHA256, digest};
use subtle::ConstantTimeEq;

use super::answer::Failure;
use crate::settings::{ApiKey, Scope};

/// Where the key stands; `Authorization: apikey <key>` is the other place.
const HEADER: &str = "x-api-key";

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Caller {
    /// The key's name, for logs.
    pub name: String,
    scope: Scope,
}

impl Caller {
    /// Errors: the caller's key does not open that.
    pub(super) fn must(&self, scope: Scope) -> Result<(), Failure> {
        if self.scope >= scope {
            return Ok(());
        }
        let needed = match scope {
            Scope::Read => "read",
            Scope::Publish => "publish",
            Scope::Admin => "admin",
        };
        Err(Failure::forbidden(format!("the API key {} has not the scope {needed}", self.name)))
    }
}

/// Finds out who calls. Errors: nobody who may.
pub(super) fn caller(request: &HttpRequest, keys: &[ApiKey]) -> Result<Caller, Failure> {
    if keys.is_empty() { from_here(request) } else { by_key(request, keys) }
}

fn by_key(request: &HttpRequest, keys: &[ApiKey]) -> Result<Caller, Failure> {
    let headers = request.headers();
    let given = headers.get(HEADER).map(|value| value.as_bytes()).or_else(|| {
        let value = headers.get(AUTHORIZATION)?.as_bytes();
        let (scheme, key) = value.split_at_checked("apikey ".len())?;
        scheme.eq_ignore_ascii_case(b"apikey ").then_some(key)
    });
    let Some(given) = given else {
        return Err(Failure::unauthorized(
            "send an API key as X-API-Key: <key>, or Authorization: apikey <key>",
        ));
    };
    // Digests have one length, and every key is looked at: time tells nothing of a key, not even how long it is.
    let given = digest(&SHA256, given);
    let mut found = None;
    for key in keys {
        let known = digest(&SHA256, key.key.expose().as_bytes());
        if bool::from(known.as_ref().ct_eq(given.as_ref())) {
            found = Some(Caller { name: key.name.clone(), scope: key.scope });
        }
    }
    found.ok_or_else(|| Failure::unauthorized("no such API key"))
}

/// Without keys, programs on this machine may do everything. Pages in a browser on this machine may not: they come
/// from anywhere, and a browser sends their POST without asking.
fn from_here(request: &HttpRequest) -> Result<Caller, Failure> {
    let near = request.peer_addr().is_some_and(|peer| peer.ip().to_canonical().is_loopback());
    if !near {
        return Err(Failure::forbidden("no api.keys are set, so only this machine may call the API"));
    }
    if request.headers().contains_key(ORIGIN) {
        return Err(Failure::forbidden("no api.keys are set, so pages in browsers may not call the API"));
    }
    Ok(Caller { name: "loopback".to_owned(), scope: Scope::Admin })
}
