//! What a client sees where a backend decides: through official SDKs, a real node and a backend that does as it is told.

use std::time::Duration;

use serde_json::{Value, json};
use tidegate_tests::backend::{Act, Asked};
use tidegate_tests::deadline::throughout;
use tidegate_tests::raw::{Raw, Upgrade};
use tidegate_tests::sdk::{Kind, Refusal};
use tidegate_tests::{Backend, Certificates, Node, Redis, Sdk};

/// A node whose `kinds` (`connect`, `rpc`, `subscribe`, `publish`) are asked of a backend; namespace `room` asks.
fn asking(backend: &Backend, kinds: &[&str], more: &Value) -> tidegate_tests::node::Start {
    let endpoints: Vec<Value> = kinds.iter().map(|kind| backend.endpoint(kind, more)).collect();
    let mut start = Node::dev().set("proxy.endpoints", Value::from(endpoints));
    let mut room = json!({"name": "room"});
    for kind in kinds {
        match *kind {
            "connect" | "rpc" => start = start.set(&format!("proxy.{kind}"), kind),
            kind => room[format!("{kind}_proxy")] = kind.into(),
        }
    }
    let all = json!({"name": "default", "subscribe": "anyone", "publish": "anyone"});
    start.set("namespaces", json!([all, room]))
}

fn rpc(sdk: &Sdk, client: &str, method: &str, data: Value) -> Result<Value, Refusal> {
    sdk.call(json!({"do": "rpc", "client": client, "method": method, "data": data}))
}

