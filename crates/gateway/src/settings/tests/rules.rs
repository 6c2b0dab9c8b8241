//! What values mean, and the rules between them.

use super::*;

#[test]
fn a_node_needs_no_settings() {
    let loaded = with_flags(&[]).unwrap();
    let settings = loaded.settings;
    assert_eq!(settings.listen.public.to_string(), "0.0.0.0:8000");
    assert_eq!(settings.listen.internal.to_string(), "127.0.0.1:9000");
    assert_eq!((settings.workers, settings.node.name.as_str()), (4, "gull"));
    assert_eq!(settings.limits.max_connections, 20_000);
    assert_eq!(settings.limits.max_message_bytes, 64 << 10);
    assert_eq!(settings.heartbeat.interval, Duration::from_secs(25));
    assert!(matches!(settings.relay, RelaySettings::Memory(memory) if memory.history_bytes == 64 << 20));
    assert_eq!(settings.namespaces.len(), 1);
    assert_eq!(settings.namespaces[0].1.clients, Namespace::plain(Right::Authenticated, Right::Nobody));
    assert_eq!(settings.any_namespace, None);
    assert!(!settings.auth.anonymous && !settings.dev && settings.tls.is_none());
    assert_eq!(loaded.warnings, Vec::<String>::new());
}

#[test]
fn all_problems_are_reported_at_once_with_key_value_place_and_advice() {
    let scratch = Scratch::new();
    let file = scratch.write(
        "tidegate.yaml",
        "heartbeat: {interval: 5x}\nlimits: {max_fragments: 0, max_message_bytes: 1TiB}\nlog: {level: 'a=b=c'}\n\
         namespaces: [{name: 'a:b'}, {subscribe: anyone}, {name: c, publish: everyone}]\n",
    );
    let sources = Sources {
        file: Some(file),
        environment: environment(&[
            ("TIDEGATE__WORKERS", "0"),
            ("TIDEGATE__AUTH__ORIGINS", "https://ok.example, https://bad.example/path"),
        ]),
        flags: flags(&[("listen.public", "localhost")]),
    };
    let report = load(&sources, &machine()).unwrap_err().to_string();
    assert!(report.starts_with("10 problems in the settings"), "{report}");
    for (line, advice) in [
        ("heartbeat.interval = 5x  (", "such as 250ms, 5s or 2m"),
        ("limits.max_fragments = 0  (", "must be a whole number from 1 to 1048576"),
        ("limits.max_message_bytes = 1TiB  (", "must be from 128 B to 16.0 MiB"),
        ("log.level = \"a=b=c\"  (", "must be error, warn, info"),
        ("namespaces[0].name = \"a:b\"  (", "may not contain `:`"),
        ("namespaces[1].name  (", "missing: every item needs it"),
        ("namespaces[2].publish = everyone  (", "must be one of anyone, authenticated,"),
        ("workers = 0  (environment TIDEGATE__WORKERS)", "from 1 to 64, or auto"),
        (
            "auth.origins[1] = \"https://bad.example/path\"  (environment TIDEGATE__AUTH__ORIGINS)",
            "scheme, a host",
        ),
        ("listen.public = localhost  (--set)", "must be an IP address and a port"),
    ] {
        let (_, rest) = report.split_once(line).unwrap_or_else(|| panic!("{line} is not in\n{report}"));
        let said = rest.lines().nth(1).unwrap();
        assert!(said.contains(advice), "{said}");
        if line.ends_with('(') {
            assert!(rest.lines().next().unwrap().ends_with("/tidegate.yaml)"), "{rest}");
        }
    }
}

