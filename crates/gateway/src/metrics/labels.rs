//! The labels of the families: closed sets.

/// Why a connection did not reach the upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rejection {
    /// `limits.max_connections` is reached.
    Full,
    /// More came than `limits.accept_rate` lets in while they could wait.
    AcceptRate,
    /// `limits.max_connections_per_ip` is reached.
    PerIp,
    /// The browser's origin is not in `auth.origins`.
    Origin,
    /// `limits.handshake_timeout` has passed.
    HandshakeTimeout,
    /// The TLS handshake failed.
    Tls,
    /// The request was not a WebSocket handshake that the node accepts.
    BadRequest,
    /// `limits.max_handshakes` was reached, and this one had to make room, or found none in time.
    Handshakes,
    /// The node is shutting down.
    Shutdown,
}

impl Rejection {
    /// Every reason.
    pub(crate) const ALL: [Self; 9] = [
        Self::Full,
        Self::AcceptRate,
        Self::PerIp,
        Self::Origin,
        Self::HandshakeTimeout,
        Self::Tls,
        Self::BadRequest,
        Self::Handshakes,
        Self::Shutdown,
    ];

    /// The metric label.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::AcceptRate => "accept_rate",
            Self::PerIp => "per_ip",
            Self::Origin => "origin",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::Tls => "tls",
            Self::BadRequest => "bad_request",
            Self::Handshakes => "handshakes",
            Self::Shutdown => "shutdown",
        }
    }
}

/// What a TLS handshake was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Handshake {
    /// With a signature of the node's key.
    Full,
    /// With a session ticket.
    Resumed,
}

impl Handshake {
    /// Every kind.
    pub(crate) const ALL: [Self; 2] = [Self::Full, Self::Resumed];

    /// The metric label.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Resumed => "resumed",
        }
    }
}

/// Where a publication came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// A client's publish command, acknowledged by the relay.
    Client,
    /// The server API, acknowledged by the relay.
    Api,
    /// The relay: everything this node had to deliver, whoever published it.
    Relay,
}

impl Source {
    /// Every source.
    pub(crate) const ALL: [Self; 3] = [Self::Client, Self::Api, Self::Relay];

    /// The metric label.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Api => "api",
            Self::Relay => "relay",
        }
    }
}

/// Why a publication went nowhere: the relay's `Observation::Refused` reasons, then those of [`RelayError`].
pub(super) const REFUSALS: [&str; 8] = [
    "not_json",
    "envelope",
    "too_large",
    "channel_name",
    "control",
    "relay_away",
    "relay_refused",
    "relay_busy",
];

/// What is timed at Redis; the last is for any other.
pub(super) const RELAY_COMMANDS: [&str; 7] =
    ["publish", "subscribe", "presence", "heartbeat", "position", "log", "other"];
