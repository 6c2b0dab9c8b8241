//! Who is there, who comes and who goes: by the official SDKs, over each relay, across nodes.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tidegate_tests::sdk::Kind;
use tidegate_tests::{Node, PATIENCE, Redis, Sdk, eventually};

/// One module a SDK and codec, so that the promises run side by side and fail by name.
macro_rules! each_sdk {
    ($($module:ident: $kind:expr;)+) => { $(
        mod $module {
            use super::*;

            #[test]
            fn sees_who_is_there_and_who_comes_and_goes() {
                let node = Node::dev().file(ROOMS).go();
                comings_and_goings($kind, [&node, &node]);
            }

            #[test]
            fn sees_who_is_there_and_who_comes_and_goes_at_another_node() {
                let redis = Redis::start();
                let nodes = ["first", "second"].map(|name| Node::dev().file(ROOMS).redis(&redis).named(name).go());
                comings_and_goings($kind, [&nodes[0], &nodes[1]]);
            }
        }
    )+ };
}

each_sdk! {
    js: Kind::Js;
    js_protobuf: Kind::JsProtobuf;
    python: Kind::Python;
    python_protobuf: Kind::PythonProtobuf;
}

const ROOMS: &str = "namespaces:\n  - {name: room, presence: true, join_leave: true}\n  - {name: quiet, presence: true}\n  \
    - {name: none}\n";

fn ask(sdk: &Sdk, what: &str, channel: &str) -> Result<Value, tidegate_tests::sdk::Refusal> {
    sdk.call(json!({"do": what, "client": "alice", "channel": channel}))
}

/// Who is present in the channel, when it is these.
fn until_present(sdk: &Sdk, channel: &str, ids: &[&Value]) {
    let expected: BTreeSet<&str> = ids.iter().filter_map(|id| id.as_str()).collect();
    eventually("the right clients are present", PATIENCE, || {
        let there = ask(sdk, "presence", channel).ok()?;
        let clients = there.as_object()?;
        let found: BTreeSet<&str> = clients.keys().map(String::as_str).collect();
        clients.iter().for_each(|(id, info)| assert_eq!(info["client"], *id));
        (found == expected).then_some(())
    });
    let stats = ask(sdk, "presence_stats", channel).expect("alice may count");
    assert_eq!(
        stats,
        json!({"clients": expected.len(), "users": usize::from(!expected.is_empty())}),
        "one user: nobody"
    );
}

fn comings_and_goings(kind: Kind, nodes: [&Node; 2]) {
    let sdk = Sdk::start(kind, None);
    let ids = ["alice", "bob", "carol"].map(|client| {
        let node = if client == "alice" { nodes[0] } else { nodes[1] };
        sdk.connect(client, &node.url())["id"].clone()
    });
    let [alice, bob, carol] = &ids;
    let meets = |client: &str, event: &str, id: &Value| {
        let told = sdk.named(client, event);
        assert_eq!(told["info"]["client"], *id, "{client}: {told}");
    };
    sdk.subscribe("alice", "room:1").expect("alice may subscribe");
    meets("alice", "join", alice);
    sdk.subscribe("bob", "room:1").expect("bob may subscribe");
    meets("alice", "join", bob);
    meets("bob", "join", bob);
    sdk.subscribe("carol", "room:1").expect("carol may subscribe");
    meets("alice", "join", carol);
    until_present(&sdk, "room:1", &[alice, bob, carol]);

    sdk.call(json!({"do": "unsubscribe", "client": "bob", "channel": "room:1"})).expect("bob may leave");
    meets("alice", "leave", bob);
    sdk.call(json!({"do": "disconnect", "client": "carol"})).expect("carol may go");
    meets("alice", "leave", carol);
    until_present(&sdk, "room:1", &[alice]);
    for event in ["join", "leave"] {
        assert_eq!(sdk.pending("alice", event), [Value::Null; 0], "each {event} is told once");
    }

    // Where nobody is told, one can still ask.
    sdk.subscribe("bob", "quiet:1").expect("bob may subscribe");
    until_present(&sdk, "quiet:1", &[bob]);
    sdk.subscribe("alice", "quiet:1").expect("alice may subscribe");
    until_present(&sdk, "quiet:1", &[alice, bob]);
    assert_eq!(sdk.pending("bob", "join").len(), 1, "of carol in the room, and no other");
    assert_eq!(ask(&sdk, "presence", "none:1").expect_err("nobody knows").code, 108);
    assert_eq!(ask(&sdk, "presence_stats", "none:1").expect_err("nobody knows").code, 108);
}

#[test]
fn a_node_that_leaves_takes_its_clients_along() {
    let redis = Redis::start();
    let stays = Node::dev().file(ROOMS).redis(&redis).named("stays").go();
    let mut leaves = Node::dev().file(ROOMS).redis(&redis).named("leaves").go();
    let (here, there) = (Sdk::start(Kind::Js, None), Sdk::start(Kind::Python, None));
    let alice = here.connect("alice", &stays.url())["id"].clone();
    here.subscribe("alice", "room:1").expect("alice may subscribe");
    let bob = there.connect("bob", &leaves.url())["id"].clone();
    there.subscribe("bob", "room:1").expect("bob may subscribe");
    until_present(&here, "room:1", &[&alice, &bob]);
    leaves.terminate();
    let told = here.named("alice", "leave");
    assert_eq!(told["info"]["client"], bob, "{told}");
    until_present(&here, "room:1", &[&alice]);
}
