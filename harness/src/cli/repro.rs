//! `harness repro`: see an earlier failure again.

use std::{
    io::IsTerminal as _,
    path::{Path, PathBuf},
};

use clap::Args;
use reports::{event::EventBody, model::Report};

use super::{Exit, Failed, certify::certify, classify::Classify, pause, print, session::Asked};
use crate::{
    candidate::Candidate,
    plan::Profile,
    run::repro::{self, Repro},
};

/// Rerun the evidence of an earlier failure: the same case in the same world, with its seed and its candidate.
///
/// The candidate is that of the failure: its manifest was kept with the evidence. Exit codes are those of `run`.
#[derive(Debug, Args)]
pub struct ReproCommand {
    /// Directory of the evidence (`cases/CASE/ATTEMPT` of a run), or a scenario document.
    #[arg(value_name = "CASE_DIR|FILE")]
    evidence: PathBuf,
    /// Another candidate than the one that failed: `reference`, `null`, or the path of a candidate manifest.
    #[arg(long, value_name = "FILE|reference|null")]
    candidate: Option<String>,
    /// Attempts.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Attempts that run their steps side by side; the number of cores by default.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    jobs: Option<u32>,
    /// Directory for the event log, the reports and the evidence; must not hold an earlier run.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// At the first failure leave the world up, say how to enter it, and open a shell in it if this is a terminal; the run ends with the
    /// shell, or with Ctrl-C.
    #[arg(long)]
    pause_on_failure: bool,
    /// Node on which the shell of `--pause-on-failure` runs; the first by default.
    #[arg(long, value_name = "NODE", requires = "pause_on_failure")]
    node: Option<String>,
}

/// What is to be run again.
struct Found {
    scenario: PathBuf,
    /// What is known about the failure; nothing for a document that is no evidence.
    repro: Option<Repro>,
    directory: PathBuf,
}

impl ReproCommand {
    pub(super) fn run(self, color: bool) -> Result<Exit, Failed> {
        let found = Found::at(&self.evidence)?;
        let candidate = found.candidate(self.candidate.as_deref())?;
        if let (None, Some(repro)) = (&self.candidate, &found.repro) {
            warn_of_another_program(repro, &candidate);
        }
        if self.pause_on_failure {
            pause::arrange(self.node);
        }
        let asked = Asked {
            command: "repro",
            files: vec![found.scenario],
            loaded: Some(candidate),
            profile: Some(Profile::All),
            out: self.out,
            runs: Some(self.runs),
            jobs: self.jobs,
            fail_fast: self.pause_on_failure,
            // Who repeats a failure looks into it themselves.
            classify: Classify::off(),
            ..Asked::default()
        };
        let (exit, report) = certify(&asked, color && !self.pause_on_failure)?;
        print(&rates(&report));
        Ok(exit)
    }
}

impl Found {
    fn at(path: &Path) -> Result<Self, Failed> {
        let (directory, scenario) = if path.is_dir() {
            (path.to_path_buf(), path.join(repro::SCENARIO))
        } else {
            let parent = path.parent().map_or(Path::new(""), |parent| parent);
            (parent.to_path_buf(), path.to_path_buf())
        };
        if !scenario.is_file() {
            let what = if path.is_dir() {
                format!(
                    "it holds no {}: name a directory cases/CASE/ATTEMPT of a run, or a scenario document",
                    repro::SCENARIO
                )
            } else {
                "there is no such file or directory".into()
            };
            return Err(Failed::usage(format!("{}: {what}", path.display())));
        }
        let repro = Repro::read(&directory).map_err(|error| {
            let file = directory.join(repro::FILE);
            Failed::usage(format!("{}: cannot be read: {error}", file.display()))
        })?;
        Ok(Self {
            scenario,
            repro,
            directory,
        })
    }

    /// The candidate that is asked for, or that failed.
    fn candidate(&self, asked: Option<&str>) -> Result<Candidate, Failed> {
        if let Some(asked) = asked {
            return Ok(Candidate::load(asked)?);
        }
        if let Some(repro) = &self.repro {
            let tested = &repro.candidate;
            return Ok(match &tested.manifest {
                Some(manifest) => {
                    let path = self.directory.join(manifest);
                    Candidate::load_from(&path.display().to_string(), &tested.directory)?
                }
                None => Candidate::load(&tested.given)?,
            });
        }
        match self.of_the_log() {
            Some(name) if Candidate::is_built_in(&name) => Ok(Candidate::load(&name)?),
            Some(name) => Err(Failed::usage(format!(
                "{}: it is of candidate '{name}' and has no manifest: give that with --candidate FILE",
                self.directory.display()
            ))),
            None => {
                eprintln!(
                    "nothing says which candidate it was: running the reference (--candidate names another)"
                );
                Ok(Candidate::load("reference")?)
            }
        }
    }

    /// The candidate's name in the event log that this evidence belongs to: `DIR/cases/CASE/ATTEMPT` and `DIR/events.jsonl`.
    fn of_the_log(&self) -> Option<String> {
        let directory = std::path::absolute(&self.directory).ok()?;
        let log = directory.ancestors().nth(3)?.join("events.jsonl");
        let first = reports::log::read(log).ok()?.next()?.ok()?;
        match first.body {
            EventBody::RunStarted(run) => Some(run.candidate.name),
            _ => None,
        }
    }
}

/// The failure was that of a program; another one under the same name may not have it.
fn warn_of_another_program(repro: &Repro, candidate: &Candidate) {
    let now = candidate.binary.as_ref().map(|binary| &binary.digest);
    let tested = &repro.candidate;
    if now != tested.digest.as_ref() {
        eprintln!(
            "the program of candidate '{}' is not the one that failed: {} then, {} now",
            tested.name,
            tested.digest.as_deref().unwrap_or("none"),
            now.map_or("none", String::as_str)
        );
    }
}

/// How often each case failed: `one-endpoint[ipv6]: failed 3 of 20: 15 % [3.2, 38]`.
fn rates(report: &Report) -> String {
    let lines = report.cases.iter().map(|case| match case.failure_rate {
        None => format!("{}: no attempt passed or failed\n", case.id),
        Some(rate) => format!("{}: failed {}\n", case.id, rate.words()),
    });
    lines.collect()
}

/// What to do on a terminal; everywhere else waiting is all there is.
pub(super) fn is_interactive() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}
