//! `harness diff`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use clap::Args;
use futures::StreamExt as _;
use reports::{
    directory::Writing,
    event::{EVENT_FORMAT_VERSION, EventBody, FinishReason, Options, RunStarted, Suite, Verdict},
    model::Report,
};
use tokio::sync::mpsc;

use super::{
    Exit, Failed,
    attempts::Attempts,
    certify::{candidate_info, run_id},
    format::Format,
    interrupt::interrupted,
    machine, print, runtime,
    session::create,
};
use crate::{
    candidate::Candidate,
    diff::Difference,
    plan::{self, Catalogue, Filter, Planned, Profile, Requirements},
    run::{self, Job, source::List},
};

/// Say what changes when one candidate takes the place of another.
///
/// Both run the same cases with the same seeds, each case on one and then on the other, so that whatever else the machine does hits
/// both. Differences in time are shown and do not count.
///
/// Exit codes: 0 no difference; 1 differences; 2 usage or bad input; 4 trouble with the machine or the harness; 5 nothing ran.
#[derive(Debug, Args)]
pub struct Diff {
    /// Two directories of earlier runs: the new candidate's, and that of the one it is to replace.
    #[arg(value_name = "DIR", num_args = 2, conflicts_with_all = ["candidate", "against", "profile", "filter", "runs", "jobs", "seed", "out"])]
    dirs: Vec<PathBuf>,
    /// The new one: `reference`, `null`, or the path of a candidate manifest.
    #[arg(
        long,
        value_name = "FILE|reference|null",
        required_unless_present = "dirs"
    )]
    candidate: Option<String>,
    /// The one that it is to replace.
    #[arg(
        long,
        value_name = "FILE|reference|null",
        required_unless_present = "dirs"
    )]
    against: Option<String>,
    /// Which levels to run.
    #[arg(long, value_enum, default_value_t)]
    profile: Profile,
    /// Which cases to run, such as `area:udp and family=ipv6` or `udp-*`.
    #[arg(long, value_name = "EXPR")]
    filter: Option<Filter>,
    /// Attempts per case and candidate.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    #[command(flatten)]
    attempts: Attempts,
    /// Directory for both runs, in `candidate/` and `against/`; must not hold earlier ones.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Output format.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl Diff {
    pub(super) fn run(self) -> Result<Exit, Failed> {
        let [candidate, against] = match (self.dirs.as_slice(), &self.candidate, &self.against) {
            ([candidate, against], ..) => [read(candidate)?, read(against)?],
            (_, Some(candidate), Some(against)) => {
                let names = [candidate.clone(), against.clone()];
                self.both(names)?
            }
            _ => return Err(Failed::usage("--candidate and --against are needed")),
        };
        let difference = Difference::of(&candidate, &against);
        print(
            &self
                .format
                .of(&difference, || difference.text(), || difference.markdown())?,
        );
        Ok(if !difference.is_empty() {
            Exit::NotConformant
        } else if difference.is_incomplete() {
            Exit::Infra
        } else if difference.compared == 0 {
            Exit::NothingRan
        } else {
            Exit::Ok
        })
    }

    /// Runs the cases on both.
    fn both(&self, names: [String; 2]) -> Result<[Report; 2], Failed> {
        let requirements = Requirements::embedded()?;
        let catalogue = Catalogue::embedded(&requirements)?;
        let filter = self.filter.clone().unwrap_or(Filter::All);
        let missing = machine::missing();
        let seed = self.attempts.seed();
        let jobs = self.attempts.jobs();
        let out = self
            .out
            .clone()
            .unwrap_or_else(|| Path::new("harness-out").join(run_id("diff")));
        let mut sides = Vec::new();
        for (name, directory) in names.iter().zip(["candidate", "against"]) {
            let candidate = Candidate::load(name)?;
            let planned = plan::select(
                &catalogue,
                &requirements,
                &candidate,
                &missing,
                self.profile,
                &filter,
            );
            let work = plan::jobs(&planned, self.runs, seed).map_err(|problems| {
                let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
                Failed::usage(lines.join("\n"))
            })?;
            let out = out.join(directory);
            let options = Options {
                profile: self.profile.as_str().into(),
                filter: self
                    .filter
                    .as_ref()
                    .map(|_| super::certify::filter_argument()),
                runs: self.runs,
                jobs,
                seed,
                ..Options::default()
            };
            let started = started(&candidate, &catalogue, &requirements, &planned, options);
            sides.push(Side::create(candidate, work, out, started)?);
        }
        let Ok([candidate, against]) = <[Side; 2]>::try_from(sides) else {
            return Err(Failed::infra("two candidates make two sides"));
        };
        eprintln!(
            "{} and {}: {} cases x {} each, {jobs} at a time, seed {seed}",
            names[0], names[1], candidate.planned, self.runs
        );
        let reports = interleaved([candidate, against], jobs as usize)?;
        eprintln!("reports: {}", out.display());
        Ok(reports)
    }
}

