//! Who is let in how fast: storms of connections, and what becomes of those who come too many at once.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;
use tidegate_tests::raw::{Error, Raw, Response, Upgrade};
use tidegate_tests::sdk::Kind;
use tidegate_tests::{Certificates, Node, PATIENCE, Sdk, eventually};
use tokio::task::JoinSet;

/// All of them at once; what each was answered, and after how long.
async fn storm(upgrade: &Upgrade, count: usize) -> Vec<(Result<Raw, Error>, Duration)> {
    let mut storm = JoinSet::new();
    let began = Instant::now();
    for _ in 0..count {
        let upgrade = upgrade.clone();
        storm.spawn(async move {
            let opened = upgrade.open().await;
            (opened, began.elapsed())
        });
    }
    storm.join_all().await
}

/// What everyone is answered that comes now.
async fn answers(upgrade: &Upgrade, count: usize) -> Result<Vec<Response>, Error> {
    let mut storm = JoinSet::new();
    for _ in 0..count {
        let upgrade = upgrade.clone();
        storm.spawn(async move { upgrade.answer().await });
    }
    storm.join_all().await.into_iter().collect()
}

fn rejected(node: &Node, reason: &str) -> f64 {
    node.metrics().with("tidegate_connections_rejected_total", &[("reason", reason)])
}

#[tokio::test]
async fn a_storm_is_let_in_at_the_rate_and_nobody_is_sent_away_who_can_wait() {
    let node = Node::dev().set("limits.accept_rate", 200).set("limits.accept_burst", 20).go();
    let storm = storm(&Upgrade::at(node.public()), 420).await;
    for (opened, _) in &storm {
        assert!(opened.is_ok(), "{opened:?}");
    }
    // The burst at once, 400 at 200 a second: two seconds.
    let last = storm.iter().map(|(_, after)| *after).max().expect("a storm");
    assert!(last > Duration::from_millis(1900), "faster than the rate: {last:?}");
    assert!(last < Duration::from_millis(3500), "slower than the rate: {last:?}");
    assert_eq!(rejected(&node, "accept_rate"), 0.0);
    node.until("nobody waits any more", |m| m.sum("tidegate_connections_waiting") == 0.0);
}

#[tokio::test]
async fn a_storm_over_tls_is_let_in_at_the_rate() {
    let certificates = Certificates::new();
    let node =
        Node::dev().tls(&certificates).set("limits.accept_rate", 100).set("limits.accept_burst", 20).go();
    let storm = storm(&Upgrade::at(node.public()).tls(certificates.client()), 170).await;
    for (opened, _) in &storm {
        assert!(opened.is_ok(), "{opened:?}");
    }
    let last = storm.iter().map(|(_, after)| *after).max().expect("a storm");
    assert!(last > Duration::from_millis(1400), "faster than the rate: {last:?}");
}

#[tokio::test]
async fn who_cannot_wait_is_told_a_moment_of_its_own_to_come_back_at() -> Result<(), Error> {
    // At once: the burst of 5. Within the second that one may wait: 10. The others are sent away.
    let node = Node::dev()
        .set("limits.accept_rate", 10)
        .set("limits.accept_burst", 5)
        .set("limits.handshake_timeout", "1s")
        .go();
    let answers = answers(&Upgrade::at(node.public()), 75).await?;
    let in_time = answers.iter().filter(|answer| answer.status() == 101).count();
    assert!((15..=25).contains(&in_time), "{in_time} were let in");
    let mut moments = BTreeMap::<u32, usize>::new();
    for answer in answers.iter().filter(|answer| answer.status() != 101) {
        assert_eq!(answer.status(), 503);
        let seconds = answer.header("retry-after").expect("when to come back");
        *moments.entry(seconds.parse().expect("whole seconds")).or_default() += 1;
    }
    // The fifty or sixty are asked back at ten a second, after the second that the queue needs.
    assert!((5..=8).contains(&moments.len()), "{moments:?}");
    assert!(moments.values().all(|&count| count <= 20), "{moments:?}");
    assert_eq!(rejected(&node, "accept_rate"), (75 - in_time) as f64);
    Ok(())
}

#[tokio::test]
async fn over_tls_who_cannot_wait_costs_no_handshake() {
    let certificates = Certificates::new();
    let node = Node::dev()
        .tls(&certificates)
        .set("limits.accept_rate", 10)
        .set("limits.accept_burst", 5)
        .set("limits.handshake_timeout", "1s")
        .go();
    let storm = storm(&Upgrade::at(node.public()).tls(certificates.client()), 60).await;
    let refused = storm.iter().filter(|(opened, _)| opened.is_err()).count();
    assert!((35..=45).contains(&refused), "{refused} were sent away");
    assert_eq!(rejected(&node, "accept_rate"), refused as f64);
    assert_eq!(node.metrics().sum("tidegate_handshake_seconds_count"), (60 - refused) as f64);
}

