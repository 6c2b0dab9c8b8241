//! The main job: a backend publishes into Redis, every subscriber on every node hears it once, in order.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tidegate_tests::raw::{Error, Raw, Upgrade};
use tidegate_tests::sdk::Kind;
use tidegate_tests::{Certificates, Node, Redis, Sdk};

/// Connections of each kind of client on each of the two nodes: 500 a node.
const JS: usize = 100;
const JS_PROTOBUF: usize = 60;
const PYTHON: usize = 20;
const PYTHON_PROTOBUF: usize = 20;
const RAW: usize = 300;

/// SDK clients of both nodes, in one process for each kind and node.
fn fleets(nodes: &[&Node; 2], certificates: &Certificates) -> Vec<(Sdk, String, usize)> {
    let sizes = [
        (Kind::Js, JS),
        (Kind::JsProtobuf, JS_PROTOBUF),
        (Kind::Python, PYTHON),
        (Kind::PythonProtobuf, PYTHON_PROTOBUF),
    ];
    let mut fleets = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        for (kind, count) in sizes {
            let sdk = Sdk::start(kind, Some(certificates));
            let name = format!("{kind:?} on node {index}");
            sdk.fleet(&name, count, &node.url(), "news");
            fleets.push((sdk, name, count));
        }
    }
    fleets
}

async fn raw_clients(upgrade: Upgrade, count: usize) -> Result<Vec<Raw>, Error> {
    let mut clients = Vec::with_capacity(count);
    for _ in 0..count {
        let mut client = upgrade.open().await?;
        client.connect_command().await?;
        client.subscribe("news").await?;
        clients.push(client);
    }
    Ok(clients)
}

#[tokio::test]
async fn a_thousand_subscribers_on_two_nodes_hear_each_publish_once_and_in_order() -> Result<(), Error> {
    let certificates = Certificates::new();
    let redis = Redis::start();
    let plain = Node::dev().named("plain").redis(&redis).go();
    let secure = Node::dev().named("secure").redis(&redis).tls(&certificates).go();
    let fleets = fleets(&[&plain, &secure], &certificates);
    let mut raw = raw_clients(Upgrade::at(plain.public()), RAW).await?;
    raw.extend(raw_clients(Upgrade::at(secure.public()).tls(certificates.client()), RAW).await?);
    for node in [&plain, &secure] {
        assert_eq!(node.metrics().sum("tidegate_connections"), 500.0);
        node.until("all subscriptions are counted", |m| m.sum("tidegate_subscriptions") == 500.0);
    }

    let mut expected: Vec<Value> = Vec::new();
    for n in 0..20 {
        let data = json!({"text": "hello", "n": n});
        assert_eq!(redis.publish("news", &data.to_string()), 2, "both nodes listen");
        expected.push(data);
    }
    for client in &mut raw {
        for data in &expected {
            let publication = client.publication().await?;
            assert_eq!((publication.channel.as_str(), &publication.data), ("news", data));
        }
    }
    for (sdk, name, count) in &fleets {
        assert_eq!(sdk.heard(name, expected.len()), [(expected.clone(), *count as u64)], "{name}");
    }

    // The last one comes behind anything that could come twice.
    redis.publish("news", r#""last""#);
    expected.push(json!("last"));
    for client in &mut raw {
        assert_eq!(client.publication().await?.data, "last");
    }
    for (sdk, name, count) in &fleets {
        assert_eq!(sdk.heard(name, expected.len()), [(expected.clone(), *count as u64)], "{name}");
        assert_eq!(
            sdk.call(json!({"do": "drops", "name": name})),
            Ok(json!(0)),
            "{name}: nobody had to come back"
        );
    }
    for node in [&plain, &secure] {
        let metrics = node.until("every delivery is counted", |m| {
            m.with("tidegate_messages_sent_total", &[("kind", "publication")]) == 21.0 * 500.0
        });
        assert_eq!(metrics.with("tidegate_publications_total", &[("source", "relay")]), 21.0);
        assert_eq!(metrics.sum("tidegate_relay_dropped_publications_total"), 0.0);
    }
    Ok(())
}

#[tokio::test]
async fn a_flood_of_publishes_arrives_complete_and_in_order_on_every_node() -> Result<(), Error> {
    const COUNT: usize = 20_000;
    let redis = Redis::start();
    let nodes = [Node::dev().redis(&redis).go(), Node::dev().redis(&redis).go()];
    let mut clients = Vec::new();
    for node in &nodes {
        clients.extend(raw_clients(Upgrade::at(node.public()), 5).await?);
    }
    let script = "for i=1,ARGV[1] do redis.call('PUBLISH', 'tg:{news}', i) end return 1";
    let mut tasks = tokio::task::JoinSet::new();
    for mut client in clients {
        tasks.spawn(async move {
            for n in 1..=COUNT {
                assert_eq!(client.publication().await.expect("a publication").data, n);
            }
        });
    }
    redis.ask(&["EVAL", script, "0", &COUNT.to_string()]);
    tasks.join_all().await;
    Ok(())
}

#[tokio::test]
async fn clients_of_different_nodes_hear_each_other() -> Result<(), Error> {
    let redis = Redis::start();
    let nodes =
        [Node::dev().redis(&redis).go(), Node::dev().redis(&redis).go(), Node::dev().redis(&redis).go()];
    let mut clients = Vec::new();
    for node in &nodes {
        clients.extend(raw_clients(Upgrade::at(node.public()), 1).await?);
    }
    for speaker in 0..clients.len() {
        for n in 0..50 {
            clients[speaker].publish("news", json!([speaker, n])).await?;
        }
        for client in &mut clients {
            for n in 0..50 {
                let publication = client.publication().await?;
                assert_eq!(publication.data, json!([speaker, n]));
                assert!(publication.whole["info"]["client"].is_string(), "{publication:?}");
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn channels_are_kept_apart_and_any_name_works() -> Result<(), Error> {
    let redis = Redis::start();
    let node = Node::dev().redis(&redis).go();
    let mut client = Upgrade::at(node.public()).open().await?;
    client.connect_command().await?;
    let names =
        ["news", "news:", "new", "news:a", "NEWS", "ключ:🌊", "a/b?c=d&e", "$private", "#42", "'\"\\", "%7B"];
    for name in names {
        client.subscribe(name).await?;
    }
    for name in names {
        assert_eq!(redis.publish(name, &json!(name).to_string()), 1, "{name}");
    }
    for name in names {
        let publication = client.publication().await?;
        assert_eq!((publication.channel.as_str(), &publication.data), (name, &json!(name)));
    }
    Ok(())
}

#[tokio::test]
async fn two_prefixes_on_one_redis_do_not_hear_each_other() -> Result<(), Error> {
    let redis = Redis::start();
    let ours = Node::dev().redis(&redis).go();
    let theirs = Node::dev().redis(&redis).set("relay.redis.prefix", "other").go();
    let at = |node: &Node| -> SocketAddr { node.public() };
    let mut here = raw_clients(Upgrade::at(at(&ours)), 1).await?;
    let mut there = raw_clients(Upgrade::at(at(&theirs)), 1).await?;
    redis.ask(&["PUBLISH", "other:{news}", "1"]);
    redis.publish("news", "2");
    assert_eq!(there[0].publication().await?.data, 1);
    assert_eq!(here[0].publication().await?.data, 2);
    Ok(())
}
