//! What namespaces say, and what may not be said together.

use super::*;

fn namespaces(json: &str) -> Result<Loaded, Problems> {
    with_flags(&[("namespaces", json)])
}

#[test]
fn what_a_namespace_leaves_out_is_off_and_rights_are_those_of_the_default_one() {
    let settings = namespaces(r#"[{"name": "chat", "publish": "subscriber"}]"#).unwrap().settings;
    let chat = Namespace::plain(Right::Authenticated, Right::Subscriber);
    assert_eq!(settings.namespaces[0].1.clients, chat);
    assert_eq!(settings.namespaces[0].1.channels, ChannelRules::default());
}

#[test]
fn a_namespace_delivers_every_publication_unless_it_says_latest() {
    let settings = namespaces(r#"[{"name": "default"}, {"name": "price", "delivery": "latest"}]"#);
    let settings = settings.unwrap().settings;
    let found: Vec<_> =
        settings.namespaces.iter().map(|(name, it)| (name.as_str(), it.clients.delivery)).collect();
    assert_eq!(found, [("default", Delivery::Every), ("price", Delivery::Latest)]);
}

#[test]
fn hub_and_relay_are_told_the_same_of_a_namespace() {
    let json = r#"[
        {"name": "chat", "history_size": 100, "history_ttl": "5m", "recover": true, "presence": true, "join_leave": true,
         "read_history": "subscriber", "read_presence": "authenticated"},
        {"name": "log", "history_size": "10", "history_ttl": "1h"},
        {"name": "room", "presence": true, "on_gap": "notify"},
        {"name": "off", "history_size": 0, "recover": false, "presence": false, "join_leave": false, "on_gap": "count"}]"#;
    let settings = namespaces(json).unwrap().settings;
    let of = |name: &str| settings.rules(&tidegate_protocol::ChannelName::parse(name).unwrap()).unwrap();
    let (chat, log, room, off) = (of("chat:1"), of("log:1"), of("room:1"), of("off:1"));
    assert_eq!((chat.clients.history, chat.clients.presence), (History::Recoverable, Presence::Told));
    assert_eq!(
        (chat.clients.read_history, chat.clients.read_presence),
        (Right::Subscriber, Right::Authenticated)
    );
    let retention = Some(Retention { size: 100, ttl: Duration::from_secs(300) });
    assert_eq!(chat.channels, ChannelRules { retention, join_leave: true, on_gap: OnGap::Count });
    assert_eq!((log.clients.history, log.clients.presence), (History::Kept, Presence::None));
    assert_eq!(log.channels.retention, Some(Retention { size: 10, ttl: Duration::from_secs(3600) }));
    assert_eq!((room.clients.history, room.clients.presence), (History::None, Presence::Kept));
    assert_eq!(room.channels, ChannelRules { on_gap: OnGap::Notify, ..ChannelRules::default() });
    assert_eq!(off.clients, Namespace::plain(Right::Authenticated, Right::Nobody));
    assert_eq!(off.channels, ChannelRules::default());
}

#[test]
fn contradictions_are_refused_in_a_sentence() {
    for (fields, key, words) in [
        (r#""recover": true"#, "recover", "needs history"),
        (r#""recover": true, "history_size": 0"#, "recover", "needs history"),
        (r#""history_size": 10"#, "history_ttl", "missing: history_size is set"),
        (r#""history_size": 10, "recover": true"#, "history_ttl", "missing: history_size is set"),
        (r#""history_ttl": "5m""#, "history_ttl", "history_size is 0, so nothing is kept"),
        (r#""history_size": 10, "history_ttl": "1500ms""#, "history_ttl", "whole seconds"),
        (r#""history_size": 10, "history_ttl": "0s""#, "history_ttl", "must be from 1s to 30days"),
        (r#""history_size": -1, "history_ttl": "5m""#, "history_size", "from 0 to 100000"),
        (r#""history_size": 10, "history_ttl": "5m", "delivery": "latest""#, "delivery", "latest skips"),
        (
            r#""history_size": 10, "history_ttl": "5m", "on_gap": "notify""#,
            "on_gap",
            "channels without history",
        ),
        (r#""join_leave": true"#, "join_leave", "needs presence"),
        (r#""join_leave": true, "presence": false"#, "join_leave", "needs presence"),
        (r#""on_gap": "shout""#, "on_gap", "must be one of count, notify"),
        (r#""subscribe": "subscriber""#, "subscribe", "nobody is a subscriber before"),
        (r#""read_presence": "all""#, "read_presence", "must be one of anyone"),
    ] {
        let problem = problem(namespaces(&format!(r#"[{{"name": "chat", {fields}}}]"#)));
        assert_eq!(problem.key, format!("namespaces[0].{key}"), "{fields}: {problem}");
        assert!(problem.advice.contains(words), "{fields}: {problem}");
    }
}