#[tokio::test]
async fn who_gave_up_waiting_holds_nobody_up() -> Result<(), Error> {
    let node = Node::dev()
        .set("limits.accept_rate", 10)
        .set("limits.accept_burst", 1)
        .set("limits.handshake_timeout", "20s")
        .go();
    let request = Upgrade::at(node.public()).request();
    let mut impatient = Vec::new();
    for _ in 0..100 {
        let mut socket = TcpStream::connect_timeout(&node.public(), PATIENCE).expect("the node accepts");
        socket.write_all(&request).expect("the kernel takes it");
        impatient.push(socket);
    }
    node.until("they wait", |m| m.sum("tidegate_connections_waiting") > 80.0);
    drop(impatient);
    // Behind a hundred at ten a second.
    let began = Instant::now();
    Upgrade::at(node.public()).open().await?;
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    Ok(())
}

#[test]
fn who_says_nothing_does_not_stand_in_line() {
    let node = Node::dev()
        .set("limits.accept_rate", 10)
        .set("limits.accept_burst", 1)
        .set("limits.handshake_timeout", "1s")
        .go();
    let mut silent: Vec<TcpStream> = (0..50)
        .map(|_| TcpStream::connect_timeout(&node.public(), PATIENCE).expect("the node accepts"))
        .collect();
    for socket in &mut silent {
        socket.set_read_timeout(Some(PATIENCE)).expect("a deadline");
        let _ = socket.read(&mut [0; 16]);
    }
    assert_eq!(rejected(&node, "accept_rate"), 0.0);
    node.until("each is counted", |m| {
        m.with("tidegate_connections_rejected_total", &[("reason", "handshake_timeout")]) == 50.0
    });
}

#[tokio::test]
async fn a_full_node_answers_at_once() -> Result<(), Error> {
    let node = Node::dev()
        .set("limits.max_connections", 1)
        .set("limits.accept_rate", 1)
        .set("limits.accept_burst", 1)
        .go();
    let _first = Upgrade::at(node.public()).open().await?;
    let began = Instant::now();
    for answer in answers(&Upgrade::at(node.public()), 20).await? {
        assert_eq!(answer.status(), 503);
        assert!(answer.header("retry-after").is_some());
    }
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert_eq!((rejected(&node, "full"), rejected(&node, "accept_rate")), (20.0, 0.0));
    Ok(())
}

#[tokio::test]
async fn who_fills_the_place_for_handshakes_makes_room_for_others() -> Result<(), Error> {
    let certificates = Certificates::new();
    let node = Node::dev()
        .tls(&certificates)
        .set("limits.max_handshakes", 10)
        .set("limits.handshake_timeout", "30s")
        .go();
    // The head of a record that does not go on.
    let begin = |from: u8| {
        let upgrade = Upgrade::at(node.public()).source([127, 0, 0, from].into());
        async move { upgrade.unfinished(b"\x16\x03\x01\x02\x00").await }
    };
    let before = node.descriptors();
    let mut slow = begin(2).await?;
    let mut idle = Vec::new();
    for _ in 0..60 {
        idle.push(begin(3).await?);
    }
    eventually("all of them are there", PATIENCE, || (node.descriptors() > before + 50).then_some(()));
    for _ in 0..20 {
        let began = Instant::now();
        let mut client = Upgrade::at(node.public()).tls(certificates.client()).open().await?;
        client.connect_command().await?;
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    }
    assert!(rejected(&node, "handshakes") >= 20.0, "each client took a place");
    slow.silent(Duration::from_millis(100)).await?;
    Ok(())
}

#[tokio::test]
async fn in_a_storm_of_slow_handshakes_nobody_is_driven_out() -> Result<(), Error> {
    let certificates = Certificates::new();
    let node = Node::dev().tls(&certificates).set("limits.max_handshakes", 4).go();
    let mut storm = JoinSet::new();
    for client in 0..80 {
        let upgrade =
            Upgrade::at(node.public()).tls(certificates.client()).source([127, 0, 0, 1 + client % 3].into());
        storm.spawn(async move { upgrade.open().await });
    }
    for opened in storm.join_all().await {
        opened?;
    }
    assert_eq!(rejected(&node, "handshakes"), 0.0);
    Ok(())
}

#[test]
fn a_node_says_at_start_what_bounds_its_connections() {
    let by = |node: &Node| {
        let line = node.process.err.lines().into_iter().find(|line| line.contains("listening"));
        let line: serde_json::Value = serde_json::from_str(&line.expect("it listens")).expect("JSON");
        let fields = line.get("fields").unwrap_or(&line);
        (fields["max_connections_by"].clone(), fields["max_connections"].clone())
    };
    assert_eq!(by(&Node::dev().set("limits.max_connections", 7).go()), (json!("settings"), json!(7)));
    let (bound, connections) = by(&Node::dev().go());
    assert!(bound == "files" || bound == "memory", "{bound}");
    assert!(connections.as_u64() > Some(100), "{connections}");
}

#[test]
fn sdks_that_were_sent_away_get_in_in_the_end() {
    let node = Node::dev()
        .set("limits.accept_rate", 4)
        .set("limits.accept_burst", 1)
        .set("limits.handshake_timeout", "500ms")
        .go();
    let sdk = Sdk::start(Kind::Js, None);
    sdk.fleet("storm", 20, &node.url(), "news");
    assert!(rejected(&node, "accept_rate") > 0.0, "some were sent away first");
    node.api("publish", &json!({"channel": "news", "data": "hello"}));
    assert_eq!(sdk.heard("storm", 1), [(vec![json!("hello")], 20)]);
}
