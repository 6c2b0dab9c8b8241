//! What `tls.record_layer` may be: the same session over each, with clients that are not ours.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{CipherSuite, ClientConfig, RootCertStore};
use serde_json::json;
use tidegate_tests::raw::{Error, Frame, Upgrade};
use tidegate_tests::{Certificates, Node, PATIENCE, eventually};

const LAYERS: [&str; 2] = ["rustls", "compact"];

fn node(certificates: &Certificates, layer: &str) -> Node {
    Node::dev().named(layer).tls(certificates).set("tls.record_layer", layer).go()
}

/// `openssl s_client`, by its standard input and outputs. Killed when dropped.
struct OpenSsl {
    process: Child,
    input: ChildStdin,
    out: Arc<Mutex<Vec<u8>>>,
    err: Arc<Mutex<Vec<u8>>>,
}

impl OpenSsl {
    fn connect(to: SocketAddr, certificates: &Certificates) -> Self {
        let mut process = Command::new("openssl")
            .args(["s_client", "-tls1_3", "-verify_return_error", "-servername", "localhost"])
            .arg("-connect")
            .arg(to.to_string())
            .arg("-CAfile")
            .arg(certificates.authority())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("openssl is installed: tests/setup/packages.sh names its package");
        let input = process.stdin.take().expect("it was piped");
        let out = follow(process.stdout.take().expect("it was piped"));
        let err = follow(process.stderr.take().expect("it was piped"));
        Self { process, input, out, err }
    }

    /// One write, which the client reads as one: data, or a command if it is a letter.
    fn say(&mut self, bytes: &[u8]) {
        self.input.write_all(bytes).expect("the client reads");
        self.input.flush().expect("the client reads");
    }

    /// A masked text frame; with zeros for a mask.
    fn text(&mut self, text: &str) {
        self.say(&Frame::text(text).bytes());
    }

    /// Waits until the output has `words`, and forgets it up to there.
    fn hears(&self, words: &str) {
        eventually(words, PATIENCE, || take(&self.out, words));
    }

    /// Updates its keys by a command, which goes out with its next data.
    fn update_keys(&mut self, command: &str) {
        self.say(command.as_bytes());
        eventually("KEYUPDATE", PATIENCE, || take(&self.err, "KEYUPDATE"));
    }
}

impl Drop for OpenSsl {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn follow(mut source: impl Read + Send + 'static) -> Arc<Mutex<Vec<u8>>> {
    let book = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&book);
    std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(size @ 1..) = source.read(&mut bytes) {
            kept.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&bytes[..size]);
        }
    });
    book
}

fn take(book: &Mutex<Vec<u8>>, words: &str) -> Option<()> {
    let mut book = book.lock().unwrap_or_else(PoisonError::into_inner);
    let at = book.windows(words.len()).position(|window| window == words.as_bytes())?;
    book.drain(..at + words.len());
    Some(())
}

#[test]
fn openssl_updates_its_keys_in_the_middle_of_a_session() {
    let certificates = Certificates::new();
    for layer in LAYERS {
        let node = node(&certificates, layer);
        let mut client = OpenSsl::connect(node.public(), &certificates);
        client.say(
            b"GET /connection/websocket HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
              Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        );
        client.hears("101 Switching Protocols");
        client.text(r#"{"id":1,"connect":{}}"#);
        client.hears(r#""id":1"#);
        client.text(r#"{"id":2,"subscribe":{"channel":"news"}}"#);
        client.hears(r#""id":2"#);
        for (round, command) in ["K\n", "k\n", "K\n", "K\n", "k\n"].iter().enumerate() {
            client.update_keys(command);
            let id = 3 + round;
            client.text(&format!(r#"{{"id":{id},"rpc":{{"method":"x"}}}}"#));
            client.hears(&format!(r#""id":{id}"#));
            // More than a record, and what follows it.
            for part in 0..3 {
                let data = json!([round, part, "x".repeat(40_000), format!("the end of {round} {part}")]);
                node.api("publish", &json!({"channel": "news", "data": data}));
            }
            client.hears(&format!("the end of {round} 2"));
        }
        client.say(b"Q\n");
        node.until("it has left", |m| m.sum("tidegate_connections") == 0.0);
        assert!(take(&client.err, "error").is_none(), "{layer}");
    }
}

/// A client that speaks one suite.
fn speaking(suite: CipherSuite, certificates: &Certificates) -> Arc<ClientConfig> {
    let mut provider = ring::default_provider();
    provider.cipher_suites.retain(|known| known.suite() == suite);
    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from_pem_file(certificates.authority()).expect("a PEM certificate");
    roots.add(authority).expect("a usable authority");
    let config = ClientConfig::builder_with_provider(Arc::new(CryptoProvider { ..provider }))
        .with_safe_default_protocol_versions()
        .expect("the provider speaks TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

#[tokio::test]
async fn every_suite_is_served_by_each_layer() -> Result<(), Error> {
    let certificates = Certificates::new();
    for layer in LAYERS {
        let node = node(&certificates, layer);
        for suite in [
            CipherSuite::TLS13_AES_128_GCM_SHA256,
            CipherSuite::TLS13_AES_256_GCM_SHA384,
            CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
            CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        ] {
            let config = speaking(suite, &certificates);
            // What comes behind the request is decrypted before the layer changes.
            let first = Frame::text(r#"{"id":1,"connect":{}}"#).bytes();
            for behind in [&[][..], &first] {
                let mut client =
                    Upgrade::at(node.public()).tls(Arc::clone(&config)).behind(behind).open().await?;
                if behind.is_empty() {
                    client.connect_command().await?;
                } else {
                    client.reply(1).await?;
                }
                client.subscribe("news").await?;
                for n in 0..20 {
                    let data = json!([n, "x".repeat(n * 2_500)]);
                    node.api("publish", &json!({"channel": "news", "data": data}));
                    assert_eq!(client.publication().await?.data, data, "{layer} {suite:?}");
                }
                let end = client.close(1000, "").await?;
                assert!(end.close.is_some() && end.orderly, "{layer} {suite:?}: {end:?}");
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn the_compact_layer_holds_idle_connections_in_half_the_memory_and_less() -> Result<(), Error> {
    const CONNECTIONS: u64 = 600;
    let certificates = Certificates::new();
    let config = certificates.client();
    let mut costs = Vec::new();
    for layer in LAYERS {
        let node = node(&certificates, layer);
        let connect = async || {
            let mut client = Upgrade::at(node.public()).tls(Arc::clone(&config)).open().await?;
            client.connect_command().await?;
            Ok::<_, Error>(client)
        };
        let mut clients = Vec::new();
        // What is allocated once is allocated with these.
        for _ in 0..100 {
            clients.push(connect().await?);
        }
        let before = node.resident_bytes();
        for _ in 0..CONNECTIONS {
            clients.push(connect().await?);
        }
        costs.push(node.resident_bytes().saturating_sub(before) / CONNECTIONS);
    }
    assert!(costs[1] * 2 < costs[0], "bytes a connection: {costs:?}");
    Ok(())
}
