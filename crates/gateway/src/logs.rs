//! Logging: to standard error, for eyes on a terminal, else one JSON object a line.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

use crate::settings::{Log, LogFormat};

/// Starts logging for the process. Once.
pub(crate) fn init(log: &Log) {
    let terminal = io::stderr().is_terminal();
    let human = match log.format {
        LogFormat::Auto => terminal,
        LogFormat::Human => true,
        LogFormat::Json => false,
    };
    // The level was checked with the settings.
    let filter = EnvFilter::try_new(directives(&log.level)).unwrap_or_else(|_| EnvFilter::new("info"));
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let started = if human {
        subscriber.with_ansi(terminal).with_target(false).finish().try_init()
    } else {
        subscriber
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .finish()
            .try_init()
    };
    // Nobody else starts logging in this process.
    debug_assert!(started.is_ok(), "logging started twice");
}

/// A plain level is meant for the node: libraries speak from warnings on. Directives are taken as they are.
fn directives(level: &str) -> String {
    match level.parse::<tracing::Level>() {
        Ok(plain) if plain > tracing::Level::WARN => format!("warn,tidegate={plain}"),
        _ => level.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_level_does_not_make_libraries_talk() {
        assert_eq!(directives("info"), "warn,tidegate=INFO");
        assert_eq!(directives("debug"), "warn,tidegate=DEBUG");
        for as_it_is in ["warn", "error", "off", "info,actix_server=info", "tidegate_relay=trace"] {
            assert_eq!(directives(as_it_is), as_it_is);
        }
    }
}
