//! HTTP/1.1 to backends: a pool of connections of one worker to one endpoint.
//!
//! Follows no redirect, undoes no compression, keeps no cookie, asks no environment for a proxy. Not here: deadlines and
//! how many requests there are at once, which bounds the connections too (`endpoint`).

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::StatusCode;
use hyper::http::Request;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::settings::EndpointSettings;

/// A pool of connections. Its connections are tasks of the runtime that it is used on.
pub(super) type Http = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// How long a connection may rest. Shorter than what servers commonly grant (Node.js: 5 s), so that a request seldom
/// meets a connection that is being closed.
const IDLE: Duration = Duration::from_secs(4);

/// The most bytes of a response's head.
const MAX_HEAD: usize = 32 * 1024;

/// What went wrong below the contract.
#[derive(Debug)]
pub(super) enum Fault {
    /// No connection could be made, so nothing was sent.
    Unreachable(String),
    /// The connection ended or broke HTTP before the response was whole.
    Broken(String),
    /// Another status than 200.
    Status(StatusCode),
    /// The body is larger than it may be.
    TooLarge,
}

/// TLS that trusts the authorities of the endpoint's file, or the system's where it names none.
pub(super) fn tls(settings: &EndpointSettings) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    if settings.is_secure() {
        match &settings.ca {
            Some(path) => {
                let failed =
                    |error| format!("{}: no certificate can be read from it: {error}", path.display());
                let found = CertificateDer::pem_file_iter(path).map_err(failed)?.filter_map(Result::ok);
                roots.add_parsable_certificates(found);
            }
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
    }
    Ok(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}

/// A pool for one worker and one endpoint.
pub(super) fn client(settings: &EndpointSettings, tls: ClientConfig) -> Http {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    // So that there is time for a second try.
    tcp.set_connect_timeout(Some(settings.timeout / 2));
    let connector =
        HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(tcp);
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(settings.concurrency)
        .http1_max_buf_size(MAX_HEAD)
        .build(connector)
}

/// The body of a request.
pub(super) fn body(bytes: Bytes) -> Full<Bytes> {
    Full::new(bytes)
}

/// Sends a request and reads the whole response. A request that a resting connection did not take, because the server
/// had closed it before the first byte, is sent on another; nothing else is tried twice here.
pub(super) async fn send(http: &Http, request: Request<Full<Bytes>>, most: usize) -> Result<Bytes, Fault> {
    let response = http.request(request).await.map_err(fault)?;
    if response.status() != StatusCode::OK {
        return Err(Fault::Status(response.status()));
    }
    match Limited::new(response.into_body(), most).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Fault::TooLarge),
        Err(error) => Err(Fault::Broken(chain(error.as_ref()))),
    }
}

fn fault(error: Error) -> Fault {
    let text = chain(&error);
    if error.is_connect() { Fault::Unreachable(text) } else { Fault::Broken(text) }
}

/// An error with what caused it: the outermost alone says next to nothing.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
