//! The node among nodes: control messages, the registry, its end.

use tidegate_protocol::control::{Control, DisconnectControl};
use tidegate_relay::WorkerId;

use crate::Node;
use crate::support::{channel, joined, publication, ticket};

promises![
    control_messages_reach_the_node_that_sent_them,
    the_node_knows_itself,
    the_channels_of_the_node_are_counted,
    status_is_up,
    after_the_end_nothing_hangs,
];

async fn control_messages_reach_the_node_that_sent_them(Node { relay, recorder, .. }: Node) {
    let control = Control::Disconnect(DisconnectControl { user: "42".into(), ..Default::default() });
    relay.control(control.clone()).await.expect("sent");
    let got = recorder.wait("the control message", |r| r.controls().first().cloned());
    assert_eq!(got, control);
}

async fn the_node_knows_itself(Node { relay, recorder, .. }: Node) {
    joined(&relay, &recorder, 0, "news");
    joined(&relay, &recorder, 1, "news");
    joined(&relay, &recorder, 1, "other");
    relay.leave(WorkerId(1), channel("other")).expect("room");
    joined(&relay, &recorder, 1, "news");
    assert_eq!(relay.channel_count(), 1, "once, however many workers hear it, and not while nobody does");
    let nodes = relay.nodes().await.expect("the registry");
    assert_eq!(nodes.len(), 1);
    assert_eq!((nodes[0].id.as_str(), nodes[0].name.as_str()), ("n1", "host-n1"));
    assert_eq!((nodes[0].connections, nodes[0].subscriptions, nodes[0].channels), (3, 2, 1));
}

async fn the_channels_of_the_node_are_counted(Node { relay, recorder, .. }: Node) {
    recorder.record().channels = Some(vec![(channel("news"), 3), (channel("a"), 1)]);
    assert_eq!(relay.channels().await.expect("counted"), [("a".to_owned(), 1), ("news".to_owned(), 3)]);
    recorder.record().channels = None;
    let error = relay.channels().await.expect_err("the node does not answer").to_string();
    assert!(error.contains("n1"), "the error names the node: {error}");
}

async fn status_is_up(Node { relay, .. }: Node) {
    relay.publish(publication("news", "1")).await.expect("published");
    assert!(relay.status().up);
}

async fn after_the_end_nothing_hangs(Node { relay, recorder, .. }: Node) {
    joined(&relay, &recorder, 0, "news");
    relay.stop().await;
    assert!(relay.publish(publication("news", "1")).await.is_err());
    assert!(relay.control(Control::Disconnect(DisconnectControl::default())).await.is_err());
    assert!(relay.join(WorkerId(0), channel("late")).is_err());
    assert!(relay.submit(publication("news", "1"), ticket(1)).is_err());
    assert!(!relay.status().up);
}
