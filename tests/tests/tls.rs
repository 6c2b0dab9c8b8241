//! TLS at the public port: sessions resumed by tickets, on one node and on any.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use rustls::{ClientConfig, SupportedProtocolVersion, version};
use tempfile::NamedTempFile;
use tidegate_tests::node::{Start, binary};
use tidegate_tests::process::run;
use tidegate_tests::raw::{Error, Upgrade};
use tidegate_tests::{Certificates, Node, PATIENCE};

/// Keys as `openssl rand -base64 32` prints them.
const KEYS: [&str; 3] = [
    "qL0mJ2p0mS9Q4P0Gk2p3vJ0cZ7yqZ5m4cWbVf0cUQmI=",
    "n5xk1sYtq0c1u3y9s7Qm8Jm1Z0b6lq2J7h3o9zq4w5E=",
    "B1v8w2e3r4t5y6u7i8o9p0a1s2d3f4g5h6j7k8l9z0A=",
];

/// A file with some of [`KEYS`].
fn file(keys: &[usize]) -> NamedTempFile {
    let file = NamedTempFile::new().expect("a file");
    write(file.path(), keys);
    file
}

fn write(path: &Path, keys: &[usize]) {
    let lines: String = keys.iter().map(|&key| format!("{}\n", KEYS[key])).collect();
    std::fs::write(path, lines).expect("the file takes keys");
}

fn sharing(name: &str, certificates: &Certificates, file: &NamedTempFile) -> Start {
    Node::dev().named(name).tls(certificates).set("tls.ticket_keys", file.path().display())
}

/// Connects, subscribes, leaves; says whether the node resumed the client's session. The client uses up a ticket for it,
/// if it has one, and has a new one afterwards.
async fn resumes(node: &Node, client: &Arc<ClientConfig>) -> Result<bool, Error> {
    let count = |kind| node.metrics().with("tidegate_tls_handshakes_total", &[("kind", kind)]);
    let before = (count("full"), count("resumed"));
    let mut raw = Upgrade::at(node.public()).tls(Arc::clone(client)).open().await?;
    raw.connect_command().await?;
    raw.subscribe("news").await?;
    let after = (count("full") - before.0, count("resumed") - before.1);
    assert!(after == (1.0, 0.0) || after == (0.0, 1.0), "one handshake was counted: {after:?}");
    Ok(after == (0.0, 1.0))
}

const VERSIONS: [&SupportedProtocolVersion; 2] = [&version::TLS12, &version::TLS13];

