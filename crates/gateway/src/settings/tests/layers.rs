//! Files, variables and flags: what is read, what wins, what exists.

use super::*;

#[test]
fn an_unknown_key_is_refused_and_names_the_nearest_one() {
    for (key, near) in [
        ("limits.max_conections", "limits.max_connections"),
        ("limit.max_connections", "limits"),
        ("max_connections", "limits.max_connections"),
        ("heartbeats.interval", "heartbeat"),
        ("relay.redis.passwd", "relay.redis.password"),
        ("redis.url", "relay.redis"),
        ("log.levle", "log.level"),
        ("auth.origin", "auth.origins"),
        ("drain.time", "drain.delay"),
    ] {
        let problem = problem(with_flags(&[(key, "1")]));
        assert!(key.starts_with(&problem.key), "{problem}");
        assert_eq!(problem.advice, format!("unknown key; did you mean {near}?"), "{key}");
    }
    let item = problem(with_yaml("namespaces: [{name: a, subscrib: anyone}]"));
    assert_eq!(
        (item.key.as_str(), item.advice.as_str()),
        ("namespaces[0].subscrib", "unknown key; did you mean subscribe?")
    );
}

#[test]
fn brackets_in_a_key_are_no_place_in_a_list() {
    for yaml in ["'namespaces[9999999999999].name': a\n", "'workers[0]': 1\n"] {
        assert!(problem(with_yaml(yaml)).advice.contains("a list is set as a whole"));
    }
}

#[test]
fn what_later_versions_know_is_refused_in_so_many_words() {
    for yaml in [
        "auth: {jwt: {hmac_secret: s3cret, audience: a}}",
        "namespaces: [{name: a, user_limited: true}]",
        "rebalance: {enabled: true}",
        "limits: {message_rate: 100}",
    ] {
        let problem = problem(with_yaml(yaml));
        assert_eq!(problem.advice, "not in this version: take it out", "{problem}");
        assert!(!problem.to_string().contains("s3cret"));
    }
}

#[test]
fn a_variable_that_matches_nothing_is_refused() {
    let sources = Sources {
        environment: environment(&[("TIDEGATE__LIMITS__MAX_CONNECTION", "5"), ("TIDEGATE_PORT", "tcp://x")]),
        ..Sources::default()
    };
    let problem = problem(load(&sources, &machine()));
    assert_eq!(problem.key, "limits.max_connection");
    assert_eq!(problem.origin, "environment TIDEGATE__LIMITS__MAX_CONNECTION");
    assert_eq!(problem.advice, "unknown key; did you mean limits.max_connections?");
}

#[test]
fn a_section_is_not_a_value_and_a_value_is_not_a_section() {
    let section = problem(with_flags(&[("heartbeat", "5s")]));
    assert_eq!(section.advice, "a section, not a value: set one of its keys (interval, timeout)");
    let value = problem(with_yaml("workers: {count: 2}"));
    assert_eq!((value.key.as_str(), value.advice.as_str()), ("workers", "takes a value, not a section"));
    // A section all of whose keys are commented out says nothing.
    assert!(with_yaml("limits:\nheartbeat: {}\n").is_ok());
}

#[test]
fn flags_win_over_the_environment_which_wins_over_the_file() {
    let scratch = Scratch::new();
    let file = scratch
        .write("tidegate.yaml", "limits: {max_subscriptions: 1, max_fragments: 1, max_handshakes: 1}\n");
    let variables = environment(&[
        ("TIDEGATE__LIMITS__MAX_FRAGMENTS", "2"),
        ("TIDEGATE__LIMITS__MAX_SUBSCRIPTIONS", "2"),
    ]);
    let sources = Sources {
        file: Some(file),
        environment: variables,
        flags: flags(&[("limits.max_subscriptions", "3"), ("workers", "7"), ("workers", "8")]),
    };
    let loaded = load(&sources, &machine()).unwrap();
    let limits = loaded.settings.limits;
    assert_eq!((limits.max_handshakes, limits.max_fragments, limits.max_subscriptions), (1, 2, 3));
    assert_eq!(loaded.settings.workers, 8);
    for line in [
        "  max_handshakes: 1  # ",
        "  max_fragments: 2  # environment TIDEGATE__LIMITS__MAX_FRAGMENTS\n",
        "  max_subscriptions: 3  # --set\n",
        "  max_connections: auto  # default; here 20000\n",
    ] {
        assert!(loaded.effective.contains(line), "{line} is not in\n{}", loaded.effective);
    }
    assert!(loaded.effective.contains("tidegate.yaml\n"));
}

