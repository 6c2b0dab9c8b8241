//! Centrifuge v2 in JSON.

use serde_json::{Value, json};

use super::Line;

/// Connect, and subscribe if asked, in one message.
pub(super) fn join(token: Option<&str>, channel: Option<&str>) -> String {
    let mut connect = json!({"id": 1, "connect": {"name": "tidegate-bench"}});
    if let Some(token) = token {
        connect["connect"]["token"] = token.into();
    }
    match channel {
        Some(channel) => format!("{connect}\n{}", json!({"id": 2, "subscribe": {"channel": channel}})),
        None => connect.to_string(),
    }
}

/// The command that publishes.
pub(super) fn publish(id: u32, channel: &str, data: &str) -> String {
    format!("{{\"id\":{id},\"publish\":{{\"channel\":\"{channel}\",\"data\":{data}}}}}")
}

/// Reads one line.
pub(super) fn line(line: &[u8]) -> Line {
    if line == b"{}" {
        return Line::Ping;
    }
    if line.starts_with(b"{\"push\"")
        && let Some(stamp) = super::stamp(line)
    {
        return Line::Publication(stamp);
    }
    let Ok(value) = serde_json::from_slice::<Value>(line) else { return Line::Other };
    let id = value.get("id").and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok());
    match id {
        Some(id) => Line::Reply(id, value.get("error").map(ToString::to_string)),
        None => Line::Other,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failing test is what should happen")]
    use super::super::tests::{STAMPED, heard};
    use super::*;
    use crate::target::Protocol;

    #[test]
    fn a_publication_is_recognised_with_its_stamp() {
        let data = super::super::data(STAMPED, 128);
        let push = format!("{{\"push\":{{\"channel\":\"bench\",\"pub\":{{\"data\":{data}}}}}}}");
        let message = format!("{push}\n{{}}\n{push}");
        let lines = heard(Protocol::CentrifugeJson, message.as_bytes());
        assert_eq!(lines, [Line::Publication(STAMPED), Line::Ping, Line::Publication(STAMPED)]);
    }

    #[test]
    fn replies_errors_and_pings_are_told_apart() {
        assert_eq!(line(b"{}"), Line::Ping);
        assert_eq!(line(br#"{"id":2,"subscribe":{}}"#), Line::Reply(2, None));
        let refused = line(br#"{"id":2,"error":{"code":103,"message":"permission denied"}}"#);
        assert!(matches!(refused, Line::Reply(2, Some(text)) if text.contains("permission denied")));
        assert_eq!(line(br#"{"push":{"channel":"bench","pub":{"data":1}}}"#), Line::Other);
        assert_eq!(line(b"not json"), Line::Other);
    }

    #[test]
    fn commands_are_json() {
        for text in
            [&join(None, Some("bench:1")), &join(Some("a.b.c"), None), &publish(16, "bench", "{\"a\":1}")]
        {
            for part in text.lines() {
                serde_json::from_str::<Value>(part).unwrap();
            }
        }
        assert_eq!(join(None, Some("bench")).lines().count(), 2);
        assert!(join(Some("a.b.c"), None).contains(r#""token":"a.b.c""#));
    }
}
