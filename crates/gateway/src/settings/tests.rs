//! What an operator may rely on when writing settings.
#![expect(clippy::unwrap_used, reason = "a failing test is what should happen")]

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use tidegate_hub::{Namespace, Right};
use tidegate_relay::RelaySettings;

use super::*;

/// A directory that goes away with the test.
struct Scratch(tempfile::TempDir);

impl Scratch {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

fn machine() -> Machine {
    Machine { cpus: 4, files: 20_200, memory: Some(8 << 30), host: "gull".to_owned() }
}

fn flags(pairs: &[(&str, &str)]) -> Vec<Assignment> {
    pairs
        .iter()
        .map(|(key, value)| Assignment {
            key: (*key).to_owned(),
            value: (*value).to_owned(),
            origin: "--set".to_owned(),
        })
        .collect()
}

fn environment(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn with_flags(pairs: &[(&str, &str)]) -> Result<Loaded, Problems> {
    load(&Sources { flags: flags(pairs), ..Sources::default() }, &machine())
}

fn with_yaml(text: &str) -> Result<Loaded, Problems> {
    let scratch = Scratch::new();
    let file = scratch.write("tidegate.yaml", text);
    load(&Sources { file: Some(file), ..Sources::default() }, &machine())
}

/// The one problem there should be.
fn problem(result: Result<Loaded, Problems>) -> Problem {
    let mut problems = result.unwrap_err().0;
    assert_eq!(problems.len(), 1, "{problems:#?}");
    problems.remove(0)
}

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
    assert!(matches!(settings.relay, RelaySettings::Memory));
    let rights = Namespace { subscribe: Right::Authenticated, publish: Right::Nobody };
    assert_eq!(settings.namespaces, [("default".to_owned(), rights)]);
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
fn what_later_versions_know_is_refused_in_so_many_words() {
    for yaml in [
        "auth: {jwt: {hmac_secret: s3cret, audience: a}}",
        "namespaces: [{name: a, history_size: 10}]",
        "rebalance: {enabled: true}",
        "limits: {message_rate: 100}",
        "relay: {redis: {sentinel: {master: m, nodes: [a]}}}",
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
    let rights = Namespace { subscribe: Right::Anyone, publish: Right::Nobody };
    assert_eq!(settings.namespaces, [("chat".to_owned(), rights)]);
    assert_eq!(settings.api.keys[0].key.expose(), "0123456789abcdef");
    assert_eq!(settings.api.keys[0].scope, Scope::Publish);
    assert!(loaded.effective.contains("  - {name: chat, subscribe: anyone}\n"), "{}", loaded.effective);
    assert!(!loaded.effective.contains("0123456789abcdef"));
}

#[test]
fn secrets_are_never_shown() {
    let scratch = Scratch::new();
    let file = scratch.write(
        "t.yaml",
        "relay: {kind: redis, redis: {url: 'redis://tide:hush-url@10.0.0.1:6379/0'}}\n\
         api: {keys: [{name: backend, key: hush-hush-hush-key, scope: admin}]}\n",
    );
    let loaded = load(&Sources { file: Some(file), ..Sources::default() }, &machine()).unwrap();
    assert!(loaded.effective.contains("url: \"redis://tide:***@10.0.0.1:6379/0\""), "{}", loaded.effective);
    assert!(loaded.effective.contains("  - {name: backend, key: ***, scope: admin}"), "{}", loaded.effective);
    let debug = format!("{:?}", loaded.settings);
    assert!(!loaded.effective.contains("hush") && !debug.contains("hush"), "{debug}");
    let RelaySettings::Redis(redis) = loaded.settings.relay else { panic!("memory") };
    assert_eq!(redis.url, "redis://10.0.0.1:6379/0");
    assert_eq!((redis.username.unwrap(), redis.password.unwrap().expose()), ("tide".to_owned(), "hush-url"));

    for (key, value) in [
        ("relay.redis.pasword", "hush"),
        ("api.keys", "hush"),
        ("api.keys", "[\"hush\"]"),
        ("api.keys", "[{\"name\":\"a\",\"key\":\"hush\"}]"),
        ("api.keys", "[{\"name\":\"a\",\"key\":\"hush"),
        ("relay.redis.url", "redis://x:hush@"),
        ("relay.redis.url", "http://x:hush@host/"),
        ("api.keys", "[{\"name\":\"a\",\"scope\":\"read\",\"kee\":\"hush\"}]"),
        ("api.key", "hush"),
    ] {
        let report = with_flags(&[(key, value)]).unwrap_err().to_string();
        assert!(!report.contains("hush"), "{report}");
    }
}

#[test]
fn a_secret_of_digits_keeps_its_zeros() {
    let redis = |pairs: &[(&str, &str)]| match with_flags(pairs).unwrap().settings.relay {
        RelaySettings::Redis(redis) => redis.password.unwrap().expose().to_owned(),
        RelaySettings::Memory => panic!("memory"),
    };
    assert_eq!(redis(&[("relay.kind", "redis"), ("relay.redis.password", "007")]), "007");
    let scratch = Scratch::new();
    let file = scratch.write("password", "007\n");
    let file = file.to_str().unwrap();
    assert_eq!(redis(&[("relay.kind", "redis"), ("relay.redis.password_file", file)]), "007");
    let quoted = with_yaml("relay: {kind: redis, redis: {password: '007'}}").unwrap();
    assert!(format!("{:?}", quoted.settings.relay).contains("Some(***)"));
    let bare = problem(with_yaml("relay: {kind: redis, redis: {password: 007}}"));
    assert!(bare.advice.contains("put it in quotes"), "{bare}");
}

#[test]
fn a_secret_and_its_file_together_are_refused() {
    let scratch = Scratch::new();
    let file = scratch.write("secret", "sixteen characters and more");
    let file = file.to_str().unwrap();
    let both = problem(with_flags(&[("relay.redis.password", "x"), ("relay.redis.password_file", file)]));
    assert_eq!(both.key, "relay.redis.password_file");
    assert_eq!(both.advice, "relay.redis.password is set too: take one of them out");
    let item = problem(with_yaml(&format!(
        "api: {{keys: [{{name: a, key: sixteen-characters-and-more, key_file: '{file}', scope: read}}]}}"
    )));
    assert_eq!(item.advice, "key is set too: take one of them out");
    let good = with_yaml(&format!("api: {{keys: [{{name: a, key_file: '{file}', scope: read}}]}}")).unwrap();
    assert_eq!(good.settings.api.keys[0].key.expose(), "sixteen characters and more");
    let missing = problem(with_flags(&[("relay.redis.password_file", "/nowhere/at/all")]));
    assert!(missing.advice.starts_with("cannot be read"), "{missing}");
}

#[test]
fn dev_mode_opens_everything_on_loopback_only() {
    let loaded = with_flags(&[("dev.enabled", "true")]).unwrap();
    let settings = &loaded.settings;
    assert!(settings.dev && settings.auth.anonymous);
    assert!(settings.listen.public.ip().is_loopback());
    let open = Namespace { subscribe: Right::Anyone, publish: Right::Anyone };
    assert_eq!(settings.namespaces, [("default".to_owned(), open)]);
    assert_eq!(settings.any_namespace, Some(open));
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
        (&[("relay.redis.prefix", "a{b")], "relay.redis.prefix", "may not contain"),
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

/// The cells of the rows of all tables in a page whose first cell is code, that cell bare.
fn rows(page: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| -> Vec<String> {
        let inner = line.trim().trim_start_matches('|').trim_end_matches('|');
        inner.split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    let bare = |mut cells: Vec<String>| {
        cells[0] = cells[0].strip_prefix('`')?.strip_suffix('`')?.to_owned();
        Some(cells)
    };
    page.lines().filter(|line| line.starts_with("| `")).map(cells).filter_map(bare).collect()
}

#[test]
fn the_reference_has_every_key_with_its_default_and_no_other() {
    let page = include_str!("../../../../docs/reference/settings.md");
    let known = known::Known::new();
    let (keys, fields): (Vec<_>, Vec<_>) = rows(page).into_iter().partition(|row| row.len() == 4);
    let documented: Vec<(String, String)> =
        keys.into_iter().map(|row| (row[0].clone(), row[1].trim_matches('`').to_owned())).collect();
    let mut expected: Vec<(String, String)> = Vec::new();
    for key in known.keys() {
        let (default, _) = known.default(key, false).unwrap();
        let shown = value::shown(key, default);
        expected.push((key.clone(), shown.trim_matches('"').to_owned()));
        if let Some((dev, _)) = known.default(key, true).filter(|(dev, _)| *dev != default)
            && value::text(dev).is_some_and(|dev| dev != "true")
        {
            let words = format!("In dev mode `{}`.", value::text(dev).unwrap());
            let line = page.lines().find(|line| line.starts_with(&format!("| `{key}`"))).unwrap();
            assert!(line.contains(&words), "{key}: {words}");
        }
    }
    let sorted = |mut pairs: Vec<(String, String)>| {
        pairs.sort();
        pairs
    };
    assert_eq!(sorted(documented), sorted(expected));

    let mut documented: Vec<String> = fields.into_iter().map(|row| row[0].clone()).collect();
    let mut expected: Vec<String> = ["api.keys", "namespaces"]
        .iter()
        .flat_map(|list| known::item_keys(list))
        .map(|field| (*field).to_owned())
        .collect();
    documented.sort();
    expected.sort();
    assert_eq!(documented, expected);
}

#[test]
fn the_example_of_the_reference_is_valid() {
    let page = include_str!("../../../../docs/reference/settings.md");
    let yaml = page.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    let problems = with_yaml(yaml).unwrap_err().0;
    // All but the files that are not here.
    let files: Vec<&str> = problems.iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(files, ["api.keys[0].key_file", "relay.redis.password_file", "tls.cert"], "{problems:?}");
}
