//! `harness certify` and `harness run`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use clap::{Args, ValueEnum};
use reports::{
    event::{
        CandidateInfo, EVENT_FORMAT_VERSION, EventBody, FinishReason, Options, RunStarted, Suite,
        UnsupportedFeature, Verdict,
    },
    log::EventWriter,
    model::{Report, ReportBuilder},
};
use tokio::sync::mpsc;

use super::{
    Failed, attempts::Attempts, interrupt::interrupted, machine, progress::Progress, runtime,
};
use crate::{
    candidate::Candidate,
    plan::{self, Catalogue, Filter, Profile, Requirements},
    run,
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
    fn of(report: &Report, flake_budget: u32) -> Self {
        match report.exit_code(flake_budget) {
            0 => Self::Ok,
            1 => Self::NotConformant,
            3 => Self::Flaky,
            5 => Self::NothingRan,
            _ => Self::Infra,
        }
    }
}

/// Where worlds come from.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(super) enum Provider {
    /// Network namespaces on this machine, with an embedded API server.
    #[default]
    Netns,
}

/// Options that `certify` and `run` share.
#[derive(Debug, Args)]
pub(super) struct Common {
    /// `reference`, `null`, or the path of a candidate manifest.
    #[arg(long, default_value = "reference", value_name = "FILE|reference|null")]
    pub(super) candidate: String,
    /// Where worlds come from.
    #[arg(long, value_enum, default_value_t)]
    pub(super) provider: Provider,
    /// Attempts per case.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) runs: u32,
    #[command(flatten)]
    pub(super) attempts: Attempts,
    /// Directory for the event log, the reports and the evidence; must not hold an earlier run.
    #[arg(long, value_name = "DIR")]
    pub(super) out: Option<PathBuf>,
    /// Stop after the first attempt that fails.
    #[arg(long)]
    pub(super) fail_fast: bool,
    /// This many flaky cases are tolerated.
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(super) flake_budget: u32,
}

/// Certify a candidate.
#[derive(Debug, Args)]
pub struct Certify {
    #[command(flatten)]
    common: Common,
    /// Which levels to run.
    #[arg(long, value_enum, default_value_t)]
    profile: Profile,
    /// Which cases to run, such as `area:udp and family=ipv6` or `udp-*`.
    #[arg(long, value_name = "EXPR")]
    filter: Option<Filter>,
}

/// Run scenario documents from disk.
#[derive(Debug, Args)]
pub struct Run {
    /// Scenario documents.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Which cases of the documents to run.
    #[arg(long, value_name = "EXPR")]
    filter: Option<Filter>,
    #[command(flatten)]
    common: Common,
}

impl Certify {
    pub(super) fn run(self, color: bool) -> Result<Exit, Failed> {
        let requirements = Requirements::embedded()?;
        let catalogue = Catalogue::embedded(&requirements)?;
        certify(
            &self.common,
            &catalogue,
            &requirements,
            self.profile,
            self.filter,
            color,
        )
    }
}

impl Run {
    pub(super) fn run(self, color: bool) -> Result<Exit, Failed> {
        let requirements = Requirements::embedded()?;
        let catalogue = Catalogue::from_files(&self.files, &requirements)?;
        certify(
            &self.common,
            &catalogue,
            &requirements,
            Profile::All,
            self.filter,
            color,
        )
    }
}

fn certify(
    common: &Common,
    catalogue: &Catalogue,
    requirements: &Requirements,
    profile: Profile,
    filter: Option<Filter>,
    color: bool,
) -> Result<Exit, Failed> {
    let candidate = Candidate::load(&common.candidate)?;
    let (exit, _) = certify_with(
        common,
        candidate,
        catalogue,
        requirements,
        profile,
        filter,
        color,
    )?;
    Ok(exit)
}

