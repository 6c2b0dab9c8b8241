//! Backends: what may be said of them, and which questions find which.

use super::*;

const ENDPOINTS: &str =
    "proxy: {endpoints: [{name: a, url: 'http://127.0.0.1:1/a'}, {name: b, url: 'https://b.example/b?c=1'}]";

fn proxy(more: &str) -> crate::settings::ProxySettings {
    with_yaml(&format!("{ENDPOINTS}{more}")).unwrap().settings.proxy
}

#[test]
fn an_endpoint_needs_a_name_and_a_url_and_has_bounds_without_being_told() {
    let endpoint = &proxy("}").endpoints[0];
    assert_eq!((endpoint.timeout, endpoint.concurrency, endpoint.queue), (Duration::from_secs(2), 64, 256));
    assert_eq!(endpoint.max_response_bytes, 64 << 10);
    assert!(endpoint.secret.is_none() && endpoint.headers.is_empty() && endpoint.forward_headers.is_empty());
    for missing in ["{name: a}", "{url: 'http://127.0.0.1/'}"] {
        let problem = problem(with_yaml(&format!("proxy: {{endpoints: [{missing}]}}")));
        assert_eq!(problem.advice, "missing: every item needs it");
    }
}

#[test]
fn questions_name_endpoints_that_exist() {
    let settings = proxy(
        ", connect: a, rpc: b, rpc_methods: [{prefix: x., endpoint: a}, {prefix: x.y., endpoint: b}]}\n\
         namespaces: [{name: chat, subscribe_proxy: b, publish_proxy: a}]",
    );
    assert_eq!(settings.connect, Some(0));
    for (method, endpoint) in [("x.1", 0), ("x.y.1", 1), ("z", 1), ("", 1)] {
        assert_eq!(settings.rpc(method), Some(endpoint), "{method}");
    }
    assert_eq!((settings.subscribe["chat"], settings.publish["chat"]), (1, 0));
    for unknown in [
        ", connect: c}",
        ", rpc: c}",
        ", rpc_methods: [{prefix: x, endpoint: c}]}",
        "}\nnamespaces: [{name: chat, subscribe_proxy: c}]",
        "}\nnamespaces: [{name: chat, publish_proxy: c}]",
    ] {
        let problem = problem(with_yaml(&format!("{ENDPOINTS}{unknown}")));
        assert_eq!(problem.advice, "must be the name of an endpoint: one of a, b", "{unknown}");
    }
    let problem = problem(with_flags(&[("proxy.rpc", "main")]));
    assert!(problem.advice.contains("there is none"), "{problem}");
}

#[test]
fn a_backend_that_decides_stands_instead_of_a_right() {
    let loaded = with_yaml(&format!(
        "{ENDPOINTS}}}\nnamespaces: [{{name: chat, subscribe_proxy: a, publish: anyone}}]"
    ));
    let rules = loaded.unwrap().settings.namespaces[0].1;
    assert_eq!((rules.clients.subscribe, rules.clients.publish), (Right::Backend, Right::Anyone));
    for (right, field) in [("subscribe", "subscribe_proxy"), ("publish", "publish_proxy")] {
        let yaml = format!("{ENDPOINTS}}}\nnamespaces: [{{name: chat, {right}: anyone, {field}: a}}]");
        let problem = problem(with_yaml(&yaml));
        assert_eq!(problem.key, format!("namespaces[0].{right}"));
        assert!(problem.advice.contains("the backend decides alone"), "{problem}");
    }
    // Nobody writes it as a right.
    assert!(with_yaml("namespaces: [{name: chat, subscribe: backend}]").is_err());
}

#[test]
fn what_contradicts_itself_or_cannot_be_sent_is_refused() {
    for (field, advice) in [
        ("url: 'ftp://127.0.0.1/'", "must be https://"),
        ("url: 'unix:/tmp/x'", "must be https://"),
        ("url: '/questions'", "must be https://"),
        ("url: 'https://user:secret@b.example/'", "may not have a user"),
        ("url: 'https://b.example/#x'", "may not have a fragment"),
        ("url: 'http://127.0.0.1/', timeout: 1ms", "must be from 50ms"),
        ("url: 'http://127.0.0.1/', concurrency: 0", "must be a whole number from 1"),
        ("url: 'http://127.0.0.1/', forward_headers: [Host]", "the node or the connection sets"),
        ("url: 'http://127.0.0.1/', forward_headers: ['a b']", "not the name of a header"),
        ("url: 'http://127.0.0.1/', headers: {content-length: '5'}", "the node or the connection sets"),
        ("url: 'http://127.0.0.1/', headers: {x-a: \"a\\nb\"}", "has characters"),
        ("url: 'http://127.0.0.1/', headers: [a]", "must be a section"),
        ("url: 'http://127.0.0.1/', ca: /nowhere", "no certificate"),
        ("url: 'http://127.0.0.1/', secret: a, secret_file: b", "is set too"),
        ("url: 'http://127.0.0.1/', retries: 5", "unknown key"),
    ] {
        let problem = problem(with_yaml(&format!("proxy: {{endpoints: [{{name: a, {field}}}]}}")));
        assert!(problem.advice.contains(advice), "{field}: {problem}");
        assert!(!problem.to_string().contains("secret@"), "{problem}");
    }
    let twice =
        "proxy: {endpoints: [{name: a, url: 'http://127.0.0.1/'}, {name: a, url: 'http://127.0.0.1/'}]}";
    assert!(problem(with_yaml(twice)).advice.contains("already"));
    let twice =
        format!("{ENDPOINTS}, rpc_methods: [{{prefix: x, endpoint: a}}, {{prefix: x, endpoint: b}}]}}");
    assert!(problem(with_yaml(&twice)).advice.contains("already"));
}

#[test]
fn plain_http_is_warned_of_where_others_can_listen() {
    for (url, warns) in [
        ("http://127.0.0.1:3000/", false),
        ("http://[::1]:3000/", false),
        ("http://localhost/", false),
        ("https://b.example/", false),
        ("http://b.example/", true),
        ("http://10.0.0.1/", true),
    ] {
        let loaded = with_yaml(&format!("proxy: {{endpoints: [{{name: a, url: '{url}'}}]}}")).unwrap();
        let warned = loaded.warnings.iter().any(|warning| warning.contains("plain http"));
        assert_eq!(warned, warns, "{url}: {:?}", loaded.warnings);
    }
}

#[test]
fn what_a_backend_knows_the_node_by_is_not_shown() {
    let yaml = "proxy: {endpoints: [{name: a, url: 'http://127.0.0.1/', secret: s3cret, headers: {authorization: t0ken}}]}";
    let loaded = with_yaml(yaml).unwrap();
    let debug = format!("{:?}", loaded.settings);
    for shown in [&loaded.effective, &debug] {
        assert!(!shown.contains("s3cret") && !shown.contains("t0ken"), "{shown}");
    }
    assert!(loaded.effective.contains("headers: {authorization: ***}"), "{}", loaded.effective);
}
