//! A cluster: channels are where their slots are, and go where their slots go, with nothing lost that has history.

#![expect(clippy::print_stdout, reason = "figures for whoever runs the tests")]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use support::{Cluster, Recorder, SOON, channel, eventually, joined, node, publication};
use tidegate_protocol::{ClientInfo, Control, control::DisconnectControl};
use tidegate_relay::{HistoryQuery, Relay, RelayError};

/// Publishes until it is taken, each attempt answered within a bound.
async fn published(relay: &Relay, name: &str, data: &str) {
    let deadline = Instant::now() + SOON;
    loop {
        let asked = Instant::now();
        let result = relay.publish(publication(name, data)).await;
        assert!(asked.elapsed() < Duration::from_secs(4), "answered after {:?}", asked.elapsed());
        match result {
            Ok(_) => return,
            Err(error) => {
                assert!(matches!(error, RelayError::Away(_)), "not for now: {error}");
                assert!(Instant::now() < deadline, "publishing does not come back: {error}");
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The ids of the nodes in the registry, once there are so many.
async fn listed(relay: &Relay, count: usize) -> Vec<String> {
    let deadline = Instant::now() + SOON;
    loop {
        let nodes = relay.nodes().await.expect("the registry");
        if nodes.len() == count {
            return nodes.into_iter().map(|node| node.id).collect();
        }
        assert!(Instant::now() < deadline, "{count} nodes: {nodes:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn texts(count: usize) -> Vec<String> {
    (1..=count).map(|n| n.to_string()).collect()
}

/// Waits until the worker has what was acknowledged, each once and in order. What was not acknowledged may stand between.
fn hears_all(recorder: &Recorder, name: &str, acknowledged: &[String]) {
    let last = acknowledged.last().expect("something was published");
    recorder.wait(&format!("{last} in {name}"), |r| r.delivered(0, name).contains(last).then_some(()));
    let delivered = recorder.record().delivered(0, name);
    let mut seen = delivered.iter();
    for expected in acknowledged {
        assert!(seen.any(|text| text == expected), "{name}: {expected} is missing or late in {delivered:?}");
    }
    let mut once = delivered.clone();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), delivered.len(), "{name}: something came twice");
    assert_eq!(recorder.record().lost(name), [] as [u8; 0], "{name} was never lost");
}

/// Two nodes that hear the same channels, spread over all masters.
struct Scene {
    cluster: Arc<Cluster>,
    relays: [Relay; 2],
    recorders: [Arc<Recorder>; 2],
    channels: Vec<String>,
}

impl Scene {
    fn new(cluster: Cluster) -> Self {
        let (one, at_one) = node("n1", cluster.settings());
        let (two, at_two) = node("n2", cluster.settings());
        let channels: Vec<String> = (0..12).map(|n| format!("kept:{n}")).collect();
        for name in &channels {
            joined(&one, &at_one, 0, name);
            joined(&two, &at_two, 0, name);
        }
        Self { cluster: Arc::new(cluster), relays: [one, two], recorders: [at_one, at_two], channels }
    }

    /// Publishes numbers into every channel, by turns through either node, until `enough`. Gives back what was acknowledged.
    async fn publish(&self, enough: impl Fn() -> bool) -> Vec<Vec<String>> {
        let mut acknowledged = vec![Vec::new(); self.channels.len()];
        let mut number = 0_u64;
        while !enough() {
            number += 1;
            let relay = &self.relays[usize::from(number.is_multiple_of(2))];
            for (name, acknowledged) in self.channels.iter().zip(&mut acknowledged) {
                let text = number.to_string();
                match relay.publish(publication(name, &text)).await {
                    Ok(position) => {
                        assert!(position.is_some(), "it has history");
                        acknowledged.push(text);
                    }
                    Err(error) => assert!(matches!(error, RelayError::Away(_)), "{error}"),
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        acknowledged
    }

    fn check(&self, acknowledged: &[Vec<String>]) {
        for (name, acknowledged) in self.channels.iter().zip(acknowledged) {
            for recorder in &self.recorders {
                hears_all(recorder, name, acknowledged);
            }
        }
    }
}

#[tokio::test]
async fn nodes_and_backends_publish_into_channels_of_all_masters() {
    let scene = Scene::new(Cluster::start());
    let [one, two] = &scene.relays;
    for name in &scene.channels {
        published(one, name, "1").await;
        published(two, name, "2").await;
        let key = format!("tg:{{{name}}}");
        let position = scene.cluster.ask(&["FCALL", "tg_publish", "2", &key, &format!("{key}:meta"), "3"]);
        assert!(position.starts_with('3'), "{position}");
        for recorder in &scene.recorders {
            recorder.hears(0, name, &["1", "2", "3"]);
        }
        let history = one.history(channel(name), HistoryQuery::default()).await.expect("kept");
        assert_eq!(history.publications.len(), 3);
    }
    joined(one, &scene.recorders[0], 0, "news");
    assert_eq!(scene.cluster.ask(&["SPUBLISH", "tg:{news}", "1"]), "1");
    published(two, "news", "2").await;
    scene.recorders[0].hears(0, "news", &["1", "2"]);
    assert_eq!(one.channel_count(), 13);

    assert_eq!(listed(two, 2).await, ["n1", "n2"]);
    scene.recorders[0].record().channels = Some(vec![(channel("news"), 3)]);
    assert_eq!(two.channels().await.expect("counted"), [("news".to_owned(), 3)]);
    let control = Control::Disconnect(DisconnectControl { user: "42".into(), ..Default::default() });
    one.control(control.clone()).await.expect("sent");
    scene.cluster.ask(&["PUBLISH", "tg:control", r#"{"disconnect":{"user":"42"}}"#]);
    for recorder in &scene.recorders {
        let heard = recorder.wait("both", |r| (r.controls().len() >= 2).then(|| r.controls()));
        assert_eq!(heard, [control.clone(), control.clone()], "each once");
    }
    one.stop().await;
    assert_eq!(listed(two, 1).await, ["n2"]);
}

#[tokio::test]
async fn slots_are_moved_under_load_and_nothing_is_lost_or_doubled() {
    let scene = Scene::new(Cluster::start());
    let first = scene.channels[0].clone();
    let (owner, _) = scene.cluster.owner(&first);
    let target = scene.cluster.other(&first);
    let count: u16 = owner.slots.iter().map(|(a, b)| b - a + 1).sum();
    // All slots of one master: its channels move, whichever they are.
    let (host, slots, from) = (format!("127.0.0.1:{}", owner.port), count.to_string(), owner.id.clone());
    let cluster = Arc::clone(&scene.cluster);
    let began = Instant::now();
    let moving = std::thread::spawn(move || {
        let words = ["--cluster", "reshard", &host, "--cluster-from", &from, "--cluster-to", &target.id];
        let said = cluster.cli(&[&words[..], &["--cluster-slots", &slots, "--cluster-yes"]].concat());
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stdout));
    });
    let acknowledged = scene.publish(|| moving.is_finished()).await;
    moving.join().expect("moved");
    println!("{count} slots were moved in {:?}", began.elapsed());
    assert_ne!(scene.cluster.owner(&first).0.id, owner.id);
    let mut all = acknowledged;
    for (name, acknowledged) in scene.channels.iter().zip(&mut all) {
        published(&scene.relays[0], name, "\"after\"").await;
        acknowledged.push("\"after\"".to_owned());
    }
    scene.check(&all);
}

#[tokio::test]
async fn a_failover_by_hand_loses_nothing() {
    let scene = Scene::new(Cluster::start());
    let name = scene.channels[0].clone();
    let cluster = Arc::clone(&scene.cluster);
    let of = name.clone();
    let moving = std::thread::spawn(move || {
        cluster.fail_over(&of);
        cluster.settled();
    });
    let acknowledged = scene.publish(|| moving.is_finished()).await;
    moving.join().expect("failed over");
    published(&scene.relays[0], &name, "\"after\"").await;
    let mut all = acknowledged;
    all[0].push("\"after\"".to_owned());
    scene.check(&all);
}

#[tokio::test]
async fn a_killed_master_is_replaced_within_seconds_and_the_others_go_on() {
    let mut scene = Scene::new(Cluster::start());
    let name = scene.channels[0].clone();
    let (owner, at) = scene.cluster.owner(&name);
    let here = |scene: &Scene, name: &str| scene.cluster.owner(name).0.id == owner.id;
    let (lost, safe): (Vec<String>, Vec<String>) =
        scene.channels.clone().into_iter().partition(|name| here(&scene, name));
    for name in &scene.channels {
        published(&scene.relays[0], name, "1").await;
    }
    // Replication is asynchronous; what is in question here is what was replicated.
    let replicated: u64 = scene.cluster.servers[at].command(&["WAIT", "1", "1000"]);
    assert_eq!(replicated, 1);
    Arc::get_mut(&mut scene.cluster).expect("nobody else holds it").servers[at].kill();
    let killed = Instant::now();
    for name in &safe {
        scene.relays[1].publish(publication(name, "2")).await.expect("its master lives");
    }
    for name in &lost {
        published(&scene.relays[1], name, "2").await;
    }
    println!("publishing by the new master after {:?}", killed.elapsed());
    let expected = texts(2);
    for name in scene.channels.clone() {
        for recorder in &scene.recorders {
            hears_all(recorder, &name, &expected);
        }
    }
    println!("hearing by the new master after {:?}", killed.elapsed());
    assert!(killed.elapsed() < Duration::from_secs(12), "{:?}", killed.elapsed());
    eventually("the relay is whole again", || scene.relays.iter().all(|relay| relay.status().up));
    joined(&scene.relays[0], &scene.recorders[0], 1, &lost[0]);
}

#[tokio::test]
async fn who_is_present_goes_along_with_the_slot() {
    let cluster = Cluster::start();
    let (one, at_one) = node("n1", cluster.settings());
    let (two, _) = node("n2", cluster.settings());
    joined(&one, &at_one, 0, "room:1");
    let ada = ClientInfo { user: "ada".into(), client: "c1".into(), ..ClientInfo::default() };
    one.enter(channel("room:1"), ada.clone()).expect("room");
    at_one.wait("the join", |r| r.told(0, "room:1").first().cloned());
    cluster.fail_over("room:1");
    cluster.settled();
    // Longer than an entry lives without a word of its node.
    let (until, mut seen) = (Instant::now() + 2 * cluster.settings().presence_ttl, 0);
    while Instant::now() < until {
        if let Ok(present) = two.presence(channel("room:1")).await {
            assert_eq!(present, std::slice::from_ref(&ada));
            seen += 1;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(seen > 20, "it could be asked {seen} times");
    assert_eq!(at_one.record().told(0, "room:1"), ["+c1"], "one join, and no leave");
}

#[tokio::test]
async fn a_node_that_knows_one_server_finds_the_others() {
    let cluster = Cluster::start();
    let mut settings = cluster.settings();
    let tidegate_relay::Topology::Cluster(nodes) = &mut settings.topology else { unreachable!() };
    nodes.truncate(1);
    let (relay, recorder) = node("n1", settings);
    for n in 0..12 {
        let name = format!("kept:{n}");
        joined(&relay, &recorder, 0, &name);
        published(&relay, &name, "1").await;
        recorder.hears(0, &name, &["1"]);
    }
}

#[tokio::test]
async fn tls_and_users_hold_on_every_server() {
    let scene = Scene::new(Cluster::secured());
    for name in &scene.channels {
        published(&scene.relays[0], name, "1").await;
        scene.recorders[1].hears(0, name, &["1"]);
    }
    assert_eq!(listed(&scene.relays[0], 2).await, ["n1", "n2"]);
    for server in &scene.cluster.servers {
        let denied: Vec<redis::Value> = server.command(&["ACL", "LOG"]);
        assert!(denied.is_empty(), "redis denied something: {denied:?}");
    }
}
