//! The server API on the internal port, as a backend calls it.

use serde_json::{Value, json};
use tidegate_tests::node::Start;
use tidegate_tests::sdk::Kind;
use tidegate_tests::{Node, PATIENCE, Redis, Sdk, door, eventually};

/// Two nodes on one Redis; a client on each, both subscribed to `news`, the second to `chat:1` too.
struct Scene {
    one: Node,
    two: Node,
    sdk: Sdk,
    bob: Value,
    _redis: Redis,
}

impl Scene {
    fn new() -> Self {
        let redis = Redis::start();
        let (one, two) = (Node::dev().redis(&redis).go(), Node::dev().redis(&redis).go());
        let sdk = Sdk::start(Kind::Js, None);
        sdk.connect("alice", &one.url());
        let bob = sdk.connect("bob", &two.url())["id"].clone();
        for (client, channel) in [("alice", "news"), ("bob", "news"), ("bob", "chat:1")] {
            sdk.subscribe(client, channel).unwrap_or_else(|e| panic!("{client} in {channel}: {e:?}"));
        }
        Self { one, two, sdk, bob, _redis: redis }
    }
}

#[test]
fn publish_and_broadcast_reach_every_node() {
    let scene = Scene::new();
    let answer =
        scene.one.api("publish", &json!({"channel": "news", "data": {"n": 1}, "tags": {"lang": "en"}}));
    assert!(answer.get("result").is_some_and(Value::is_object) && answer.get("error").is_none(), "{answer}");
    for client in ["alice", "bob"] {
        let event = scene.sdk.named(client, "publication");
        assert_eq!((&event["data"], &event["tags"]), (&json!({"n": 1}), &json!({"lang": "en"})), "{client}");
    }
    let answer = scene.one.api("broadcast", &json!({"channels": ["news", "chat:1", "nobody"], "data": 2}));
    assert!(answer.get("result").is_some(), "{answer}");
    assert_eq!(scene.sdk.publication("alice", "news"), json!(2));
    assert_eq!(scene.sdk.publication("bob", "news"), json!(2));
    assert_eq!(scene.sdk.publication("bob", "chat:1"), json!(2));
    // b64data is data in another coat: "eyJuIjozfQ==" is {"n":3}.
    let answer = scene.one.api("publish", &json!({"channel": "news", "b64data": "eyJuIjozfQ=="}));
    assert!(answer.get("result").is_some(), "{answer}");
    assert_eq!(scene.sdk.publication("bob", "news"), json!({"n": 3}));
    assert!(scene.one.metrics().with("tidegate_publications_total", &[("source", "api")]) >= 5.0);
}

#[test]
fn payloads_are_passed_on_as_they_were_written() {
    let scene = Scene::new();
    // Numbers that no double holds, keys in their order and twice, and a line break between tokens.
    let body = "{\"channel\":\"news\",\"data\":{\"b\":12345678901234567890123,\n \"a\":1.10,\"a\":2}}";
    let url = format!("http://{}/api/publish", scene.one.internal());
    let answer = door::post(&url, None, body).expect("an answer");
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.json().get("result").is_some(), "{answer:?}");
    // What an SDK makes of it; the bytes themselves are looked at on raw sockets elsewhere.
    assert_eq!(scene.sdk.publication("bob", "news")["a"], json!(2));
}

#[test]
fn channels_and_info_speak_for_the_whole_cluster() {
    let scene = Scene::new();
    let answer = scene.one.api("channels", &json!({}));
    assert_eq!(answer["result"]["channels"]["news"]["num_clients"], 2, "{answer}");
    assert_eq!(answer["result"]["channels"]["chat:1"]["num_clients"], 1, "{answer}");
    let nodes = eventually("both nodes have told of themselves", PATIENCE, || {
        let info = scene.two.api("info", &json!({}));
        let nodes = info["result"]["nodes"].as_array()?.clone();
        let clients: u64 = nodes.iter().filter_map(|node| node["num_clients"].as_u64()).sum();
        (nodes.len() == 2 && clients == 2).then_some(nodes)
    });
    assert!(nodes.iter().all(|node| node["version"].is_string() && node["uid"].is_string()), "{nodes:?}");
}

#[test]
fn clients_are_subscribed_unsubscribed_and_disconnected_wherever_they_are() {
    let scene = Scene::new();
    let (one, bob) = (&scene.one, &scene.bob);
    one.api("subscribe", &json!({"user": "", "client": bob, "channel": "extra"}));
    scene.sdk.named("bob", "server-subscribed");
    one.api("publish", &json!({"channel": "extra", "data": 1}));
    assert_eq!(scene.sdk.publication("bob", "extra"), json!(1));
    one.api("unsubscribe", &json!({"user": "", "client": bob, "channel": "extra"}));
    scene.sdk.named("bob", "server-unsubscribed");
    one.api("disconnect", &json!({"user": "", "client": bob}));
    assert_eq!(scene.sdk.named("bob", "disconnected")["code"], 3503);
    assert_eq!(scene.sdk.call(json!({"do": "state", "client": "alice"})), Ok(json!("connected")));
}