#[test]
fn dev_mode_opens_everything_on_loopback_only() {
    let loaded = with_flags(&[("dev.enabled", "true")]).unwrap();
    let settings = &loaded.settings;
    assert!(settings.dev && settings.auth.anonymous);
    assert!(settings.listen.public.ip().is_loopback());
    let open = Namespace {
        read_history: Right::Anyone,
        read_presence: Right::Anyone,
        history: History::Recoverable,
        presence: Presence::Kept,
        ..Namespace::plain(Right::Anyone, Right::Anyone)
    };
    let any = settings.any_namespace.unwrap();
    assert_eq!(settings.namespaces, [("default".to_owned(), any)]);
    assert_eq!(any.clients, open);
    assert_eq!(any.channels.retention, Some(Retention { size: 100, ttl: Duration::from_secs(300) }));
    assert!(loaded.warnings[0].starts_with("DEV MODE"), "{:?}", loaded.warnings);
    assert!(loaded.effective.contains("anonymous: true  # default of dev mode"));

    let refused = problem(with_flags(&[("dev.enabled", "true"), ("listen.public", "0.0.0.0:8000")]));
    assert_eq!(refused.key, "listen.public");
    assert!(refused.advice.contains("--dev-listen-anywhere"), "{refused}");
    let told = [("dev.enabled", "true"), ("listen.public", "0.0.0.0:8000"), ("dev.listen_anywhere", "true")];
    assert!(with_flags(&told).is_ok());
    // What somebody wrote still counts.
    let written = [("dev.enabled", "true"), ("relay.kind", "redis"), ("auth.anonymous", "false")];
    let settings = with_flags(&written).unwrap().settings;
    assert!(matches!(settings.relay, RelaySettings::Redis(_)) && !settings.auth.anonymous);
}

#[test]
fn a_certificate_that_cannot_serve_is_found_when_settings_are_checked() {
    let scratch = Scratch::new();
    let make = |name: &str| {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let cert = scratch.write(&format!("{name}.crt"), &made.cert.pem());
        let key = scratch.write(&format!("{name}.key"), &made.signing_key.serialize_pem());
        (cert.to_str().unwrap().to_owned(), key.to_str().unwrap().to_owned())
    };
    let (cert, key) = make("a");
    let (_, foreign) = make("b");
    assert!(with_flags(&[("tls.cert", &cert), ("tls.key", &key)]).unwrap().settings.tls.is_some());
    for (cert, key, blamed, advice) in [
        (cert.as_str(), foreign.as_str(), "tls.key", "does not belong to"),
        (key.as_str(), key.as_str(), "tls.cert", "has no certificate"),
        (cert.as_str(), cert.as_str(), "tls.key", "no private key"),
        ("/nowhere.crt", key.as_str(), "tls.cert", "can be read"),
    ] {
        let problem = problem(with_flags(&[("tls.cert", cert), ("tls.key", key)]));
        assert_eq!(problem.key, blamed);
        assert!(problem.advice.contains(advice), "{problem}");
    }
    let half = problem(with_flags(&[("tls.cert", &cert)]));
    assert_eq!(
        (half.key.as_str(), half.advice.as_str()),
        ("tls.key", "missing: tls.cert is set, and TLS needs both")
    );
}

