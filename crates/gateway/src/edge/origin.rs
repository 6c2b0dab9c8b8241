//! Which browser pages may connect.
//!
//! A WebSocket handshake is not bound by the same-origin policy, so the node must refuse foreign pages itself. Clients
//! that are no browser send no Origin and are not concerned.

use std::net::IpAddr;

use crate::settings::Settings;

/// Whether a page of this origin may connect.
pub(super) fn allowed(origin: &[u8], settings: &Settings) -> bool {
    let Ok(origin) = std::str::from_utf8(origin) else { return false };
    let origin = origin.to_ascii_lowercase();
    settings.auth.origins.iter().any(|known| *known == "*" || *known == origin)
        || settings.dev && loopback(&origin)
}

/// Whether the origin is a page served from this machine.
fn loopback(origin: &str) -> bool {
    let Some((_, host)) = origin.split_once("://") else { return false };
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pages_of_this_machine_are_loopback() {
        for origin in
            ["http://localhost:8000", "https://127.0.0.1", "http://127.8.8.8:1", "http://[::1]:3000"]
        {
            assert!(loopback(origin), "{origin}");
        }
        for origin in [
            "null",
            "",
            "http://localhost.example.com",
            "http://127.0.0.1.example.com",
            "http://example.com:80",
            "http://[::2]",
            "http://10.0.0.1",
        ] {
            assert!(!loopback(origin), "{origin}");
        }
    }
}
