//! What an application sees through an official SDK, unchanged from its registry.
//!
//! Each promise is held for JavaScript and Python, JSON and Protobuf, plain and TLS.

use std::time::Duration;

use serde_json::{Value, json};
use tidegate_tests::deadline::throughout;
use tidegate_tests::node::Start;
use tidegate_tests::sdk::Kind;
use tidegate_tests::{Certificates, Node, Proxy, Redis, Sdk};

/// One module a SDK and codec, so that the promises run side by side and fail by name.
macro_rules! each_sdk {
    ($($module:ident: $kind:expr;)+) => { $(
        mod $module {
            use super::*;

            #[test]
            fn lives_a_whole_session_over_ws() {
                whole_session($kind, None);
            }

            #[test]
            fn lives_a_whole_session_over_wss() {
                whole_session($kind, Some(&Certificates::new()));
            }

            #[test]
            fn is_told_108_for_what_is_not_there() {
                not_there($kind);
            }

            #[test]
            fn is_told_why_it_may_not() {
                refusals($kind);
            }

            #[test]
            fn is_disconnected_for_good_by_a_backend() {
                disconnected_by_a_backend($kind);
            }

            #[test]
            fn comes_back_by_itself_when_its_node_is_killed() {
                comes_back($kind);
            }

            #[test]
            fn stays_through_many_heartbeats() {
                stays($kind, "");
            }

            #[test]
            fn publishes_a_burst_in_order() {
                burst($kind);
            }
        }
    )+ };
}

each_sdk! {
    js: Kind::Js;
    js_protobuf: Kind::JsProtobuf;
    python: Kind::Python;
    python_protobuf: Kind::PythonProtobuf;
}

/// Any JSON value must come through as it went in.
fn payloads() -> Vec<Value> {
    vec![
        json!({"text": "hello"}),
        json!("line\nbreak, tab\t, quote\", backslash\\ and \u{1F30A} and \u{2028}"),
        json!(-1.5e300),
        json!([]),
        json!([1, [2, {"three": null}], true]),
        json!({"": ""}),
        json!(false),
        json!("x".repeat(30_000)),
    ]
}

fn start(certificates: Option<&Certificates>, start: Start) -> Node {
    match certificates {
        Some(certificates) => start.tls(certificates).go(),
        None => start.go(),
    }
}

fn whole_session(kind: Kind, certificates: Option<&Certificates>) {
    let node = start(certificates, Node::dev());
    let sdk = Sdk::start(kind, certificates);
    let alice = sdk.connect("alice", &node.url());
    let bob = sdk.connect("bob", &node.url());
    assert_ne!(alice["id"], bob["id"], "each session has an id of its own");
    let codec = if matches!(kind, Kind::Js | Kind::Python) { "json" } else { "protobuf" };
    assert_eq!(node.metrics().with("tidegate_connections", &[("codec", codec)]), 2.0);

    sdk.subscribe("alice", "news").expect("alice may subscribe");
    sdk.subscribe("bob", "news").expect("bob may subscribe");
    for data in payloads() {
        sdk.publish("alice", "news", data.clone()).expect("alice may publish");
        for client in ["alice", "bob"] {
            let heard =
                sdk.event("the publication", |e| e["event"] == "publication" && e["client"] == client);
            assert_eq!(heard["data"], data, "{client} hears what was published");
            assert_eq!(heard["info"]["client"], alice["id"], "{client} sees who published");
        }
    }

    // Without a publisher there is no info, and other channels are not heard.
    node.api("publish", &json!({"channel": "other", "data": 0}));
    node.api("publish", &json!({"channel": "news", "data": {"from": "backend"}}));
    let heard =
        sdk.event("the backend's publication", |e| e["event"] == "publication" && e["client"] == "bob");
    assert_eq!((&heard["channel"], &heard["data"]), (&json!("news"), &json!({"from": "backend"})));
    assert!(heard["info"].is_null(), "{heard}");
    assert_eq!(sdk.publication("alice", "news"), json!({"from": "backend"}));

    // Who unsubscribed hears no more; the others do.
    sdk.call(json!({"do": "unsubscribe", "client": "bob", "channel": "news"})).expect("bob may leave");
    sdk.publish("bob", "news", json!("after")).expect("bob may publish");
    assert_eq!(sdk.publication("alice", "news"), json!("after"));
    sdk.subscribe("bob", "news").expect("bob may come back");
    sdk.publish("alice", "news", json!("again")).expect("alice may publish");
    assert_eq!(sdk.publication("bob", "news"), json!("after"), "he is given what he missed");
    assert_eq!(sdk.publication("bob", "news"), json!("again"), "and then what follows");

    sdk.call(json!({"do": "disconnect", "client": "alice"})).expect("alice may go");
    node.until("alice is gone", |m| m.sum("tidegate_connections") == 1.0);
    drop(sdk);
    node.until("bob is gone", |m| m.sum("tidegate_connections") == 0.0);
    node.until("subscriptions end with their sessions", |m| m.sum("tidegate_subscriptions") == 0.0);
}

