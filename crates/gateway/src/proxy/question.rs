//! What a backend is asked: one JSON object, whoever asks in whatever codec.
//!
//! Not here: the headers beside it (`headers`), and whom to ask (`routes`).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use tidegate_protocol::Codec;
use tidegate_protocol::codec::json;

/// What a client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// To be let in.
    Connect,
    /// To hear a channel.
    Subscribe,
    /// To speak in one.
    Publish,
    /// An answer from the backend itself.
    Rpc,
}

impl Kind {
    /// Every kind.
    pub(crate) const ALL: [Self; 4] = [Self::Connect, Self::Subscribe, Self::Publish, Self::Rpc];

    /// The word for it: the metric label and a field of the log.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Subscribe => "subscribe",
            Self::Publish => "publish",
            Self::Rpc => "rpc",
        }
    }

    /// Whether it may be asked twice where nobody knows what became of the first time: only what changes nothing.
    pub(crate) const fn may_repeat(self) -> bool {
        matches!(self, Self::Connect | Self::Subscribe)
    }
}

/// A question of a client; what does not belong to its kind is empty.
#[derive(Debug, Clone, Default)]
pub(crate) struct Question {
    /// The session's id.
    pub(crate) client: String,
    /// The user's id, empty for anonymous.
    pub(crate) user: String,
    /// Of a subscribe and a publish.
    pub(crate) channel: String,
    /// Of an rpc.
    pub(crate) method: String,
    /// Of a connect and a subscribe.
    pub(crate) token: String,
    /// Of a connect: the client's name.
    pub(crate) name: String,
    /// Of a connect: the client's version.
    pub(crate) version: String,
    /// The client's payload, or empty.
    pub(crate) data: Bytes,
}

#[derive(Serialize)]
struct Body<'a> {
    client: &'a str,
    transport: &'a str,
    protocol: &'a str,
    encoding: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    channel: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    method: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    token: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    b64data: Option<String>,
}

impl Question {
    /// The body of the request. A payload that is JSON goes as it is, any other in base64.
    pub(super) fn body(&self, kind: Kind, codec: Codec) -> Bytes {
        let data = json_text(&self.data);
        let b64data = (data.is_none() && !self.data.is_empty()).then(|| STANDARD.encode(&self.data));
        let body = Body {
            client: &self.client,
            transport: "websocket",
            protocol: codec.label(),
            encoding: if b64data.is_some() { "binary" } else { "json" },
            // Who connects has no user yet.
            user: (kind != Kind::Connect).then_some(&self.user),
            channel: &self.channel,
            method: &self.method,
            token: &self.token,
            name: &self.name,
            version: &self.version,
            data,
            b64data,
        };
        // Texts, and JSON that was checked: there is nothing that could fail.
        serde_json::to_vec(&body).map(Bytes::from).unwrap_or_default()
    }
}

fn json_text(data: &[u8]) -> Option<&RawValue> {
    json::payload(data).ok()?;
    serde_json::from_slice(data).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(question: &Question, kind: Kind, codec: Codec) -> String {
        String::from_utf8_lossy(&question.body(kind, codec)).into_owned()
    }

    #[test]
    fn a_question_has_who_asks_and_what_belongs_to_its_kind() {
        let who = Question { client: "c".to_owned(), user: "42".to_owned(), ..Question::default() };
        let rpc = Question { method: "add".to_owned(), data: Bytes::from_static(b"[1, 2]"), ..who.clone() };
        assert_eq!(
            body(&rpc, Kind::Rpc, Codec::Json),
            r#"{"client":"c","transport":"websocket","protocol":"json","encoding":"json","user":"42","method":"add","data":[1, 2]}"#
        );
        let publish = Question { channel: "news".to_owned(), data: Bytes::from_static(b"1"), ..who.clone() };
        assert_eq!(
            body(&publish, Kind::Publish, Codec::Protobuf),
            r#"{"client":"c","transport":"websocket","protocol":"protobuf","encoding":"json","user":"42","channel":"news","data":1}"#
        );
        let connect = Question { token: "t".to_owned(), name: "js".to_owned(), user: String::new(), ..who };
        assert_eq!(
            body(&connect, Kind::Connect, Codec::Json),
            r#"{"client":"c","transport":"websocket","protocol":"json","encoding":"json","token":"t","name":"js"}"#
        );
    }

    #[test]
    fn an_anonymous_user_is_said_to_be_one() {
        assert!(body(&Question::default(), Kind::Rpc, Codec::Json).contains(r#""user":"""#));
    }

    #[test]
    fn bytes_that_are_no_json_go_in_base64() {
        let question = Question { data: Bytes::from_static(b"\xff\x00"), ..Question::default() };
        let body = body(&question, Kind::Rpc, Codec::Protobuf);
        assert!(body.contains(r#""encoding":"binary""#) && body.contains(r#""b64data":"/wA=""#), "{body}");
        assert!(!body.contains(r#""data""#), "{body}");
    }
}
