//! The invariants of the tree, held by looking at it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tidegate_protocol::{Disconnect, ErrorCode, UnsubscribeCode};
use tidegate_tests::process::run;

/// The most lines of a source file. A file is one idea; beyond this it is two.
const MOST_LINES: usize = 500;

/// Files that may be longer, each with the reason.
const LONGER: [(&str, &str); 0] = [];

/// Files that may contain unsafe code, each with the reason.
const UNSAFE: [(&str, &str); 2] = [
    ("crates/gateway/src/edge/poller.rs", "registers one poller in another, with its proof beside it"),
    (
        "crates/gateway/src/allocator.rs",
        "gives the allocator its options by a symbol, with its proof beside it",
    ),
];

/// What unsafe code looks like: blocks, attributes, functions, implementations.
const UNSAFE_FORMS: [&str; 4] = ["unsafe {", "#[unsafe(", "unsafe fn", "unsafe impl"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in the workspace").to_owned()
}

/// Every file that git knows or would take, with this ending, as (path from the root, text).
fn files(ending: &str) -> Vec<(String, String)> {
    let listed = run(Command::new("git").current_dir(root()).args(["ls-files", "-co", "--exclude-standard"]));
    assert!(listed.status.success(), "{listed:?}");
    let mut files: Vec<_> = listed
        .out
        .lines()
        .filter(|path| path.ends_with(ending))
        .filter_map(|path| Some((path.to_owned(), std::fs::read_to_string(root().join(path)).ok()?)))
        .collect();
    files.sort();
    files.dedup();
    assert!(!files.is_empty(), "no file ends in {ending}");
    files
}

/// The Rust sources of the crates, without what is for tests only.
fn sources() -> Vec<(String, String)> {
    let product = files(".rs").into_iter().filter(|(path, _)| path.starts_with("crates/"));
    product
        .filter(|(path, _)| {
            !path.contains("/tests/") && !path.contains("/benches/") && !path.ends_with("tests.rs")
        })
        .map(|(path, text)| (path, text.split("#[cfg(test)]\nmod ").next().unwrap_or_default().to_owned()))
        .collect()
}

/// Holds that no source line contains `words`, but in the files (or directories) of `but`.
fn nowhere(words: &str, but: &[&str], why: &str) {
    for (path, text) in sources() {
        if but.iter().any(|allowed| path.starts_with(allowed)) {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            assert!(!code.contains(words), "{path}:{}: {words}: {why}", number + 1);
        }
    }
}

/// The direct dependencies of each package of the workspace: (package, kind, dependency).
fn dependencies() -> Vec<(String, String, String)> {
    let metadata = run(Command::new(env!("CARGO")).current_dir(root()).args([
        "metadata",
        "--no-deps",
        "--offline",
        "--format-version",
        "1",
    ]));
    assert!(metadata.status.success(), "{metadata:?}");
    let metadata: Value = serde_json::from_str(&metadata.out).expect("cargo metadata prints JSON");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let packages = metadata["packages"].as_array().expect("packages");
    packages
        .iter()
        .flat_map(|package| {
            let dependencies = package["dependencies"].as_array().expect("dependencies");
            dependencies.iter().map(|dependency| {
                let kind = dependency["kind"].as_str().unwrap_or("normal");
                (text(&package["name"]), kind.to_owned(), text(&dependency["name"]))
            })
        })
        .collect()
}

#[test]
fn only_the_relay_names_redis_and_only_the_gateway_and_its_baseline_name_actix() {
    for (package, _, dependency) in dependencies() {
        if dependency == "redis" || dependency == "deadpool-redis" {
            assert_eq!(package, "tidegate-relay", "{package} depends on {dependency}");
        }
        if dependency.starts_with("actix") {
            // What the gateway is compared with is a server too, and one written as actix' users write theirs.
            let may = ["tidegate-gateway", "tidegate-bench"].contains(&package.as_str());
            assert!(may, "{package} depends on {dependency}");
        }
    }
    nowhere("redis::", &["crates/relay/", "crates/gateway/src/settings"], "only the relay knows Redis");
    // The report's page says in words what the baseline is.
    let servers = ["crates/gateway/", "crates/bench/src/baseline/", "crates/bench/src/report/page.rs"];
    nowhere("actix", &servers, "only the gateway knows actix, and the baseline it is compared with");
}