/// The report of an earlier run.
fn read(directory: &Path) -> Result<Report, Failed> {
    let path = directory.join("report.json");
    let text = std::fs::read_to_string(&path).map_err(|error| {
        Failed::usage(format!("{}: it cannot be read: {error}", path.display()))
    })?;
    reports::json::parse(&text)
        .map_err(|error| Failed::usage(format!("{}: {error}", path.display())))
}

fn started(
    candidate: &Candidate,
    catalogue: &Catalogue,
    requirements: &Requirements,
    planned: &[Planned],
    options: Options,
) -> RunStarted {
    RunStarted {
        run_id: run_id(&candidate.manifest.name),
        format_version: EVENT_FORMAT_VERSION,
        suite: Suite {
            version: env!("CARGO_PKG_VERSION").into(),
            catalogue_digest: catalogue.digest(),
        },
        candidate: candidate_info(candidate),
        provider: "netns".into(),
        machine: machine::describe(),
        options,
        invocation: None,
        cases: planned.iter().map(Planned::event).collect(),
        requirements: requirements.events(),
        waivers: Vec::new(),
        merged: None,
    }
}

/// One of the two runs.
struct Side {
    candidate: Arc<Candidate>,
    work: Vec<Job>,
    planned: usize,
    out: PathBuf,
    record: Writing,
}

impl Side {
    fn create(
        candidate: Candidate,
        work: Vec<Job>,
        out: PathBuf,
        started: RunStarted,
    ) -> Result<Self, Failed> {
        let planned = started.cases.len();
        let mut record = create(&out)?;
        record.record(EventBody::RunStarted(started))?;
        Ok(Self {
            candidate: Arc::new(candidate),
            work,
            planned,
            out,
            record,
        })
    }
}

/// Ends the log and writes the reports.
fn finish(mut record: Writing, reason: FinishReason) -> Result<Report, Failed> {
    record.record(EventBody::RunFinished {
        reason,
        message: None,
    })?;
    Ok(record.finish()?.0)
}

/// The same attempt on both sides; a skipped case has only one attempt, and the other side may have more.
type Pair = [Option<Job>; 2];

fn pairs(candidate: Vec<Job>, against: Vec<Job>) -> Vec<Pair> {
    let mut places: BTreeMap<(String, u32), usize> = BTreeMap::new();
    let mut pairs: Vec<Pair> = Vec::new();
    for (side, work) in [candidate, against].into_iter().enumerate() {
        for job in work {
            let at = *places
                .entry((job.id.clone(), job.attempt))
                .or_insert_with(|| {
                    pairs.push([None, None]);
                    pairs.len() - 1
                });
            pairs[at][side] = Some(job);
        }
    }
    pairs
}

