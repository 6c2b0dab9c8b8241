//! Valkey instead of Redis: the same promises, alone and as a cluster.

mod support;

use support::server::valkey;
use support::{Cluster, RedisServer, channel, eventually, joined, node, publication, settings};
use tidegate_protocol::ClientInfo;
use tidegate_relay::HistoryQuery;

#[tokio::test]
async fn history_repair_and_presence_are_those_of_redis() {
    let server = RedisServer::of(&valkey(), |_, _| Vec::new());
    let (one, at_one) = node("n1", settings(&server.url()));
    let (two, at_two) = node("n2", settings(&server.url()));
    joined(&one, &at_one, 0, "kept:a");
    joined(&two, &at_two, 0, "kept:a");
    one.publish(publication("kept:a", "1")).await.expect("published").expect("a position");
    let _: (u64, String) = server.command(&["FCALL", "tg_publish", "1", "tg:{kept:a}", "2"]);
    let _: u64 = server.command(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    let _: (u64, String) = server.command(&["FCALL", "tg_publish", "1", "tg:{kept:a}", "3"]);
    for recorder in [&at_one, &at_two] {
        recorder.hears(0, "kept:a", &["1", "2", "3"]);
    }
    let history = two.history(channel("kept:a"), HistoryQuery::default()).await.expect("kept");
    assert_eq!(history.publications.len(), 3);
    let ada = ClientInfo { user: "ada".into(), client: "c1".into(), ..ClientInfo::default() };
    one.enter(channel("room:a"), ada.clone()).expect("room");
    assert_eq!(one.presence(channel("room:a")).await.expect("known"), [ada]);
}

#[tokio::test]
async fn a_cluster_is_one_of_redis() {
    let cluster = Cluster::of(&valkey());
    let (relay, recorder) = node("n1", cluster.settings());
    for n in 0..6 {
        let name = format!("kept:{n}");
        joined(&relay, &recorder, 0, &name);
        relay.publish(publication(&name, "1")).await.expect("published").expect("a position");
        let key = format!("tg:{{{name}}}");
        cluster.ask(&["FCALL", "tg_publish", "2", &key, &format!("{key}:meta"), "2"]);
        recorder.hears(0, &name, &["1", "2"]);
    }
    cluster.fail_over("kept:0");
    eventually("the channel is heard at its new master", || {
        let said = cluster.ask(&["FCALL", "tg_publish", "2", "tg:{kept:0}", "tg:{kept:0}:meta", "3"]);
        said.starts_with(|first: char| first.is_ascii_digit())
            && recorder.record().delivered(0, "kept:0").last().is_some_and(|last| last == "3")
    });
}