#[tokio::test]
async fn a_session_is_resumed_on_any_node_that_has_the_keys() -> Result<(), Error> {
    let (certificates, keys) = (Certificates::new(), file(&[0]));
    let a = sharing("a", &certificates, &keys).go();
    let b = sharing("b", &certificates, &keys).go();
    for version in VERSIONS {
        let client = certificates.client_speaking(version);
        assert!(!resumes(&a, &client).await?, "{version:?}: the first handshake is full");
        for (node, name) in [(&b, "b"), (&a, "a"), (&a, "a again"), (&b, "b again")] {
            assert!(resumes(node, &client).await?, "{version:?}: resumed on {name}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn without_shared_keys_a_session_is_resumed_on_its_own_node_and_greeted_in_full_elsewhere()
-> Result<(), Error> {
    let certificates = Certificates::new();
    let a = Node::dev().named("a").tls(&certificates).go();
    let b = Node::dev().named("b").tls(&certificates).go();
    for version in VERSIONS {
        let client = certificates.client_speaking(version);
        assert!(!resumes(&a, &client).await?, "{version:?}: the first handshake is full");
        assert!(resumes(&a, &client).await?, "{version:?}: the same process");
        assert!(!resumes(&b, &client).await?, "{version:?}: another process");
        assert!(resumes(&b, &client).await?, "{version:?}: which has given its own ticket");
    }
    Ok(())
}

#[tokio::test]
async fn nodes_with_different_keys_serve_each_others_clients_in_full() -> Result<(), Error> {
    let (certificates, keys) = (Certificates::new(), [file(&[0]), file(&[1])]);
    let a = sharing("a", &certificates, &keys[0]).go();
    let b = sharing("b", &certificates, &keys[1]).go();
    for version in VERSIONS {
        let client = certificates.client_speaking(version);
        assert!(!resumes(&a, &client).await?);
        assert!(!resumes(&b, &client).await?, "{version:?}");
        assert!(!resumes(&a, &client).await?, "{version:?}");
    }
    Ok(())
}

#[tokio::test]
async fn keys_are_rotated_in_a_running_node_and_old_tickets_live_while_their_key_is_listed()
-> Result<(), Error> {
    let (certificates, keys) = (Certificates::new(), [file(&[0]), file(&[1])]);
    let old = sharing("old", &certificates, &keys[0]).go();
    let new = sharing("new", &certificates, &keys[1]).go();
    let client = certificates.client();
    assert!(!resumes(&old, &client).await?);

    // The old key second: tickets of the old node are good on the new one.
    write(keys[1].path(), &[1, 0]);
    taken(&new, "using the file's keys");
    assert!(resumes(&new, &client).await?, "a ticket by the second key");
    // What the new node gives is by the first key, which the old one does not have.
    assert!(!resumes(&old, &client).await?);

    // A file that went wrong changes nothing, and is told without what is in it.
    std::fs::write(keys[1].path(), format!("{}\nnot a key at all", KEYS[2]))
        .expect("the file takes anything");
    let told = taken(&new, "the keys from before stay in use");
    assert!(told.contains("line 2 is not base64"), "{told}");
    assert!(resumes(&new, &client).await?, "the keys from before");

    // The old key is gone, and its tickets with it.
    assert!(!resumes(&old, &client).await?);
    write(keys[1].path(), &[1]);
    taken(&new, "using the file's keys");
    assert!(!resumes(&new, &client).await?, "a ticket by a key that is gone");

    let log = new.process.err.lines().join("\n");
    for secret in KEYS.iter().chain(&["not a key at all"]) {
        assert!(!log.contains(secret), "the log has a key:\n{log}");
    }
    Ok(())
}

/// Waits for a line in the node's log.
fn taken(node: &Node, words: &str) -> String {
    let line = node.process.err.take(PATIENCE, |line| line.contains(words).then(|| line.to_owned()));
    line.unwrap_or_else(|why| panic!("no {words:?}: {why}"))
}

#[test]
fn a_node_refuses_to_start_with_ticket_keys_that_cannot_work_and_says_why() {
    let certificates = Certificates::new();
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("tickets.key");
    let short = "c2hvcnQ=";
    for (text, says) in [
        (None, "cannot be read"),
        (Some(String::new()), "has no key"),
        (Some(format!("{}\n{short}\n", KEYS[0])), "line 2 is a key of 5 bytes"),
        (Some(format!("# ours\nthe key is {}\n", KEYS[0])), "line 2 is not base64"),
    ] {
        if let Some(text) = text {
            std::fs::write(&path, text).expect("the file takes anything");
        }
        for verb in ["check-config", "--dev"] {
            let mut command = Command::new(binary());
            command.arg(verb);
            for (key, value) in [
                ("tls.cert", certificates.cert()),
                ("tls.key", certificates.key()),
                ("tls.ticket_keys", path.clone()),
            ] {
                command.arg("--set").arg(format!("{key}={}", value.display()));
            }
            let said = run(&mut command);
            let told = format!("{}\n{}", said.out, said.err);
            assert_eq!(said.status.code(), Some(1), "{verb}: {told}");
            assert!(told.contains("tls.ticket_keys") && told.contains(says), "{verb}: {told}");
            assert!(told.contains("openssl rand -base64 32") || says == "cannot be read", "{verb}: {told}");
            assert!(!told.contains(KEYS[0]) && !told.contains(short), "{verb}: {told}");
        }
    }
}
