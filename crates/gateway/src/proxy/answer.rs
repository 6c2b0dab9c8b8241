//! What a backend answers, checked before anything of it reaches a client.
//!
//! An answer that is not what the contract (`docs/reference/proxy.md`) says is no answer: nothing is granted because of
//! it. Not here: what an answer means for a session, which is the hub's.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use tidegate_hub::{Decision, Grant};
use tidegate_protocol::codec::json;
use tidegate_protocol::{BackendClose, ChannelName, Codec};

use super::question::Kind;

/// The most characters of an error's message that a client is told.
const MAX_MESSAGE: usize = 1024;

/// The most bytes of a user's id.
const MAX_USER: usize = 255;

/// The most channels a backend may subscribe a connecting client to in one answer.
const MAX_CHANNELS: usize = 1000;

/// Why an answer cannot be used, in words for the log.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Unusable(String);

impl Unusable {
    pub(super) const fn new(why: String) -> Self {
        Self(why)
    }
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default)]
    result: Option<Written<'a>>,
    #[serde(default)]
    error: Option<WrittenError>,
    #[serde(default)]
    disconnect: Option<WrittenClose>,
}

#[derive(Deserialize)]
struct Written<'a> {
    #[serde(default)]
    user: String,
    #[serde(borrow, default)]
    info: Option<&'a RawValue>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(default)]
    b64data: Option<String>,
    #[serde(default)]
    channels: Vec<String>,
    #[serde(default)]
    skip_history: bool,
}

#[derive(Deserialize)]
struct WrittenError {
    code: u32,
    #[serde(default)]
    message: String,
    #[serde(default)]
    temporary: bool,
}

#[derive(Deserialize)]
struct WrittenClose {
    code: u32,
    #[serde(default)]
    reason: String,
}

/// Reads the body of an answer to a question of this kind, for a client that speaks `codec`.
pub(super) fn read(kind: Kind, codec: Codec, body: &[u8]) -> Result<Decision, Unusable> {
    let envelope: Envelope<'_> = serde_json::from_slice(body).map_err(|error| {
        // Where it is, and not what is there: that may be long, and is not for the log.
        let (line, column) = (error.line(), error.column());
        let what = if error.is_data() { "a field of the wrong type" } else { "not one JSON object" };
        Unusable(format!("{what}, at line {line} column {column}"))
    })?;
    match envelope {
        Envelope { disconnect: Some(close), error: None, result: None } => {
            let close = BackendClose::new(close.code, &close.reason);
            close.map(Decision::Disconnect).map_err(|error| Unusable(format!("disconnect: {error}")))
        }
        Envelope { disconnect: None, error: Some(error), result: None } => refusal(error),
        Envelope { disconnect: None, error: None, result: Some(result) } => {
            grant(kind, codec, result).map(Decision::Granted)
        }
        _ => Err(Unusable("not exactly one of result, error and disconnect".to_owned())),
    }
}

fn refusal(error: WrittenError) -> Result<Decision, Unusable> {
    let WrittenError { code, mut message, temporary } = error;
    if !(400..2000).contains(&code) {
        return Err(Unusable(format!("error: the code {code} is not from 400 to 1999")));
    }
    if let Some((end, _)) = message.char_indices().nth(MAX_MESSAGE) {
        message.truncate(end);
    }
    Ok(Decision::Refused { code, message, temporary })
}