#[test]
fn the_crates_know_each_other_in_one_direction() {
    let allowed: [(&str, &[&str]); 6] = [
        ("tidegate-protocol", &[]),
        ("tidegate-hub", &["tidegate-protocol"]),
        ("tidegate-relay", &["tidegate-protocol"]),
        ("tidegate-gateway", &["tidegate-protocol", "tidegate-hub", "tidegate-relay"]),
        // Only what it counts instructions of: see below.
        ("tidegate-bench", &["tidegate-protocol", "tidegate-hub"]),
        ("tidegate-tests", &["tidegate-protocol"]),
    ];
    for (package, _, dependency) in dependencies() {
        if dependency.starts_with("tidegate-") {
            let (_, may) = allowed
                .iter()
                .find(|(name, _)| *name == package)
                .unwrap_or_else(|| panic!("{package} has no place in this test's list of directions"));
            assert!(may.contains(&dependency.as_str()), "{package} depends on {dependency}");
        }
    }
}

#[test]
fn load_shares_no_code_with_what_it_measures() {
    for (path, text) in sources() {
        let counted = path.starts_with("crates/bench/src/check/work/");
        if path.starts_with("crates/bench/") && !counted {
            let found = text.lines().find(|line| {
                let code = line.split("//").next().unwrap_or_default();
                code.contains("tidegate_hub") || code.contains("tidegate_protocol")
            });
            assert!(found.is_none(), "{path}: any server is measured, from outside: {found:?}");
        }
    }
}

#[test]
fn protocol_and_hub_have_no_runtime_no_sockets_and_no_clock() {
    let runtimes = ["tokio", "mio", "futures", "async", "socket2", "rustix", "smol"];
    for (package, kind, dependency) in dependencies() {
        if kind == "normal" && (package == "tidegate-protocol" || package == "tidegate-hub") {
            assert!(
                !runtimes.iter().any(|runtime| dependency.starts_with(runtime)),
                "{package}: {dependency}"
            );
        }
    }
    for (path, text) in sources() {
        if !path.starts_with("crates/protocol/") && !path.starts_with("crates/hub/") {
            continue;
        }
        for words in [
            "async fn",
            ".await",
            "std::net",
            "std::fs",
            "std::thread",
            "Instant::now",
            "SystemTime",
            "Mutex",
        ] {
            let found = text.lines().find(|line| line.split("//").next().unwrap_or_default().contains(words));
            assert!(found.is_none(), "{path}: {words}: {found:?}");
        }
    }
}

#[test]
fn every_queue_is_bounded() {
    nowhere("unbounded", &[], "say how much it holds and what happens when it is full");
    nowhere("mpsc::channel()", &[], "say how much it holds and what happens when it is full");
}

#[test]
fn only_settings_reads_the_environment() {
    let settings = ["crates/gateway/src/settings"];
    nowhere("env::var", &settings, "pass what is needed as a setting");
    nowhere("std::env", &settings, "pass what is needed as a setting");
    nowhere("psubscribe", &[], "a pattern taxes every PUBLISH");
    nowhere("PSUBSCRIBE", &[], "a pattern taxes every PUBLISH");
}

#[test]
fn metric_children_are_resolved_once() {
    nowhere("with_label_values", &["crates/gateway/src/metrics"], "resolve the child when the node starts");
}

