//! `harness certify` and `harness run`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use reports::{
    event::{CandidateInfo, Mode, UnsupportedFeature, Verdict},
    model::Report,
};

use super::{
    Failed, attempts::Attempts, classify::Classify, drive::Drive, place::Place, progress::Progress,
    repeat::Repeat, session::Asked, waivers::Trust,
};
use crate::{
    candidate::Candidate,
    plan::{Filter, Profile},
    run::{
        self, Source,
        source::{Rounds, UntilConfident},
    },
};

/// Exit codes of the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done; for `certify`: conformant.
    Ok,
    /// Not conformant.
    NotConformant,
    /// Usage or bad input.
    Usage,
    /// Flaky beyond the budget.
    Flaky,
    /// Infrastructure trouble.
    Infra,
    /// Nothing ran.
    NothingRan,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Ok => 0,
            Exit::NotConformant => 1,
            Exit::Usage => 2,
            Exit::Flaky => 3,
            Exit::Infra => 4,
            Exit::NothingRan => 5,
        })
    }
}

impl Exit {
    pub(super) fn of(report: &Report, flake_budget: u32) -> Self {
        match report.exit_code(flake_budget) {
            0 => Self::Ok,
            1 => Self::NotConformant,
            3 => Self::Flaky,
            5 => Self::NothingRan,
            _ => Self::Infra,
        }
    }
}

/// Options that `certify` and `run` share.
#[derive(Debug, Args)]
struct Common {
    /// `reference`, `null`, `installed` (what a cluster has already), or the path of a candidate manifest [default: reference].
    #[arg(long, value_name = "FILE|reference|null|installed")]
    candidate: Option<String>,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    repeat: Repeat,
    #[command(flatten)]
    pub(super) attempts: Attempts,
    #[command(flatten)]
    classify: Classify,
    /// Directory for the event log, the reports and the evidence; must not hold an earlier run.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Go on with the run in this directory, which was killed or stopped. Its options come from its log.
    ///
    /// Attempts that were under way when it broke off are made again under the same numbers. With `--out` naming the same directory, a run
    /// that is not there yet is begun.
    #[arg(long, value_name = "DIR")]
    resume: Option<PathBuf>,
    /// Also write `report.tap` (TAP version 14).
    #[arg(long)]
    tap: bool,
    /// Stop after the first attempt that fails.
    #[arg(long)]
    fail_fast: bool,
    /// This many flaky cases are tolerated [default: 0].
    #[arg(long, value_name = "N")]
    flake_budget: Option<u32>,
}

/// Certify a candidate.
#[derive(Debug, Args)]
pub struct Certify {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    trust: Trust,
    /// Which levels to run [default: core].
    #[arg(long, value_enum)]
    profile: Option<Profile>,
    /// Which cases to run, such as `area:udp and family=ipv6` or `udp-*`.
    #[arg(long, value_name = "EXPR")]
    filter: Option<Filter>,
}

/// Run scenario documents from disk.
#[derive(Debug, Args)]
pub struct Run {
    /// Scenario documents.
    #[arg(required_unless_present = "resume", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Which cases of the documents to run.
    #[arg(long, value_name = "EXPR")]
    filter: Option<Filter>,
    #[command(flatten)]
    common: Common,
}

impl Certify {
    pub(super) fn run(self, color: bool) -> Result<Exit, Failed> {
        let asked = Asked {
            command: "certify",
            profile: self.profile,
            // Somebody who looks at paused attempts wants to see those that they asked for.
            canaries: !self.trust.no_canary && !run::pause::requested(),
            waivers: self.trust.waivers,
            filter: self.filter.map(|_| filter_argument()),
            ..self.common.asked()?
        };
        certified(&asked, color)
    }
}

impl Run {
    pub(super) fn run(self, color: bool) -> Result<Exit, Failed> {
        let asked = Asked {
            command: "run",
            files: self.files,
            profile: Some(Profile::All),
            filter: self.filter.map(|_| filter_argument()),
            ..self.common.asked()?
        };
        certified(&asked, color)
    }
}

/// Runs the cases that are asked for, and tells GitHub where this runs there.
fn certified(asked: &Asked, color: bool) -> Result<Exit, Failed> {
    let (exit, report) = certify(asked, color)?;
    super::github::tell(&report);
    Ok(exit)
}

impl Common {
    fn asked(&self) -> Result<Asked, Failed> {
        if self.resume.is_none() {
            self.repeat.check(self.attempts.seed)?;
        }
        Ok(Asked {
            candidate: self.candidate.clone(),
            out: self.out.clone(),
            resume: self.resume.clone(),
            runs: self.repeat.runs,
            seed: self.attempts.seed,
            jobs: self.attempts.jobs,
            flake_budget: self.flake_budget,
            fail_fast: self.fail_fast,
            mode: self.repeat.stress.then_some(Mode::Stress),
            until_confidence: self.repeat.until_confidence,
            for_ms: self.repeat.for_ms(),
            shard: self.repeat.shard,
            classify: self.classify.clone(),
            tap: self.tap,
            place: self.place.clone(),
            ..Asked::default()
        })
    }
}