fn not_there(kind: Kind) {
    let node = Node::dev().file("namespaces: [{name: default}]").go();
    let sdk = Sdk::start(kind, None);
    sdk.connect("alice", &node.url());
    sdk.subscribe("alice", "news").expect("alice may subscribe");
    for command in [
        json!({"do": "rpc", "client": "alice", "method": "sum", "data": [1, 2]}),
        json!({"do": "presence", "client": "alice", "channel": "news"}),
        json!({"do": "presence_stats", "client": "alice", "channel": "news"}),
        json!({"do": "history", "client": "alice", "channel": "news"}),
    ] {
        let refusal = sdk.call(command.clone()).expect_err("it is not there");
        assert_eq!(refusal.code, 108, "{command}: {refusal:?}");
    }
    // None of that harmed the session.
    sdk.publish("alice", "news", json!(1)).expect("alice may publish");
    assert_eq!(sdk.publication("alice", "news"), json!(1));
}

fn refusals(kind: Kind) {
    let node = Node::strict()
        .set("auth.anonymous", "true")
        .file("namespaces:\n  - {name: news, subscribe: anyone, publish: nobody}\n  - {name: staff, subscribe: authenticated}\n")
        .go();
    let sdk = Sdk::start(kind, None);
    sdk.connect("alice", &node.url());
    sdk.subscribe("alice", "news:today").expect("anyone may");
    let refused =
        |outcome: Result<Value, tidegate_tests::sdk::Refusal>| outcome.expect_err("it is not allowed").code;
    assert_eq!(refused(sdk.publish("alice", "news:today", json!(1))), 103);
    assert_eq!(refused(sdk.subscribe("alice", "staff:room")), 103);
    assert_eq!(refused(sdk.subscribe("alice", "elsewhere:room")), 102);
    assert_eq!(refused(sdk.subscribe("alice", "default-is-unknown-too")), 102);
    node.api("publish", &json!({"channel": "news:today", "data": 1}));
    assert_eq!(sdk.publication("alice", "news:today"), json!(1));
}

fn disconnected_by_a_backend(kind: Kind) {
    let node = Node::dev().go();
    let sdk = Sdk::start(kind, None);
    let alice = sdk.connect("alice", &node.url());
    sdk.connect("bob", &node.url());
    node.api("disconnect", &json!({"client": alice["id"], "user": ""}));
    let event = sdk.named("alice", "disconnected");
    assert_eq!((&event["code"], &event["reason"]), (&json!(3503), &json!("force disconnect")));
    let metrics = node.until("one is left", |m| m.sum("tidegate_connections") == 1.0);
    assert_eq!(metrics.with("tidegate_disconnects_total", &[("code", "3503")]), 1.0);
    assert_eq!(
        sdk.call(json!({"do": "state", "client": "bob"})),
        Ok(json!("connected")),
        "bob was not meant"
    );
}

