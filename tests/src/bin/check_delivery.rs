//! Runs the checker and prints what it does: `make check-delivery SEED=... MINUTES=...`. Or judges a kept history again:
//! `check-delivery --judge FILE`. Status 1: the promise was broken.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use tidegate_tests::checker::history;
use tidegate_tests::checker::judge::Verdict;
use tidegate_tests::checker::run::Plan;
use tidegate_tests::checker::store::Topology;

const USAGE: &str = "check-delivery [--seed N] [--minutes M | --seconds S] [--topology single|sentinel|cluster] \
                     [--history FILE] | --judge FILE";

/// What was asked for.
struct Asked {
    seed: u64,
    seconds: u64,
    topology: Topology,
    history: Option<PathBuf>,
    judge: Option<PathBuf>,
}

fn main() -> ExitCode {
    let asked = match asked(std::env::args().skip(1)) {
        Ok(asked) => asked,
        Err(why) => {
            say(&format!("{why}\nusage: {USAGE}"));
            return ExitCode::from(2);
        }
    };
    if let Some(file) = &asked.judge {
        return match history::read(file) {
            Ok(judge) => status(&judge.verdict()),
            Err(error) => {
                say(&format!("cannot read {}: {error}", file.display()));
                ExitCode::from(2)
            }
        };
    }
    let wanted = asked.history.is_some();
    let file = asked.history.unwrap_or_else(|| PathBuf::from(format!("delivery-{}.jsonl", asked.seed)));
    let plan = Plan { topology: asked.topology, ..Plan::new(asked.seed, asked.seconds, &file) };
    let topology = plan.topology.name();
    say(&format!("seed {}, {} s, {} nodes, Redis: {topology}", plan.seed, plan.seconds, plan.nodes));
    say("schedule:");
    for step in plan.schedule().steps {
        say(&format!("  {step}"));
    }
    let verdict = plan.run(&say);
    let status = status(&verdict);
    if verdict.good() && !wanted {
        let _ = std::fs::remove_file(&file);
    } else {
        kept(&file);
    }
    status
}

fn asked(mut words: impl Iterator<Item = String>) -> Result<Asked, String> {
    let mut asked = Asked {
        seed: fastrand::u64(..1_000_000),
        seconds: 60,
        topology: Topology::Single,
        history: None,
        judge: None,
    };
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
        let number = || value.parse::<u64>().map_err(|_| format!("{word} {value}: not a number"));
        match word.as_str() {
            "--seed" => asked.seed = number()?,
            "--seconds" => asked.seconds = number()?,
            "--minutes" => asked.seconds = number()? * 60,
            "--topology" => {
                asked.topology =
                    Topology::named(&value).ok_or_else(|| format!("{word} {value}: not known"))?;
            }
            "--history" => asked.history = Some(value.into()),
            "--judge" => asked.judge = Some(value.into()),
            _ => return Err(format!("{word} is not known")),
        }
    }
    Ok(asked)
}

fn status(verdict: &Verdict) -> ExitCode {
    say(&verdict.to_string());
    ExitCode::from(u8::from(!verdict.good()))
}

fn kept(file: &Path) {
    say(&format!("the history is kept in {}: judge it again with --judge {0}", file.display()));
}

#[expect(clippy::print_stdout, reason = "this program is for looking at")]
fn say(line: &str) {
    println!("{line}");
}