/// Runs the cases that are asked for.
pub(super) fn certify(asked: &Asked, color: bool) -> Result<(Exit, Report), Failed> {
    let session = asked.session(|_| ())?;
    let options = session.run.options.clone();
    let flake_budget = options.flake_budget;
    let until = session.until();
    let (source, left): (Box<dyn Source>, Option<u64>) = match options.until_confidence {
        Some(claim) => {
            let source = UntilConfident::new(session.cases.clone(), claim, options.runs);
            (Box::new(source.until(until).after(&session.done)), None)
        }
        None => {
            let rounds = Rounds::new(
                session.cases.clone(),
                (options.runs > 0).then_some(options.runs),
            );
            let rounds = rounds.shard(options.shard).until(until);
            let rounds = rounds.without(session.done.clone());
            let left = rounds.left();
            (Box::new(rounds), left)
        }
    };
    let mut progress = Progress::new(&session.run, left, color);
    if run::pause::requested() {
        progress.plain();
    }
    if session.resumed {
        progress.resumed(&session.done, session.void.len(), session.ended);
    }
    let mut writing = session.writing;
    let out = writing.dir().to_path_buf();
    let mut driven = Ok(());
    if session.ended.is_none() {
        let drive = Drive {
            candidate: session.candidate.clone(),
            jobs: session.jobs,
            evidence: Some(out.clone()).into(),
            fail_fast: options.fail_fast,
            endless: options.mode == Mode::Stress && options.runs == 0 && options.for_ms.is_none(),
            brief: false,
            canaries: session.canaries,
            real: session.real.clone(),
            look_into: asked
                .classify
                .experiments(&session.cases, &session.candidate)?,
        };
        driven = drive.run(&mut writing, source, |_, event| {
            progress.event(&event.body);
            Ok(())
        });
    }
    progress.finish();
    if let Err(failed) = driven {
        drop(writing);
        return Err(failed.with_reports_of(&out));
    }
    let finished = writing.finish().map_err(|error| {
        let full = error.is_full();
        let failed = Failed::from(error);
        match full {
            true => failed.with_reports_of(&out),
            false => failed,
        }
    });
    let (report, mut files) = finished?;
    files.extend(super::render::tap(asked.tap, &out, &report)?);
    progress.summary(&report, &files, flake_budget);
    super::print(&again(&out, &report));
    if let Some(mistake) = session.real.as_ref().and_then(|real| real.mistake()) {
        return Err(Failed::usage(mistake));
    }
    Ok((Exit::of(&report, flake_budget), report))
}

/// The command that shows the first failure again.
fn again(out: &Path, report: &Report) -> String {
    let mut attempts = report.cases.iter().flat_map(|case| &case.attempts);
    let failed = attempts.find(|attempt| attempt.verdict == Verdict::Fail);
    match failed.and_then(|attempt| attempt.evidence.as_deref()) {
        Some(evidence) => format!("again: harness repro '{}'\n", out.join(evidence).display()),
        None => String::new(),
    }
}

/// The filter as it was typed, for the report.
pub(super) fn filter_argument() -> String {
    let args: Vec<String> = std::env::args().collect();
    args.iter()
        .enumerate()
        .find_map(|(at, arg)| match arg.strip_prefix("--filter") {
            Some("") => args.get(at + 1).cloned(),
            Some(value) => value.strip_prefix('=').map(str::to_owned),
            None => None,
        })
        .unwrap_or_default()
}

pub(super) fn run_id(candidate: &str) -> String {
    let safe: String = candidate
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '-' {
                c
            } else {
                '_'
            }
        })
        .collect();
    let time = jiff::Zoned::now().strftime("%Y%m%d-%H%M%S").to_string();
    format!("{time}-{safe}-{:04x}", rand::random::<u16>())
}

pub(super) fn candidate_info(candidate: &Candidate) -> CandidateInfo {
    CandidateInfo {
        name: candidate.manifest.name.clone(),
        version: candidate.manifest.version.clone(),
        url: candidate.manifest.url.clone(),
        digest: candidate
            .binary
            .as_ref()
            .map(|binary| binary.digest.clone()),
        features_unsupported: candidate
            .manifest
            .unsupported
            .iter()
            .map(|unsupported| UnsupportedFeature {
                feature: serde_json::to_value(unsupported.feature)
                    .ok()
                    .and_then(|value| value.as_str().map(str::to_owned))
                    .unwrap_or_default(),
                reason: unsupported.reason.clone(),
            })
            .collect(),
    }
}

/// Requirement area -> (passed, failed, other), for the terminal.
pub(super) fn by_area(report: &Report) -> BTreeMap<String, (u32, u32, u32)> {
    use reports::model::CaseVerdict;
    let mut areas: BTreeMap<String, (u32, u32, u32)> = BTreeMap::new();
    for case in &report.cases {
        let area = areas.entry(case.area.clone()).or_default();
        match case.verdict {
            CaseVerdict::Pass => area.0 += 1,
            CaseVerdict::Fail | CaseVerdict::Flaky => area.1 += 1,
            _ => area.2 += 1,
        }
    }
    areas
}