fn comes_back(kind: Kind) {
    let redis = Redis::start();
    let mut first = Node::dev().redis(&redis).named("first").go();
    let second = Node::dev().redis(&redis).named("second").go();
    let proxy = Proxy::to(first.public());
    let sdk = Sdk::start(kind, None);
    sdk.connect("alice", &first.url_at(proxy.address()));
    sdk.subscribe("alice", "news").expect("alice may subscribe");
    sdk.named("alice", "connected");
    redis.publish("news", r#""one""#);
    assert_eq!(sdk.publication("alice", "news"), json!("one"));

    proxy.point_at(second.public());
    first.kill();
    sdk.named("alice", "connected");
    second.until("alice is subscribed again", |m| m.sum("tidegate_subscriptions") == 1.0);
    redis.publish("news", r#""two""#);
    assert_eq!(sdk.publication("alice", "news"), json!("two"));
}

fn stays(kind: Kind, query: &str) {
    let node = Node::dev().set("heartbeat.interval", "1s").set("heartbeat.timeout", "500ms").go();
    let sdk = Sdk::start(kind, None);
    sdk.connect("alice", &format!("{}{query}", node.url()));
    sdk.named("alice", "connected");
    // Taken so that a second one is news.
    sdk.named("alice", "connecting");
    throughout("alice stays connected", Duration::from_secs(5), || {
        sdk.pending("alice", "connecting").is_empty() && sdk.pending("alice", "disconnected").is_empty()
    });
    let metrics = node.metrics();
    assert_eq!(metrics.sum("tidegate_connections"), 1.0);
    assert!(metrics.with("tidegate_messages_sent_total", &[("kind", "ping")]) >= 3.0, "it was pinged");
    assert_eq!(metrics.sum("tidegate_heartbeat_timeouts_total"), 0.0);
    let pongs = metrics.with("tidegate_messages_received_total", &[("command", "pong")]);
    assert!(if query.is_empty() { pongs >= 3.0 } else { pongs <= 5.0 }, "{pongs} pongs");
}

#[test]
fn an_sdk_that_asks_for_native_pings_stays_through_many() {
    stays(Kind::Js, "?cf_ws_frame_ping_pong=true");
    stays(Kind::JsProtobuf, "?cf_ws_frame_ping_pong=true");
}

fn burst(kind: Kind) {
    let node = Node::dev().go();
    let sdk = Sdk::start(kind, None);
    sdk.connect("alice", &node.url());
    sdk.subscribe("alice", "news").expect("alice may subscribe");
    let data: Vec<Value> = (0..100).map(Value::from).collect();
    let outcomes = sdk.call(json!({"do": "burst", "client": "alice", "channel": "news", "data": data}));
    assert_eq!(outcomes, Ok(json!(vec![0; 100])), "each is answered, none is refused");
    for expected in data {
        assert_eq!(sdk.publication("alice", "news"), expected);
    }
}

#[test]
fn a_subscription_that_a_backend_ends_is_ended_for_the_sdk() {
    let node = Node::dev().go();
    let sdk = Sdk::start(Kind::Js, None);
    let alice = sdk.connect("alice", &node.url());
    sdk.subscribe("alice", "news").expect("alice may subscribe");
    node.api("unsubscribe", &json!({"client": alice["id"], "user": "", "channel": "news"}));
    let event = sdk.named("alice", "unsubscribed");
    assert_eq!(event["code"], 2000);
    node.until("nobody is subscribed", |m| m.sum("tidegate_subscriptions") == 0.0);
}

#[test]
fn a_subscription_that_a_backend_makes_delivers() {
    let node = Node::dev().go();
    for kind in [Kind::Js, Kind::PythonProtobuf] {
        let sdk = Sdk::start(kind, None);
        let alice = sdk.connect("alice", &node.url());
        node.api("subscribe", &json!({"client": alice["id"], "user": "", "channel": "news"}));
        sdk.named("alice", "server-subscribed");
        node.api("publish", &json!({"channel": "news", "data": {"for": "alice"}}));
        assert_eq!(sdk.publication("alice", "news"), json!({"for": "alice"}), "{kind:?}");
    }
}

#[test]
fn a_node_that_leaves_sends_its_sdks_elsewhere_without_a_gap_they_notice() {
    let redis = Redis::start();
    let mut first = Node::dev().redis(&redis).named("first").go();
    let second = Node::dev().redis(&redis).named("second").go();
    let proxy = Proxy::to(first.public());
    let sdk = Sdk::start(Kind::Js, None);
    sdk.connect("alice", &first.url_at(proxy.address()));
    sdk.subscribe("alice", "news").expect("alice may subscribe");
    sdk.named("alice", "connecting");
    proxy.point_at(second.public());
    first.terminate();
    let event = sdk.named("alice", "connecting");
    assert_eq!((&event["code"], &event["reason"]), (&json!(3001), &json!("shutdown")));
    second.until("alice is subscribed again", |m| m.sum("tidegate_subscriptions") == 1.0);
    redis.publish("news", "1");
    assert_eq!(sdk.publication("alice", "news"), json!(1));
    assert!(first.wait(Duration::from_secs(10)).success());
}
