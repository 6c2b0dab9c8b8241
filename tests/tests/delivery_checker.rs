//! The delivery promise under faults, by the checker: short runs, one of them with a seed that nobody has seen. And the
//! checker itself: nodes that break the promise on purpose are found.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use tidegate_tests::checker::judge::{Breach, Verdict};
use tidegate_tests::checker::run::{Kept, Plan, WITHOUT_HISTORY};
use tidegate_tests::checker::schedule::{Fault, Schedule, Step};

/// One run at a time: each has some twenty processes.
static MACHINE: Mutex<()> = Mutex::new(());

const KEPT: &[Kept] = &[("kept:1", 5_000, 300), ("kept:2", 5_000, 300)];

#[expect(clippy::print_stdout, reason = "what a failing test shows, and which seed was fresh")]
fn say(line: &str) {
    println!("{line}");
}

/// Where a run's history is written.
fn history(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.jsonl"))
}

/// Runs it; a history that breaks the promise is kept.
fn keeps_the_promise(plan: &Plan) {
    let _alone = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    say(&format!("seed {}", plan.seed));
    for step in plan.schedule().steps {
        say(&format!("  {step}"));
    }
    let verdict = plan.run(&say);
    say(&verdict.to_string());
    assert!(verdict.good(), "seed {}, history in {}:\n{verdict}", plan.seed, plan.history.display());
}

#[test]
fn without_history_nothing_comes_twice_and_order_holds_under_any_fault() {
    let plan = Plan { channels: WITHOUT_HISTORY, ..Plan::new(4, 15, &history("without-history")) };
    keeps_the_promise(&plan);
}

#[test]
fn nothing_is_lost_in_silence_by_a_seed_that_is_known() {
    keeps_the_promise(&Plan::new(20, 40, &history("known-seed")));
}

#[test]
fn nothing_is_lost_in_silence_by_a_seed_that_nobody_has_seen() {
    keeps_the_promise(&Plan::new(fastrand::u64(..1_000_000), 30, &history("fresh-seed")));
}

#[test]
fn a_history_that_went_back_and_was_overtaken_is_told() {
    let step =
        |at, lasts, fault| Step { at: Duration::from_millis(at), lasts: Duration::from_millis(lasts), fault };
    // Redis loses a second, and while no node reaches it backends give the same offsets again.
    let steps = vec![
        step(2_000, 1_000, Fault::RewindRedis),
        step(2_950, 3_000, Fault::CutRelay(0)),
        step(2_950, 3_000, Fault::CutRelay(1)),
    ];
    let schedule = Some(Schedule { steps });
    let plan = Plan { nodes: 2, raw: 4, sdk: 0, schedule, ..Plan::new(1, 9, &history("overtaken")) };
    keeps_the_promise(&plan);
}

/// A node that can be told to do something wrong.
static SABOTAGED: LazyLock<PathBuf> = LazyLock::new(|| {
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "-p", "tidegate-gateway", "--features", "sabotage"])
        .current_dir(
            Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in the workspace"),
        )
        .status();
    assert!(built.expect("cargo runs").success(), "the sabotaged node does not build");
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let built = scratch.parent().expect("it lies in the target directory").join("debug/tidegate");
    // Out of the way of other builds.
    let kept = scratch.join("tidegate-sabotaged");
    std::fs::copy(&built, &kept).unwrap_or_else(|e| panic!("{}: {e}", built.display()));
    kept
});

/// What the checker says of nodes that do this wrong, under these faults. Of the same build that does nothing wrong it
/// finds nothing.
fn sabotaged(what: &'static str, faults: &[(Fault, Duration)]) -> Verdict {
    let _alone = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    let plan = |name: &str, what: &'static str| Plan {
        nodes: 2,
        raw: 4,
        sdk: 0,
        channels: KEPT,
        schedule: Some(Schedule::only(faults, Duration::from_secs(1))),
        sabotage: Some((SABOTAGED.clone(), what)),
        healing: Duration::from_secs(12),
        ..Plan::new(1, 10, &history(name))
    };
    std::thread::scope(|both| {
        let sound = both.spawn(|| plan(&format!("sound-{what}"), "nothing").run(&|_| {}));
        let verdict = plan(&format!("sabotaged-{what}"), what).run(&say);
        let sound = sound.join().expect("the sound run ends");
        assert!(sound.good(), "without sabotage: {sound}");
        verdict
    })
}

fn found(verdict: &Verdict, breach: Breach) {
    assert!(verdict.of(breach) > 0, "no {}: {verdict}", breach.name());
}

#[test]
fn a_repair_that_is_dropped_is_found() {
    let away = Duration::from_millis(800);
    let verdict = sabotaged("repairs", &[(Fault::CutRelay(0), away), (Fault::CutRelay(1), away)]);
    found(&verdict, Breach::Hole);
}

#[test]
fn a_probe_that_is_skipped_is_found() {
    let verdict = sabotaged("probes", &[(Fault::DeafenRelay(0), Duration::ZERO)]);
    found(&verdict, Breach::Lost);
}

#[test]
fn a_reply_behind_a_push_is_found() {
    let away = Duration::from_millis(500);
    let verdict = sabotaged("replies", &[0, 1, 2, 3].map(|seat| (Fault::CutClient(seat), away)));
    found(&verdict, Breach::Unsubscribed);
}