fn code(result: Result<Value, Refusal>) -> i64 {
    result.expect_err("a refusal").code
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

async fn raw(node: &Node) -> Raw {
    let mut client = Upgrade::at(node.public()).open().await.expect("a WebSocket");
    client.connect_command().await.expect("a session");
    client
}

/// A backend for everything, as in the guide.
fn everything(asked: &Asked) -> Act {
    let question = &asked.body;
    match asked.path.as_str() {
        "/connect" => match asked.header("cookie") {
            Some("session=ada") => Act::grant(json!({
                "user": "ada", "info": {"name": "Ada"}, "data": {"hello": question["data"]}, "channels": ["inbox-ada"],
            })),
            Some("session=banned") => Act::Answer(json!({"disconnect": {"code": 4501, "reason": "banned"}})),
            _ => Act::Answer(json!({"error": {"code": 401, "message": "log in first"}})),
        },
        "/subscribe" if question["channel"] == "room:1" => {
            Act::grant(json!({"info": {"role": "owner"}, "data": {"topic": "tides"}}))
        }
        "/subscribe" => Act::Answer(json!({"error": {"code": 403, "message": "not your room"}})),
        "/publish" => match question["data"].as_str() {
            Some("kick me") => Act::Answer(json!({"disconnect": {"code": 4100, "reason": "as you wish"}})),
            Some("spam") => Act::Answer(json!({"error": {"code": 422, "message": "no spam"}})),
            _ => Act::grant(json!({"data": {"said": question["data"], "by": question["user"]}})),
        },
        _ => Act::grant(json!({"data": {"echo": question["data"], "for": question["user"]}})),
    }
}

fn whole_session(kind: Kind) {
    let backend = Backend::start(everything);
    let node = asking(
        &backend,
        &["connect", "rpc", "subscribe", "publish"],
        &json!({"forward_headers": ["Cookie"]}),
    )
    .go();
    let sdk = Sdk::start(kind, None);
    let connect = |client: &str, cookie: &str| {
        let options = json!({"headers": {"Cookie": cookie}, "data": {"from": "sdk"}});
        sdk.call(json!({"do": "connect", "client": client, "url": node.url(), "options": options}))
    };
    assert_eq!(
        connect("a", "session=ada").expect("ada is let in")["data"],
        json!({"hello": {"from": "sdk"}})
    );
    assert_eq!(sdk.named("a", "server-subscribed")["channel"], "inbox-ada");
    node.api("publish", &json!({"channel": "inbox-ada", "data": 1}));
    assert_eq!(sdk.publication("a", "inbox-ada"), 1);

    sdk.subscribe("a", "room:1").expect("her room");
    let subscribed = sdk.event("subscribed", |e| e["event"] == "subscribed" && e["channel"] == "room:1");
    assert_eq!(subscribed["data"], json!({"topic": "tides"}));
    assert_eq!(code(sdk.subscribe("a", "room:2")), 403);

    sdk.publish("a", "room:1", json!("hi")).expect("she may");
    assert_eq!(sdk.publication("a", "room:1"), json!({"said": "hi", "by": "ada"}));
    let refused = sdk.publish("a", "room:1", json!("spam")).expect_err("no spam");
    assert_eq!((refused.code, refused.message.contains("no spam")), (422, true), "{refused:?}");

    assert_eq!(rpc(&sdk, "a", "any", json!([1])), Ok(json!({"echo": [1], "for": "ada"})));

    // Codes of the backend's own reach the client: one after which it comes back, one after which it does not.
    let _ = sdk.publish("a", "room:1", json!("kick me"));
    sdk.event("a comes back", |e| e["event"] == "connecting" && e["client"] == "a" && e["code"] == 4100);
    sdk.event("a is back", |e| e["event"] == "connected" && e["client"] == "a");
    assert_eq!(code(connect("b", "session=banned")), 4501);
    assert_eq!(sdk.named("b", "disconnected")["reason"], "banned");
    // For good: the SDK gives up after an error that is not temporary.
    assert_eq!(code(connect("c", "")), 401);
    node.until("both closes are counted as a backend's", |metrics| {
        metrics.with("tidegate_disconnects_total", &[("code", "4000")]) == 2.0
    });
}

#[test]
fn a_whole_session_decided_by_a_backend_in_js() {
    whole_session(Kind::Js);
}

#[test]
fn a_whole_session_decided_by_a_backend_in_js_over_protobuf() {
    whole_session(Kind::JsProtobuf);
}

#[test]
fn a_whole_session_decided_by_a_backend_in_python() {
    whole_session(Kind::Python);
}

#[test]
fn a_whole_session_decided_by_a_backend_in_python_over_protobuf() {
    whole_session(Kind::PythonProtobuf);
}

#[test]
fn a_thousand_calls_at_once_are_answered_and_bounded() {
    let backend = Backend::start(|asked| Act::grant(json!({"data": asked.body["data"]})));
    let node = asking(&backend, &["rpc"], &json!({"concurrency": 16, "queue": 1000, "timeout": "20s"})).go();
    runtime().block_on(async {
        let mut client = raw(&node).await;
        let mut message = String::new();
        for id in 1001..2001 {
            message.push_str(&format!("{{\"id\":{id},\"rpc\":{{\"method\":\"m\",\"data\":{id}}}}}\n"));
        }
        client.text(&message).await.expect("sent");
        for id in 1001..2001 {
            let reply = client.reply(id).await.expect("a reply");
            assert_eq!(reply["rpc"]["data"], id, "{reply}");
        }
    });
    assert_eq!(backend.asked().len(), 1000, "each is asked once");
    assert!(backend.most_at_once() <= 16, "{} at once", backend.most_at_once());
    let metrics = node.metrics();
    let results =
        |result| metrics.with("tidegate_proxy_requests_total", &[("kind", "rpc"), ("result", result)]);
    assert_eq!(results("granted"), 1000.0);
    assert_eq!(metrics.sum("tidegate_proxy_in_flight"), 0.0);
}

#[test]
fn what_neither_goes_nor_waits_is_told_so_at_once() {
    let backend = Backend::start(|_| Act::Held(json!({"result": {}})));
    let node = asking(&backend, &["rpc"], &json!({"concurrency": 2, "queue": 3, "timeout": "20s"})).go();
    runtime().block_on(async {
        let mut client = raw(&node).await;
        let message: Vec<String> = (101..201).map(|id| format!("{{\"id\":{id},\"rpc\":{{}}}}")).collect();
        client.text(&message.join("\n")).await.expect("sent");
        for id in 106..201 {
            let reply = client.reply(id).await.expect("a reply");
            assert_eq!(reply["error"]["code"], 111, "{reply}");
            assert_eq!(reply["error"]["temporary"], true, "{reply}");
        }
        backend.asked_times(2);
        backend.release();
        for id in 101..106 {
            let reply = client.reply(id).await.expect("a reply");
            assert_eq!(reply["rpc"], json!({}), "{reply}");
        }
    });
    assert_eq!((backend.asked().len(), backend.most_at_once()), (5, 2));
}

#[test]
fn a_backend_that_misbehaves_costs_an_error_and_nothing_else() {
    let backend = Backend::start(|_| Act::grant(json!({})));
    let node = asking(&backend, &["rpc"], &json!({"timeout": "500ms", "max_response_bytes": "4KiB"})).go();
    let sdk = Sdk::start(Kind::Js, None);
    sdk.connect("a", &node.url());
    let raw = |status, head: &str, body: &str| Act::Raw(status, head.to_owned(), body.to_owned());
    let huge = format!("{{\"result\":{{\"data\":\"{}\"}}}}", "x".repeat(1 << 20));
    let elsewhere = format!("location: http://{}/elsewhere\r\n", backend.address());
    for (what, act) in [
        ("status", raw(500, "", "{\"result\":{}}")),
        ("status", raw(404, "", "")),
        ("status", raw(302, &elsewhere, "")),
        ("status", raw(307, &elsewhere, "")),
        ("unusable", raw(200, "", "<html>")),
        ("unusable", raw(200, "", "")),
        ("unusable", raw(200, "", &huge)),
        ("unusable", Act::Answer(json!({"result": {}, "error": {"code": 400}}))),
        ("unusable", Act::Answer(json!({"error": {"code": 100}}))),
        ("unusable", Act::Answer(json!({"disconnect": {"code": 3500, "reason": "no"}}))),
        ("broken", Act::Close),
        ("timeout", Act::Held(json!({"result": {}}))),
    ] {
        let before = backend.asked().len();
        let counted = |node: &Node| {
            node.metrics().with("tidegate_proxy_requests_total", &[("kind", "rpc"), ("result", what)])
        };
        let was = counted(&node);
        let doing = act.clone();
        backend.now(move |_| doing.clone());
        let refused = rpc(&sdk, "a", "m", json!(1)).expect_err("no decision");
        assert_eq!(refused.code, 100, "{act:?}: {refused:?}");
        assert_eq!(counted(&node), was + 1.0, "{act:?}");
        let asked = backend.asked();
        assert_eq!(asked.len(), before + 1, "{act:?}: a call is not asked again");
        assert!(asked.iter().all(|asked| asked.path == "/rpc"), "no redirect is followed");
    }
    backend.now(|_| Act::grant(json!({"data": "fine"})));
    assert_eq!(rpc(&sdk, "a", "m", json!(1)), Ok(json!("fine")));
    assert_eq!(sdk.pending("a", "disconnected"), Vec::<Value>::new());
}

#[test]
fn a_dead_backend_is_left_alone_and_found_again_while_everybody_stays() {
    let backend = Backend::start(|_| Act::Raw(503, String::new(), String::new()));
    let node = asking(&backend, &["rpc"], &json!({})).go();
    let sdk = Sdk::start(Kind::Js, None);
    sdk.connect("a", &node.url());
    sdk.subscribe("a", "news").expect("subscribed");
    for _ in 0..20 {
        assert_eq!(code(rpc(&sdk, "a", "m", json!(1))), 100);
    }
    assert_eq!(node.metrics().sum("tidegate_proxy_breaker_open"), 1.0);
    let asked = backend.asked().len();
    for _ in 0..50 {
        assert_eq!(code(rpc(&sdk, "a", "m", json!(1))), 100);
    }
    assert!(backend.asked().len() <= asked + 1, "nobody but a probe asks");
    // What does not need it goes on.
    sdk.publish("a", "news", json!(1)).expect("published");
    assert_eq!(sdk.publication("a", "news"), 1);
    backend.now(|_| Act::grant(json!({"data": "back"})));
    node.until("the breaker closes", |metrics| {
        let _ = rpc(&sdk, "a", "m", json!(1));
        metrics.sum("tidegate_proxy_breaker_open") == 0.0
    });
    assert_eq!(rpc(&sdk, "a", "m", json!(1)), Ok(json!("back")));
}

#[test]
fn connect_and_subscribes_of_one_message_keep_their_order_while_the_backend_thinks() {
    let backend = Backend::start(|asked| match asked.path.as_str() {
        "/connect" => Act::Held(json!({"result": {"user": "42"}})),
        _ => Act::grant(json!({"data": asked.body["user"]})),
    });
    let node = asking(&backend, &["connect", "rpc"], &json!({"timeout": "20s"})).go();
    runtime().block_on(async {
        let mut client = Upgrade::at(node.public()).open().await.expect("a WebSocket");
        let mut message = "{\"id\":1,\"connect\":{}}\n".to_owned();
        for id in 2..=100 {
            message.push_str(&format!("{{\"id\":{id},\"subscribe\":{{\"channel\":\"news-{id}\"}}}}\n"));
        }
        client.text(&message).await.expect("sent");
        client.text("{\"id\":101,\"rpc\":{\"method\":\"who\"}}").await.expect("sent");
        backend.asked_times(1);
        throughout("nothing but the connect is asked", Duration::from_millis(300), || {
            backend.asked().len() == 1
        });
        backend.release();
        let first = client.frame().await.expect("a frame");
        assert!(first.text().expect("text").starts_with("{\"id\":1,\"connect\":"), "{first:?}");
        for id in 2..=100 {
            assert_eq!(client.reply(id).await.expect("a reply")["subscribe"], json!({}));
        }
        assert_eq!(client.reply(101).await.expect("a reply")["rpc"]["data"], "42");
    });
}

#[test]
fn publications_of_one_client_to_one_channel_keep_their_order() {
    let backend = Backend::start(|_| Act::grant(json!({})));
    let node = asking(&backend, &["publish"], &json!({"timeout": "20s"})).go();
    for kind in [Kind::Js, Kind::Python] {
        let sdk = Sdk::start(kind, None);
        sdk.connect("speaker", &node.url());
        sdk.connect("listener", &node.url());
        let channel = format!("room:{kind:?}");
        sdk.subscribe("listener", &channel).expect("subscribed");
        let data: Vec<Value> = (0..30).map(Value::from).collect();
        let burst = json!({"do": "burst", "client": "speaker", "channel": channel, "data": data});
        assert_eq!(sdk.call(burst), Ok(Value::from(vec![0; 30])), "{kind:?}");
        let heard: Vec<Value> = (0..30).map(|_| sdk.publication("listener", &channel)).collect();
        assert_eq!(heard, data, "{kind:?}");
    }
    assert_eq!(backend.most_at_once(), 1, "one after the other");
}

#[test]
fn who_publishes_faster_than_a_backend_decides_is_told_so() {
    let backend = Backend::start(|_| Act::Held(json!({"result": {}})));
    let node = asking(&backend, &["publish"], &json!({"timeout": "20s"})).go();
    let sdk = Sdk::start(Kind::Js, None);
    sdk.connect("a", &node.url());
    let burst = json!({"do": "burst", "client": "a", "channel": "room:1", "data": vec![1; 40]});
    let burst = sdk.begin(burst);
    backend.asked_times(1);
    node.until("all forty came", |metrics| {
        metrics.with("tidegate_messages_received_total", &[("command", "publish")]) == 40.0
    });
    backend.release();
    let outcomes = sdk.finish(tidegate_tests::PATIENCE, burst).expect("outcomes");
    // One is asked, 32 wait, the others were told at once.
    assert_eq!(outcomes, Value::from([vec![0; 33], vec![111; 7]].concat()));
}

#[test]
fn others_see_what_a_backend_says_of_a_client() {
    let backend = Backend::start(|asked| match asked.path.as_str() {
        "/connect" => Act::grant(json!({"user": "ada", "info": {"name": "Ada"}})),
        "/subscribe" => Act::grant(json!({"info": {"role": "owner"}})),
        _ => Act::grant(json!({})),
    });
    let node = asking(&backend, &["connect", "subscribe", "publish"], &json!({})).go();
    runtime().block_on(async {
        let mut client = raw(&node).await;
        client.subscribe("room:1").await.expect("subscribed");
        client.publish("room:1", json!(1)).await.expect("published");
        let info = client.publication().await.expect("a publication").whole["info"].clone();
        assert_eq!(info["user"], "ada", "{info}");
        assert_eq!(
            (&info["conn_info"], &info["chan_info"]),
            (&json!({"name": "Ada"}), &json!({"role": "owner"}))
        );
    });
}

#[test]
fn a_question_carries_what_the_backend_may_know_and_no_more() {
    let backend = Backend::start(|_| Act::grant(json!({"user": "ada"})));
    let more = json!({"forward_headers": ["Cookie"], "headers": {"authorization": "Bearer node"}, "secret": "s3cret"});
    let node = asking(&backend, &["connect", "rpc"], &more).go();
    let sdk = Sdk::start(Kind::Js, None);
    let options =
        json!({"headers": {"Cookie": "a=1", "Authorization": "Bearer client", "X-Other": "x"}, "token": "t"});
    sdk.call(json!({"do": "connect", "client": "a", "url": node.url(), "options": options}))
        .expect("connected");
    rpc(&sdk, "a", "who", json!({"b": [1, 2]})).expect("answered");
    let asked = backend.asked();
    let [connect, call] = &asked[..] else { panic!("{asked:?}") };
    assert_eq!(connect.body["token"], "t");
    assert_eq!(connect.body["name"], "js");
    assert_eq!(connect.body.get("user"), None);
    assert_eq!(call.body["user"], "ada");
    assert_eq!(call.body["client"], connect.body["client"], "the id it was asked about is the one it has");
    assert_eq!((&call.body["method"], &call.body["data"]), (&json!("who"), &json!({"b": [1, 2]})));
    for asked in &asked {
        assert_eq!(asked.header("cookie"), Some("a=1"));
        assert_eq!(asked.header("authorization"), Some("Bearer node"), "the node's own wins");
        assert_eq!(asked.header("x-other"), None);
        assert_eq!(asked.header("content-type"), Some("application/json"));
        assert!(asked.header("traceparent").is_some_and(|trace| trace.len() == 55), "{asked:?}");
        assert!(asked.header("x-request-id").is_some_and(|id| id.len() == 36), "{asked:?}");
        assert!(asked.header("x-tidegate-signature").is_some_and(|it| it.starts_with("t=")), "{asked:?}");
    }
    assert!(!node.process.err.lines().join("\n").contains("s3cret"));
}

#[test]
fn a_connect_is_asked_again_where_the_connection_broke() {
    let times = std::sync::atomic::AtomicUsize::new(0);
    let backend = Backend::start(move |_| match times.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
        0 => Act::Close,
        _ => Act::grant(json!({"user": "ada"})),
    });
    let node = asking(&backend, &["connect"], &json!({})).go();
    let sdk = Sdk::start(Kind::Js, None);
    sdk.connect("a", &node.url());
    let asked = backend.asked();
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[0].header("x-request-id"), asked[1].header("x-request-id"));
    assert_eq!(asked[0].body, asked[1].body);
}