#[test]
fn a_batch_answers_each_command_in_its_place() {
    let scene = Scene::new();
    let commands = json!([
        {"publish": {"channel": "news", "data": 1}},
        {"publish": {"channel": "bad name", "data": 1}},
        {"channels": {}},
        {"broadcast": {"channels": ["news"], "data": 2}},
    ]);
    for parallel in [false, true] {
        let answer = scene.one.api("batch", &json!({"commands": commands, "parallel": parallel}));
        let replies = answer["replies"].as_array().unwrap_or_else(|| panic!("{answer}"));
        assert_eq!(replies.len(), 4, "{answer}");
        assert!(replies[1]["error"]["code"].is_u64(), "{answer}");
        assert!(replies[2].to_string().contains("chat:1"), "{answer}");
        let mut heard = [scene.sdk.publication("bob", "news"), scene.sdk.publication("bob", "news")];
        if parallel {
            heard.sort_by_key(Value::as_u64);
        }
        assert_eq!(heard, [json!(1), json!(2)], "in order unless parallel");
    }
}

#[test]
fn mistakes_are_answered_with_an_error_and_never_with_a_crash() {
    let node = Node::dev().go();
    let internal = node.internal();
    let post = |method: &str, body: &str| {
        door::post(&format!("http://{internal}/api/{method}"), None, body).expect("an answer")
    };
    for (method, body) in [
        ("publish", "{}"),
        ("publish", r#"{"channel":"news"}"#),
        ("publish", r#"{"channel":"","data":1}"#),
        ("publish", r#"{"channel":"news","b64data":"!!!"}"#),
        ("publish", r#"{"channel":"news","b64data":"bm8="}"#),
        ("broadcast", r#"{"channels":"news","data":1}"#),
        ("disconnect", "{}"),
        ("unsubscribe", r#"{"user":"1"}"#),
        ("batch", r#"{"commands":1}"#),
    ] {
        let answer = post(method, body);
        assert!(matches!(answer.status, 200 | 400), "{method} {body}: {answer:?}");
        let json = answer.json();
        assert_eq!(json["error"]["code"], 107, "{method} {body}: {json}");
        assert!(json["error"]["message"].as_str().is_some_and(|m| !m.is_empty()), "{json}");
    }
    for channel in ["a b", "x{y}", "*", "x\ny"] {
        let answer = post("publish", &json!({"channel": channel, "data": 1}).to_string()).json();
        let code = answer["error"]["code"].as_u64();
        assert!(matches!(code, Some(102 | 107)), "{channel:?}: {answer}");
    }
    for body in ["", "no", "[]", "{\"channel\":", "\u{0}"] {
        let answer = post("publish", body);
        assert!(
            (400..500).contains(&answer.status) || answer.json().get("error").is_some(),
            "{body:?}: {answer:?}"
        );
    }
    assert_eq!(post("explode", "{}").status, 404);
    let huge = format!(r#"{{"channel":"news","data":"{}"}}"#, "x".repeat(20 << 20));
    if let Ok(answer) = door::post(&format!("http://{internal}/api/publish"), None, &huge) {
        assert!(answer.status == 413 || answer.json().get("error").is_some(), "{}", answer.status);
    }
    let answer = post("refresh", r#"{"user":"1"}"#);
    assert_eq!(answer.json()["error"]["code"], 108, "{answer:?}");
    assert_eq!(node.get("/health/live").status, 200);
}

fn keyed() -> Start {
    Node::strict().set("auth.anonymous", "true").file(
        "namespaces: [{name: default, subscribe: anyone}]\n\
         api:\n  keys:\n\
         \x20   - {name: reader, key: r-key, scope: read}\n\
         \x20   - {name: backend, key: p-key, scope: publish}\n\
         \x20   - {name: operator, key: a-key, scope: admin}\n",
    )
}

#[test]
fn a_key_opens_its_scope_and_nothing_else() {
    let node = keyed().go();
    let publish = json!({"channel": "news", "data": 1});
    let disconnect = json!({"user": "42"});
    for (key, method, body, status) in [
        (None, "info", &json!({}), 401),
        (Some(""), "info", &json!({}), 401),
        (Some("wrong"), "info", &json!({}), 401),
        (Some("r-ke"), "info", &json!({}), 401),
        (Some("r-key"), "info", &json!({}), 200),
        (Some("r-key"), "channels", &json!({}), 200),
        (Some("r-key"), "publish", &publish, 403),
        (Some("p-key"), "publish", &publish, 200),
        (Some("p-key"), "info", &json!({}), 200),
        (Some("p-key"), "disconnect", &disconnect, 403),
        (Some("a-key"), "disconnect", &disconnect, 200),
        (Some("a-key"), "publish", &publish, 200),
    ] {
        let answer = node.api_with(method, key, body);
        assert_eq!(answer.status, status, "{key:?} {method}: {answer:?}");
    }
    // A batch opens no more than its key.
    let batch = json!({"commands": [{"publish": publish}, {"disconnect": disconnect}]});
    let answer = node.api_with("batch", Some("p-key"), &batch);
    let allowed = answer.status == 200 && answer.json()["replies"][1].get("error").is_none();
    assert!(!allowed, "{answer:?}");
    let log = node.process.err.lines().join("\n");
    assert!(!log.contains("p-key") && !log.contains("a-key"), "no key in the log");
}

#[test]
fn without_a_key_only_loopback_is_answered_and_the_start_says_so() {
    let node = Node::strict().go();
    assert_eq!(node.api_with("info", None, &json!({})).status, 200, "this is loopback");
    let said = node.process.err.find(PATIENCE, |line| line.contains("api.keys").then_some(()));
    said.expect("the start says that the API has no key");
}
