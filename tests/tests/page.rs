//! The developer's page, in a real Chromium.

use std::process::Command;

use serde_json::{Value, json};
use tidegate_tests::process::{Process, run};
use tidegate_tests::{Certificates, Node, PATIENCE, door, sdk};

fn a_person_tries_it(certificates: Option<&Certificates>) {
    let start = Node::dev();
    let mut node = match certificates {
        Some(certificates) => start.tls(certificates).go(),
        None => start.go(),
    };
    let scheme = if certificates.is_some() { "https" } else { "http" };
    let url = format!("{scheme}://{}/", node.public());
    let chromium = run(Command::new("sh").args(["-c", "command -v chromium"])).out;
    let scripts = sdk::root().join("sdk");
    let mut command = Command::new("node");
    command.arg(scripts.join("page.mjs")).args([&url, &chromium]).current_dir(&scripts);
    let browser = Process::start("browser", &mut command);
    let step = |name: &str| -> Value {
        let found = browser.out.find(PATIENCE * 2, |line| {
            let value: Value = serde_json::from_str(line).ok()?;
            (value["step"] == name).then_some(value)
        });
        found.unwrap_or_else(|why| panic!("the page does not get to {name:?}: {why}"))
    };
    step("subscribed");
    node.until("the page is subscribed", |m| m.sum("tidegate_subscriptions") == 1.0);
    node.api("publish", &json!({"channel": "news", "data": {"text": "from a backend"}}));
    let heard = step("heard");
    let wire = heard["wire"].as_str().unwrap_or_default();
    for words in ["\"connect\"", "\"subscribe\"", "\"publish\"", "from the page", "from a backend"] {
        assert!(wire.contains(words), "{words} is not on the wire as shown:\n{wire}");
    }
    node.kill();
    let lost = step("lost");
    // Losing the node is told by the browser, too; anything before that is a fault of the page.
    let complaints = lost["complaints"].as_array().cloned().unwrap_or_default();
    let own: Vec<_> =
        complaints.iter().filter(|c| !c.as_str().unwrap_or_default().contains("WebSocket")).collect();
    assert!(own.is_empty(), "{own:?}");
    for request in lost["requested"].as_array().into_iter().flatten() {
        let request = request.as_str().unwrap_or_default();
        assert!(
            request.starts_with(&url) || request.starts_with("data:"),
            "the page loads nothing else: {request}"
        );
    }
}

#[test]
fn a_person_connects_subscribes_publishes_and_sees_what_went_over_the_wire() {
    a_person_tries_it(None);
}

#[test]
fn the_page_works_over_tls() {
    a_person_tries_it(Some(&Certificates::new()));
}

#[test]
fn the_page_is_there_in_dev_mode_only() {
    let strict = Node::strict().go();
    let answer = door::get(&format!("http://{}/", strict.public())).expect("an answer");
    assert_eq!(answer.status, 404, "{answer:?}");
    let dev = Node::dev().go();
    let answer = door::get(&format!("http://{}/", dev.public())).expect("an answer");
    assert_eq!(answer.status, 200);
    assert!(answer.header("content-type").is_some_and(|kind| kind.starts_with("text/html")), "{answer:?}");
}