#[test]
fn a_client_that_leaves_while_the_backend_thinks_is_not_missed() {
    let backend = Backend::start(|_| Act::Held(json!({"result": {}})));
    let node = asking(&backend, &["connect", "rpc"], &json!({"timeout": "20s", "concurrency": 64})).go();
    runtime().block_on(async {
        for _ in 0..20 {
            let mut client = Upgrade::at(node.public()).open().await.expect("a WebSocket");
            client.text("{\"id\":1,\"connect\":{}}").await.expect("sent");
            client.reset().expect("gone");
        }
    });
    backend.asked_times(1);
    node.until("they are gone", |metrics| metrics.sum("tidegate_connections") == 0.0);
    backend.release();
    node.until("nothing is under way", |metrics| metrics.sum("tidegate_proxy_in_flight") == 0.0);
    let sdk = Sdk::start(Kind::Js, None);
    sdk.connect("a", &node.url());
}

#[test]
fn subscriptions_that_a_backend_grants_stand_on_redis_too() {
    let redis = Redis::start();
    let backend = Backend::start(everything);
    let start = || {
        asking(&backend, &["connect", "rpc", "subscribe", "publish"], &json!({"forward_headers": ["Cookie"]}))
    };
    let nodes = [start().redis(&redis).go(), start().redis(&redis).go()];
    let sdk = Sdk::start(Kind::Js, None);
    for (client, node) in ["a", "b"].iter().zip(&nodes) {
        let options = json!({"headers": {"Cookie": "session=ada"}});
        sdk.call(json!({"do": "connect", "client": client, "url": node.url(), "options": options}))
            .expect("in");
        sdk.subscribe(client, "room:1").expect("subscribed");
    }
    sdk.publish("a", "room:1", json!("hi")).expect("published");
    for client in ["a", "b"] {
        assert_eq!(sdk.publication(client, "room:1"), json!({"said": "hi", "by": "ada"}));
    }
}

