//! Redis misbehaves: what clients, operators and other nodes see, and that everything comes back by itself.

use std::time::Duration;

use serde_json::{Value, json};
use tidegate_tests::deadline::{pause, throughout};
use tidegate_tests::redis::Options;
use tidegate_tests::sdk::Kind;
use tidegate_tests::{Certificates, Node, PATIENCE, Proxy, Redis, Sdk, eventually};

/// A node on a Redis and two clients, one of them subscribed to `news`.
struct Scene {
    redis: Redis,
    node: Node,
    sdk: Sdk,
}

impl Scene {
    fn new() -> Self {
        let redis = Redis::start();
        // Without history, what is missed is counted and not made good: that is another family of promises.
        let node = Node::dev()
            .redis(&redis)
            .file("namespaces: [{name: default}]")
            .set("heartbeat.interval", "2s")
            .set("heartbeat.timeout", "1s")
            .go();
        let sdk = Sdk::start(Kind::Js, None);
        sdk.connect("alice", &node.url());
        sdk.connect("bob", &node.url());
        sdk.subscribe("alice", "news").expect("alice may subscribe");
        for client in ["alice", "bob"] {
            // Taken so that a second one is news.
            sdk.named(client, "connecting");
        }
        node.until("the relay is up", |m| m.sum("tidegate_relay_up") == 1.0);
        Self { redis, node, sdk }
    }

    fn down(&self) {
        self.node.until("the relay knows that it is down", |m| m.sum("tidegate_relay_up") == 0.0);
    }

    /// A client's publish is refused, with what it is told.
    fn refused(&self) -> (i64, String) {
        let refusal = self.sdk.publish("bob", "news", json!("lost")).expect_err("it must not look published");
        (refusal.code, refusal.message)
    }

