//! What a backend may rely on.
#![expect(clippy::unwrap_used, reason = "a failing test is what should happen")]

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use actix_web::test::{TestRequest, call_service, init_service, read_body};
use actix_web::{App, web};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tidegate_protocol::{Control, Position, Publication};
use tidegate_relay::{Delivery, Observation, Recovered, RelayError, Report, Said, Sink, Ticket, WorkerId};

mod reading;

use super::*;
use crate::settings::{self, Assignment, Machine, Sources};

/// What the relay told the node.
#[derive(Debug)]
enum Heard {
    Joined,
    Publication(Publication),
    Control(Control),
}

struct TestSink(SyncSender<Heard>);

impl TestSink {
    fn say(&self, heard: Heard) {
        self.0.try_send(heard).expect("a test that hears so much must listen");
    }
}

impl Sink for TestSink {
    fn deliver(&self, batch: &mut Vec<Delivery>, _: Instant) {
        for delivery in batch.drain(..) {
            if let Said::Publication(publication) = delivery.said {
                self.say(Heard::Publication(publication));
            }
        }
    }

    fn joined(
        &self,
        _: WorkerId,
        _: &tidegate_protocol::ChannelName,
        result: Result<Option<Position>, RelayError>,
    ) {
        result.unwrap();
        self.say(Heard::Joined);
    }

    fn lost(&self, _: WorkerId, _: &tidegate_protocol::ChannelName) {}

    fn recovered(&self, _: Ticket, _: &tidegate_protocol::ChannelName, _: Result<Recovered, RelayError>) {}

    fn published(&self, _: Ticket, _: Result<(), RelayError>) {}

    fn control(&self, control: Control) {
        self.say(Heard::Control(control));
    }

    fn report(&self) -> Report {
        Report { connections: 3, subscriptions: 5 }
    }

    fn channels(&self, reply: tokio::sync::oneshot::Sender<Vec<(tidegate_protocol::ChannelName, u64)>>) {
        let name = |name| tidegate_protocol::ChannelName::parse(name).unwrap();
        let _ = reply.send(vec![(name("news"), 4), (name("chat:1"), 1)]);
    }

    fn observe(&self, _: Observation) {}
}

/// A node's internal port over a memory relay, and what the node heard.
struct Backend {
    state: web::Data<ApiState>,
    heard: Receiver<Heard>,
}

const KEYS: &str = r#"[{"name":"looker","key":"read-read-read-read","scope":"read"},
    {"name":"backend","key":"publish-publish-publish","scope":"publish"},
    {"name":"root","key":"admin-admin-admin","scope":"admin"}]"#;

impl Backend {
    fn start(sets: &[(&str, &str)]) -> Self {
        let flags = sets
            .iter()
            .map(|(key, value)| Assignment {
                key: (*key).to_owned(),
                value: (*value).to_owned(),
                origin: "--set".to_owned(),
            })
            .collect();
        let machine = Machine { cpus: 1, files: 1024, memory: None, host: "gull".to_owned() };
        let loaded = settings::load(&Sources { flags, ..Sources::default() }, &machine).unwrap();
        let (sender, heard) = sync_channel(64);
        let sink = Arc::new(TestSink(sender));
        let relay = Relay::start(
            loaded.settings.relay.clone(),
            Arc::new(loaded.settings.relay_rules()),
            "id-1",
            "gull",
            "0.0.1",
            sink,
        )
        .unwrap();
        let state = ApiState {
            relay,
            settings: Arc::new(loaded.settings),
            metrics: Arc::new(Metrics::new().unwrap()),
            started: Instant::now(),
            ready: Arc::new(AtomicBool::new(true)),
        };
        Self { state: web::Data::new(state), heard }
    }

