//! The Pusher Channels protocol, version 7: as much of it as subscribing, pings and client events need.
//!
//! Publishing is by client events, which few servers allow in a public channel; else `--api` or `--redis` publishes.

use memchr::memmem;
use serde_json::{Value, json};

use super::Line;

/// The answer to `pusher:ping`.
pub(super) const PONG: &str = r#"{"event":"pusher:pong","data":{}}"#;

/// The command that subscribes.
pub(super) fn subscribe(channel: &str) -> String {
    json!({"event": "pusher:subscribe", "data": {"channel": channel}}).to_string()
}

/// A client event.
pub(super) fn publish(channel: &str, data: &str) -> String {
    format!("{{\"event\":\"client-bench\",\"channel\":\"{channel}\",\"data\":{data}}}")
}

/// Reads one message. An event's data is an object or, more often, JSON in a string.
pub(super) fn line(message: &[u8]) -> Line {
    if let Some(stamp) = super::stamp(message) {
        return Line::Publication(stamp);
    }
    if memmem::find(message, b"pusher").is_none() {
        return Line::Other;
    }
    let Ok(value) = serde_json::from_slice::<Value>(message) else { return Line::Other };
    match value.get("event").and_then(Value::as_str) {
        Some("pusher:ping") => Line::Ping,
        Some("pusher:connection_established") => Line::Reply(1, None),
        Some("pusher_internal:subscription_succeeded") => Line::Reply(2, None),
        Some("pusher:error" | "pusher:subscription_error") => {
            let data = value.get("data").map(ToString::to_string).unwrap_or_default();
            Line::Reply(2, Some(data))
        }
        _ => Line::Other,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failing test is what should happen")]
    use super::super::tests::STAMPED;
    use super::*;

    #[test]
    fn events_are_told_apart() {
        let established =
            br#"{"event":"pusher:connection_established","data":"{\"socket_id\":\"1.2\",\"activity_timeout\":120}"}"#;
        assert_eq!(line(established), Line::Reply(1, None));
        let subscribed =
            br#"{"event":"pusher_internal:subscription_succeeded","channel":"bench","data":"{}"}"#;
        assert_eq!(line(subscribed), Line::Reply(2, None));
        assert_eq!(line(br#"{"event":"pusher:ping","data":{}}"#), Line::Ping);
        let refused = line(br#"{"event":"pusher:error","data":{"code":4009,"message":"no"}}"#);
        assert!(matches!(refused, Line::Reply(2, Some(text)) if text.contains("4009")));
        assert_eq!(line(br#"{"event":"other","data":"{}"}"#), Line::Other);
        assert_eq!(line(b"pusher"), Line::Other);
    }

    #[test]
    fn a_publication_is_recognised_as_an_object_and_as_a_string() {
        let data = super::super::data(STAMPED, 128);
        let text = serde_json::to_string(&data).unwrap();
        for data in [data, text] {
            let event = format!("{{\"event\":\"message\",\"channel\":\"bench\",\"data\":{data}}}");
            assert_eq!(line(event.as_bytes()), Line::Publication(STAMPED));
        }
    }

    #[test]
    fn commands_are_json() {
        for text in [subscribe("bench:1"), publish("bench", "{\"a\":1}"), PONG.to_owned()] {
            serde_json::from_str::<Value>(&text).unwrap();
        }
    }
}