fn grant(kind: Kind, codec: Codec, written: Written<'_>) -> Result<Grant, Unusable> {
    let unusable = |field: &str, error: &dyn std::fmt::Display| Unusable(format!("result.{field}: {error}"));
    let checked = |field: &str, json: &[u8]| json::payload(json).map_err(|error| unusable(field, &error));
    if written.user.len() > MAX_USER {
        return Err(unusable("user", &format!("longer than {MAX_USER} bytes")));
    }
    let info = written.info.map(|info| checked("info", info.get().as_bytes())).transpose()?;
    let data = match (written.data, written.b64data) {
        (Some(_), Some(_)) => return Err(unusable("b64data", &"data is there too")),
        (Some(data), None) => Some(checked("data", data.get().as_bytes())?),
        (None, Some(data)) => {
            let data = STANDARD.decode(data).map_err(|error| unusable("b64data", &error))?;
            // Publications are JSON in both codecs (ADR 0005), and so is all that a client of JSON is told.
            let binary = codec == Codec::Protobuf && kind != Kind::Publish;
            Some(if binary { Bytes::from(data) } else { checked("b64data", &data)? })
        }
        (None, None) => None,
    };
    if written.channels.len() > MAX_CHANNELS {
        return Err(unusable("channels", &format!("more than {MAX_CHANNELS}")));
    }
    let mut channels = Vec::with_capacity(written.channels.len());
    for name in &written.channels {
        let name = ChannelName::parse(name).map_err(|error| unusable("channels", &error))?;
        if !channels.contains(&name) {
            channels.push(name);
        }
    }
    Ok(Grant {
        user: written.user,
        info: info.unwrap_or_default(),
        data,
        channels,
        skip_history: written.skip_history,
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failing test is what should happen")]
    use super::*;

    fn rpc(body: &str) -> Result<Decision, Unusable> {
        read(Kind::Rpc, Codec::Json, body.as_bytes())
    }

    fn granted(kind: Kind, codec: Codec, body: &str) -> Grant {
        match read(kind, codec, body.as_bytes()) {
            Ok(Decision::Granted(grant)) => grant,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_result_is_read_with_everything_that_may_be_in_it() {
        let grant = granted(
            Kind::Connect,
            Codec::Json,
            r#"{"result": {"user": "42", "info": {"name": "A\nda"}, "data": {"a":
                1}, "channels": ["news", "inbox:42", "news"], "expire_at": 5, "later": []}}"#,
        );
        assert_eq!(grant.user, "42");
        assert_eq!(grant.info, r#"{"name": "A\nda"}"#);
        assert!(!grant.data.unwrap().contains(&b'\n'), "clients split a message at its newlines");
        let channels: Vec<_> = grant.channels.iter().map(ChannelName::as_str).collect();
        assert_eq!(channels, ["news", "inbox:42"]);
        assert_eq!(granted(Kind::Rpc, Codec::Json, r#"{"result":{}}"#), Grant::default());
        assert!(granted(Kind::Publish, Codec::Json, r#"{"result":{"skip_history":true}}"#).skip_history);
    }

    #[test]
    fn bytes_go_to_clients_of_protobuf_and_json_to_all() {
        let bytes = r#"{"result":{"b64data":"/w=="}}"#;
        assert_eq!(granted(Kind::Rpc, Codec::Protobuf, bytes).data.unwrap(), &b"\xff"[..]);
        assert!(rpc(bytes).is_err());
        assert!(read(Kind::Publish, Codec::Protobuf, bytes.as_bytes()).is_err());
        assert_eq!(granted(Kind::Rpc, Codec::Json, r#"{"result":{"b64data":"MQ=="}}"#).data.unwrap(), "1");
        assert!(rpc(r#"{"result":{"b64data":"*"}}"#).is_err());
        assert!(rpc(r#"{"result":{"data":1,"b64data":"MQ=="}}"#).is_err());
    }

    #[test]
    fn an_error_and_a_disconnect_have_codes_of_their_own_ranges() {
        assert_eq!(
            rpc(r#"{"error":{"code":400,"message":"no","temporary":true}}"#),
            Ok(Decision::Refused { code: 400, message: "no".to_owned(), temporary: true })
        );
        for code in [0, 100, 399, 2000, 4000] {
            assert!(rpc(&format!(r#"{{"error":{{"code":{code}}}}}"#)).is_err(), "{code}");
        }
        let long = format!(r#"{{"error":{{"code":1999,"message":"{}"}}}}"#, "é".repeat(5000));
        assert!(
            matches!(rpc(&long), Ok(Decision::Refused { message, .. }) if message.chars().count() == MAX_MESSAGE)
        );
        let close = BackendClose::new(4501, "banned").unwrap();
        assert_eq!(rpc(r#"{"disconnect":{"code":4501,"reason":"banned"}}"#), Ok(Decision::Disconnect(close)));
        assert!(rpc(r#"{"disconnect":{"code":3000}}"#).is_err());
        assert!(rpc(r#"{"disconnect":{"code":4000,"reason":"{}"}}"#).is_err());
    }

    #[test]
    fn what_is_wrong_is_told_without_what_was_said() {
        let why = rpc(r#"{"result":{"user":["private"]}}"#).unwrap_err().to_string();
        assert_eq!(why, "a field of the wrong type, at line 1 column 18");
    }

    #[test]
    fn what_is_not_an_answer_grants_nothing() {
        for body in [
            "",
            "ok",
            "{}",
            "null",
            "[]",
            r#"{"result":null}"#,
            r#"{"result":{}"#,
            r#"{"result":{}} {"result":{}}"#,
            r#"{"result":{},"error":{"code":400}}"#,
            r#"{"error":{"code":400},"disconnect":{"code":4000}}"#,
            r#"{"error":{}}"#,
            r#"{"result":{"user":42}}"#,
            r#"{"result":{"channels":["a b"]}}"#,
            "<html></html>",
        ] {
            assert!(rpc(body).is_err(), "{body}");
        }
        let user = "x".repeat(MAX_USER + 1);
        assert!(rpc(&format!(r#"{{"result":{{"user":"{user}"}}}}"#)).is_err());
        assert!(read(Kind::Rpc, Codec::Json, b"{\"result\":{\"data\":\"\xff\"}}").is_err());
        let deep = format!(r#"{{"result":{{"data":{}{}}}}}"#, "[".repeat(200), "]".repeat(200));
        assert!(rpc(&deep).is_err());
        let many = vec!["\"a\""; MAX_CHANNELS + 1].join(",");
        assert!(rpc(&format!(r#"{{"result":{{"channels":[{many}]}}}}"#)).is_err());
    }
}