    /// The same, and the node hears these channels; those without a namespace have no history.
    fn hearing(channels: &[&str]) -> Self {
        let backend = Self::start(&[("dev.enabled", "true"), ("namespaces", r#"[{"name":"default"}]"#)]);
        for channel in channels {
            let channel = tidegate_protocol::ChannelName::parse(channel).unwrap();
            backend.state.relay.join(WorkerId(0), channel).unwrap();
            assert!(matches!(backend.next(), Heard::Joined));
        }
        backend
    }

    fn next(&self) -> Heard {
        self.heard.recv_timeout(Duration::from_secs(5)).expect("the node heard nothing")
    }

    /// Sends a request; the status and the JSON that comes back.
    async fn send(&self, request: TestRequest) -> (u16, Value) {
        let app = init_service(App::new().app_data(self.state.clone()).configure(routes)).await;
        let response = call_service(&app, request.to_request()).await;
        let status = response.status().as_u16();
        let body = read_body(response).await;
        (status, serde_json::from_slice(&body).unwrap_or_else(|_| panic!("no JSON: {body:?}")))
    }

    /// Calls a method from this machine.
    async fn call(&self, method: &str, body: &str) -> (u16, Value) {
        self.send(post(method, body)).await
    }

    async fn error(&self, method: &str, body: &str) -> (u64, String) {
        let (status, answer) = self.call(method, body).await;
        assert_eq!(status, 200, "{answer}");
        let message = answer["error"]["message"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned();
        (answer["error"]["code"].as_u64().unwrap(), message)
    }
}

fn post(method: &str, body: &str) -> TestRequest {
    let here: SocketAddr = "127.0.0.1:4321".parse().unwrap();
    TestRequest::post().uri(&format!("/api/{method}")).peer_addr(here).set_payload(body.to_owned())
}

#[actix_web::test]
async fn what_is_published_is_heard_byte_for_byte() {
    let backend = Backend::hearing(&["news"]);
    let body = r#"{"channel":"news","data":{"n":1.50, "t":"é\u00e9"},"tags":{"b":"2","a":"1"}}"#;
    assert_eq!(backend.call("publish", body).await, (200, json!({"result": {}})));
    let Heard::Publication(heard) = backend.next() else { panic!("no publication") };
    assert_eq!(heard.data, r#"{"n":1.50, "t":"é\u00e9"}"#.as_bytes());
    assert_eq!(heard.tags, [("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())]);
    assert_eq!(heard.info, None);

    // Newlines never reach a client.
    backend.call("publish", "{\"channel\":\"news\",\"data\":[1,\n2]}").await;
    let Heard::Publication(heard) = backend.next() else { panic!("no publication") };
    assert_eq!(heard.data, "[1, 2]".as_bytes());

    // `null` is JSON too.
    backend.call("publish", r#"{"channel":"news","data":null}"#).await;
    let Heard::Publication(heard) = backend.next() else { panic!("no publication") };
    assert_eq!(heard.data, "null".as_bytes());

    let encoded = STANDARD.encode(r#"{"a":1}"#);
    backend.call("publish", &format!(r#"{{"channel":"news","b64data":"{encoded}"}}"#)).await;
    let Heard::Publication(heard) = backend.next() else { panic!("no publication") };
    assert_eq!(heard.data, r#"{"a":1}"#.as_bytes());
    assert!(backend.state.metrics.render().contains("tidegate_publications_total{source=\"api\"} 4\n"));
}

#[actix_web::test]
async fn a_broadcast_reaches_every_channel_and_answers_for_each() {
    let backend = Backend::hearing(&["a", "b"]);
    let (status, answer) = backend.call("broadcast", r#"{"channels":["a","b c","b"],"data":"x"}"#).await;
    assert_eq!(status, 200);
    let responses = &answer["result"]["responses"];
    assert_eq!((&responses[0], &responses[2]), (&json!({"result": {}}), &json!({"result": {}})));
    assert_eq!(responses[1]["error"]["code"], 107);
    for expected in ["a", "b"] {
        let Heard::Publication(heard) = backend.next() else { panic!("no publication") };
        assert_eq!(heard.channel.as_str(), expected);
    }
}

#[actix_web::test]
async fn control_calls_reach_the_nodes() {
    let backend = Backend::hearing(&[]);
    for (method, body, expected) in [
        (
            "disconnect",
            r#"{"user":"42","reconnect":true}"#,
            r#"{"disconnect":{"user":"42","reconnect":true}}"#,
        ),
        ("subscribe", r#"{"client":"c","channel":"x:1"}"#, r#"{"subscribe":{"client":"c","channel":"x:1"}}"#),
        ("unsubscribe", r#"{"user":"42","channel":"x"}"#, r#"{"unsubscribe":{"user":"42","channel":"x"}}"#),
    ] {
        assert_eq!(backend.call(method, body).await, (200, json!({"result": {}})), "{method}");
        let Heard::Control(heard) = backend.next() else { panic!("no control message") };
        assert_eq!(serde_json::to_string(&heard).unwrap(), expected);
    }
    let (code, message) = backend.error("disconnect", "{}").await;
    assert_eq!(code, 107);
    assert!(message.contains("neither `user` nor `client`"), "{message}");
}

#[actix_web::test]
async fn channels_and_info_say_what_there_is() {
    let backend = Backend::hearing(&["news", "chat:1"]);
    let (_, channels) = backend.call("channels", "").await;
    let expected =
        json!({"result": {"channels": {"chat:1": {"num_clients": 1}, "news": {"num_clients": 4}}}});
    assert_eq!(channels, expected);
    let (_, info) = backend.call("info", "{}").await;
    let node = &info["result"]["nodes"][0];
    assert_eq!(
        (&node["uid"], &node["name"], &node["version"]),
        (&json!("id-1"), &json!("gull"), &json!("0.0.1"))
    );
    assert_eq!(
        (&node["num_clients"], &node["num_subs"], &node["num_channels"]),
        (&json!(3), &json!(5), &json!(2))
    );
}

#[actix_web::test]
async fn a_batch_answers_each_command_in_its_place() {
    for parallel in [true, false] {
        let backend = Backend::hearing(&["a"]);
        let commands = r#"[{"publish":{"channel":"a","data":1}},{"publish":{"channel":"a"}},{"nonsense":{}},
            {"info":{}},{"batch":{}},{},{"publish":{"channel":"a","data":2}}]"#;
        let body = format!(r#"{{"commands":{commands},"parallel":{parallel}}}"#);
        let (status, answer) = backend.call("batch", &body).await;
        assert_eq!(status, 200);
        let replies = &answer["replies"];
        assert_eq!((&replies[0], &replies[6]), (&json!({"publish": {}}), &json!({"publish": {}})));
        assert!(replies[3]["info"]["nodes"].is_array(), "{replies}");
        let codes: Vec<_> = [1, 2, 4, 5].iter().map(|at| replies[*at]["error"]["code"].as_u64()).collect();
        assert_eq!(codes, [Some(107), Some(104), Some(107), Some(107)]);
        for expected in ["1", "2"] {
            let Heard::Publication(heard) = backend.next() else { panic!("no publication") };
            assert_eq!(heard.data, expected.as_bytes());
        }
    }
    let backend = Backend::start(&[]);
    let many = vec![r#"{"info":{}}"#; 1001].join(",");
    assert_eq!(backend.error("batch", &format!(r#"{{"commands":[{many}]}}"#)).await.0, 106);
}

#[actix_web::test]
async fn what_is_wrong_is_said_with_the_field() {
    let backend = Backend::start(&[]);
    for (method, body, code, words) in [
        ("publish", "{", 107, "must be a JSON object"),
        ("publish", "[]", 107, "must be a JSON object"),
        ("publish", r#"{"data":1}"#, 107, "`channel` is missing"),
        ("publish", r#"{"channel":5,"data":1}"#, 107, "`channel` must be"),
        ("publish", r#"{"channel":"a"}"#, 107, "`data` is missing"),
        ("publish", r#"{"channel":"a","data":1,"b64data":"MQ=="}"#, 107, "`data` and `b64data`"),
        ("publish", r#"{"channel":"a","b64data":"!"}"#, 107, "`b64data`"),
        ("publish", r#"{"channel":"a","b64data":"e30gew=="}"#, 107, "`b64data`: not JSON"),
        ("publish", r#"{"channel":"a","data":1,"tags":{"a":1}}"#, 107, "`tags` must be"),
        (
            "publish",
            r#"{"chanel":"a","channel":"a","data":1}"#,
            107,
            "no field `chanel`; did you mean `channel`?",
        ),
        ("publish", r#"{"channel":"a{b","data":1}"#, 107, "may not contain '{'"),
        ("publish", r#"{"channel":"other:a","data":1}"#, 102, "no namespace \"other\""),
        (
            "publish",
            r#"{"channel":"a","data":1,"idempotency_key":"k"}"#,
            108,
            "`idempotency_key` needs history",
        ),
        ("publish", r#"{"channel":"a","data":1,"idempotency_key":5}"#, 107, "`idempotency_key` must be text"),
        (
            "publish",
            r#"{"channel":"a","data":1,"skip_history":1}"#,
            107,
            "`skip_history` must be true or false",
        ),
        (
            "publish",
            r#"{"channel":"a","data":1,"skip_history":true,"idempotency_key":"k"}"#,
            107,
            "`idempotency_key` and `skip_history`",
        ),
        ("broadcast", r#"{"channels":"a","data":1}"#, 107, "`channels` must be"),
        ("broadcast", r#"{"channels":[],"data":1}"#, 107, "`channels` is empty"),
        ("disconnect", r#"{"user":"1","reconnect":"yes"}"#, 107, "`reconnect` must be true or false"),
        ("info", r#"{"a":1}"#, 107, "no field `a`"),
        ("refresh", "{}", 108, "refresh"),
        ("history", "{}", 107, "`channel` is missing"),
        ("history", r#"{"channel":"a","limit":"all"}"#, 107, "`limit` must be a whole number"),
        ("history", r#"{"channel":"a","since":{"ofset":1}}"#, 107, "`since` must be an object with `offset`"),
        ("history", r#"{"channel":"a"}"#, 108, "needs history"),
        ("history_remove", r#"{"channel":"a"}"#, 108, "needs history"),
        ("presence", r#"{"channel":"a"}"#, 108, "needs presence"),
        ("presence_stats", r#"{"channel":"a"}"#, 108, "needs presence"),
    ] {
        let (got, message) = backend.error(method, body).await;
        assert_eq!(got, code, "{body}: {message}");
        assert!(message.contains(words), "{body}: {message}");
    }
}

#[actix_web::test]
async fn a_relay_that_is_away_is_a_temporary_error_and_is_counted() {
    let backend = Backend::start(&[]);
    backend.state.relay.stop().await;
    let (code, _) = backend.error("publish", r#"{"channel":"a","data":1}"#).await;
    assert_eq!(code, 100);
    let rendered = backend.state.metrics.render();
    let failed = rendered.lines().any(|line| {
        line.starts_with("tidegate_publication_rejected_total{reason=\"relay_") && line.ends_with(" 1")
    });
    assert!(failed, "{rendered}");
}

#[actix_web::test]
async fn a_key_opens_its_scope_and_no_more() {
    let backend = Backend::start(&[("api.keys", KEYS)]);
    let calls = [
        ("info", "{}", 0),
        ("channels", "{}", 0),
        ("history", r#"{"channel":"a"}"#, 0),
        ("presence", r#"{"channel":"a"}"#, 0),
        ("presence_stats", r#"{"channel":"a"}"#, 0),
        ("publish", r#"{"channel":"a","data":1}"#, 1),
        ("broadcast", r#"{"channels":["a"],"data":1}"#, 1),
        ("subscribe", r#"{"user":"1","channel":"a"}"#, 2),
        ("unsubscribe", r#"{"user":"1","channel":"a"}"#, 2),
        ("disconnect", r#"{"user":"1"}"#, 2),
        ("history_remove", r#"{"channel":"a"}"#, 2),
    ];
    for (rank, key) in
        ["read-read-read-read", "publish-publish-publish", "admin-admin-admin"].iter().enumerate()
    {
        for (method, body, needed) in calls {
            let (status, answer) = backend.send(post(method, body).insert_header(("X-API-Key", *key))).await;
            let expected = if rank >= needed { 200 } else { 403 };
            assert_eq!(status, expected, "{key} {method}: {answer}");
            assert!(!answer.to_string().contains(key), "{answer}");
            // In a batch the command is refused, not the request.
            let batch = format!(r#"{{"commands":[{{"{method}":{body}}}]}}"#);
            let (status, answer) =
                backend.send(post("batch", &batch).insert_header(("X-API-Key", *key))).await;
            assert_eq!(status, 200);
            assert_eq!(answer["replies"][0]["error"]["code"] == 103, rank < needed, "{answer}");
        }
    }
    let bearer = post("info", "{}").insert_header(("Authorization", "apikey admin-admin-admin"));
    assert_eq!(backend.send(bearer).await.0, 200);
}

#[actix_web::test]
async fn without_the_right_key_nothing_is_answered() {
    let backend = Backend::start(&[("api.keys", KEYS)]);
    for (header, value) in [
        ("X-API-Key", ""),
        ("X-API-Key", "admin-admin-admi"),
        ("X-API-Key", "admin-admin-admin-"),
        ("X-API-Key", "***"),
        ("Authorization", "Bearer admin-admin-admin"),
        ("Authorization", "apikey"),
        ("X-Other", "x"),
    ] {
        let (status, answer) = backend.send(post("info", "{}").insert_header((header, value))).await;
        assert_eq!(status, 401, "{header}: {value}");
        assert_eq!(answer["error"]["code"], 101);
    }
}

#[actix_web::test]
async fn without_any_key_only_programs_on_this_machine_are_answered() {
    let backend = Backend::start(&[]);
    assert_eq!(backend.call("info", "{}").await.0, 200);
    let from = |address: &str| post("info", "{}").peer_addr(address.parse().unwrap());
    assert_eq!(backend.send(from("[::1]:1")).await.0, 200);
    assert_eq!(backend.send(from("[::ffff:127.0.0.1]:1")).await.0, 200);
    for far in ["10.0.0.1:1", "[2001:db8::1]:1", "0.0.0.0:1"] {
        let forged = from(far).insert_header(("X-Forwarded-For", "127.0.0.1"));
        assert_eq!(backend.send(forged).await.0, 403, "{far}");
    }
    let page = post("info", "{}").insert_header(("Origin", "https://evil.example"));
    assert_eq!(backend.send(page).await.0, 403);
}

#[actix_web::test]
async fn what_is_not_there_is_answered_in_json() {
    let backend = Backend::start(&[]);
    let (status, answer) = backend.call("nonsense", "{}").await;
    assert_eq!((status, &answer["error"]["code"]), (404, &json!(104)));
    assert_eq!(backend.send(TestRequest::get().uri("/nothing")).await.0, 404);
    assert_eq!(backend.send(TestRequest::get().uri("/api/info")).await.0, 405);
    let large = format!(r#"{{"channel":"a","data":"{}"}}"#, "x".repeat(MAX_BODY_BYTES));
    let (status, answer) = backend.call("publish", &large).await;
    assert_eq!((status, &answer["error"]["code"]), (413, &json!(107)));
}

#[actix_web::test]
async fn a_node_is_live_while_it_runs_and_ready_while_it_takes_connections() {
    let backend = Backend::start(&[]);
    let ready = || TestRequest::get().uri("/health/ready");
    let (status, body) = backend.send(ready()).await;
    assert_eq!((status, &body["ready"], &body["relay"]["kind"]), (200, &json!(true), &json!("memory")));
    backend.state.ready.store(false, Ordering::Release);
    let (status, body) = backend.send(ready()).await;
    assert_eq!((status, &body["ready"]), (503, &json!(false)));
    assert!(body["reason"].as_str().unwrap().contains("draining"));
    backend.state.relay.stop().await;
    backend.state.ready.store(true, Ordering::Release);
    // The relay's state is shown, and changes nothing.
    assert_eq!(backend.send(ready()).await.0, 200);
    assert_eq!(backend.send(TestRequest::get().uri("/health/live")).await.0, 200);
}

#[actix_web::test]
async fn metrics_are_text_that_prometheus_reads() {
    let backend = Backend::start(&[]);
    let app = init_service(App::new().app_data(backend.state.clone()).configure(routes)).await;
    let response = call_service(&app, TestRequest::get().uri("/metrics").to_request()).await;
    assert_eq!(response.headers().get("content-type").unwrap(), metrics::CONTENT_TYPE);
    let text = String::from_utf8(read_body(response).await.to_vec()).unwrap();
    assert!(text.contains("# TYPE tidegate_connections gauge\n"), "{text}");
    assert!(text.contains("tidegate_connections{codec=\"json\",transport=\"websocket\"} 0\n"), "{text}");
}

#[actix_web::test]
async fn the_examples_of_the_reference_work() {
    let page = include_str!("../../../../docs/reference/api.md");
    let backend = Backend::start(&[("dev.enabled", "true")]);
    let mut shown = Vec::new();
    for line in page.lines().filter(|line| line.starts_with("curl ")) {
        let (url, body) = line.split_once(" -d '").unwrap();
        let method = url.strip_prefix("curl http://127.0.0.1:9000/api/").unwrap();
        let (status, answer) = backend.call(method, body.strip_suffix('\'').unwrap()).await;
        assert_eq!(status, 200, "{line}");
        assert!(answer.get("error").is_none() && !answer.to_string().contains("error"), "{line}: {answer}");
        shown.push(method);
    }
    let titles: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    let methods: Vec<&str> = Method::ALL.iter().map(|method| method.name()).collect();
    assert_eq!((shown, titles), (methods.clone(), methods));
}
