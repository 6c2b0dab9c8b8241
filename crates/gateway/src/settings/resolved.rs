//! Settings as the node uses them: checked, resolved, with nothing left to interpret.
//!
//! Not here: what each key defaults to (`defaults.yaml`) and what is refused (`check`).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use hyper::http::uri::Scheme;
use hyper::{HeaderMap, Uri, header::HeaderName};
use tidegate_hub::Namespace;
use tidegate_protocol::{ChannelName, EventKinds};
use tidegate_relay::{ChannelRules, RelaySettings, Rules, Secret};

/// All settings of a node.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Where the node listens.
    pub listen: Listen,
    /// Worker threads, each with a shard of the connections: 1 to 64.
    pub workers: usize,
    /// Who the node is.
    pub node: Node,
    /// The public port's certificate; `None` serves plain `ws`.
    pub tls: Option<Tls>,
    /// What carries publications between nodes.
    pub relay: RelaySettings,
    /// What bounds clients.
    pub limits: Limits,
    /// How dead connections are found.
    pub heartbeat: Heartbeat,
    /// What waits for a socket.
    pub outbox: Outbox,
    /// Who may connect.
    pub auth: Auth,
    /// Who may call the server API.
    pub api: Api,
    /// Known namespaces by name.
    pub namespaces: Vec<(String, NamespaceRules)>,
    /// What of what clients did is told to backends.
    pub events: EventKinds,
    /// What an unknown namespace gets; `None` refuses it.
    pub any_namespace: Option<NamespaceRules>,
    /// Backends that decide.
    pub proxy: ProxySettings,
    /// How the node leaves.
    pub drain: Drain,
    /// What the node writes about itself.
    pub log: Log,
    /// Whether the node runs in dev mode: open to anyone on this machine, with the page at `/`.
    pub dev: bool,
}

/// The rules of a namespace, for both who apply them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NamespaceRules {
    /// What clients may do and get.
    pub clients: Namespace,
    /// What the relay does for its channels.
    pub channels: ChannelRules,
}

impl Settings {
    /// What the relay must know of namespaces.
    pub(crate) fn relay_rules(&self) -> Rules {
        Rules {
            namespaces: self.namespaces.iter().map(|(name, it)| (name.clone(), it.channels)).collect(),
            any: self.any_namespace.map(|it| it.channels),
        }
    }

    /// The rules of a channel by its namespace; `None` if there is no such namespace.
    pub(crate) fn rules(&self, channel: &ChannelName) -> Option<NamespaceRules> {
        let named = self.namespaces.iter().find(|(name, _)| name == channel.namespace());
        named.map(|(_, rules)| *rules).or(self.any_namespace)
    }
}

/// Where the node listens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Listen {
    /// For clients.
    pub public: SocketAddr,
    /// For operators and backends: API, metrics, health.
    pub internal: SocketAddr,
}

/// Who the node is.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// The name in the registry and in logs: the host's, unless set.
    pub name: String,
}

/// The public port's certificate.
#[derive(Debug, Clone)]
pub(crate) struct Tls {
    /// The certificate chain, PEM, leaf first.
    pub cert: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// Keys of session tickets, shared by nodes; `None`: each process has its own.
    pub ticket_keys: Option<PathBuf>,
    /// Who encrypts after the handshake.
    pub record_layer: RecordLayer,
}

/// Who encrypts and decrypts a connection's records after the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RecordLayer {
    /// rustls.
    Rustls,
    /// The node's own record layer where the connection speaks TLS 1.3, else rustls.
    Compact,
}

/// What bounds clients.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Open connections of the node; beyond: 503 before the upgrade.
    pub max_connections: usize,
    /// What decided that number.
    pub max_connections_by: Bound,
    /// Open connections from one address; 0 is off; beyond: 429 before the upgrade.
    pub max_connections_per_ip: u32,
    /// Connections let in a second; 0 is no limit; beyond: they wait up to `handshake_timeout`, then 503.
    pub accept_rate: u32,
    /// How many of them may be let in at once.
    pub accept_burst: u32,
    /// TLS handshakes in progress at once on the node; beyond: one makes room, or they wait.
    pub max_handshakes: usize,
    /// From accept to the first byte, then to the end of the HTTP head, TLS included; beyond: dropped. The wait for
    /// `accept_rate` between them does not count, and is bounded by it on its own.
    pub handshake_timeout: Duration,
    /// From the upgrade to the first command; beyond: 3502.
    pub connect_timeout: Duration,
    /// The largest message of a client in bytes, over its fragments; beyond: 3501.
    pub max_message_bytes: usize,
    /// The most fragments of one message; beyond: 3501.
    pub max_fragments: u32,
    /// How old an unfinished message may be; beyond: 3501.
    pub message_timeout: Duration,
    /// Subscriptions of one session; beyond: error 106.
    pub max_subscriptions: usize,
    /// How long a socket may take nothing of what waits for it; beyond: 3009.
    pub write_timeout: Duration,
}