/// Runs the cases on a candidate that was read already.
pub(super) fn certify_with(
    common: &Common,
    candidate: Candidate,
    catalogue: &Catalogue,
    requirements: &Requirements,
    profile: Profile,
    filter: Option<Filter>,
    color: bool,
) -> Result<(Exit, Report), Failed> {
    let Provider::Netns = common.provider;
    let filter_text = filter.as_ref().map(|_| filter_argument());
    let filter = filter.unwrap_or(Filter::All);
    let missing = machine::missing();
    let planned = plan::select(
        catalogue,
        requirements,
        &candidate,
        &missing,
        profile,
        &filter,
    );
    let seed = common.attempts.seed();
    let jobs = common.attempts.jobs();
    let work = plan::jobs(&planned, common.runs, seed).map_err(|problems| {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        Failed::usage(lines.join("\n"))
    })?;
    let run_id = run_id(&candidate.manifest.name);
    let out = common
        .out
        .clone()
        .unwrap_or_else(|| Path::new("harness-out").join(&run_id));
    prepare(&out)?;
    let mut writer = EventWriter::create(out.join("events.jsonl")).map_err(Failed::usage)?;
    let started = RunStarted {
        run_id,
        format_version: EVENT_FORMAT_VERSION,
        suite: Suite {
            version: env!("CARGO_PKG_VERSION").into(),
            catalogue_digest: catalogue.digest(),
        },
        candidate: candidate_info(&candidate),
        provider: "netns".into(),
        machine: machine::describe(),
        options: Options {
            profile: profile.as_str().into(),
            filter: filter_text,
            runs: common.runs,
            jobs,
            seed,
            flake_budget: common.flake_budget,
            fail_fast: common.fail_fast,
        },
        cases: planned.iter().map(plan::Planned::event).collect(),
        requirements: requirements.events(),
    };
    let mut builder = ReportBuilder::default();
    let mut progress = Progress::new(&started, work.len(), color);
    if run::pause::requested() {
        progress.plain();
    }
    let mut record = |writer: &mut EventWriter,
                      progress: &mut Progress,
                      body: EventBody|
     -> Result<(), Failed> {
        progress.event(&body);
        let event = writer
            .append(body)
            .map_err(|error| Failed::infra(format!("{error}; what was written is kept")))?;
        builder
            .push(event)
            .map_err(|error| Failed::infra(format!("the event log does not make sense: {error}")))
    };
    record(&mut writer, &mut progress, EventBody::RunStarted(started))?;
    let stop = Arc::new(AtomicBool::new(false));
    let runtime = runtime()?;
    let written: Result<(), Failed> = runtime.block_on(async {
        let (events, mut inbox) = mpsc::unbounded_channel();
        tokio::spawn(interrupted(stop.clone()));
        let run = tokio::spawn(run::run_plan(
            work,
            Arc::new(candidate),
            jobs as usize,
            Some(out.clone()),
            common.fail_fast,
            stop.clone(),
            events,
        ));
        let mut result = Ok(());
        while let Some(body) = inbox.recv().await {
            if result.is_ok() {
                result = record(&mut writer, &mut progress, body);
                if result.is_err() {
                    stop.store(true, Ordering::Relaxed);
                }
            }
        }
        let reason = run
            .await
            .map_or(FinishReason::Infra, |outcome| outcome.reason);
        if result.is_ok() {
            result = record(
                &mut writer,
                &mut progress,
                EventBody::RunFinished {
                    reason,
                    message: None,
                },
            );
        }
        result
    });
    progress.finish();
    written?;
    writer.finish().map_err(Failed::infra)?;
    let report = builder
        .finish()
        .map_err(|error| Failed::infra(format!("no report can be made: {error}")))?;
    let files = reports::write_all(&out, &report).map_err(Failed::infra)?;
    progress.summary(&report, &files, common.flake_budget);
    super::print(&again(&out, &report));
    Ok((Exit::of(&report, common.flake_budget), report))
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

pub(super) fn prepare(out: &Path) -> Result<(), Failed> {
    if out.join("events.jsonl").exists() {
        return Err(Failed::usage(format!(
            "--out {}: it holds an earlier run (events.jsonl); name another directory or remove it",
            out.display()
        )));
    }
    std::fs::create_dir_all(out).map_err(|error| {
        Failed::usage(format!(
            "--out {}: it cannot be created: {error}",
            out.display()
        ))
    })
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
