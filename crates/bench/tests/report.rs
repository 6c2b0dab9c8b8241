//! The published page, and what the suite says when it cannot measure.

#![expect(clippy::unwrap_used, reason = "a failing test is what should happen")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const BENCH: &str = env!("CARGO_BIN_EXE_tidegate-bench");

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs")
}

fn report(data: &Path, docs: &Path) -> Output {
    fs::create_dir_all(docs.join("pictures")).unwrap();
    Command::new(BENCH).arg("report").arg("--data").arg(data).arg("--docs").arg(docs).output().unwrap()
}

/// The pictures in a directory of docs that the program makes.
fn pictures(docs: &Path) -> BTreeSet<String> {
    let names = fs::read_dir(docs.join("pictures")).unwrap().map(|entry| entry.unwrap().file_name());
    names.map(|name| name.into_string().unwrap()).filter(|name| name.starts_with("bench-")).collect()
}

#[test]
fn the_published_page_and_its_pictures_are_what_the_published_data_says() {
    let made = tempfile::tempdir().unwrap();
    let output = report(&docs().join("benchmarks.json"), made.path());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let read = |path: PathBuf| {
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let again = "make it again: tidegate-bench report --data docs/benchmarks.json --docs docs";
    let page = read(made.path().join("benchmarks.md"));
    assert!(page == read(docs().join("benchmarks.md")), "docs/benchmarks.md is not of its data; {again}");
    assert_eq!(pictures(made.path()), pictures(&docs()), "{again}");
    for name in pictures(made.path()) {
        let path = Path::new("pictures").join(&name);
        assert!(
            read(made.path().join(&path)) == read(docs().join(&path)),
            "{name} is not of its data; {again}"
        );
        assert!(page.contains(&format!("](pictures/{name})")), "{name} is on no page");
    }
}

#[test]
fn the_published_run_was_a_whole_one_and_took_less_than_ten_minutes() {
    let data: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(docs().join("benchmarks.json")).unwrap()).unwrap();
    let about = &data["about"];
    assert!(about["seconds"].as_f64() < Some(600.0), "{about}");
    let command = about["command"].as_str().unwrap();
    assert!(!command.contains("--only") && !command.contains("--quick"), "{command}");
}

#[test]
fn data_that_is_none_is_refused_by_its_name() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("found.json");
    fs::write(&file, "{\"about\": 1}").unwrap();
    for path in [file, directory.path().join("nowhere.json")] {
        let output = report(&path, directory.path());
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.contains(path.to_str().unwrap()), "{text}");
    }
}

#[test]
fn what_the_suite_needs_and_has_not_got_is_said_in_a_sentence() {
    // Any file passes for a gateway until it is started, and Redis is looked for before.
    for (arguments, words) in [
        (["--only", "direct", "--gateway", BENCH], "needs redis-server on the PATH"),
        (["--only", "drect", "--gateway", BENCH], "--only drect: there is no such part; there are idle,"),
        (["--only", "direct", "--gateway", "/nowhere"], "cargo build --release -p tidegate-gateway makes it"),
    ] {
        let mut command = Command::new(BENCH);
        let output =
            command.args(["suite", "--quick"]).args(arguments).env("PATH", "/nowhere").output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.contains(words), "{arguments:?}: {text}");
    }
}

#[test]
fn a_page_is_made_of_whole_runs_only() {
    for part in [&["--only", "idle"][..], &["--quick"]] {
        let output = Command::new(BENCH).args(["suite", "--docs", "docs"]).args(part).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.contains("cannot be used with"), "{text}");
    }
}