#[test]
fn unsafe_code_is_where_its_proof_is() {
    for (path, text) in sources() {
        let code = |line: &str| line.split("//").next().unwrap_or_default().to_owned();
        let has = text.lines().map(code).any(|line| UNSAFE_FORMS.iter().any(|form| line.contains(form)));
        assert_eq!(has, UNSAFE.iter().any(|(known, _)| *known == path), "{path}");
        assert!(!has || text.contains("// SAFETY:"), "{path} has no proof");
    }
}

#[test]
fn a_file_is_one_idea_with_a_prologue() {
    for (path, text) in files(".rs") {
        assert!(text.starts_with("//!"), "{path} does not begin by saying what it is responsible for");
        let lines = text.lines().count();
        let listed = LONGER.iter().any(|(known, _)| *known == path);
        assert!(lines <= MOST_LINES || listed, "{path} has {lines} lines: split it by noun");
        assert!(lines > MOST_LINES || !listed, "{path} is no longer long: take it out of this test's list");
        let name = path.rsplit('/').next().unwrap_or_default();
        let vague = ["utils.rs", "util.rs", "helpers.rs", "helper.rs", "misc.rs", "common.rs"];
        assert!(!vague.contains(&name), "{path} is not named after what is in it");
    }
}

#[test]
fn the_top_level_holds_what_it_should() {
    let directories: BTreeSet<String> = files("")
        .into_iter()
        .filter_map(|(path, _)| path.split_once('/').map(|(top, _)| top.to_owned()))
        .filter(|top| !top.starts_with('.'))
        .collect();
    for directory in &directories {
        assert!(["crates", "deploy", "docs", "helm", "tests"].contains(&directory.as_str()), "{directory}/");
    }
}

#[test]
fn lock_files_name_no_registry_of_one_machine() {
    for (path, text) in files("package-lock.json") {
        assert!(!text.contains("\"resolved\""), "{path}: npm install with the .npmrc beside it");
    }
}

#[test]
fn the_reference_lists_every_code_with_its_text() {
    let page =
        std::fs::read_to_string(root().join("docs/reference/close-codes.md")).expect("the page is there");
    let mut rows = BTreeSet::new();
    for line in page.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        if let [code, text, third, ..] = cells.as_slice()
            && let Ok(code) = code.parse::<u16>()
        {
            assert!(rows.insert((code, (*text).to_owned(), *third == "yes")), "{code} stands twice");
            assert!(["yes", "no"].contains(third), "{line}");
        }
    }
    let errors = ErrorCode::ALL.iter().map(|e| (e.code(), e.text(), e.temporary()));
    let disconnects = Disconnect::ALL.iter().map(|d| (d.code(), d.text(), d.reconnects()));
    // From 2500 up an SDK subscribes again by itself.
    let unsubscribes = UnsubscribeCode::ALL.iter().map(|u| (u.code(), u.text(), u.code() >= 2500));
    let known: BTreeSet<_> = errors
        .chain(disconnects)
        .chain(unsubscribes)
        .map(|(code, text, third)| (code, text.to_owned(), third))
        .collect();
    assert_eq!(rows.symmetric_difference(&known).collect::<Vec<_>>(), Vec::<&(u16, String, bool)>::new());
    for (_, text, _) in known {
        assert!(
            serde_json::from_str::<Value>(&text).is_err(),
            "{text:?} is JSON, and one SDK would parse it"
        );
    }
}

#[test]
fn every_direct_dependency_has_its_reason_in_the_architecture() {
    let Ok(page) = std::fs::read_to_string(root().join("ARCHITECTURE.md")) else {
        panic!("ARCHITECTURE.md is not there");
    };
    let missing: BTreeSet<String> = dependencies()
        .into_iter()
        .map(|(_, _, dependency)| dependency)
        .filter(|dependency| {
            !dependency.starts_with("tidegate-") && !page.contains(&format!("`{dependency}`"))
        })
        .collect();
    assert!(missing.is_empty(), "no reason is given for {missing:?}");
}