#[test]
fn rules_between_keys_are_checked() {
    for (pairs, key, advice) in [
        (&[("listen.internal", "0.0.0.0:8000")][..], "listen.internal", "the same as listen.public"),
        (&[("heartbeat.interval", "5s")], "heartbeat.timeout", "longer than heartbeat.interval"),
        (&[("heartbeat.interval", "10500ms")], "heartbeat.interval", "whole seconds"),
        (&[("relay.redis.ca", "Cargo.toml")], "relay.redis.ca", "without effect"),
        (&[("relay.redis.url", "rediss://h/0#insecure")], "relay.redis.url", "nothing behind it"),
        (&[("relay.redis.username", "a"), ("workers", "0")], "relay.redis.username", "without a password"),
        (&[("relay.redis.prefix", "a{b")], "relay.redis.prefix", "visible ASCII characters without"),
        (&[("relay.redis.prefix", "a?b")], "relay.redis.prefix", "visible ASCII characters without"),
        (&[("relay.redis.prefix", "größe")], "relay.redis.prefix", "visible ASCII characters without"),
        (&[("relay.redis.pool_size", "2")], "relay.redis.pool_size", "from 3 to 1024"),
        (&[("log.level", "verbose")], "log.level", "must be error, warn, info"),
        (&[("log.level", "tidegate")], "log.level", "must be error, warn, info"),
        (&[("log.level", "3")], "log.level", "must be error, warn, info"),
        (
            &[("namespaces", r#"[{"name":"a","subscribe":"subscriber"}]"#)],
            "namespaces[0].subscribe",
            "nobody is",
        ),
        (
            &[("namespaces", r#"[{"name":"a"},{"name":"a"}]"#)],
            "namespaces[1].name",
            "one of this name already",
        ),
        (
            &[("namespaces", "chat")],
            "namespaces[0]",
            "must be a section with the keys name, subscribe, publish",
        ),
        (&[("namespaces[0].name", "chat")], "namespaces[0].name", "a list is set as a whole"),
    ] {
        let problems = with_flags(pairs).unwrap_err();
        let found = problems.0.iter().find(|problem| problem.key == key);
        assert!(found.is_some_and(|problem| problem.advice.contains(advice)), "{problems}");
    }
}

#[test]
fn a_log_level_is_a_level_or_directives() {
    for level in
        ["off", "error", "WARN", "info", "debug", "trace", "info,tidegate=debug", "tidegate_relay=trace"]
    {
        assert_eq!(with_flags(&[("log.level", level)]).unwrap().settings.log.level, level);
    }
}

#[test]
fn what_is_allowed_but_hardly_meant_is_a_warning() {
    for (pairs, warning) in [
        (&[("limits.max_connections", "50000")][..], "RLIMIT_NOFILE"),
        (&[("relay.kind", "redis"), ("relay.redis.max_publication_bytes", "2MiB")], "outbox.max_bytes"),
        (&[("api.keys", r#"[{"name":"a","key":"short","scope":"read"}]"#)], "shorter than 16 characters"),
    ] {
        let warnings = with_flags(pairs).unwrap().warnings;
        assert!(warnings.iter().any(|said| said.contains(warning)), "{warnings:?}");
    }
}

#[test]
fn sentinels_are_named_instead_of_a_server() {
    let nodes = ("relay.redis.sentinel.nodes", "redis://a:26379,redis://b:26379/");
    let master = ("relay.redis.sentinel.master", "main");
    let loaded = with_flags(&[("relay.kind", "redis"), nodes, master]).unwrap();
    let RelaySettings::Redis(redis) = &loaded.settings.relay else { panic!("memory") };
    let Topology::Sentinel(sentinel) = &redis.topology else { panic!("{:?}", redis.topology) };
    assert_eq!(sentinel.master, "main");
    assert_eq!(sentinel.nodes, ["redis://a:26379", "redis://b:26379/"]);
    assert!(!loaded.effective.contains("127.0.0.1:6379"), "{}", loaded.effective);
    with_yaml(&loaded.effective).unwrap();
    for (pairs, key, advice) in [
        (&[nodes][..], "relay.redis.sentinel.master", "missing"),
        (&[master], "relay.redis.sentinel.master", "names no sentinel"),
        (&[master, nodes, ("relay.redis.url", "redis://c")], "relay.redis.url", "take one of them out"),
        (
            &[master, ("relay.redis.sentinel.nodes", "a:26379")],
            "relay.redis.sentinel.nodes[0]",
            "must be redis://",
        ),
        (
            &[master, ("relay.redis.sentinel.nodes", "redis://a,rediss://b")],
            "relay.redis.sentinel.nodes",
            "throughout",
        ),
        (
            &[master, ("relay.redis.sentinel.nodes", "redis://u:hush@a")],
            "relay.redis.sentinel.nodes[0]",
            "keys of their own",
        ),
        (
            &[master, ("relay.redis.sentinel.nodes", "redis://a/3")],
            "relay.redis.sentinel.nodes[0]",
            "end with the port",
        ),
        (
            &[master, nodes, ("relay.redis.ca", "Cargo.toml")],
            "relay.redis.ca",
            "relay.redis.sentinel.nodes does not",
        ),
        (
            &[master, nodes, ("relay.redis.sentinel.username", "a")],
            "relay.redis.sentinel.username",
            "without a password",
        ),
    ] {
        let problems = with_flags(pairs).unwrap_err();
        assert!(!problems.to_string().contains("hush"), "{problems}");
        let found = problems.0.iter().find(|problem| problem.key == key);
        let found = found.unwrap_or_else(|| panic!("no problem of {key} in {problems}"));
        assert!(found.advice.contains(advice), "{found}");
    }
}

#[test]
fn a_cluster_is_named_instead_of_a_server() {
    let nodes = ("relay.redis.cluster.nodes", "redis://a:7000,redis://b:7000");
    let loaded = with_flags(&[("relay.kind", "redis"), nodes]).unwrap();
    let RelaySettings::Redis(redis) = &loaded.settings.relay else { panic!("memory") };
    let urls = ["redis://a:7000", "redis://b:7000"].map(str::to_owned);
    assert_eq!(redis.topology, Topology::Cluster(urls.to_vec()));
    with_yaml(&loaded.effective).unwrap();
    for (pairs, key, advice) in [
        (
            &[nodes, ("relay.redis.url", "redis://c")][..],
            "relay.redis.url",
            "relay.redis.cluster.nodes is set too",
        ),
        (
            &[nodes, ("relay.redis.shards", "redis://a,redis://b")],
            "relay.redis.cluster.nodes",
            "relay.redis.shards is set too",
        ),
        (
            &[("relay.redis.cluster.nodes", "redis://a/1")],
            "relay.redis.cluster.nodes[0]",
            "end with the port",
        ),
        (&[("relay.redis.cluster.nodes", "redis://a,rediss://b")], "relay.redis.cluster.nodes", "throughout"),
    ] {
        let problems = with_flags(pairs).unwrap_err();
        let found = problems.0.iter().find(|problem| problem.key == key);
        let found = found.unwrap_or_else(|| panic!("no problem of {key} in {problems}"));
        assert!(found.advice.contains(advice), "{found}");
    }
}

#[test]
fn shards_are_named_instead_of_a_server() {
    let shards = ("relay.redis.shards", "redis://a/1,redis://b:6380");
    let loaded = with_flags(&[("relay.kind", "redis"), shards]).unwrap();
    let RelaySettings::Redis(redis) = &loaded.settings.relay else { panic!("memory") };
    let urls = ["redis://a/1", "redis://b:6380"].map(str::to_owned);
    assert_eq!(redis.topology, Topology::Shards(urls.to_vec()));
    with_yaml(&loaded.effective).unwrap();
    for (pairs, key, advice) in [
        (&[shards, ("relay.redis.url", "redis://c")][..], "relay.redis.url", "relay.redis.shards is set too"),
        (
            &[shards, ("relay.redis.sentinel.nodes", "redis://s"), ("relay.redis.sentinel.master", "m")],
            "relay.redis.sentinel.nodes",
            "relay.redis.shards is set too",
        ),
        (&[("relay.redis.shards", "redis://a")], "relay.redis.shards", "set relay.redis.url instead"),
        (&[("relay.redis.shards", "redis://a,redis://a")], "relay.redis.shards", "twice"),
        (&[("relay.redis.shards", "redis://a,rediss://b")], "relay.redis.shards", "throughout"),
        (&[("relay.redis.shards", "redis://a,b:1")], "relay.redis.shards[1]", "must be redis://"),
        (
            &[("relay.redis.shards", "redis://a,redis://:hush@b")],
            "relay.redis.shards[1]",
            "keys of their own",
        ),
    ] {
        let problems = with_flags(pairs).unwrap_err();
        assert!(!problems.to_string().contains("hush"), "{problems}");
        let found = problems.0.iter().find(|problem| problem.key == key);
        let found = found.unwrap_or_else(|| panic!("no problem of {key} in {problems}"));
        assert!(found.advice.contains(advice), "{found}");
    }
}
