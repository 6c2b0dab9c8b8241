//! What backends, scripts and nodes put on Redis' channels, and what becomes of it.

mod support;

use std::time::Duration;

use support::{RedisServer, joined, node, publication, settings};
use tidegate_protocol::control::{Control, SubscriptionControl};
use tidegate_relay::Observation;

#[tokio::test]
async fn a_backends_publish_is_heard_byte_for_byte() {
    let server = RedisServer::start();
    let (relay, recorder) = node("n1", settings(&server.url()));
    joined(&relay, &recorder, 0, "news");
    let payloads = [r#"{"text":"hello"}"#, "[1, 2,  3]", "\"ü\\u0000\"", "null", "-1.5e300", "true", "{}"];
    for payload in payloads {
        let receivers: u64 = server.command(&["PUBLISH", "tg:{news}", payload]);
        assert_eq!(receivers, 1);
    }
    recorder.hears(0, "news", &payloads);
}

#[tokio::test]
async fn a_line_break_between_tokens_becomes_a_space() {
    let server = RedisServer::start();
    let (relay, recorder) = node("n1", settings(&server.url()));
    joined(&relay, &recorder, 0, "news");
    let _: u64 = server.command(&["PUBLISH", "tg:{news}", "{\n  \"a\":\r\n1}"]);
    recorder.hears(0, "news", &["{   \"a\":  1}"]);
}

#[tokio::test]
async fn what_is_not_json_is_refused_and_the_next_message_still_arrives() {
    let server = RedisServer::start();
    let (relay, recorder) = node("n1", settings(&server.url()));
    joined(&relay, &recorder, 0, "news");
    let bad: [&[u8]; 7] = [b"hello", b"", b"{\"a\":1", b"\xff\xfe", b"{} {}", b"\x00", b"NaN"];
    let mut backend = server.backend();
    for payload in bad {
        redis::cmd("PUBLISH").arg("tg:{news}").arg(payload).exec(&mut backend).expect("taken");
    }
    redis::cmd("PUBLISH").arg("tg:{news}").arg("1").exec(&mut backend).expect("taken");
    recorder.hears(0, "news", &["1"]);
    assert_eq!(recorder.record().count(|o| *o == Observation::Refused("not_json")), bad.len());
}

#[tokio::test]
async fn what_is_too_large_is_refused() {
    let server = RedisServer::start();
    let (relay, recorder) = node("n1", settings(&server.url()));
    joined(&relay, &recorder, 0, "news");
    let most = settings("").max_publication_bytes;
    let fits = format!("\"{}\"", "x".repeat(most - 2));
    let over = format!("\"{}\"", "x".repeat(most - 1));
    let _: u64 = server.command(&["PUBLISH", "tg:{news}", &over]);
    let _: u64 = server.command(&["PUBLISH", "tg:{news}", &fits]);
    recorder.hears(0, "news", &[&fits]);
    assert_eq!(recorder.record().count(|o| *o == Observation::Refused("too_large")), 1);
    // So large that it is not even gathered.
    let far_over = "x".repeat(5_000_000);
    let _: u64 = server.command(&["PUBLISH", "tg:{news}", &far_over]);
    let _: u64 = server.command(&["PUBLISH", "tg:{news}", "1"]);
    recorder.hears(0, "news", &[&fits, "1"]);
    assert_eq!(recorder.record().count(|o| *o == Observation::Refused("too_large")), 2);
    let error = relay.publish(publication("news", &over)).await.expect_err("too large").to_string();
    assert!(error.contains("max_publication_bytes"), "{error}");
}

#[tokio::test]
async fn a_script_writes_an_envelope() {
    let server = RedisServer::start();
    let (relay, recorder) = node("n1", settings(&server.url()));
    joined(&relay, &recorder, 0, "news");
    let script = r#"
        local header = cjson.encode({tags = {lang = 'en'}, offset = 7, info = {user = '42', conn_info = {name = 'Ada'}}})
        return redis.call('PUBLISH', KEYS[1], '\1' .. '1 ' .. header .. '\n' .. ARGV[1])
    "#;
    let _: u64 = server.command(&["EVAL", script, "1", "tg:{news}", r#"{"text":"hello"}"#]);
    let got = recorder.wait("the publication", |r| r.publications(0, "news").next().cloned());
    assert_eq!(&got.data[..], br#"{"text":"hello"}"#);
    assert_eq!(got.tags, [("lang".to_owned(), "en".to_owned())]);
    let info = got.info.expect("who published it");
    assert_eq!((info.user.as_str(), &info.conn_info[..]), ("42", br#"{"name":"Ada"}"#.as_slice()));
}

#[tokio::test]
async fn an_envelope_that_cannot_be_read_is_refused() {
    let server = RedisServer::start();
    let (relay, recorder) = node("n1", settings(&server.url()));
    joined(&relay, &recorder, 0, "news");
    for payload in ["\u{1}9 {}\n1", "\u{1}", "\u{1}1 {}", "\u{1}1 []\n1"] {
        let _: u64 = server.command(&["PUBLISH", "tg:{news}", payload]);
    }
    let _: u64 = server.command(&["PUBLISH", "tg:{news}", "\u{1}1 {}\nnot json"]);
    let _: u64 = server.command(&["PUBLISH", "tg:{news}", "\u{1}1 {}\n\"json\""]);
    recorder.hears(0, "news", &["\"json\""]);
    let record = recorder.record();
    assert_eq!(record.count(|o| *o == Observation::Refused("envelope")), 4);
    assert_eq!(record.count(|o| *o == Observation::Refused("not_json")), 1);
}

#[tokio::test]
async fn a_backend_controls_every_node() {
    let server = RedisServer::start();
    let (_one, first) = node("n1", settings(&server.url()));
    let (_two, second) = node("n2", settings(&server.url()));
    let bad = [
        "nonsense",
        r#"{"explode":{}}"#,
        r#"{"disconnect":{"usr":"42"}}"#,
        r#"{"disconnect":{}}"#,
        r#"{"unsubscribe":{"channel":"news"}}"#,
        r#"{"subscribe":{"user":"42","channel":"a b"}}"#,
    ];
    for bad in bad {
        let _: u64 = server.command(&["PUBLISH", "tg:control", bad]);
    }
    let order = r#"{"unsubscribe":{"user":"42","channel":"news"}}"#;
    let receivers: u64 = server.command(&["PUBLISH", "tg:control", order]);
    assert_eq!(receivers, 2);
    let expected = Control::Unsubscribe(SubscriptionControl {
        user: "42".into(),
        channel: "news".into(),
        ..SubscriptionControl::default()
    });
    for recorder in [first, second] {
        let got = recorder.wait("the control message", |r| r.controls().first().cloned());
        assert_eq!(got, expected);
        assert_eq!(recorder.record().controls().len(), 1);
        assert_eq!(recorder.record().count(|o| *o == Observation::Refused("control")), bad.len());
    }
}

#[tokio::test]
async fn a_flood_of_rubbish_holds_nothing_up() {
    let server = RedisServer::start();
    let (relay, recorder) = node("n1", settings(&server.url()));
    joined(&relay, &recorder, 0, "news");
    let script = "for i = 1, 20000 do redis.call('PUBLISH', KEYS[1], 'rubbish') end return redis.call('PUBLISH', KEYS[1], '1')";
    let _: u64 = server.command(&["EVAL", script, "1", "tg:{news}"]);
    recorder.hears(0, "news", &["1"]);
    assert_eq!(recorder.record().count(|o| *o == Observation::Refused("not_json")), 20_000);
    assert!(relay.status().up);
}

#[tokio::test]
async fn another_prefix_is_another_world() {
    let server = RedisServer::start();
    let (one, first) = node("n1", settings(&server.url()));
    let other = tidegate_relay::RedisSettings { prefix: "app:two".into(), ..settings(&server.url()) };
    let (two, second) = node("n2", other);
    joined(&one, &first, 0, "news");
    joined(&two, &second, 0, "news");
    two.publish(publication("news", "2")).await.expect("published");
    let _: u64 = server.command(&["PUBLISH", "app:two:{news}", "3"]);
    one.publish(publication("news", "1")).await.expect("published");
    first.hears(0, "news", &["1"]);
    second.hears(0, "news", &["2", "3"]);
}

/// Three thousand publications of a kilobyte each, all at once.
fn flood(server: &RedisServer) {
    let script =
        "for i = 1, 3000 do redis.call('PUBLISH', KEYS[1], '\"' .. string.rep('x', 1000) .. '\"') end";
    let _: Option<u64> = server.command(&["EVAL", script, "1", "tg:{news}"]);
}

#[tokio::test]
async fn a_stalled_worker_makes_redis_wait_and_is_no_outage() {
    let server = RedisServer::start();
    let (relay, recorder) = node("n1", settings(&server.url()));
    joined(&relay, &recorder, 0, "news");
    recorder.stall(true);
    flood(&server);
    // Longer than a probe and its deadline.
    let passed = recorder.wait_for(Duration::from_secs(4), |r| r.delivered(0, "news").first().cloned());
    assert_eq!(passed, None);
    recorder.stall(false);
    recorder.wait("everything", |r| (r.delivered(0, "news").len() == 3000).then_some(()));
    assert_eq!(recorder.record().count(|o| matches!(o, Observation::Down { .. })), 0);
}

#[tokio::test]
async fn answers_that_wait_behind_a_backlog_are_no_outage() {
    let server = RedisServer::start();
    let (relay, recorder) = node("n1", settings(&server.url()));
    joined(&relay, &recorder, 0, "news");
    // Nine seconds of work: the answers to several probes stand in the socket behind it, past their deadlines.
    recorder.record().slow = Some(Duration::from_millis(3));
    flood(&server);
    recorder.wait("everything", |r| (r.delivered(0, "news").len() == 3000).then_some(()));
    let probes = |r: &support::recorder::Record| r.count(|o| matches!(o, Observation::Probe(_)));
    let before = probes(&recorder.record());
    recorder.wait("the next probe", |r| (probes(r) > before).then_some(()));
    assert_eq!(recorder.record().count(|o| matches!(o, Observation::Down { .. })), 0);
}
