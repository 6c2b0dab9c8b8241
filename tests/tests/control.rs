//! Control messages of backends: by PUBLISH at once, by the ingest stream as soon as there is a node.

use serde_json::{Value, json};
use tidegate_tests::raw::{Error, Raw, Upgrade};
use tidegate_tests::{Node, Redis};

/// Puts a control message into the ingest stream.
fn order(redis: &Redis, control: &Value) {
    redis.ask(&["XADD", "tg:ingest", "*", "control", &control.to_string()]);
}

/// A connected client with its id.
async fn client(node: &Node) -> Result<(Raw, String), Error> {
    let mut client = Upgrade::at(node.public()).open().await?;
    let connected = client.connect_command().await?;
    let id = connected["client"].as_str().unwrap_or_default().to_owned();
    Ok((client, id))
}

fn carried_out(nodes: &[Node]) -> f64 {
    let counted =
        |node: &Node| node.metrics().with("tidegate_ingest_entries_total", &[("result", "control")]);
    nodes.iter().map(counted).sum()
}

#[tokio::test]
async fn an_entry_with_a_control_message_reaches_a_client_on_whichever_node() -> Result<(), Error> {
    let redis = Redis::start();
    let nodes = [Node::dev().redis(&redis).go(), Node::dev().redis(&redis).go()];
    for node in &nodes {
        node.until("the relay is up", |metrics| metrics.sum("tidegate_relay_up") == 1.0);
    }
    for node in &nodes {
        let (mut client, id) = client(node).await?;
        order(&redis, &json!({"subscribe": {"client": id, "channel": "news"}}));
        assert!(client.push().await?["subscribe"].is_object(), "it is subscribed");
        redis.ask(&["XADD", "tg:ingest", "*", "channel", "news", "data", "1"]);
        assert_eq!(client.publication().await?.data, 1);
        order(&redis, &json!({"unsubscribe": {"client": id, "channel": "news"}}));
        assert_eq!(client.push().await?["unsubscribe"]["code"], 2000);
        order(&redis, &json!({"disconnect": {"client": id}}));
        match client.push().await {
            Err(Error::Closed { code, .. }) => assert_eq!(code, Some(3503)),
            other => panic!("it must be disconnected: {other:?}"),
        }
    }
    nodes[0].until("each is counted once, by whichever node", |_| carried_out(&nodes) == 6.0);
    Ok(())
}

#[tokio::test]
async fn a_control_message_by_publish_does_the_same_at_once() -> Result<(), Error> {
    let redis = Redis::start();
    let node = Node::dev().redis(&redis).go();
    node.until("the relay is up", |metrics| metrics.sum("tidegate_relay_up") == 1.0);
    let (mut client, id) = client(&node).await?;
    let control = json!({"disconnect": {"client": id, "reconnect": true}}).to_string();
    assert_eq!(redis.ask(&["PUBLISH", "tg:control", &control]), "1", "the node hears it");
    match client.push().await {
        Err(Error::Closed { code, .. }) => assert_eq!(code, Some(3011)),
        other => panic!("it must be disconnected: {other:?}"),
    }
    Ok(())
}

#[test]
fn an_order_that_was_given_while_no_node_ran_is_sent_when_one_comes() {
    let redis = Redis::start();
    order(&redis, &json!({"disconnect": {"user": "42"}}));
    assert_eq!(redis.ask(&["XLEN", "tg:ingest"]), "1");
    let nodes = [Node::dev().redis(&redis).go()];
    nodes[0].until("it is sent", |_| carried_out(&nodes) == 1.0);
    nodes[0].until("nothing is left", |_| redis.ask(&["XLEN", "tg:ingest"]) == "0");
}
