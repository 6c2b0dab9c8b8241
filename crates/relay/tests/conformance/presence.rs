//! Who is present in a channel, and who is told of it.

use bytes::Bytes;
use tidegate_protocol::ClientInfo;
use tidegate_relay::{PresenceStats, Relay};

use crate::Node;
use crate::support::{channel, joined, publication};

promises![
    who_entered_is_present_until_it_exits,
    who_enters_sees_itself_at_once,
    what_is_known_of_a_client_is_told_as_it_was_given,
    a_user_counts_once_however_many_sessions_it_has,
    all_anonymous_sessions_are_one_user,
    one_join_and_one_leave_for_each_client,
    joins_and_leaves_keep_their_order,
    only_namespaces_that_say_so_tell_of_joins,
    only_workers_that_joined_are_told,
    an_exit_of_nobody_is_nothing,
    channels_do_not_mix,
];

fn client(id: &str, user: &str) -> ClientInfo {
    ClientInfo { user: user.into(), client: id.into(), conn_info: Bytes::new(), chan_info: Bytes::new() }
}

fn enter(relay: &Relay, name: &str, id: &str, user: &str) {
    relay.enter(channel(name), client(id, user)).expect("room");
}

fn exit(relay: &Relay, name: &str, id: &str) {
    relay.exit(channel(name), id.into()).expect("room");
}

async fn present(relay: &Relay, name: &str) -> Vec<ClientInfo> {
    let mut present = relay.presence(channel(name)).await.expect("known");
    present.sort_by(|a, b| a.client.cmp(&b.client));
    present
}

async fn stats(relay: &Relay, name: &str) -> (u64, u64) {
    let PresenceStats { clients, users } = relay.presence_stats(channel(name)).await.expect("known");
    (clients, users)
}

async fn who_entered_is_present_until_it_exits(Node { relay, .. }: Node) {
    assert_eq!((present(&relay, "room:a").await, stats(&relay, "room:a").await), (Vec::new(), (0, 0)));
    enter(&relay, "room:a", "c1", "ada");
    enter(&relay, "room:a", "c2", "bob");
    assert_eq!(present(&relay, "room:a").await, [client("c1", "ada"), client("c2", "bob")]);
    assert_eq!(stats(&relay, "room:a").await, (2, 2));
    exit(&relay, "room:a", "c1");
    assert_eq!(present(&relay, "room:a").await, [client("c2", "bob")]);
    exit(&relay, "room:a", "c2");
    assert_eq!((present(&relay, "room:a").await, stats(&relay, "room:a").await), (Vec::new(), (0, 0)));
}

async fn who_enters_sees_itself_at_once(Node { relay, .. }: Node) {
    for n in 1..=200 {
        enter(&relay, "room:a", &format!("c{n}"), "ada");
        assert_eq!(stats(&relay, "room:a").await, (n, 1));
    }
}

