//! Several nodes on one Redis.

mod support;

use std::time::{Duration, Instant};

use support::{RedisServer, SOON, channel, joined, node, publication, settings, ticket};
use tidegate_protocol::control::{Control, DisconnectControl};
use tidegate_relay::RedisSettings;

#[tokio::test]
async fn what_one_node_publishes_every_node_hears_once() {
    let server = RedisServer::start();
    let (one, first) = node("n1", settings(&server.url()));
    let (two, second) = node("n2", settings(&server.url()));
    joined(&one, &first, 0, "news");
    joined(&two, &second, 5, "news");
    one.publish(publication("news", "1")).await.expect("published");
    two.publish(publication("news", "2")).await.expect("published");
    first.hears(0, "news", &["1", "2"]);
    second.hears(5, "news", &["1", "2"]);
}

#[tokio::test]
async fn two_publishers_keep_their_order_and_all_nodes_agree_on_one() {
    let server = RedisServer::start();
    let (one, first) = node("n1", settings(&server.url()));
    let (two, second) = node("n2", settings(&server.url()));
    joined(&one, &first, 0, "news");
    joined(&two, &second, 0, "news");
    let each = 3000;
    for n in 0..each {
        one.submit(publication("news", &format!("[1,{n}]")), ticket(n)).expect("room");
        two.submit(publication("news", &format!("[2,{n}]")), ticket(n)).expect("room");
    }
    let all = 2 * each as usize;
    for recorder in [&first, &second] {
        recorder.wait("everything", |r| (r.delivered(0, "news").len() == all).then_some(()));
    }
    let heard = first.record().delivered(0, "news");
    assert_eq!(heard, second.record().delivered(0, "news"));
    for publisher in [1, 2] {
        let own: Vec<_> =
            heard.iter().filter(|data| data.starts_with(&format!("[{publisher},"))).cloned().collect();
        let expected: Vec<_> = (0..each).map(|n| format!("[{publisher},{n}]")).collect();
        assert_eq!(own, expected);
    }
}

#[tokio::test]
async fn control_reaches_every_node() {
    let server = RedisServer::start();
    let (one, first) = node("n1", settings(&server.url()));
    let (_two, second) = node("n2", settings(&server.url()));
    let control =
        Control::Disconnect(DisconnectControl { user: "42".into(), reconnect: true, ..Default::default() });
    one.control(control.clone()).await.expect("sent");
    for recorder in [first, second] {
        assert_eq!(recorder.wait("the control message", |r| r.controls().first().cloned()), control);
    }
}

/// Waits until the registry holds exactly these.
async fn registered(relay: &tidegate_relay::Relay, wanted: &[&str]) {
    let deadline = Instant::now() + SOON;
    loop {
        let mut ids: Vec<_> =
            relay.nodes().await.expect("the registry").into_iter().map(|node| node.id).collect();
        ids.sort();
        if ids == wanted {
            return;
        }
        assert!(Instant::now() < deadline, "the registry holds {ids:?}, not {wanted:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn nodes_know_each_other_until_they_stop() {
    let server = RedisServer::start();
    let (one, _first) = node("n1", settings(&server.url()));
    let (two, _second) = node("n2", settings(&server.url()));
    registered(&one, &["n1", "n2"]).await;
    registered(&two, &["n1", "n2"]).await;
    two.stop().await;
    registered(&one, &["n1"]).await;
    assert_eq!(server.command::<Vec<String>>(&["ZRANGE", "tg:nodes", "0", "-1"]), ["n1"]);
}

#[tokio::test]
async fn a_node_that_vanishes_is_forgotten_after_three_heartbeats() {
    let server = RedisServer::start();
    let (one, _first) = node("n1", settings(&server.url()));
    let (two, _second) = node("n2", settings(&server.url()));
    registered(&one, &["n1", "n2"]).await;
    // Without a stop: nothing takes it out but time.
    drop(two);
    let gone = Instant::now();
    registered(&one, &["n1"]).await;
    let most = settings("").heartbeat * 3 + Duration::from_secs(3);
    assert!(gone.elapsed() <= most, "forgotten after {:?}", gone.elapsed());
}

#[tokio::test]
async fn a_survey_adds_up_what_all_nodes_have() {
    let server = RedisServer::start();
    let (one, first) = node("n1", settings(&server.url()));
    let (two, second) = node("n2", settings(&server.url()));
    registered(&one, &["n1", "n2"]).await;
    first.record().channels = Some(vec![(channel("news"), 3), (channel("a"), 1)]);
    let many =
        (0..5000).map(|n| (channel(&format!("many:{n:04}")), 1)).chain([(channel("news"), 2)]).collect();
    second.record().channels = Some(many);
    for relay in [&one, &two] {
        let channels = relay.channels().await.expect("counted");
        assert_eq!(channels.len(), 5002);
        assert!(channels.is_sorted());
        assert!(channels.contains(&("news".to_owned(), 5)));
        assert!(channels.contains(&("a".to_owned(), 1)));
    }
}

#[tokio::test]
async fn a_survey_names_the_node_that_does_not_answer() {
    let server = RedisServer::start();
    let (one, _first) = node("n1", settings(&server.url()));
    let (_two, second) = node("n2", settings(&server.url()));
    registered(&one, &["n1", "n2"]).await;
    second.record().channels = None;
    let asked = Instant::now();
    let error = one.channels().await.expect_err("one is silent").to_string();
    assert!(error.contains("n2") && !error.contains("n1"), "{error}");
    assert!(asked.elapsed() < Duration::from_secs(4));
}

#[tokio::test]
async fn a_survey_that_would_name_too_many_channels_says_so() {
    let server = RedisServer::start();
    let (one, first) =
        node("n1", RedisSettings { command_timeout: Duration::from_secs(5), ..settings(&server.url()) });
    first.record().channels = Some((0..200_001).map(|n| (channel(&n.to_string()), 1)).collect());
    let error = one.channels().await.expect_err("too many").to_string();
    assert!(error.contains("200000"), "{error}");
}
