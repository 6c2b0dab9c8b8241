//! Who was away gets exactly what it missed, or is told that it cannot: by the official SDKs, over each relay.

use serde_json::{Value, json};
use tidegate_tests::node::Start;
use tidegate_tests::sdk::Kind;
use tidegate_tests::{Node, Proxy, Redis, Sdk};

/// One module a SDK and codec, so that the promises run side by side and fail by name.
macro_rules! each_sdk {
    ($($module:ident: $kind:expr;)+) => { $(
        mod $module {
            use super::*;

            #[test]
            fn gets_exactly_what_it_missed() {
                exactly_what_was_missed($kind, Node::dev());
            }

            #[test]
            fn gets_exactly_what_it_missed_over_redis() {
                let redis = Redis::start();
                exactly_what_was_missed($kind, Node::dev().redis(&redis));
            }

            #[test]
            fn is_told_when_more_is_gone_than_is_kept() {
                more_than_is_kept($kind, Node::dev());
            }

            #[test]
            fn is_told_when_more_is_gone_than_is_kept_over_redis() {
                let redis = Redis::start();
                more_than_is_kept($kind, Node::dev().redis(&redis));
            }

            #[test]
            fn goes_on_at_another_node() {
                another_node($kind);
            }

            #[test]
            fn reads_a_history_from_either_end() {
                history($kind);
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

/// A client behind a proxy, subscribed to a channel.
struct Away {
    sdk: Sdk,
    proxy: Proxy,
}

impl Away {
    fn subscribed(kind: Kind, node: &Node, channel: &str) -> Self {
        let proxy = Proxy::to(node.public());
        let sdk = Sdk::start(kind, None);
        sdk.connect("alice", &node.url_at(proxy.address()));
        sdk.named("alice", "connected");
        // Taken so that a second one is news.
        sdk.named("alice", "connecting");
        sdk.subscribe("alice", channel).expect("alice may subscribe");
        let told = sdk.named("alice", "subscribed");
        assert_eq!((&told["recoverable"], &told["recovered"]), (&json!(true), &json!(false)), "{told}");
        assert_eq!(told["position"]["offset"], 0, "{told}");
        Self { sdk, proxy }
    }

    /// The client has no way to a node until [`back`](Self::back).
    fn away(&self) {
        self.proxy.refuse();
        self.proxy.cut();
        self.sdk.named("alice", "connecting");
    }

    /// It finds its way, and is subscribed: what it is told of that.
    fn back(&self) -> Value {
        self.proxy.admit();
        let told = self.sdk.named("alice", "subscribed");
        assert_eq!(told["was_recovering"], true, "{told}");
        told
    }

    /// The next publications are these, in this order, at these offsets.
    fn hears(&self, numbers: std::ops::RangeInclusive<u64>) {
        for number in numbers {
            let heard = self.sdk.named("alice", "publication");
            assert_eq!((&heard["data"], &heard["offset"]), (&json!(number), &json!(number)));
        }
        assert_eq!(self.sdk.pending("alice", "publication"), [Value::Null; 0], "and no other");
    }
}

fn publish(node: &Node, channel: &str, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        let answer = node.api("publish", &json!({"channel": channel, "data": number}));
        assert_eq!(answer["result"]["offset"], number, "{answer}");
    }
}

fn exactly_what_was_missed(kind: Kind, start: Start) {
    let node = start.go();
    let alice = Away::subscribed(kind, &node, "news");
    publish(&node, "news", 1..=2);
    alice.hears(1..=2);
    for round in 0..2 {
        let first = 3 + round * 6;
        alice.away();
        node.until("alice is gone", |m| m.sum("tidegate_subscriptions") == 0.0);
        publish(&node, "news", first..=first + 4);
        let told = alice.back();
        assert_eq!(told["recovered"], true, "{told}");
        publish(&node, "news", first + 5..=first + 5);
        alice.hears(first..=first + 5);
    }
    // Nothing was missed, and that is no different.
    alice.away();
    assert_eq!(alice.back()["recovered"], true);
    publish(&node, "news", 15..=15);
    alice.hears(15..=15);
    node.until("three recoveries", |m| {
        m.with("tidegate_recoveries_total", &[("result", "recovered")]) == 3.0
    });
}

fn more_than_is_kept(kind: Kind, start: Start) {
    let yaml = "namespaces: [{name: short, history_size: 3, history_ttl: 5m, recover: true}]";
    let node = start.file(yaml).go();
    let alice = Away::subscribed(kind, &node, "short:1");
    publish(&node, "short:1", 1..=1);
    alice.hears(1..=1);
    alice.away();
    publish(&node, "short:1", 2..=5);
    let told = alice.back();
    assert_eq!((&told["recovered"], &told["position"]["offset"]), (&json!(false), &json!(5)), "{told}");
    publish(&node, "short:1", 6..=6);
    alice.hears(6..=6);
    // As many as are kept can be had.
    alice.away();
    publish(&node, "short:1", 7..=9);
    assert_eq!(alice.back()["recovered"], true);
    alice.hears(7..=9);
    node.until("both are counted", |m| {
        ["recovered", "unrecovered"].map(|it| m.with("tidegate_recoveries_total", &[("result", it)]))
            == [1.0, 1.0]
    });
}

fn another_node(kind: Kind) {
    let redis = Redis::start();
    let mut first = Node::dev().redis(&redis).named("first").go();
    let second = Node::dev().redis(&redis).named("second").go();
    let alice = Away::subscribed(kind, &first, "news");
    publish(&second, "news", 1..=2);
    alice.hears(1..=2);
    alice.away();
    publish(&first, "news", 3..=4);
    first.kill();
    publish(&second, "news", 5..=6);
    alice.proxy.point_at(second.public());
    let told = alice.back();
    assert_eq!(told["recovered"], true, "{told}");
    publish(&second, "news", 7..=7);
    alice.hears(3..=7);
}

fn history(kind: Kind) {
    let redis = Redis::start();
    for start in [Node::dev(), Node::dev().redis(&redis)] {
        let node = start.go();
        let sdk = Sdk::start(kind, None);
        sdk.connect("alice", &node.url());
        sdk.subscribe("alice", "news").expect("alice may subscribe");
        for number in 1..=5 {
            sdk.publish("alice", "news", json!(number)).expect("alice may publish");
        }
        let read = |options: Value| {
            let asked = json!({"do": "history", "client": "alice", "channel": "news", "options": options});
            sdk.call(asked)
        };
        let all = read(json!({"limit": -1})).expect("alice may read");
        assert_eq!(all["position"]["offset"], 5, "{all}");
        let epoch = all["position"]["epoch"].clone();
        let numbers = |answer: Value| -> Vec<Value> {
            let publications = answer["publications"].as_array().expect("publications").clone();
            publications.iter().for_each(|it| assert_eq!(it["data"], it["offset"], "{it}"));
            publications.iter().map(|it| it["data"].clone()).collect()
        };
        assert_eq!(numbers(all), [1, 2, 3, 4, 5]);
        for (options, expected) in [
            (json!({"limit": 0}), vec![]),
            (json!({"limit": 2}), vec![1, 2]),
            (json!({"limit": 2, "reverse": true}), vec![5, 4]),
            (json!({"limit": 10, "since": {"offset": 3, "epoch": epoch}}), vec![4, 5]),
            (json!({"limit": 10, "since": {"offset": 3, "epoch": epoch}, "reverse": true}), vec![2, 1]),
        ] {
            assert_eq!(numbers(read(options.clone()).expect("alice may read")), expected, "{options}");
        }
        let refused = read(json!({"limit": 10, "since": {"offset": 3, "epoch": "other"}}));
        assert_eq!(refused.expect_err("another life of the channel").code, 112);
    }
}
