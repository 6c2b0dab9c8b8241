//! Three masters with a replica each.

use std::process::Command;

use crate::deadline::{PATIENCE, eventually};
use crate::process::run;
use crate::redis::{Options, Redis};

/// The channel whose master is meant when one is asked for.
const CHANNEL: &str = "kept:1";

/// A server of the cluster, as another one sees it.
struct Member {
    id: String,
    port: u16,
    master: bool,
    /// Of a replica: its master's id.
    follows: String,
}

pub(super) fn start() -> Vec<Redis> {
    let server = || {
        Options::default()
            .line("cluster-enabled yes")
            .line("cluster-node-timeout 1500")
            .line("repl-diskless-sync-delay 0")
            .go()
    };
    let servers: Vec<Redis> = (0..6).map(|_| server()).collect();
    let addresses = servers.iter().map(|server| format!("127.0.0.1:{}", server.port()));
    let made = run(Command::new("redis-cli").args(["--cluster", "create"]).args(addresses).args([
        "--cluster-replicas",
        "1",
        "--cluster-yes",
    ]));
    assert!(made.status.success(), "{made:?}");
    eventually("the cluster is whole", PATIENCE * 2, || {
        let whole = |server: &Redis| {
            let said = server.ask(&["INFO", "replication"]);
            server.ask(&["CLUSTER", "INFO"]).contains("cluster_state:ok")
                && (said.contains("role:master") || said.contains("master_link_status:up"))
        };
        servers.iter().all(whole).then_some(())
    });
    servers
}

/// Asks a server that may stand still.
fn ask_briefly(server: &Redis, words: &[&str]) -> Option<String> {
    let port = server.port().to_string();
    let said = run(Command::new("timeout").args(["2", "redis-cli", "-e", "-p", &port]).args(words));
    said.status.success().then_some(said.out)
}

/// Who is in the cluster and works, by the word of one that does.
fn members(servers: &[Redis]) -> Vec<Member> {
    let said = servers.iter().find_map(|server| ask_briefly(server, &["CLUSTER", "NODES"]));
    let text = said.unwrap_or_default();
    let member = |line: &str| {
        let fields: Vec<&str> = line.split(' ').collect();
        let [id, address, flags, follows, ..] = fields.as_slice() else { return None };
        if flags.contains("fail") {
            return None;
        }
        let port = address.split([':', '@']).nth(1)?.parse().ok()?;
        let (id, follows) = ((*id).to_owned(), (*follows).to_owned());
        Some(Member { id, port, master: flags.contains("master"), follows })
    };
    text.lines().filter_map(member).collect()
}

/// The number of a channel's slot.
fn slot(servers: &[Redis], channel: &str) -> String {
    let key = format!("tg:{{{channel}}}");
    let slot = servers.iter().find_map(|server| ask_briefly(server, &["CLUSTER", "KEYSLOT", &key]));
    slot.unwrap_or_default()
}

/// The port of the master of a slot, by the word of one that works.
fn owner(servers: &[Redis], slot: &str) -> Option<u16> {
    let number: u16 = slot.parse().ok()?;
    servers.iter().find_map(|server| {
        let said = ask_briefly(server, &["CLUSTER", "NODES"])?;
        let holds = |range: &str| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let (Ok(first), Ok(last)) = (first.parse::<u16>(), last.parse::<u16>()) else { return false };
            (first..=last).contains(&number)
        };
        said.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(' ').collect();
            let fine = fields.get(2).is_some_and(|flags| flags.contains("master") && !flags.contains("fail"));
            if !fine || !fields.iter().skip(8).any(|range| holds(range)) {
                return None;
            }
            fields.get(1)?.split([':', '@']).nth(1)?.parse().ok()
        })
    })
}

/// The port of the master that the faults are about.
pub(super) fn master(servers: &[Redis]) -> u16 {
    let slot = slot(servers, CHANNEL);
    eventually("the channel's slot has a master", PATIENCE, || owner(servers, &slot))
}

/// The replica of a master takes its place.
pub(super) fn fail_over(servers: &[Redis], master: usize) {
    let all = members(servers);
    let port = servers[master].port();
    let replica = all.iter().find(|member| {
        !member.master && all.iter().any(|other| other.port == port && other.id == member.follows)
    });
    let server = replica.and_then(|replica| servers.iter().find(|server| server.port() == replica.port));
    server.expect("a replica of the master").ask(&["CLUSTER", "FAILOVER"]);
}

/// Moves a channel's slot, keys and all, as redis-cli does it.
pub(super) fn reshard(servers: &[Redis], channel: &str) {
    let slot = slot(servers, channel);
    let all = members(servers);
    let from = eventually("the slot has a master", PATIENCE, || owner(servers, &slot));
    let source = all.iter().find(|member| member.port == from).expect("it is a member");
    // The next master by port, so that it does not go back and forth between two.
    let mut others: Vec<&Member> = all.iter().filter(|member| member.master && member.port != from).collect();
    others.sort_by_key(|member| (member.port < from, member.port));
    let target = others.first().expect("there are three masters");
    let at = |port: u16| servers.iter().find(|server| server.port() == port).expect("one of ours");
    let (old, new) = (at(source.port), at(target.port));
    new.ask(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &source.id]);
    old.ask(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &target.id]);
    let port = target.port.to_string();
    loop {
        let keys = old.ask(&["CLUSTER", "GETKEYSINSLOT", &slot, "10"]);
        let keys: Vec<&str> = keys.lines().filter(|key| !key.is_empty()).collect();
        if keys.is_empty() {
            break;
        }
        let mut words = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
        words.extend(&keys);
        let said = old.ask(&words);
        assert!(said == "OK" || said == "NOKEY", "MIGRATE of {keys:?}: {said}");
    }
    for server in [new, old] {
        server.ask(&["CLUSTER", "SETSLOT", &slot, "NODE", &target.id]);
    }
    for member in all.iter().filter(|member| member.master) {
        at(member.port).cli(&["CLUSTER", "SETSLOT", &slot, "NODE", &target.id]);
    }
}