#[test]
fn a_backend_over_tls_must_be_the_one_it_says_it_is() {
    // A TLS server of its own is a node's public port: it answers POST with 404, which is an answer.
    let certificates = Certificates::new();
    let server = Node::dev().tls(&certificates).go();
    let url = format!("https://{}/", server.public());
    let trusting = |ca: Option<String>| {
        let mut endpoint = json!({"name": "main", "url": url, "timeout": "2s"});
        if let Some(ca) = ca {
            endpoint["ca"] = ca.into();
        }
        let node = Node::dev().set("proxy.endpoints", json!([endpoint])).set("proxy.rpc", "main").go();
        let sdk = Sdk::start(Kind::Js, None);
        sdk.connect("a", &node.url());
        assert_eq!(code(rpc(&sdk, "a", "m", json!(1))), 100);
        node.metrics()
    };
    let result = |metrics: &tidegate_tests::Metrics, result| {
        metrics.with("tidegate_proxy_requests_total", &[("kind", "rpc"), ("result", result)])
    };
    let known = trusting(Some(certificates.authority().display().to_string()));
    assert_eq!(result(&known, "status"), 1.0);
    let unknown = trusting(None);
    assert_eq!(result(&unknown, "unreachable"), 1.0);
}

#[test]
fn the_backend_of_the_guide_does_what_the_guide_says() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let guide = std::fs::read_to_string(root.join("docs/guides/backend-proxy.md")).expect("the guide");
    let block = |language: &str| {
        let (_, rest) = guide.split_once(&format!("```{language}\n")).expect("a block");
        rest.split("```").next().unwrap_or_default().to_owned()
    };
    let dir = tempfile::tempdir().expect("a directory");
    // Its port may be taken here; 0 is any, and its log says which.
    let backend = block("python").replace("ThreadingHTTPServer((\"127.0.0.1\", 3000), Handler).serve_forever()", "server = ThreadingHTTPServer((\"127.0.0.1\", 0), Handler); print(server.server_port, flush=True); server.serve_forever()");
    std::fs::write(dir.path().join("backend.py"), backend).expect("written");
    let mut python = std::process::Command::new("python3");
    let backend =
        tidegate_tests::process::Process::start("backend", python.arg("backend.py").current_dir(dir.path()));
    let port: u16 = backend.out.find(tidegate_tests::PATIENCE, |line| line.parse().ok()).expect("a port");
    let settings = block("yaml").replace("127.0.0.1:3000", &format!("127.0.0.1:{port}"));
    let node = Node::strict().file(&settings).go();
    let sdk = Sdk::start(Kind::Js, None);
    let connect = |client: &str, cookie: &str| {
        let options = json!({"headers": {"Cookie": cookie}});
        sdk.call(json!({"do": "connect", "client": client, "url": node.url(), "options": options}))
    };
    connect("a", "session=s3cr3t-of-ada").expect("ada is let in");
    assert_eq!(sdk.named("a", "server-subscribed")["channel"], "inbox:ada");
    sdk.subscribe("a", "room:ada").expect("her room");
    assert_eq!(sdk.named("a", "subscribed")["data"], json!({"topic": "Home"}));
    assert_eq!(code(sdk.subscribe("a", "room:bob")), 403);
    sdk.publish("a", "room:ada", json!({"text": "  hello  "})).expect("published");
    assert_eq!(sdk.publication("a", "room:ada"), json!({"text": "hello", "by": "ada"}));
    assert_eq!(code(sdk.publish("a", "room:ada", json!({"text": "spam"}))), 422);
    assert_eq!(rpc(&sdk, "a", "add", json!([1, 2, 3])), Ok(json!(6)));
    assert_eq!(code(rpc(&sdk, "a", "other", json!(1))), 404);
    assert_eq!(code(connect("b", "session=guessed")), 4501);
}
