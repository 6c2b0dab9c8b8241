//! What every relay promises, run over each kind.

#[path = "../support/mod.rs"]
mod support;

use std::sync::Arc;

use bytes::Bytes;
use support::{Recorder, RedisServer, publication, settings, start};
use tidegate_protocol::{ClientInfo, Position, Publication};
use tidegate_relay::Relay;

/// One node on a relay of some kind.
struct Node {
    relay: Relay,
    recorder: Arc<Recorder>,
    _server: Option<RedisServer>,
}

fn memory() -> Node {
    let recorder = Recorder::new();
    let relay = start("n1", support::MEMORY, &recorder);
    recorder.up(1);
    Node { relay, recorder, _server: None }
}

fn redis() -> Node {
    let server = RedisServer::start();
    let (relay, recorder) = support::node("n1", settings(&server.url()));
    Node { relay, recorder, _server: Some(server) }
}

/// Publishes numbers, each the offset that it gets in a new channel.
async fn numbers(relay: &Relay, name: &str, numbers: std::ops::RangeInclusive<u64>) -> Position {
    let mut last = None;
    for n in numbers {
        let position = relay.publish(publication(name, &n.to_string())).await.expect("published");
        let position = position.expect("a channel with history");
        assert_eq!(position.offset, n);
        last = Some(position);
    }
    last.expect("at least one")
}

/// A publication with everything that a publisher may give it.
fn furnished(name: &str) -> Publication {
    Publication {
        info: Some(ClientInfo {
            user: "42".into(),
            client: "8d3f".into(),
            conn_info: Bytes::from_static(br#"{"name":"Ada \u00e4 \"x\""}"#),
            chan_info: Bytes::from_static(b"[1,2]"),
        }),
        tags: vec![("a".into(), "1".into()), ("b".into(), "\n".into())],
        offset: 0,
        ..publication(name, r#"{"text":"hello"}"#)
    }
}

/// Makes a test of each promise for each kind of relay, or for those named first.
macro_rules! promises {
    ($($kind:ident),+ => [$($name:ident),+ $(,)?]) => {
        promises!(@each [$($kind)+] [$($name)+]);
    };
    (@each [] $names:tt) => {};
    (@each [$kind:ident $($others:ident)*] [$($name:ident)+]) => {
        mod $kind {
            $(#[tokio::test] async fn $name() { super::$name(crate::$kind()).await; })+
        }
        promises!(@each [$($others)*] [$($name)+]);
    };
    ($($name:ident),+ $(,)?) => {
        promises!(memory, redis => [$($name),+]);
    };
}

mod delivery;
mod history;
mod joining;
mod node;
mod positions;
mod presence;
mod recovery;
