//! The server that load is aimed at.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use url::Url;

use crate::error::Error;

/// What is said once the WebSocket stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Protocol {
    /// Centrifuge v2 in JSON: connect, subscribe, answer pings
    CentrifugeJson,
    /// Nothing but WebSocket: connections are held, and WebSocket pings are answered
    Raw,
}

/// Options of every scenario: what to aim at.
#[derive(Debug, Clone, Args)]
pub(crate) struct Aim {
    /// The server: ws://HOST:PORT/PATH or wss://HOST:PORT/PATH
    #[arg(long, value_name = "URL")]
    pub(crate) target: String,
    /// The server's process, on this machine; repeat it if there are several
    #[arg(long, value_name = "PID")]
    pub(crate) pid: Vec<u32>,
    /// What is said once the WebSocket stands
    #[arg(long, value_enum, default_value = "centrifuge-json")]
    pub(crate) protocol: Protocol,
    /// PEM file with the authority that signed the server's certificate (needed for wss)
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// Handshakes that each client process has under way at once
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub(crate) at_once: u32,
}

/// What client processes need to know to reach the server.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Target {
    /// As it was typed.
    pub(crate) url: String,
    /// Where to connect.
    pub(crate) address: SocketAddr,
    /// For the `Host` header.
    pub(crate) authority: String,
    /// For the certificate.
    pub(crate) host: String,
    /// Path and query.
    pub(crate) path: String,
    /// What to trust; none is plain `ws`.
    pub(crate) ca: Option<PathBuf>,
    /// What is said.
    pub(crate) protocol: Protocol,
}

impl Aim {
    /// The same for a server that was started here.
    pub(crate) fn at(url: String, pid: u32) -> Self {
        Self { target: url, pid: vec![pid], protocol: Protocol::CentrifugeJson, ca: None, at_once: 64 }
    }

    /// Checks the options and finds the address.
    pub(crate) fn resolve(&self) -> Result<Target, Error> {
        let failed = |why: String| Error::Target { target: self.target.clone(), why };
        let url = Url::parse(&self.target).map_err(|error| failed(error.to_string()))?;
        let tls = match url.scheme() {
            "ws" => false,
            "wss" => true,
            other => return Err(failed(format!("the scheme is {other}"))),
        };
        if tls && self.ca.is_none() {
            return Err(failed("wss needs --ca FILE".into()));
        }
        let host = url.host_str().ok_or_else(|| failed("there is no host".into()))?;
        let port = url.port_or_known_default().unwrap_or(if tls { 443 } else { 80 });
        let name = host.trim_start_matches('[').trim_end_matches(']');
        let address = (name, port)
            .to_socket_addrs()
            .map_err(|error| failed(error.to_string()))?
            .next()
            .ok_or_else(|| failed("the host has no address".into()))?;
        let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
        Ok(Target {
            url: self.target.clone(),
            address,
            authority: format!("{host}:{port}"),
            host: name.to_owned(),
            path: format!("{}{query}", url.path()),
            ca: self.ca.clone().filter(|_| tls),
            protocol: self.protocol,
        })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failing test is what should happen")]
    use super::*;

    fn resolved(url: &str) -> Result<Target, Error> {
        Aim::at(url.to_owned(), 1).resolve()
    }

    #[test]
    fn an_address_is_taken_apart() {
        let target = resolved("ws://127.0.0.1:8000/connection/websocket?a=b").unwrap();
        assert_eq!(target.address, "127.0.0.1:8000".parse().unwrap());
        assert_eq!(target.path, "/connection/websocket?a=b");
        assert_eq!((target.authority.as_str(), target.ca), ("127.0.0.1:8000", None));
        assert_eq!(resolved("ws://[::1]:9/").unwrap().host, "::1");
    }

    #[test]
    fn an_error_says_what_to_write() {
        for (url, words) in [
            ("http://127.0.0.1:1/", "the scheme is http"),
            ("127.0.0.1:8000", "write ws://"),
            ("wss://127.0.0.1:1/", "wss needs --ca FILE"),
        ] {
            let text = resolved(url).unwrap_err().to_string();
            assert!(text.contains(words), "{text}");
        }
    }
}
