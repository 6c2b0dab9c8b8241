//! Settings, by the binary's own door.

use std::process::Command;

use tidegate_tests::node::binary;
use tidegate_tests::process::{Said, run};
use tidegate_tests::{Node, PATIENCE};

/// Runs the binary in an empty directory with this settings file.
fn tidegate(file: Option<(&str, &str)>, arguments: &[&str], environment: &[(&str, &str)]) -> Said {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut command = Command::new(binary());
    command.current_dir(dir.path()).args(arguments).envs(environment.iter().copied());
    if let Some((name, text)) = file {
        std::fs::write(dir.path().join(name), text).expect("the temporary directory takes files");
        command.args(["--config", name]);
    }
    run(&mut command)
}

#[test]
fn every_problem_is_told_at_once_with_key_value_and_what_to_do() {
    let yaml = "
listen: {public: \"nowhere\", intrenal: \"127.0.0.1:9000\"}
limits: {max_connections: -5, handshake_timeout: soon}
heartbeat: {interval: 100ms}
outbox: {max_bytes: lots}
relay: {kind: kafka}
namespaces: [{name: chat, subscribe: everybody}]
";
    let said = tidegate(Some(("tidegate.yaml", yaml)), &["check-config"], &[]);
    assert_eq!(said.status.code(), Some(1), "{said:?}");
    let told = format!("{}\n{}", said.out, said.err);
    for words in [
        "listen.public",
        "nowhere",
        "listen.intrenal",
        "listen.internal",
        "limits.max_connections",
        "-5",
        "limits.handshake_timeout",
        "soon",
        "heartbeat.interval",
        "outbox.max_bytes",
        "lots",
        "relay.kind",
        "kafka",
        "everybody",
    ] {
        assert!(told.contains(words), "{words:?} is not in:\n{told}");
    }
    assert!(!told.contains("panicked"));
}

#[test]
fn settings_without_a_problem_are_said_to_be_so() {
    let yaml = "auth: {anonymous: true}\nnamespaces: [{name: chat, subscribe: anyone}]\n";
    let said = tidegate(Some(("tidegate.yaml", yaml)), &["check-config"], &[]);
    assert_eq!(said.status.code(), Some(0), "{said:?}");
    for (name, text) in [
        ("tidegate.toml", "[auth]\nanonymous = true\n"),
        ("tidegate.json", "{\"auth\": {\"anonymous\": true}}"),
    ] {
        let said = tidegate(Some((name, text)), &["check-config"], &[]);
        assert_eq!(said.status.code(), Some(0), "{name}: {said:?}");
    }
}

#[test]
fn bad_settings_do_not_start_a_node() {
    let said = tidegate(None, &["--dev", "--set", "limits.max_conections=5"], &[]);
    assert_ne!(said.status.code(), Some(0));
    assert!(
        said.err.contains("limits.max_conections") && said.err.contains("limits.max_connections"),
        "{said:?}"
    );
    let said = tidegate(None, &["--dev"], &[("TIDEGATE__LIMITS__MAX_CONECTIONS", "5")]);
    assert_ne!(said.status.code(), Some(0), "a misspelt variable is no less a mistake");
    assert!(said.err.to_lowercase().contains("max_conections"), "{said:?}");
    let said = tidegate(None, &["--config", "nothing.yaml"], &[]);
    assert_ne!(said.status.code(), Some(0));
    assert!(said.err.contains("nothing.yaml"), "{said:?}");
}

#[test]
fn later_layers_win_and_config_says_which() {
    let yaml = "limits: {max_subscriptions: 10, max_message_bytes: 10KiB, connect_timeout: 11s}\n";
    let environment =
        [("TIDEGATE__LIMITS__MAX_MESSAGE_BYTES", "20KiB"), ("TIDEGATE__LIMITS__CONNECT_TIMEOUT", "22s")];
    let arguments = ["config", "--set", "limits.connect_timeout=33s"];
    let said = tidegate(Some(("tidegate.yaml", yaml)), &arguments, &environment);
    assert_eq!(said.status.code(), Some(0), "{said:?}");
    let line = |key: &str| {
        let found = said.out.lines().find(|line| line.contains(key));
        found.unwrap_or_else(|| panic!("no {key} in:\n{}", said.out)).to_owned()
    };
    assert!(line("max_subscriptions").contains("10"));
    assert!(line("max_subscriptions").contains("tidegate.yaml"), "{}", line("max_subscriptions"));
    assert!(line("max_message_bytes").contains("20"));
    assert!(
        line("max_message_bytes").contains("TIDEGATE__LIMITS__MAX_MESSAGE_BYTES"),
        "{}",
        line("max_message_bytes")
    );
    assert!(line("connect_timeout").contains("33"));
    assert!(line("connect_timeout").contains("--set"), "{}", line("connect_timeout"));
}

#[test]
fn config_shows_no_secret() {
    let environment = [("TIDEGATE__RELAY__REDIS__PASSWORD", "s3cret-word")];
    let arguments =
        ["config", "--set", "relay.kind=redis", "--set", "relay.redis.url=redis://:an0ther@127.0.0.1:1/0"];
    let said = tidegate(None, &arguments, &environment);
    let told = format!("{}\n{}", said.out, said.err);
    assert!(!told.contains("s3cret-word") && !told.contains("an0ther"), "{told}");
    assert!(told.contains("password"), "{told}");
}

#[test]
fn a_secret_may_come_from_a_file() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("api.key");
    std::fs::write(&path, "from-a-file\n").expect("the temporary directory takes files");
    let node = Node::dev()
        .file(&format!("api:\n  keys:\n    - {{name: backend, key_file: {}, scope: read}}\n", path.display()))
        .go();
    let empty = serde_json::json!({});
    assert_eq!(node.api_with("info", Some("from-a-file"), &empty).status, 200);
    assert_eq!(node.api_with("info", Some("from-a-fil"), &empty).status, 401);
}

#[test]
fn help_is_worth_reading() {
    let said = tidegate(None, &["--help"], &[]);
    assert_eq!(said.status.code(), Some(0));
    for words in ["--config", "--dev", "--set", "check-config", "config", "TIDEGATE__"] {
        assert!(said.out.contains(words), "{words:?} is not in:\n{}", said.out);
    }
    let said = tidegate(None, &["--version"], &[]);
    assert!(said.out.starts_with("tidegate "), "{said:?}");
    let said = tidegate(None, &["--no-such-flag"], &[]);
    assert_eq!(said.status.code(), Some(2));
}

#[test]
fn dev_mode_is_loud_and_stays_on_loopback() {
    let node = Node::dev().go();
    let loud = node
        .process
        .err
        .find(PATIENCE, |line| (line.contains("WARN") && line.contains("DEV MODE")).then_some(()));
    loud.expect("dev mode says so at start");
    let said = tidegate(
        None,
        &["--dev", "--set", "listen.public=0.0.0.0:0", "--set", "listen.internal=127.0.0.1:0"],
        &[],
    );
    assert_ne!(said.status.code(), Some(0), "dev mode beyond loopback is refused");
    assert!(said.err.contains("listen.public"), "{said:?}");
}