/// What a limit comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bound {
    /// Somebody wrote it.
    Settings,
    /// The file descriptors of the process.
    Files,
    /// The memory of the cgroup or the machine.
    Memory,
    /// The most that can be asked for.
    Most,
}

impl Bound {
    /// The word for it in logs.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Settings => "settings",
            Self::Files => "files",
            Self::Memory => "memory",
            Self::Most => "most",
        }
    }
}

/// How dead connections are found.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heartbeat {
    /// From ping to ping; whole seconds, because that is how clients are told.
    pub interval: Duration,
    /// From a ping to its pong; beyond: 3012.
    pub timeout: Duration,
}

/// What waits for a socket.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outbox {
    /// Bytes that may wait for one connection; beyond: 3008.
    pub max_bytes: usize,
}

/// Who may connect.
#[derive(Debug, Clone)]
pub(crate) struct Auth {
    /// Whether a connection may be without a user.
    pub anonymous: bool,
    /// Browser origins that may connect, lower case (`https://app.example.com`); `*` is any. In dev mode loopback
    /// origins are allowed besides.
    pub origins: Vec<String>,
}

/// Who may call the server API.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    /// The keys; while there is none, only loopback is answered.
    pub keys: Vec<ApiKey>,
}

/// A key of the server API.
#[derive(Debug, Clone)]
pub(crate) struct ApiKey {
    /// What logs call it.
    pub name: String,
    /// The key itself.
    pub key: Secret,
    /// What it opens.
    pub scope: Scope,
}

/// What an API key opens; each includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scope {
    /// Look: `channels`, `info`, `history`, `presence`, `presence_stats`.
    Read,
    /// Speak: `publish`, `broadcast`.
    Publish,
    /// Act on clients: `subscribe`, `unsubscribe`, `disconnect`; and `history_remove`.
    Admin,
}

/// Backends that decide. A number is that of an endpoint.
#[derive(Debug, Clone, Default)]
pub(crate) struct ProxySettings {
    /// The backends.
    pub endpoints: Vec<EndpointSettings>,
    /// Who lets clients in; `None`: the node, by `auth`.
    pub connect: Option<usize>,
    /// Who answers calls, by the beginning of the method, the longest first; the empty one is for all others.
    pub rpc: Vec<(String, usize)>,
    /// Who lets subscribe, by namespace.
    pub subscribe: HashMap<String, usize>,
    /// Who lets publish, by namespace.
    pub publish: HashMap<String, usize>,
}

impl ProxySettings {
    /// Who answers calls of this method.
    pub(crate) fn rpc(&self, method: &str) -> Option<usize> {
        self.rpc.iter().find(|(prefix, _)| method.starts_with(prefix.as_str())).map(|(_, endpoint)| *endpoint)
    }
}

/// One backend.
#[derive(Debug, Clone)]
pub(crate) struct EndpointSettings {
    /// What settings and logs call it.
    pub name: String,
    /// Where it is: http or https.
    pub url: Uri,
    /// From the question to the end of the answer, with waiting and a second try; beyond: error 100.
    pub timeout: Duration,
    /// Requests of the node under way at once; beyond: they wait.
    pub concurrency: usize,
    /// How many may wait; beyond: error 111.
    pub queue: usize,
    /// The largest answer in bytes; beyond: error 100.
    pub max_response_bytes: usize,
    /// What the node sends of its own.
    pub headers: HeaderMap,
    /// What is passed on of a client's handshake.
    pub forward_headers: Vec<HeaderName>,
    /// Whom to trust instead of the system's authorities, PEM.
    pub ca: Option<PathBuf>,
    /// Signs the questions.
    pub secret: Option<Secret>,
}

impl EndpointSettings {
    /// Whether it is asked over TLS.
    pub(crate) fn is_secure(&self) -> bool {
        self.url.scheme() == Some(&Scheme::HTTPS)
    }
}

/// How the node leaves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Drain {
    /// From "not ready" to the first close, so that load balancers look elsewhere first.
    pub delay: Duration,
    /// Over how long the closes are spread.
    pub duration: Duration,
}

/// What the node writes about itself.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    /// A level, or directives of `tracing_subscriber::EnvFilter`.
    pub level: String,
    /// How a line looks.
    pub format: LogFormat,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// Human on a terminal, JSON otherwise.
    Auto,
    /// For eyes.
    Human,
    /// One JSON object a line.
    Json,
}
