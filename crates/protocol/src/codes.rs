//! Every code a client can meet, in one table: errors, disconnects, unsubscribes.
//!
//! A code has one variant, one text and one metric label. `docs/reference/close-codes.md` is held against this
//! table by a test. Only a backend may end a connection in words of its own, a [`BackendClose`]: its code and reason
//! are on the wire and in the log, while to everything that counts it is one variant, [`Disconnect::Backend`].

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
        /// A backend ended the connection with a code of its own: this row stands for all from 4000 to 4999.
        Backend = 4000, "disconnected by backend";
    }
}

impl Disconnect {
    /// Whether the official SDKs connect again after this code.
    pub const fn reconnects(self) -> bool {
        reconnects(self.code())
    }
}

/// Whether the official SDKs connect again after this close code.
const fn reconnects(code: u16) -> bool {
    code < 3500 || (code >= 4000 && code < 4500)
}

/// The end of a connection in a backend's own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendClose {
    code: u16,
    reason: Box<str>,
}

/// Why a backend's close was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadClose {
    /// A code that is not a backend's to give.
    #[error("the code is not from 4000 to 4999")]
    Code,
    /// A reason that a Close frame cannot carry.
    #[error("the reason is longer than {} bytes", BackendClose::MAX_REASON)]
    TooLong,
    /// A reason that one SDK would take for something else.
    #[error("the reason is valid JSON, which one SDK would parse")]
    Json,
}

impl BackendClose {
    /// The most bytes of a reason: a control frame carries 125, two of them the code (RFC 6455, 5.5).
    pub const MAX_REASON: usize = 123;

    /// A close with this code, 4000 to 4999: from 4500 on it is final to an SDK. Without a reason it has the text of
    /// [`Disconnect::Backend`].
    pub fn new(code: u32, reason: &str) -> Result<Self, BadClose> {
        let code =
            u16::try_from(code).ok().filter(|code| (4000..5000).contains(code)).ok_or(BadClose::Code)?;
        let reason = if reason.is_empty() { Disconnect::Backend.text() } else { reason };
        if reason.len() > Self::MAX_REASON {
            return Err(BadClose::TooLong);
        }
        if serde_json::from_str::<serde::de::IgnoredAny>(reason).is_ok() {
            return Err(BadClose::Json);
        }
        Ok(Self { code, reason: reason.into() })
    }

    /// The number on the wire.
    pub const fn code(&self) -> u16 {
        self.code
    }

    /// The text beside it.
    pub const fn reason(&self) -> &str {
        &self.reason
    }

    /// Whether the official SDKs connect again after this code.
    pub const fn reconnects(&self) -> bool {
        reconnects(self.code)
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

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Code, text and label of every row of the three tables.
    fn rows() -> [Vec<(u16, &'static str, &'static str)>; 3] {
        [
            ErrorCode::ALL.iter().map(|it| (it.code(), it.text(), it.label())).collect(),
            Disconnect::ALL.iter().map(|it| (it.code(), it.text(), it.label())).collect(),
            UnsubscribeCode::ALL.iter().map(|it| (it.code(), it.text(), it.label())).collect(),
        ]
    }

    #[test]
    fn a_code_stands_once_and_in_order_and_its_label_is_its_number() {
        for table in rows() {
            assert!(table.windows(2).all(|pair| pair[0].0 < pair[1].0), "{table:?}");
            let labels: HashSet<_> = table.iter().map(|row| row.2).collect();
            assert_eq!(labels.len(), table.len());
            assert!(table.iter().all(|(code, _, label)| *label == code.to_string()));
        }
    }

    #[test]
    fn a_text_is_plain_words_and_never_json() {
        for (_, text, _) in rows().concat() {
            assert!(serde_json::from_str::<serde_json::Value>(text).is_err(), "{text}");
            assert!(text.starts_with(|c: char| c.is_ascii_lowercase()), "{text}");
            assert!(text.chars().all(|c| c.is_ascii_lowercase() || " -8".contains(c)), "{text}");
        }
    }

    #[test]
    fn a_close_reason_fits_a_close_frame() {
        // A control frame carries 125 bytes, two of them the code (RFC 6455, 5.5).
        assert!(Disconnect::ALL.iter().all(|it| it.text().len() <= 123));
    }

    #[test]
    fn sdks_connect_again_after_a_passing_state_and_never_after_a_final_one() {
        let passing =
            [1002, 1006, 1007, 3000, 3001, 3004, 3005, 3006, 3008, 3009, 3010, 3011, 3012, 3013, 4000];
        let last = [3500, 3501, 3502, 3503, 3504, 3505, 3506, 3507, 3508, 3509];
        let (again, never): (Vec<Disconnect>, Vec<Disconnect>) =
            Disconnect::ALL.iter().partition(|it| it.reconnects());
        assert_eq!(again.iter().map(|it| it.code()).collect::<Vec<_>>(), passing);
        assert_eq!(never.iter().map(|it| it.code()).collect::<Vec<_>>(), last);
    }

    #[test]
    fn nothing_is_closed_with_1009_which_some_sdks_take_as_final() {
        assert!(Disconnect::ALL.iter().all(|it| it.code() != 1009));
    }

    #[test]
    fn a_backend_closes_with_its_own_code_and_reason_within_its_range() {
        let close = BackendClose::new(4123, "moved to another region");
        let close = close.expect("a code and a reason of a backend");
        assert_eq!(
            (close.code(), close.reason(), close.reconnects()),
            (4123, "moved to another region", true)
        );
        let last = BackendClose::new(4500, "").expect("no reason is needed");
        assert_eq!((last.reason(), last.reconnects()), (Disconnect::Backend.text(), false));
        assert_eq!(BackendClose::new(4999, "").map(|close| close.code()), Ok(4999));
        for code in [0, 1000, 1009, 3000, 3500, 3999, 5000, 65_536 + 4000] {
            assert_eq!(BackendClose::new(code, "no"), Err(BadClose::Code), "{code}");
        }
    }

    #[test]
    fn a_backends_reason_fits_a_close_frame_and_is_never_json() {
        assert!(BackendClose::new(4000, &"x".repeat(BackendClose::MAX_REASON)).is_ok());
        assert_eq!(BackendClose::new(4000, &"x".repeat(124)), Err(BadClose::TooLong));
        for json in ["42", "true", r#"{"why":1}"#, " \"banned\" "] {
            assert_eq!(BackendClose::new(4000, json), Err(BadClose::Json), "{json}");
        }
    }

    #[test]
    fn only_what_may_pass_is_temporary() {
        let temporary: Vec<_> =
            ErrorCode::ALL.iter().filter(|it| it.temporary()).map(|it| it.code()).collect();
        assert_eq!(temporary, [100, 111]);
        assert_eq!(
            ErrorCode::ALL.iter().map(|it| it.code()).collect::<Vec<_>>(),
            (100..=112).collect::<Vec<_>>()
        );
    }

    #[test]
    fn unsubscribe_codes_tell_an_sdk_whether_to_subscribe_again() {
        // From 2500 up it does.
        assert_eq!(UnsubscribeCode::ALL.iter().map(|it| it.code()).collect::<Vec<_>>(), [2000, 2500, 2501]);
    }
}