    /// Everything works again, and nothing that was refused has arrived meanwhile.
    fn recovers(&self) {
        self.node.until("the relay is up again", |m| m.sum("tidegate_relay_up") == 1.0);
        eventually("the node listens to the channel again", PATIENCE, || {
            (self.redis.listeners("news") == 1).then_some(())
        });
        self.redis.publish("news", r#""back""#);
        assert_eq!(
            self.sdk.publication("alice", "news"),
            json!("back"),
            "nothing that was refused came through"
        );
        self.sdk.publish("bob", "news", json!("published")).expect("publishing works again");
        assert_eq!(self.sdk.publication("alice", "news"), json!("published"));
        self.sdk.subscribe("bob", "fresh").expect("subscribing works again");
        self.redis.publish("fresh", "1");
        assert_eq!(self.sdk.publication("bob", "fresh"), json!(1));
        self.stayed();
    }

    /// No connection was given up.
    fn stayed(&self) {
        for client in ["alice", "bob"] {
            assert_eq!(self.sdk.pending(client, "connecting"), Vec::<Value>::new(), "{client} was never cut");
            assert_eq!(
                self.sdk.pending(client, "disconnected"),
                Vec::<Value>::new(),
                "{client} was never cut"
            );
        }
        assert_eq!(self.node.metrics().sum("tidegate_connections"), 2.0);
    }
}

#[test]
fn while_redis_is_gone_connections_stay_and_nothing_is_promised() {
    let mut scene = Scene::new();
    scene.redis.kill();
    scene.down();

    assert_eq!(scene.refused(), (100, "internal server error".to_owned()));
    let refusal = scene.sdk.subscribe("bob", "other").expect_err("nobody hears the channel");
    assert_eq!(refusal.code, 100, "temporary: the SDK asks again by itself");
    let answer = scene.node.api_with("publish", None, &json!({"channel": "news", "data": "lost"}));
    assert!(answer.json().get("error").is_some(), "a backend is told too: {answer:?}");
    assert_eq!(scene.node.get("/health/ready").status, 200, "an outage of Redis does not empty the fleet");
    assert_eq!(scene.node.get("/health/live").status, 200);

    // Several heartbeats long.
    throughout("connections stay", Duration::from_secs(5), || {
        scene.node.metrics().sum("tidegate_connections") == 2.0
    });
    assert_eq!(
        scene.sdk.pending("alice", "publication"),
        Vec::<Value>::new(),
        "nothing is delivered in secret"
    );

    scene.redis.restart();
    // The subscription that was refused for the moment is made without anyone asking for it.
    scene.sdk.event("bob is subscribed to other", |e| {
        e["event"] == "subscribed" && e["client"] == "bob" && e["channel"] == "other"
    });
    scene.recovers();
    let metrics = scene.node.metrics();
    assert!(metrics.sum("tidegate_relay_gaps_total") >= 1.0, "the interruption is counted");
    assert!(metrics.with("tidegate_publication_rejected_total", &[("reason", "relay_away")]) >= 2.0);
}

#[test]
fn a_restarted_redis_is_used_again() {
    let mut scene = Scene::new();
    for _ in 0..3 {
        scene.redis.restart();
        eventually("the node listens again", PATIENCE, || (scene.redis.listeners("news") == 1).then_some(()));
    }
    scene.recovers();
    assert!(scene.node.metrics().sum("tidegate_relay_reconnects_total") >= 3.0);
}

/// How long Redis stands still: a minute where `TIDEGATE_LONG_FAULTS` is set.
fn standstill() -> Duration {
    #[expect(clippy::disallowed_methods, reason = "the harness's own setting: how long the fault lasts")]
    let long = std::env::var_os("TIDEGATE_LONG_FAULTS").is_some();
    Duration::from_secs(if long { 60 } else { 10 })
}

#[test]
fn a_redis_that_stands_still_is_noticed_and_used_again() {
    let mut scene = Scene::new();
    scene.redis.stop();
    scene.down();
    assert_eq!(scene.refused().0, 100, "and not a hang until the SDK gives up");
    pause(standstill());
    assert_eq!(scene.refused().0, 100);
    scene.stayed();
    scene.redis.resume();
    // A refused publication may still have been in a socket's buffer: Redis takes it when it wakes. The client was
    // told that it may or may not have been taken, so drain it before what must arrive is looked at.
    scene.node.until("the relay is up again", |m| m.sum("tidegate_relay_up") == 1.0);
    eventually("the node listens again", PATIENCE, || (scene.redis.listeners("news") >= 1).then_some(()));
    scene.redis.publish("news", r#""sentinel""#);
    eventually("what comes after the standstill arrives", PATIENCE, || {
        (scene.sdk.publication("alice", "news") == json!("sentinel")).then_some(())
    });
    scene.recovers();
}

#[test]
fn a_cut_subscriber_connection_is_made_again() {
    let scene = Scene::new();
    for _ in 0..5 {
        let killed = scene.redis.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        assert_eq!(killed.trim_start_matches("(integer) "), "1", "the node has one subscriber connection");
        eventually("the node listens again", PATIENCE, || (scene.redis.listeners("news") == 1).then_some(()));
    }
    scene.recovers();
    let metrics = scene.node.metrics();
    assert!(metrics.sum("tidegate_relay_gaps_total") >= 1.0);
    assert!(metrics.sum("tidegate_relay_reconnects_total") >= 5.0);
}

#[test]
fn a_node_starts_without_redis_and_serves_when_it_comes() {
    let mut redis = Redis::start();
    redis.kill();
    let node = Node::dev().redis(&redis).go();
    let sdk = Sdk::start(Kind::Js, None);
    sdk.connect("alice", &node.url());
    assert_eq!(sdk.subscribe("alice", "news").expect_err("Redis is away").code, 100);
    redis.restart();
    sdk.named("alice", "subscribed");
    redis.publish("news", "1");
    assert_eq!(sdk.publication("alice", "news"), json!(1));
}

#[test]
fn what_is_no_json_is_refused_counted_and_harms_nobody() {
    let scene = Scene::new();
    let refused =
        |reason| scene.node.metrics().with("tidegate_publication_rejected_total", &[("reason", reason)]);
    let bad = ["", "hello", "{\"a\":", "{} {}", "[1,]", "nan", "'x'", "{\"a\":1}}", "\u{feff}{}", "\u{2}v1"];
    for payload in bad {
        assert_eq!(scene.redis.publish("news", payload), 1, "the node hears it");
    }
    scene.node.until("each is counted", |_| refused("not_json") + refused("envelope") == bad.len() as f64);
    // An envelope that is none.
    scene.redis.publish("news", "\u{1}");
    scene.redis.publish("news", "\u{1}garbage\nmore");
    scene.node.until("the envelopes too", |_| refused("envelope") >= 2.0);
    scene.redis.publish("news", "\n {\"pretty\" :\r\n\t[ 1,\n2 ] } \n");
    let heard = scene.sdk.publication("alice", "news");
    assert_eq!(heard, json!({"pretty": [1, 2]}), "the first thing that is JSON, its line breaks taken out");
    let log = scene.node.process.err.lines().iter().filter(|line| line.contains("not_json")).count();
    assert!(log <= bad.len(), "{log} lines: the log is bounded");
    scene.stayed();
}

#[test]
fn a_flood_of_bad_payloads_does_not_flood_the_log() {
    let scene = Scene::new();
    let before = scene.node.process.err.lines().len();
    let script = "for i=1,5000 do redis.call('PUBLISH', 'tg:{news}', 'bad') end return 1";
    scene.redis.ask(&["EVAL", script, "0"]);
    scene.node.until("all are counted", |m| {
        m.with("tidegate_publication_rejected_total", &[("reason", "not_json")]) == 5000.0
    });
    let lines = scene.node.process.err.lines().len() - before;
    assert!(lines < 50, "{lines} lines for 5000 refusals");
    scene.recovers();
}

#[test]
fn control_messages_reach_every_node() {
    let redis = Redis::start();
    let (one, two) = (Node::dev().redis(&redis).go(), Node::dev().redis(&redis).go());
    let sdk = Sdk::start(Kind::Js, None);
    let alice = sdk.connect("alice", &one.url());
    let bob = sdk.connect("bob", &two.url());
    sdk.connect("carol", &two.url());
    let control = |message: Value| {
        assert_eq!(redis.ask(&["PUBLISH", "tg:control", &message.to_string()]), "2", "both nodes listen");
    };

    control(json!({"subscribe": {"client": bob["id"], "channel": "news"}}));
    sdk.named("bob", "server-subscribed");
    redis.publish("news", "1");
    assert_eq!(sdk.publication("bob", "news"), json!(1));
    control(json!({"unsubscribe": {"client": bob["id"], "channel": "news"}}));
    sdk.named("bob", "server-unsubscribed");

    sdk.subscribe("alice", "news").expect("alice may subscribe");
    control(json!({"unsubscribe": {"client": alice["id"], "channel": "news"}}));
    assert_eq!(sdk.named("alice", "unsubscribed")["code"], 2000);

    control(json!({"disconnect": {"client": alice["id"]}}));
    assert_eq!(sdk.named("alice", "disconnected")["code"], 3503);
    sdk.named("bob", "connecting");
    control(json!({"disconnect": {"client": bob["id"], "reconnect": true}}));
    assert_eq!(sdk.named("bob", "connecting")["code"], 3011);
    sdk.named("bob", "connected");

    for bad in
        ["", "{}", "[]", "no", r#"{"disconnect":{}}"#, r#"{"explode":{"user":"1"}}"#, r#"{"disconnect":1}"#]
    {
        redis.ask(&["PUBLISH", "tg:control", bad]);
    }
    two.until("they are counted", |m| {
        m.with("tidegate_publication_rejected_total", &[("reason", "control")]) >= 6.0
    });
    assert_eq!(
        sdk.call(json!({"do": "state", "client": "carol"})),
        Ok(json!("connected")),
        "nobody else was meant"
    );
}

#[test]
fn the_registry_knows_the_nodes_that_live() {
    let redis = Redis::start();
    let mut one = Node::dev().redis(&redis).go();
    let mut two = Node::dev().redis(&redis).go();
    let ids = || -> Vec<String> {
        redis
            .ask(&["ZRANGE", "tg:nodes", "0", "-1"])
            .lines()
            .filter(|id| !id.is_empty())
            .map(str::to_owned)
            .collect()
    };
    eventually("both are in the registry", PATIENCE, || (ids().len() == 2).then_some(()));
    for id in ids() {
        let key = format!("tg:node:{id}");
        let text = redis.ask(&["GET", &key]);
        let entry: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{key}: {e}: {text}"));
        assert_eq!(entry["id"], json!(id));
        assert!(entry["version"].is_string() && entry["connections"].is_u64(), "{entry}");
        let ttl: i64 = redis.ask(&["PTTL", &key]).parse().expect("a number");
        assert!((1..=60_000).contains(&ttl), "{key} expires in {ttl} ms");
    }
    let info = one.api("info", &json!({}));
    assert_eq!(info["result"]["nodes"].as_array().map(Vec::len), Some(2), "{info}");

    // One that leaves is gone at once, one that dies when its entry has expired.
    one.terminate();
    assert!(one.wait(PATIENCE).success());
    eventually("the one that left is gone", PATIENCE, || (ids().len() == 1).then_some(()));
    let last = ids();
    two.kill();
    eventually("the one that died expires", Duration::from_secs(60), || {
        (redis.ask(&["EXISTS", &format!("tg:node:{}", last[0])]) == "0").then_some(())
    });
}

#[test]
fn a_node_uses_tls_and_an_acl_user_with_few_rights() {
    let certificates = Certificates::new();
    let redis = Options::default()
        .password("of the default user")
        .user("node", "n0de", "resetchannels ~tg:* &tg:* +@all -@dangerous -@admin")
        .tls(&certificates)
        .go();
    let node = Node::dev()
        .redis(&redis)
        .set("relay.redis.username", "node")
        .set("relay.redis.password", "n0de")
        .set("relay.redis.ca", certificates.authority().display())
        .go();
    let sdk = Sdk::start(Kind::Js, None);
    sdk.connect("alice", &node.url());
    sdk.subscribe("alice", "news").expect("the relay is up");
    redis.publish("news", "1");
    assert_eq!(sdk.publication("alice", "news"), json!(1));
    sdk.publish("alice", "news", json!(2)).expect("the node may publish");
    assert_eq!(sdk.publication("alice", "news"), json!(2));
    let log = node.process.err.lines().join("\n");
    assert!(!log.contains("n0de"), "no secret in the log");
}

#[test]
fn a_wrong_password_is_said_plainly_and_never_shown() {
    let redis = Options::default().password("right").go();
    let node = Node::dev().redis(&redis).set("relay.redis.password", "wr0ng-secret").go();
    node.until("the relay is down", |m| m.sum("tidegate_relay_up") == 0.0);
    let line = node.process.err.find(PATIENCE, |line| {
        (line.contains("WRONGPASS") || line.contains("uthenticat") || line.contains("password"))
            .then(|| line.to_owned())
    });
    let line = line.expect("the log says what is wrong");
    assert!(!line.contains("wr0ng-secret"), "{line}");
}

#[test]
fn a_channel_is_heard_while_it_has_a_subscriber_and_a_little_longer() {
    let redis = Redis::start();
    let node = Node::dev().redis(&redis).go();
    let sdk = Sdk::start(Kind::Js, None);
    sdk.connect("alice", &node.url());
    sdk.connect("bob", &node.url());
    assert_eq!(redis.listeners("news"), 0, "nobody is interested");
    sdk.subscribe("alice", "news").expect("alice may subscribe");
    assert_eq!(redis.listeners("news"), 1, "confirmed by Redis before the client is answered");
    sdk.subscribe("bob", "news").expect("bob may subscribe");
    assert_eq!(redis.listeners("news"), 1, "one for the node, however many subscribe");
    sdk.call(json!({"do": "unsubscribe", "client": "alice", "channel": "news"})).expect("alice may leave");
    assert_eq!(redis.listeners("news"), 1);
    sdk.call(json!({"do": "disconnect", "client": "bob"})).expect("bob may go");
    eventually("the node loses interest", Duration::from_secs(60), || {
        (redis.listeners("news") == 0).then_some(())
    });
    assert_eq!(redis.ask(&["PUBSUB", "NUMPAT"]), "0", "never a pattern");
}

#[test]
fn a_connection_that_is_answered_and_told_nothing_is_left_however_many_come_and_go() {
    let redis = Redis::start();
    let proxy = Proxy::to_redis((std::net::Ipv4Addr::LOCALHOST, redis.port()).into());
    let url = format!("redis://{}", proxy.address());
    let node = Node::dev()
        .set("relay.kind", "redis")
        .set("relay.redis.url", url)
        .set("relay.redis.probe_interval", "1s")
        .set("relay.redis.linger", "0s")
        .go();
    node.until("the relay is up", |m| m.sum("tidegate_relay_up") == 1.0);
    let sdk = Sdk::start(Kind::Js, None);
    sdk.connect("alice", &node.url());
    sdk.connect("bob", &node.url());
    sdk.subscribe("alice", "news").expect("alice may subscribe");
    proxy.deafen();
    let mut count = 0;
    eventually("the deaf connection is left", PATIENCE, || {
        // Redis confirms this to the node, on the connection that is told nothing.
        count += 1;
        let _ = sdk.subscribe("bob", &format!("other-{count}"));
        (node.metrics().sum("tidegate_relay_reconnects_total") >= 1.0).then_some(())
    });
    node.until("the relay is up again", |m| m.sum("tidegate_relay_up") == 1.0);
    sdk.publish("bob", "news", json!("heard")).expect("publishing works");
    eventually("alice hears again", PATIENCE, || {
        (sdk.publication("alice", "news") == json!("heard")).then_some(())
    });
}
