//! What carries WebSocket where a test does not say: plain TCP, or TLS with one of the node's record layers.
//!
//! `TIDEGATE_TESTS_TLS=rustls` or `compact` runs a test file's promises over `wss`. Only for files whose clients are
//! [`Upgrade`](crate::raw::Upgrade)s: SDKs would want an authority.

/// The record layer that nodes are to use and clients are to meet; `None`: plain TCP.
///
/// # Panics
/// When the variable has another value.
pub fn record_layer() -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "the harness's own setting: what carries WebSocket")]
    let named = std::env::var("TIDEGATE_TESTS_TLS").ok()?;
    assert!(["rustls", "compact"].contains(&named.as_str()), "TIDEGATE_TESTS_TLS={named}: rustls or compact");
    Some(named)
}
