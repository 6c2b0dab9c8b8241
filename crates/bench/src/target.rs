//! The server that load is aimed at: one node or several.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use url::Url;

use crate::error::Error;
use crate::process::Server;

/// What is said once the WebSocket stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Protocol {
    /// Centrifuge v2 in JSON: connect, subscribe, publish, answer pings
    CentrifugeJson,
    /// The same in Protobuf, by the subprotocol centrifuge-protobuf
    CentrifugeProtobuf,
    /// Pusher Channels, version 7: subscribe, answer pings, client events
    Pusher,
    /// Nothing but WebSocket: connections are held, and WebSocket pings are answered
    Raw,
}

/// What TLS handshakes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Handshakes {
    /// Clients keep no tickets
    Full,
    /// Clients of a process share their tickets, and with several targets use on one what another gave
    Resumed,
}

/// Options of every scenario: what to aim at.
#[derive(Debug, Clone, Args)]
pub(crate) struct Aim {
    /// The server: ws://HOST:PORT/PATH or wss://HOST:PORT/PATH; repeat it to deal connections to several in turn
    #[arg(long, value_name = "URL", required = true)]
    pub(crate) target: Vec<String>,
    /// The server's process, on this machine; repeat it if there are several
    #[arg(long, value_name = "PID")]
    pub(crate) pid: Vec<u32>,
    /// What is said once the WebSocket stands
    #[arg(long, value_enum, default_value = "centrifuge-json")]
    pub(crate) protocol: Protocol,
    /// PEM file with the authority that signed the server's certificate (needed for wss)
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// What TLS handshakes are, with wss
    #[arg(long, value_enum, default_value = "full")]
    pub(crate) tls: Handshakes,
    /// File with the token that every connection sends when it connects
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Handshakes that each client process has under way at once
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub(crate) at_once: u32,
}

/// What client processes need to know to reach the server.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Target {
    /// At least one.
    pub(crate) nodes: Vec<Node>,
    /// What is said.
    pub(crate) protocol: Protocol,
    /// What to trust; none is plain `ws`.
    pub(crate) ca: Option<PathBuf>,
    /// What TLS handshakes are.
    pub(crate) tls: Handshakes,
    /// What every connection sends when it connects.
    pub(crate) token: Option<String>,
}

/// One address of the server.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Node {
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
}

impl Aim {
    /// The same for a server that was started here.
    pub(crate) fn at(url: String, pid: u32) -> Self {
        Self {
            target: vec![url],
            pid: vec![pid],
            protocol: Protocol::CentrifugeJson,
            ca: None,
            tls: Handshakes::Full,
            token_file: None,
            at_once: 64,
        }
    }

    /// Checks the options and finds the addresses.
    pub(crate) fn resolve(&self) -> Result<Target, Error> {
        let mut nodes = Vec::new();
        let mut encrypted = None;
        for target in &self.target {
            let (node, tls) = node(target)?;
            if tls && self.ca.is_none() {
                return Err(Error::Target { target: target.clone(), why: "wss needs --ca FILE".into() });
            }
            if *encrypted.get_or_insert(tls) != tls {
                return Err(Error::Asked("--target: either all are ws:// or all are wss://".into()));
            }
            nodes.push(node);
        }
        if nodes.is_empty() {
            return Err(Error::Asked("--target is needed: ws://HOST:PORT/PATH".into()));
        }
        let token = self.token_file.as_ref().map(std::fs::read_to_string).transpose();
        let token = token.map_err(Error::io("read --token-file"))?.map(|token| token.trim().to_owned());
        Ok(Target {
            nodes,
            protocol: self.protocol,
            ca: self.ca.clone().filter(|_| encrypted == Some(true)),
            tls: self.tls,
            token,
        })
    }

    /// The server's processes, if they were named.
    pub(crate) fn server(&self) -> Result<Option<Server>, Error> {
        if self.pid.is_empty() { Ok(None) } else { Server::new(&self.pid).map(Some) }
    }
}

impl Target {
    /// As it was typed.
    pub(crate) fn url(&self) -> String {
        self.nodes.iter().map(|node| node.url.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// Errors: it cannot subscribe.
    pub(crate) fn subscribes(&self, scenario: &str) -> Result<(), Error> {
        if self.protocol == Protocol::Raw {
            let why = format!("--protocol raw: {scenario} needs a protocol that can subscribe");
            return Err(Error::Asked(why));
        }
        Ok(())
    }
}

/// The parts of an address, and whether it is encrypted.
fn node(target: &str) -> Result<(Node, bool), Error> {
    let failed = |why: String| Error::Target { target: target.to_owned(), why };
    let url = Url::parse(target).map_err(|error| failed(error.to_string()))?;
    let tls = match url.scheme() {
        "ws" => false,
        "wss" => true,
        other => return Err(failed(format!("the scheme is {other}"))),
    };
    let host = url.host_str().ok_or_else(|| failed("there is no host".into()))?;
    let port = url.port_or_known_default().unwrap_or(if tls { 443 } else { 80 });
    let name = host.trim_start_matches('[').trim_end_matches(']');
    let address = (name, port)
        .to_socket_addrs()
        .map_err(|error| failed(error.to_string()))?
        .next()
        .ok_or_else(|| failed("the host has no address".into()))?;
    let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
    let node = Node {
        url: target.to_owned(),
        address,
        authority: format!("{host}:{port}"),
        host: name.to_owned(),
        path: format!("{}{query}", url.path()),
    };
    Ok((node, tls))
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
        let node = &target.nodes[0];
        assert_eq!(node.address, "127.0.0.1:8000".parse().unwrap());
        assert_eq!(node.path, "/connection/websocket?a=b");
        assert_eq!((node.authority.as_str(), &target.ca), ("127.0.0.1:8000", &None));
        assert_eq!(resolved("ws://[::1]:9/").unwrap().nodes[0].host, "::1");
    }

    #[test]
    fn several_addresses_are_one_server_if_all_are_alike() {
        let mut aim = Aim::at("ws://127.0.0.1:1/".into(), 1);
        aim.target.push("ws://127.0.0.1:2/".into());
        assert_eq!(aim.resolve().unwrap().url(), "ws://127.0.0.1:1/, ws://127.0.0.1:2/");
        aim.target.push("wss://127.0.0.1:3/".into());
        aim.ca = Some("ca.pem".into());
        assert!(aim.resolve().unwrap_err().to_string().contains("either all are ws://"));
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
