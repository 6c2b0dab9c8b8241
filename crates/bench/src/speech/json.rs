//! Centrifuge v2 in JSON.

use serde_json::{Value, json};

use super::{Line, Position, Subscribed};

/// Connect, and subscribe if asked, in one message.
pub(super) fn join(token: Option<&str>, channel: Option<&str>, since: Option<&Position>) -> String {
    let mut connect = json!({"id": 1, "connect": {"name": "tidegate-bench"}});
    if let Some(token) = token {
        connect["connect"]["token"] = token.into();
    }
    let Some(channel) = channel else { return connect.to_string() };
    let mut subscribe = json!({"channel": channel});
    if let Some(Position { epoch, offset }) = since {
        subscribe = json!({"channel": channel, "recover": true, "epoch": epoch, "offset": offset});
    }
    format!("{connect}\n{}", json!({"id": 2, "subscribe": subscribe}))
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
    if let Some(subscribed) = value.get("subscribe").and_then(subscribed) {
        return Line::Subscribed(Box::new(subscribed));
    }
    let id = value.get("id").and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok());
    match id {
        Some(id) => Line::Reply(id, value.get("error").map(ToString::to_string)),
        None => Line::Other,
    }
}

/// What a subscribe result says of history; nothing if the channel has none.
fn subscribed(result: &Value) -> Option<Subscribed> {
    let epoch = result.get("epoch")?.as_str()?.to_owned();
    let missed = result.get("publications").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let offset = result.get("offset").and_then(Value::as_u64).unwrap_or(0);
    Some(Subscribed {
        position: Position { epoch, offset },
        missed: missed
            .iter()
            .filter_map(|publication| super::stamp(publication.get("data")?.to_string().as_bytes()))
            .collect(),
    })
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
    fn what_was_missed_comes_with_the_answer_to_who_says_where_it_was() {
        let since = Position { epoch: "e1".into(), offset: 7 };
        let asked = join(None, Some("bench"), Some(&since));
        let asked: Value = serde_json::from_str(asked.lines().last().unwrap()).unwrap();
        let whole = json!({"channel": "bench", "recover": true, "epoch": "e1", "offset": 7});
        assert_eq!(asked["subscribe"], whole);
        let data = super::super::data(STAMPED, 128);
        let answer = format!(
            "{{\"id\":2,\"subscribe\":{{\"epoch\":\"e1\",\"offset\":7,\"publications\":[{{\"data\":{data}}}]}}}}"
        );
        let expected = Subscribed { position: since, missed: vec![STAMPED] };
        assert_eq!(line(answer.as_bytes()), Line::Subscribed(Box::new(expected)));
    }

    #[test]
    fn commands_are_json() {
        for text in [
            &join(None, Some("bench:1"), None),
            &join(Some("a.b.c"), None, None),
            &publish(16, "bench", "{\"a\":1}"),
        ] {
            for part in text.lines() {
                serde_json::from_str::<Value>(part).unwrap();
            }
        }
        assert_eq!(join(None, Some("bench"), None).lines().count(), 2);
        assert!(join(Some("a.b.c"), None, None).contains(r#""token":"a.b.c""#));
    }
}
