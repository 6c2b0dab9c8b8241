//! Every code a client can meet, in one table: errors, disconnects, unsubscribes.
//!
//! A code has one variant, one text and one metric label. `docs/reference/close-codes.md` is held against this
//! table by a test.

/// Declares an enum of numeric codes with its table of rows.
macro_rules! table {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $code:literal, $text:literal;)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$doc])* $variant,)+ }

        impl $name {
            /// Every variant, in the order of the codes.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The number on the wire.
            pub const fn code(self) -> u16 {
                match self { $(Self::$variant => $code,)+ }
            }

            /// The text beside the number: plain words, never valid JSON.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// The number as a metric label: a closed set.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => stringify!($code),)+ }
            }
        }
    };
}

table! {
    /// Why a command failed. The connection goes on.
    ErrorCode {
        /// The node could not do it now, for instance because Redis is away. Temporary.
        Internal = 100, "internal server error";
        /// The connection has no identity where one is needed.
        Unauthorized = 101, "unauthorized";
        /// The channel's name or namespace is not known.
        UnknownChannel = 102, "unknown channel";
        /// The namespace does not allow it.
        PermissionDenied = 103, "permission denied";
        /// The command or RPC method does not exist.
        MethodNotFound = 104, "method not found";
        /// The session has this subscription already.
        AlreadySubscribed = 105, "already subscribed";
        /// A limit of the node would be passed.
        LimitExceeded = 106, "limit exceeded";
        /// The command makes no sense.
        BadRequest = 107, "bad request";
        /// The feature is not there, or not switched on.
        NotAvailable = 108, "not available";
        /// The token has expired; the SDK fetches a new one.
        TokenExpired = 109, "token expired";
        /// The connection or subscription has expired.
        Expired = 110, "expired";
        /// The session sends too much. Temporary.
        TooManyRequests = 111, "too many requests";
        /// The asked position cannot be recovered.
        UnrecoverablePosition = 112, "unrecoverable position";
    }
}

impl ErrorCode {
    /// Whether the SDK should try again by itself.
    pub const fn temporary(self) -> bool {
        matches!(self, Self::Internal | Self::TooManyRequests)
    }
}

table! {
    /// Why a connection ended: one variant for each way, whoever began it.
    ///
    /// 3000-3499 make an SDK reconnect, 3500-3999 are final to it. Codes below 3000 are RFC 6455's own and make an
    /// SDK reconnect. 1009 is never used: two SDKs treat it as final.
    Disconnect {
        /// A frame broke RFC 6455.
        FrameError = 1002, "protocol error";
        /// The socket ended without a Close frame. Never on the wire.
        Lost = 1006, "connection lost";
        /// A text message was not UTF-8.
        InvalidUtf8 = 1007, "invalid utf-8";
        /// The client closed.
        Closed = 3000, "connection closed";
        /// The node is shutting down.
        Shutdown = 3001, "shutdown";
        /// The node failed.
        ServerError = 3004, "internal server error";
        /// The connection's token expired.
        ConnectionExpired = 3005, "connection expired";
        /// A subscription's token expired.
        SubscriptionExpired = 3006, "subscription expired";
        /// The outbox passed its bound.
        Slow = 3008, "slow";
        /// Writing to the socket failed or stalled.
        WriteError = 3009, "write error";
        /// The position of a subscription was lost.
        InsufficientState = 3010, "insufficient state";
        /// The node asks the client to connect again.
        ForceReconnect = 3011, "force reconnect";
        /// No pong came in time.
        NoPong = 3012, "no pong";
        /// The client keeps sending too much.
        TooManyRequests = 3013, "too many requests";
        /// The connection token is invalid.
        InvalidToken = 3500, "invalid token";
        /// A message could not be understood.
        BadRequest = 3501, "bad request";
        /// No connect command came in time.
        Stale = 3502, "stale";
        /// A backend ended the connection.
        ForceDisconnect = 3503, "force disconnect";
        /// The user has too many connections.
        ConnectionLimit = 3504, "connection limit";
        /// The connection has too many subscriptions.
        ChannelLimit = 3505, "channel limit";
        /// The subprotocol or transport does not fit.
        InappropriateProtocol = 3506, "inappropriate protocol";
        /// The client may not do this.
        PermissionDenied = 3507, "permission denied";
        /// The feature is not there, or not switched on.
        NotAvailable = 3508, "not available";
        /// The client made too many errors.
        TooManyErrors = 3509, "too many errors";
    }
}

impl Disconnect {
    /// Whether the official SDKs connect again after this code.
    pub const fn reconnects(self) -> bool {
        let code = self.code();
        code < 3500 || (code >= 4000 && code < 4500)
    }
}

table! {
    /// Why a subscription was ended by the server.
    UnsubscribeCode {
        /// A backend ended it; final.
        Server = 2000, "server unsubscribe";
        /// The position was lost; the SDK subscribes again.
        InsufficientState = 2500, "insufficient state";
        /// The subscription token expired; the SDK subscribes again.
        Expired = 2501, "subscription expired";
    }
}