#[test]
fn an_empty_variable_counts_as_absent() {
    let variables = environment(&[("TIDEGATE__TLS__CERT", ""), ("TIDEGATE__WORKERS", "")]);
    let loaded = load(&Sources { environment: variables, ..Sources::default() }, &machine()).unwrap();
    assert!(loaded.settings.tls.is_none());
    assert_eq!(loaded.settings.workers, 4);
}

#[test]
fn the_three_formats_say_the_same() {
    let scratch = Scratch::new();
    let files = [
        scratch.write(
            "t.yaml",
            "workers: 2\nauth: {anonymous: true, origins: ['https://a.example']}\n\
             namespaces: [{name: chat, subscribe: anyone, publish: subscriber}]\noutbox: {max_bytes: 65536}\n",
        ),
        scratch.write(
            "t.toml",
            "workers = 2\n[auth]\nanonymous = true\norigins = ['https://a.example']\n[outbox]\nmax_bytes = '64KiB'\n\
             [[namespaces]]\nname = 'chat'\nsubscribe = 'anyone'\npublish = 'subscriber'\n",
        ),
        scratch.write(
            "t.json",
            r#"{"workers": "2", "auth": {"anonymous": true, "origins": ["https://a.example"]}, "outbox": {"max_bytes": "64KiB"},
                "namespaces": [{"name": "chat", "subscribe": "anyone", "publish": "subscriber"}]}"#,
        ),
    ];
    let settings = files.map(|file| {
        let loaded = load(&Sources { file: Some(file), ..Sources::default() }, &machine()).unwrap();
        format!("{:?}", loaded.settings)
    });
    assert_eq!(settings[0], settings[1]);
    assert_eq!(settings[0], settings[2]);
    assert!(settings[0].contains("max_bytes: 65536"));
}

#[test]
fn lists_can_be_given_in_variables() {
    let variables = environment(&[
        ("TIDEGATE__AUTH__ORIGINS", "https://a.example, https://B.example:443"),
        ("TIDEGATE__NAMESPACES", r#"[{"name":"chat","subscribe":"anyone"}]"#),
        ("TIDEGATE__API__KEYS", r#"[{"name":"backend","key":"0123456789abcdef","scope":"publish"}]"#),
    ]);
    let loaded = load(&Sources { environment: variables, ..Sources::default() }, &machine()).unwrap();
    let settings = loaded.settings;
    assert_eq!(settings.auth.origins, ["https://a.example", "https://b.example"]);
    // What an item leaves out is as in the default namespace.
    let rights = Namespace::plain(Right::Anyone, Right::Nobody);
    let [(name, rules)] = settings.namespaces.as_slice() else { panic!("{:?}", settings.namespaces) };
    assert_eq!((name.as_str(), rules.clients), ("chat", rights));
    assert_eq!(settings.api.keys[0].key.expose(), "0123456789abcdef");
    assert_eq!(settings.api.keys[0].scope, Scope::Publish);
    assert!(loaded.effective.contains("  - {name: chat, subscribe: anyone}\n"), "{}", loaded.effective);
    assert!(!loaded.effective.contains("0123456789abcdef"));
}

#[test]
fn what_config_prints_can_be_given_back() {
    let scratch = Scratch::new();
    let first = with_flags(&[
        ("dev.enabled", "true"),
        ("auth.origins", "https://a.example,http://[::1]:80"),
        ("listen.public", "[::1]:8000"),
        ("node.name", "007"),
        ("limits.message_timeout", "1m 30s"),
        ("log.level", "info,tidegate=debug"),
        ("namespaces", r#"[{"name":"true"},{"name":"chat","subscribe":"anyone"}]"#),
    ])
    .unwrap();
    let file = scratch.write("again.yaml", &first.effective);
    let second = load(&Sources { file: Some(file), ..Sources::default() }, &machine()).unwrap();
    assert_eq!(format!("{:?}", first.settings), format!("{:?}", second.settings));
}

#[test]
fn a_file_that_cannot_be_read_is_said_in_words() {
    let scratch = Scratch::new();
    for (name, text, advice) in [
        ("broken.yaml", "limits: [", "cannot be understood"),
        ("broken.toml", "limits = = 1", "cannot be understood"),
        ("broken.json", "{", "cannot be understood"),
        ("list.yaml", "- a\n- b\n", "cannot be understood"),
        ("settings.ini", "a=b", "must end in .yaml, .yml, .toml or .json"),
    ] {
        let file = scratch.write(name, text);
        let problem = problem(load(&Sources { file: Some(file), ..Sources::default() }, &machine()));
        assert!(problem.key.ends_with(name) && problem.advice.contains(advice), "{problem}");
    }
    let file = Some(scratch.0.path().join("missing.yaml"));
    let missing = problem(load(&Sources { file, ..Sources::default() }, &machine()));
    assert!(missing.advice.contains("cannot be read"), "{missing}");
}