async fn what_is_known_of_a_client_is_told_as_it_was_given(Node { relay, recorder, .. }: Node) {
    joined(&relay, &recorder, 0, "room:a");
    let ada = ClientInfo {
        conn_info: Bytes::from_static(br#"{"name":"Ada \u00e4 \"x\"","n":1.50,"deep":{"user":"no"}}"#),
        chan_info: Bytes::from_static(b"[1,2]"),
        ..client("8d3f", "größe \"1\"")
    };
    relay.enter(channel("room:a"), ada.clone()).expect("room");
    assert_eq!(present(&relay, "room:a").await, std::slice::from_ref(&ada));
    assert_eq!(recorder.wait("the join", |r| r.joins_said(0, "room:a").first().cloned()), ada);
    exit(&relay, "room:a", "8d3f");
    assert_eq!(recorder.wait("the leave", |r| r.leaves_said(0, "room:a").first().cloned()), ada);
}

async fn a_user_counts_once_however_many_sessions_it_has(Node { relay, .. }: Node) {
    for n in 0..10 {
        enter(&relay, "room:a", &format!("a{n}"), "ada");
    }
    enter(&relay, "room:a", "b", "bob");
    assert_eq!(stats(&relay, "room:a").await, (11, 2));
    // The same session again, with more to say of itself.
    let again = ClientInfo { chan_info: Bytes::from_static(b"1"), ..client("b", "bob") };
    relay.enter(channel("room:a"), again.clone()).expect("room");
    assert_eq!(stats(&relay, "room:a").await, (11, 2));
    assert_eq!(present(&relay, "room:a").await.last(), Some(&again));
    for n in 0..9 {
        exit(&relay, "room:a", &format!("a{n}"));
    }
    assert_eq!(stats(&relay, "room:a").await, (2, 2));
    exit(&relay, "room:a", "a9");
    assert_eq!(stats(&relay, "room:a").await, (1, 1));
    exit(&relay, "room:a", "b");
    assert_eq!(stats(&relay, "room:a").await, (0, 0));
}

async fn all_anonymous_sessions_are_one_user(Node { relay, .. }: Node) {
    for id in ["c1", "c2", "c3"] {
        enter(&relay, "room:a", id, "");
    }
    enter(&relay, "room:a", "c4", "ada");
    assert_eq!(stats(&relay, "room:a").await, (4, 2));
}

async fn one_join_and_one_leave_for_each_client(Node { relay, recorder, .. }: Node) {
    joined(&relay, &recorder, 0, "room:a");
    joined(&relay, &recorder, 3, "room:a");
    for _ in 0..3 {
        enter(&relay, "room:a", "c1", "ada");
    }
    exit(&relay, "room:a", "c1");
    exit(&relay, "room:a", "c1");
    enter(&relay, "room:a", "last", "");
    for worker in [0, 3] {
        let told = recorder.wait("the last join", |r| {
            let told = r.told(worker, "room:a");
            told.contains(&"+last".to_owned()).then_some(told)
        });
        assert_eq!(told, ["+c1", "-c1", "+last"]);
    }
}

async fn joins_and_leaves_keep_their_order(Node { relay, recorder, .. }: Node) {
    joined(&relay, &recorder, 0, "room:a");
    let mut expected = Vec::new();
    for n in 0..500 {
        let id = format!("c{}", n % 7);
        enter(&relay, "room:a", &id, "ada");
        exit(&relay, "room:a", &id);
        expected.extend([format!("+{id}"), format!("-{id}")]);
    }
    recorder.wait("all of them", |r| (r.told(0, "room:a").len() >= expected.len()).then_some(()));
    assert_eq!(recorder.record().told(0, "room:a"), expected);
    assert_eq!(stats(&relay, "room:a").await, (0, 0));
}

async fn only_namespaces_that_say_so_tell_of_joins(Node { relay, recorder, .. }: Node) {
    joined(&relay, &recorder, 0, "kept:a");
    enter(&relay, "kept:a", "c1", "ada");
    assert_eq!(stats(&relay, "kept:a").await, (1, 1));
    exit(&relay, "kept:a", "c1");
    assert_eq!(stats(&relay, "kept:a").await, (0, 0));
    // What was said before arrives before.
    relay.publish(publication("kept:a", "1")).await.expect("published");
    recorder.hears(0, "kept:a", &["1"]);
    assert_eq!(recorder.record().told(0, "kept:a"), [] as [String; 0]);
}

async fn only_workers_that_joined_are_told(Node { relay, recorder, .. }: Node) {
    joined(&relay, &recorder, 0, "room:a");
    joined(&relay, &recorder, 1, "room:b");
    enter(&relay, "room:b", "c1", "ada");
    enter(&relay, "room:a", "c2", "bob");
    recorder.wait("the join", |r| (r.told(0, "room:a") == ["+c2"]).then_some(()));
    recorder.wait("the join", |r| (r.told(1, "room:b") == ["+c1"]).then_some(()));
    let record = recorder.record();
    assert!(record.told(1, "room:a").is_empty() && record.told(0, "room:b").is_empty());
}

async fn an_exit_of_nobody_is_nothing(Node { relay, recorder, .. }: Node) {
    joined(&relay, &recorder, 0, "room:a");
    exit(&relay, "room:a", "nobody");
    enter(&relay, "room:a", "c1", "ada");
    exit(&relay, "room:a", "nobody");
    enter(&relay, "room:a", "c2", "ada");
    recorder.wait("both joins", |r| (r.told(0, "room:a") == ["+c1", "+c2"]).then_some(()));
    assert_eq!(stats(&relay, "room:a").await, (2, 1));
}

async fn channels_do_not_mix(Node { relay, .. }: Node) {
    enter(&relay, "room:a", "c1", "ada");
    enter(&relay, "room:b", "c1", "ada");
    enter(&relay, "news", "c1", "ada");
    exit(&relay, "room:a", "c1");
    assert_eq!(stats(&relay, "room:a").await, (0, 0));
    assert_eq!(stats(&relay, "room:b").await, (1, 1));
    assert_eq!(stats(&relay, "news").await, (1, 1));
}