/// Runs each attempt on one and then on the other, `jobs` pairs at a time.
fn interleaved(sides: [Side; 2], jobs: usize) -> Result<[Report; 2], Failed> {
    let [a, b] = sides;
    let pairs = pairs(a.work, b.work);
    let candidates = [a.candidate, b.candidate];
    let outs = [a.out, b.out];
    let (mut first, mut second) = (a.record, b.record);
    let stop = Arc::new(AtomicBool::new(false));
    let runtime = runtime()?;
    let result: Result<FinishReason, Failed> = runtime.block_on(async {
        let (to_first, mut from_first) = mpsc::unbounded_channel();
        let (to_second, mut from_second) = mpsc::unbounded_channel();
        let senders = [to_first, to_second];
        tokio::spawn(interrupted(stop.clone()));
        let halt = stop.clone();
        let directories = outs.clone();
        let work = tokio::spawn(async move {
            futures::stream::iter(pairs)
                .map(|pair| {
                    let (candidates, outs) = (candidates.clone(), directories.clone());
                    let (senders, stop) = (senders.clone(), halt.clone());
                    async move {
                        let sides = candidates.into_iter().zip(outs).zip(senders);
                        for (job, ((candidate, out), events)) in pair.into_iter().zip(sides) {
                            let work: List = job.into_iter().collect::<Vec<Job>>().into();
                            run::run_plan(
                                work,
                                candidate,
                                1,
                                Some(out),
                                false,
                                stop.clone(),
                                events,
                            )
                            .await;
                        }
                    }
                })
                .buffer_unordered(jobs.max(1))
                .collect::<Vec<()>>()
                .await;
        });
        let mut progress = Progress::default();
        let mut result = Ok(());
        loop {
            let (side, body) = tokio::select! {
                Some(body) = from_first.recv() => (0, body),
                Some(body) = from_second.recv() => (1, body),
                else => break,
            };
            progress.event(side, &body);
            if result.is_ok() {
                let record = if side == 0 { &mut first } else { &mut second };
                result = record.record(body).map(drop).map_err(Failed::from);
                if result.is_err() {
                    stop.store(true, Ordering::Relaxed);
                }
            }
        }
        let ended = work.await;
        result?;
        Ok(match ended {
            Err(_) => FinishReason::Infra,
            Ok(()) if stop.load(Ordering::Relaxed) => FinishReason::Interrupted,
            Ok(()) => FinishReason::Completed,
        })
    });
    let reason = result?;
    Ok([finish(first, reason)?, finish(second, reason)?])
}

/// A line per attempt that both have made, on standard error.
#[derive(Default)]
struct Progress {
    seen: BTreeMap<(String, u32), [Option<Verdict>; 2]>,
}

impl Progress {
    fn event(&mut self, side: usize, body: &EventBody) {
        let EventBody::AttemptFinished(finished) = body else {
            return;
        };
        let key = (finished.case.clone(), finished.attempt);
        let verdicts = self.seen.entry(key).or_default();
        verdicts[side] = Some(finished.verdict);
        if let [Some(candidate), Some(against)] = *verdicts {
            let word = if candidate == against { "same" } else { "DIFF" };
            eprintln!("{word}  {against} -> {candidate}  {}", finished.case);
        }
    }
}

#[cfg(test)]
mod tests {
    use reports::event::{Skip, SkipKind};

    use super::*;

    fn job(id: &str, attempt: u32) -> Job {
        Job {
            case: Err(Skip {
                kind: SkipKind::KernelMissing,
                reason: "of the test".into(),
            }),
            id: id.into(),
            attempt,
            seed: 1,
            conditions: Default::default(),
        }
    }

    #[test]
    fn attempts_are_paired_by_case_and_number() {
        let candidate = vec![job("a", 1), job("b", 1), job("b", 2)];
        let against = vec![job("a", 1), job("b", 1), job("a", 2)];
        let pairs = pairs(candidate, against);
        let names: Vec<_> = pairs
            .iter()
            .map(|pair| {
                let name = |side: usize| {
                    pair[side]
                        .as_ref()
                        .map(|job| format!("{}{}", job.id, job.attempt))
                };
                (name(0), name(1))
            })
            .collect();
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            names,
            [
                (some("a1"), some("a1")),
                (some("b1"), some("b1")),
                (some("b2"), None),
                (None, some("a2"))
            ]
        );
    }
}
