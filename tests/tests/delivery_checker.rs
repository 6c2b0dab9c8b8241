//! The delivery promise under faults, by the checker: short runs, one of them with a seed that nobody has seen.

use tidegate_tests::checker::run::{Plan, WITHOUT_HISTORY};

#[expect(clippy::print_stdout, reason = "what a failing test shows, and which seed was fresh")]
fn say(line: &str) {
    println!("{line}");
}

/// Runs it; a history that breaks the promise is kept.
fn keeps_the_promise(plan: &Plan) {
    say(&format!("seed {}", plan.seed));
    for step in plan.schedule().steps {
        say(&format!("  {step}"));
    }
    let verdict = plan.run(&say);
    assert!(verdict.good(), "seed {}, history in {}:\n{verdict}", plan.seed, plan.history.display());
}

/// Where a run's history is written: it stays when the promise was broken.
fn history(name: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.jsonl"))
}

#[test]
fn without_history_nothing_comes_twice_and_order_holds_under_any_fault() {
    let plan = Plan { channels: WITHOUT_HISTORY, ..Plan::new(4, 25, &history("without-history")) };
    keeps_the_promise(&plan);
}
