//! What was said and who is there, as a backend is told.

use tidegate_protocol::ClientInfo;

use super::*;

impl Backend {
    /// The result of a call that succeeds.
    async fn ok(&self, method: &str, body: &str) -> Value {
        let (status, mut answer) = self.call(method, body).await;
        assert_eq!(status, 200, "{method} {body}: {answer}");
        assert!(answer.get("result").is_some(), "{method} {body}: {answer}");
        answer["result"].take()
    }
}

fn data(history: &Value) -> Vec<&Value> {
    history["publications"].as_array().unwrap().iter().map(|publication| &publication["data"]).collect()
}

#[actix_web::test]
async fn a_publication_that_is_kept_is_answered_with_its_position() {
    let backend = Backend::start(&[("dev.enabled", "true")]);
    let first = backend.ok("publish", r#"{"channel":"chat:1","data":1}"#).await;
    let second = backend.ok("publish", r#"{"channel":"chat:1","data":2,"tags":{"k":"v"}}"#).await;
    assert_eq!((&first["offset"], &second["offset"]), (&json!(1), &json!(2)));
    assert!(first["epoch"].as_str().is_some_and(|epoch| !epoch.is_empty()), "{first}");
    assert_eq!(first["epoch"], second["epoch"]);

    let skipped = backend.ok("publish", r#"{"channel":"chat:1","data":3,"skip_history":true}"#).await;
    assert_eq!(skipped, json!({}), "it has no place in the history");
    let many = backend.ok("broadcast", r#"{"channels":["chat:1","chat:2"],"data":4}"#).await;
    let offsets: Vec<_> =
        many["responses"].as_array().unwrap().iter().map(|it| &it["result"]["offset"]).collect();
    assert_eq!(offsets, [3, 1]);
}

#[actix_web::test]
async fn the_same_idempotency_key_publishes_once() {
    let backend = Backend::hearing(&["chat:1"]);
    let body = r#"{"channel":"chat:1","data":1,"idempotency_key":"order-7"}"#;
    let first = backend.ok("publish", body).await;
    assert_eq!(backend.ok("publish", body).await, first);
    let other = backend.ok("publish", r#"{"channel":"chat:1","data":2,"idempotency_key":"order-8"}"#).await;
    assert_eq!(other["offset"], 2);
    for expected in ["1", "2"] {
        let Heard::Publication(heard) = backend.next() else { panic!("no publication") };
        assert_eq!(heard.data, expected.as_bytes());
    }
}

#[actix_web::test]
async fn a_history_is_read_in_parts_from_either_end() {
    let backend = Backend::start(&[("dev.enabled", "true")]);
    for number in 1..=5 {
        backend
            .ok("publish", &format!(r#"{{"channel":"chat:1","data":{number},"tags":{{"n":"{number}"}}}}"#))
            .await;
    }
    let top = backend.ok("history", r#"{"channel":"chat:1"}"#).await;
    assert_eq!((data(&top), &top["offset"]), (vec![], &json!(5)), "without a limit only the position");
    let all = backend.ok("history", r#"{"channel":"chat:1","limit":-1}"#).await;
    assert_eq!(data(&all), [1, 2, 3, 4, 5]);
    assert_eq!(all["publications"][1], json!({"offset": 2, "data": 2, "tags": {"n": "2"}}));
    let epoch = all["epoch"].as_str().unwrap();
    for (fields, expected) in [
        (r#""limit":2"#.to_owned(), vec![1, 2]),
        (r#""limit":2,"reverse":true"#.to_owned(), vec![5, 4]),
        (r#""limit":-1,"since":{"offset":3}"#.to_owned(), vec![4, 5]),
        (format!(r#""limit":-1,"since":{{"offset":3,"epoch":"{epoch}"}}"#), vec![4, 5]),
        (r#""limit":-1,"since":{"offset":3},"reverse":true"#.to_owned(), vec![2, 1]),
    ] {
        let part = backend.ok("history", &format!(r#"{{"channel":"chat:1",{fields}}}"#)).await;
        assert_eq!(data(&part), expected, "{fields}");
        assert_eq!(part["offset"], 5, "{fields}");
    }
    let (code, message) = backend
        .error("history", r#"{"channel":"chat:1","limit":-1,"since":{"offset":3,"epoch":"other"}}"#)
        .await;
    assert_eq!(code, 112, "{message}");

    assert_eq!(backend.ok("history_remove", r#"{"channel":"chat:1"}"#).await, json!({}));
    let none = backend.ok("history", r#"{"channel":"chat:1","limit":-1}"#).await;
    assert_eq!((data(&none), &none["offset"], &none["epoch"]), (vec![], &json!(5), &json!(epoch)));
}

#[actix_web::test]
async fn who_is_present_is_told_by_session_and_counted_by_user() {
    let backend = Backend::start(&[("dev.enabled", "true")]);
    let room = tidegate_protocol::ChannelName::parse("room:1").unwrap();
    for (client, user) in [("a", "42"), ("b", "42"), ("c", "7")] {
        let info = ClientInfo { client: client.to_owned(), user: user.to_owned(), ..ClientInfo::default() };
        backend.state.relay.enter(room.clone(), info).unwrap();
    }
    backend.state.relay.exit(room, "c".to_owned()).unwrap();
    let there = backend.ok("presence", r#"{"channel":"room:1"}"#).await;
    let expected = json!({"a": {"client": "a", "user": "42"}, "b": {"client": "b", "user": "42"}});
    assert_eq!(there["presence"], expected);
    let stats = backend.ok("presence_stats", r#"{"channel":"room:1"}"#).await;
    assert_eq!(stats, json!({"num_clients": 2, "num_users": 1}));
}
