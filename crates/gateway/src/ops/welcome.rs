//! What dev mode says to whoever started it: what to try next.

use std::io::Write as _;
use std::net::SocketAddr;

use tidegate_relay::RelaySettings;

use crate::settings::Settings;

/// Prints a few lines to standard output.
pub(crate) fn print(settings: &Settings, public: SocketAddr, internal: SocketAddr) {
    let secure = if settings.tls.is_some() { "s" } else { "" };
    let publish = match &settings.relay {
        RelaySettings::Memory(_) => String::new(),
        RelaySettings::Redis(redis) => {
            format!(
                "  or             redis-cli PUBLISH '{}:{{news}}' '{{\"text\":\"hello\"}}'\n",
                redis.prefix
            )
        }
    };
    let text = format!(
        "\nTidegate {version} in dev mode: open to anyone who can reach it.\n\n\
         \x20 look           http{secure}://{public}/\n\
         \x20 connect        ws{secure}://{public}/connection/websocket\n\
         \x20 publish        curl http://{internal}/api/publish -d '{{\"channel\":\"news\",\"data\":{{\"text\":\"hello\"}}}}'\n\
         {publish}\
         \x20 metrics        http://{internal}/metrics\n\
         \x20 several nodes  make demo-cluster\n\
         \x20 stop           Ctrl-C\n\n",
        version = env!("CARGO_PKG_VERSION"),
    );
    // Whoever started the node without a standard output does not read it.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}
