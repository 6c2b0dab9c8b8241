//! The command line: what the process is asked to do.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::settings::{self, Assignment, Loaded, Machine, Sources};

/// What `main` does next.
#[derive(Debug)]
pub(crate) enum Task {
    /// Serve with these settings.
    Serve(Box<Loaded>),
    /// Nothing more: all is said.
    Done(ExitCode),
}

const ABOUT: &str = "Tidegate holds WebSocket connections and feeds them from Redis.

Clients speak Centrifuge v2 (JSON or Protobuf) to the public port; backends publish by talking to Redis, or to the
API on the internal port. Without a command, tidegate serves.";

const EXAMPLES: &str = "\
Settings come from one file, then the environment, then --set; each wins over the one before. A key has the same path
everywhere:

  in a file        limits: {max_connections_per_ip: 20}
  in a variable    TIDEGATE__LIMITS__MAX_CONNECTIONS_PER_IP=20
  as a flag        --set limits.max_connections_per_ip=20

Durations are written 250ms, 5s, 2m; sizes 64KiB, 1MiB; lists in variables and flags as JSON or a,b,c. A secret can be
in a file: relay.redis.password_file.

Examples:
  tidegate --dev                                    try it here: open to anyone on this machine, with a page at
                                                    http://127.0.0.1:8000/
  tidegate --config tidegate.yaml                   serve
  tidegate --set relay.kind=redis --set relay.redis.url=redis://10.0.0.5:6379/0
                                                    one node of several, on one Redis
  tidegate check-config --config tidegate.yaml      list everything that is wrong; exit 1 if anything is
  tidegate config --config tidegate.yaml            show what counts and where it came from, secrets masked

Signals: SIGTERM drains (not ready, no new connections, clients are asked to reconnect elsewhere) and exits 0; a second
one exits at once.";

/// What was typed.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, about = ABOUT, long_about = ABOUT, after_help = EXAMPLES)]
struct Typed {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the effective settings as YAML: secrets masked, each with where it came from
    Config,
    /// Check the settings: list every problem and exit 1, else exit 0
    CheckConfig,
}

#[derive(Debug, Args)]
struct Options {
    /// Settings file; its name ends in .yaml, .yml, .toml or .json
    #[arg(long, short, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Set one key, over file and environment; can be repeated
    #[arg(long = "set", value_name = "KEY.PATH=VALUE", global = true)]
    sets: Vec<String>,
    /// Dev mode: anyone may connect, subscribe and publish, the API needs no key, a page at /; loopback only
    #[arg(long, global = true)]
    dev: bool,
    /// Let dev mode listen beyond loopback, for instance in a container
    #[arg(long, global = true)]
    dev_listen_anywhere: bool,
}

impl Options {
    /// Where settings are written. Errors: a `--set` without `=`.
    fn sources(self) -> Result<Sources, clap::Error> {
        let mut flags = Vec::new();
        for (given, flag, key) in [
            (self.dev, "--dev", "dev.enabled"),
            (self.dev_listen_anywhere, "--dev-listen-anywhere", "dev.listen_anywhere"),
        ] {
            if given {
                flags.push(Assignment { key: key.into(), value: "true".into(), origin: flag.into() });
            }
        }
        for set in self.sets {
            let Some((key, value)) = set.split_once('=') else {
                return Err(clap::Error::raw(
                    clap::error::ErrorKind::ValueValidation,
                    format!("--set {set}: write a key, =, and a value, such as --set log.level=debug\n"),
                ));
            };
            flags.push(Assignment { key: key.into(), value: value.into(), origin: "--set".into() });
        }
        Ok(Sources { file: self.config, environment: settings::environment(), flags })
    }
}

/// Reads the arguments of this process and does everything that is not serving.
pub(crate) fn task() -> Task {
    let typed = Typed::parse();
    let sources = typed.options.sources().unwrap_or_else(|error| error.exit());
    run(typed.command, &sources, &Machine::here(), &mut io::stdout(), &mut io::stderr())
}

fn run(
    command: Option<Command>,
    sources: &Sources,
    machine: &Machine,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Task {
    let loaded = match settings::load(sources, machine) {
        Ok(loaded) => loaded,
        Err(problems) => {
            let _ = writeln!(err, "tidegate: {problems}");
            return Task::Done(ExitCode::FAILURE);
        }
    };
    // A reader that went away (`| head`) is no failure.
    match command {
        None => return Task::Serve(Box::new(loaded)),
        Some(Command::Config) => {
            let _ = out.write_all(loaded.effective.as_bytes());
        }
        Some(Command::CheckConfig) => {
            for warning in &loaded.warnings {
                let _ = writeln!(err, "warning: {warning}");
            }
            let _ = writeln!(out, "ok: the settings have no problem");
        }
    }
    let _ = out.flush();
    Task::Done(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failing test is what should happen")]
    use clap::CommandFactory;

    use super::*;

    fn typed(arguments: &[&str]) -> (Option<Command>, Sources) {
        let typed = Typed::try_parse_from([&["tidegate"], arguments].concat()).unwrap();
        let mut sources = typed.options.sources().unwrap();
        sources.environment.clear();
        (typed.command, sources)
    }

    /// What is printed, on standard output and standard error, and how it ends.
    fn ran(arguments: &[&str]) -> (String, String, String) {
        let machine = Machine { cpus: 1, files: 1024, memory: None, host: "gull".to_owned() };
        let (command, sources) = typed(arguments);
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let end = match run(command, &sources, &machine, &mut out, &mut err) {
            Task::Serve(_) => "serve".to_owned(),
            Task::Done(code) if code == ExitCode::SUCCESS => "exit 0".to_owned(),
            Task::Done(code) if code == ExitCode::FAILURE => "exit 1".to_owned(),
            Task::Done(code) => format!("{code:?}"),
        };
        (String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap(), end)
    }

    #[test]
    fn check_config_lists_every_problem_and_exits_1_else_says_ok() {
        let bad = ["check-config", "--set", "workers=none", "--set", "log.format=xml"];
        let (out, err, end) = ran(&bad);
        assert_eq!((out.as_str(), end.as_str()), ("", "exit 1"));
        assert!(
            err.starts_with("tidegate: 2 problems in the settings\n\n  log.format = xml  (--set)\n"),
            "{err}"
        );
        let (out, err, end) = ran(&["check-config", "--dev"]);
        assert_eq!((out.as_str(), end.as_str()), ("ok: the settings have no problem\n", "exit 0"));
        assert!(err.starts_with("warning: DEV MODE"), "{err}");
    }

    #[test]
    fn config_prints_what_counts_and_where_it_came_from() {
        let (out, _, end) = ran(&["config", "--dev", "--set=relay.redis.password=hush"]);
        assert_eq!(end, "exit 0");
        for line in [
            "  public: 127.0.0.1:8000  # default of dev mode\n",
            "workers: auto  # default; here 1\n",
            "    password: ***  # --set\n",
            "  enabled: true  # --dev\n",
        ] {
            assert!(out.contains(line), "{line} is not in\n{out}");
        }
    }

    #[test]
    fn serving_is_what_happens_without_a_command() {
        assert_eq!(ran(&["--dev"]).2, "serve");
        assert_eq!(ran(&["--set", "workers=none"]).2, "exit 1");
    }

    #[test]
    fn help_says_how_to_begin() {
        Typed::command().debug_assert();
        let help = Typed::command().render_long_help().to_string();
        for words in
            ["tidegate --dev", "TIDEGATE__LIMITS__MAX_CONNECTIONS_PER_IP=20", "check-config", "SIGTERM"]
        {
            assert!(help.contains(words), "{help}");
        }
    }
}
