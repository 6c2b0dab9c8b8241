//! Two nodes on one Redis, shown: subscribers by the official SDKs and raw sockets on both, one of the nodes over TLS; a
//! backend publishes with redis-cli; what arrived where is printed. Everything runs on free ports and ends with it.

use serde_json::Value;
use tidegate_tests::raw::{Error, Raw, Upgrade};
use tidegate_tests::sdk::Kind;
use tidegate_tests::{Certificates, Node, Redis, Sdk};

const CHANNEL: &str = "news";
const PAYLOADS: [&str; 3] = [r#"{"text":"hello"}"#, r#"{"text":"how are you"}"#, r#"{"text":"bye"}"#];

/// Clients of one kind on one node.
struct Group {
    name: &'static str,
    node: &'static str,
    count: usize,
    clients: Clients,
}

enum Clients {
    Sdk(Sdk),
    Raw(Vec<Raw>),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let certificates = Certificates::new();
    let redis = Redis::start();
    let a = Node::dev().named("a").redis(&redis).go();
    let b = Node::dev().named("b").redis(&redis).tls(&certificates).go();
    say(&format!("redis-server on 127.0.0.1:{}", redis.port()));
    say(&format!("node a at {}, its internal port at {}", a.url(), a.internal()));
    say(&format!("node b at {}, its internal port at {}", b.url(), b.internal()));

    let mut groups = Vec::new();
    for (node, name) in [(&a, "a"), (&b, "b")] {
        for (kind, count, what) in [
            (Kind::Js, 100, "JavaScript SDK, JSON"),
            (Kind::JsProtobuf, 100, "JavaScript SDK, Protobuf"),
            (Kind::Python, 25, "Python SDK, JSON"),
            (Kind::PythonProtobuf, 25, "Python SDK, Protobuf"),
        ] {
            let sdk = Sdk::start(kind, Some(&certificates));
            sdk.fleet("fleet", count, &node.url(), CHANNEL);
            groups.push(Group { name: what, node: name, count, clients: Clients::Sdk(sdk) });
        }
        let upgrade = Upgrade::at(node.public());
        let upgrade = if name == "b" { upgrade.tls(certificates.client()) } else { upgrade };
        let mut raw = Vec::new();
        for _ in 0..250 {
            let mut client = upgrade.open().await?;
            client.connect_command().await?;
            client.subscribe(CHANNEL).await?;
            raw.push(client);
        }
        groups.push(Group {
            name: "raw sockets, JSON",
            node: name,
            count: raw.len(),
            clients: Clients::Raw(raw),
        });
    }
    let connections: usize = groups.iter().map(|group| group.count).sum();
    say(&format!("{connections} connections, each subscribed to {CHANNEL:?}"));
    say("");
    for payload in PAYLOADS {
        let nodes = redis.publish(CHANNEL, payload);
        say(&format!("$ redis-cli PUBLISH 'tg:{{{CHANNEL}}}' '{payload}'"));
        say(&format!("(integer) {nodes}"));
    }
    say("");

    say(&format!(
        "{:<5} {:<26} {:>12}   {}",
        "node", "client", "connections", "each received, in this order"
    ));
    let mut whole = true;
    for group in &mut groups {
        for (sequence, count) in heard(&mut group.clients).await? {
            let good = sequence == PAYLOADS;
            whole &= good;
            let what = if good {
                format!("all {} once", PAYLOADS.len())
            } else {
                format!("WRONG: {}", sequence.join(" "))
            };
            say(&format!("{:<5} {:<26} {:>12}   {what}", group.node, group.name, count));
        }
    }
    say("");
    if whole {
        say(&format!(
            "every one of {connections} subscribers on both nodes heard each publication once, in order"
        ));
        Ok(())
    } else {
        Err(Error::Protocol("not every subscriber heard each publication once, in order".to_owned()))
    }
}

/// Each different sequence that clients received, with how many received it.
async fn heard(clients: &mut Clients) -> Result<Vec<(Vec<String>, usize)>, Error> {
    let mut groups: Vec<(Vec<String>, usize)> = Vec::new();
    let mut add =
        |sequence: Vec<String>, count: usize| match groups.iter_mut().find(|(known, _)| *known == sequence) {
            Some((_, so_far)) => *so_far += count,
            None => groups.push((sequence, count)),
        };
    let text = |data: &Value| data.to_string();
    match clients {
        Clients::Sdk(sdk) => {
            for (sequence, count) in sdk.heard("fleet", PAYLOADS.len()) {
                add(sequence.iter().map(text).collect(), usize::try_from(count).unwrap_or(usize::MAX));
            }
        }
        Clients::Raw(raw) => {
            for client in raw {
                let mut sequence = Vec::new();
                for _ in PAYLOADS {
                    sequence.push(text(&client.publication().await?.data));
                }
                add(sequence, 1);
            }
        }
    }
    Ok(groups)
}

#[expect(clippy::print_stdout, reason = "this program is for looking at")]
fn say(line: &str) {
    println!("{line}");
}
