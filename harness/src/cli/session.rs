//! A run from the command line: begun anew, or gone on with from its log.
//!
//! A run that goes on is the run that was begun: its options come from the log, and everything that decides what an attempt means has to be
//! what it was (the candidate, the suite, the catalogue). Otherwise the figures of two different things would be added up.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use reports::{
    directory::{self, DirectoryError, Resumed, Writing},
    event::{
        EVENT_FORMAT_VERSION, Event, EventBody, FinishReason, Invocation, Mode, Options,
        RunResumed, RunStarted, Suite,
    },
    log,
    sequential::Claim,
    shard::Shard,
};

use super::{
    Failed,
    attempts::Attempts,
    certify::{candidate_info, run_id},
    classify::Classify,
    machine,
    place::Place,
    waivers,
};
use crate::{
    canary::{Canaries, CanaryError, Flock},
    candidate::Candidate,
    cluster::real::opening::Real,
    plan::{self, Cases, Catalogue, Filter, Planned, Profile, Requirements},
    run::source::Done,
};

/// What the command line says about a run. What it leaves out has a default or, of a run that goes on, comes from the log.
#[derive(Clone, Debug, Default)]
pub(super) struct Asked {
    pub command: &'static str,
    pub files: Vec<PathBuf>,
    pub candidate: Option<String>,
    /// The candidate, where it was read already.
    pub loaded: Option<Candidate>,
    pub out: Option<PathBuf>,
    pub resume: Option<PathBuf>,
    pub profile: Option<Profile>,
    pub filter: Option<String>,
    pub runs: Option<u32>,
    pub seed: Option<u64>,
    pub jobs: Option<u32>,
    pub flake_budget: Option<u32>,
    pub fail_fast: bool,
    pub mode: Option<Mode>,
    pub until_confidence: Option<Claim>,
    pub for_ms: Option<u64>,
    pub shard: Option<Shard>,
    pub classify: Classify,
    /// Whether known-bad proxies have to be noticed.
    pub canaries: bool,
    /// What is known to fail.
    pub waivers: Option<PathBuf>,
    /// Whether `report.tap` is written at the end.
    pub tap: bool,
    /// Where clusters come from.
    pub place: Place,
}

/// A run that is ready to make attempts.
pub(super) struct Session {
    pub writing: Writing,
    pub run: RunStarted,
    pub candidate: Arc<Candidate>,
    pub cases: Cases,
    /// What was done before, of a run that goes on.
    pub done: Done,
    /// Attempts of it that are void.
    pub void: Vec<(String, u32)>,
    pub resumed: bool,
    /// Worlds at a time.
    pub jobs: u32,
    /// How long the run has been worked on before.
    pub active: Duration,
    /// How it ended, if it did so as planned: then there is nothing left to do.
    pub ended: Option<FinishReason>,
    /// The known-bad proxies that are still to be noticed.
    pub canaries: Option<Canaries>,
    /// The cluster of all attempts, where it is not a world per attempt.
    pub real: Option<Arc<Real>>,
}

impl Session {
    /// When no attempt may begin any more, if the run is limited in time. The time that earlier processes spent on it counts.
    pub fn until(&self) -> Option<Instant> {
        let limit = Duration::from_millis(self.run.options.for_ms?);
        Some(Instant::now() + limit.saturating_sub(self.active))
    }
}

impl Asked {
    /// Begins or resumes the run. `each` is shown every event that is in the log when this returns.
    pub fn session(&self, each: impl FnMut(&Event)) -> Result<Session, Failed> {
        match self.resumes()? {
            Some(dir) => self.resume(dir, each),
            None => self.begin(each),
        }
    }

    /// The run to go on with, if there is one. With `--out` naming the same directory, one that is not there yet is begun.
    fn resumes(&self) -> Result<Option<&Path>, Failed> {
        let Some(dir) = &self.resume else {
            return Ok(None);
        };
        match &self.out {
            None => Ok(Some(dir)),
            Some(out) if out == dir => {
                // Killed before its first event was whole, a run has not begun.
                let begun = log::read(dir.join(log::FILE_NAME))
                    .is_ok_and(|mut reader| reader.next().is_some());
                let written = directory::writer(dir)?.is_some();
                if !begun && !written && dir.join(log::FILE_NAME).exists() {
                    std::fs::remove_file(dir.join(log::FILE_NAME)).map_err(Failed::usage)?;
                }
                Ok(begun.then_some(dir))
            }
            Some(out) => Err(Failed::usage(format!(
                "--out {} and --resume {} are two directories: a run goes on where it is",
                out.display(),
                dir.display()
            ))),
        }
    }

    fn begin(&self, mut each: impl FnMut(&Event)) -> Result<Session, Failed> {
        let mut candidate = match &self.loaded {
            Some(candidate) => candidate.clone(),
            None => {
                let reference = self.candidate.as_deref().unwrap_or("reference");
                self.place.takes(reference)?;
                Candidate::load_as(reference, self.place.form())?
            }
        };
        let run_id = run_id(&candidate.manifest.name);
        let out = self
            .out
            .clone()
            .unwrap_or_else(|| Path::new("harness-out").join(&run_id));
        let real = self.place.real(&candidate, &run_id, &out)?;
        if let Some(real) = &real {
            candidate.provider = Arc::new(real.clone());
        }
        let requirements = Requirements::embedded()?;
        let catalogue = self.catalogue(&self.files, &requirements)?;
        let attempts = Attempts {
            jobs: self.jobs,
            seed: self.seed,
        };
        let flock = match &real {
            None => Flock::InWorlds,
            Some(real) => match real.opening().takes_forerunners(&candidate) {
                Ok(()) => Flock::Before,
                Err(_) => Flock::Beside,
            },
        };
        let options = self.options(attempts.jobs(), attempts.seed(), flock);
        let profile = self.profile.unwrap_or_default();
        let filter = filter(options.filter.as_deref())?;
        let missing = machine::missing();
        let mut planned = plan::select(
            &catalogue,
            &requirements,
            &candidate,
            &missing,
            profile,
            &filter,
        );
        plan::skip_what_cannot(&mut planned, candidate.provider.as_ref())?;
        let cases = match &real {
            None => prepare(&planned, options.seed)?,
            // Cases of one document often want the same port, and would wait for each other while others could run.
            Some(_) => prepare(&plan::mixed(&planned, options.seed), options.seed)?,
        };
        let canaries = options.canaries.first().map(|_| {
            Canaries::new(
                flock,
                &candidate,
                &run_id,
                options.seed,
                &catalogue,
                &requirements,
                &missing,
                &[],
            )
        });
        let canaries = canaries.transpose()?;
        let waivers = match &self.waivers {
            Some(file) => waivers::read(file, &waivers::known(&catalogue, &requirements))?,
            None => Vec::new(),
        };
        let mut writing = create(&out)?;
        let run = RunStarted {
            run_id,
            format_version: EVENT_FORMAT_VERSION,
            suite: suite(&catalogue),
            candidate: candidate_info(&candidate),
            provider: candidate.provider.name().into(),
            machine: machine::describe(),
            options,
            invocation: Some(Invocation {
                command: self.command.into(),
                manifest_digest: candidate.manifest_digest(),
                candidate: match candidate.source.name.as_str() {
                    built_in if Candidate::is_built_in(built_in) => built_in.to_owned(),
                    path => absolute(Path::new(path))?,
                },
                files: self
                    .files
                    .iter()
                    .map(|file| absolute(file))
                    .collect::<Result<_, _>>()?,
            }),
            waivers,
            merged: None,
            cases: planned.iter().map(Planned::event).collect(),
            requirements: requirements.events(),
        };
        each(&writing.record(EventBody::RunStarted(run.clone()))?);
        Ok(Session {
            writing,
            jobs: run.options.jobs,
            run,
            candidate: Arc::new(candidate),
            cases,
            done: Done::default(),
            void: Vec::new(),
            resumed: false,
            active: Duration::ZERO,
            ended: None,
            canaries,
            real,
        })
    }

    fn resume(&self, dir: &Path, mut each: impl FnMut(&Event)) -> Result<Session, Failed> {
        let mut done = Done::default();
        let Resumed {
            mut writing,
            run,
            void,
            torn_bytes,
            active,
        } = Writing::resume(dir, |event| {
            done.note(event);
            each(event);
        })?;
        let refuse =
            |why: String| Failed::usage(format!("{}: the run cannot go on: {why}", dir.display()));
        let Some(invocation) = &run.invocation else {
            return Err(refuse("it was not begun by a command that can".into()));
        };
        if run.provider != "netns" {
            return Err(refuse(format!(
                "its cluster ({}) is gone with the process that began it",
                run.provider
            )));
        }
        if invocation.command != self.command {
            let command = &invocation.command;
            return Err(refuse(format!(
                "it was begun by 'harness {command}'; 'harness {command} --resume' goes on with it"
            )));
        }
        if let Some(flag) = self.contradicts(&run.options) {
            return Err(refuse(format!(
                "{flag} is not what it was begun with; leave it away, the options are those of the run"
            )));
        }
        let reference = self.candidate.as_ref().unwrap_or(&invocation.candidate);
        let candidate = Candidate::load(reference)?;
        let requirements = Requirements::embedded()?;
        let files: Vec<PathBuf> = if self.files.is_empty() {
            invocation.files.iter().map(PathBuf::from).collect()
        } else {
            self.files.clone()
        };
        let catalogue = self.catalogue(&files, &requirements)?;
        let (info, suite) = (candidate_info(&candidate), suite(&catalogue));
        let shown = |digest: &Option<String>| digest.clone().unwrap_or_else(|| "none".into());
        let manifest = candidate.manifest_digest();
        let changed = |what: &str, now: &str, then: &str| {
            refuse(format!(
                "{what} is {now} now and was {then} when it began, so the attempts would not be of the same thing"
            ))
        };
        if info.digest != run.candidate.digest {
            let (now, then) = (shown(&info.digest), shown(&run.candidate.digest));
            return Err(changed("the digest of the candidate", &now, &then));
        }
        if manifest != invocation.manifest_digest || info != run.candidate {
            let then = &invocation.manifest_digest;
            return Err(changed("the candidate's manifest", &manifest, then));
        }
        if suite.version != run.suite.version {
            let (now, then) = (&suite.version, &run.suite.version);
            return Err(changed("the version of the suite", now, then));
        }
        if suite != run.suite {
            let (now, then) = (&suite.catalogue_digest, &run.suite.catalogue_digest);
            return Err(changed("the digest of the catalogue", now, then));
        }
        let planned = self.same_plan(&run, &catalogue, &requirements, &candidate)?;
        let cases = prepare(&planned, run.options.seed)?;
        let ended = writing.so_far().end().map(|end| end.reason);
        let ended = ended.filter(|reason| {
            matches!(reason, FinishReason::Completed | FinishReason::FailFast) && void.is_empty()
        });
        let jobs = self.jobs.unwrap_or(run.options.jobs);
        let canaries = (!run.options.canaries.is_empty()).then(|| {
            let made = writing.so_far().canaries();
            let missing = machine::missing();
            Canaries::new(
                Flock::InWorlds,
                &candidate,
                &run.run_id,
                run.options.seed,
                &catalogue,
                &requirements,
                &missing,
                made,
            )
        });
        let canaries = canaries.transpose()?;
        if ended.is_none() {
            for (case, attempt) in &void {
                // What a void attempt left must not look like evidence of the one that is made in its place.
                let evidence = dir.join(crate::run::evidence_directory(case, *attempt));
                let _ = std::fs::remove_dir_all(evidence);
            }
            let resumed = RunResumed {
                machine: machine::describe(),
                jobs,
                torn_bytes,
            };
            each(&writing.record(EventBody::RunResumed(resumed))?);
        }
        Ok(Session {
            writing,
            run,
            candidate: Arc::new(candidate),
            cases,
            done,
            void,
            resumed: true,
            jobs,
            active,
            ended,
            canaries,
            real: None,
        })
    }

    /// The plan of the run again. What was to be run then and cannot be run now would look as if it had been skipped all the time.
    fn same_plan(
        &self,
        run: &RunStarted,
        catalogue: &Catalogue,
        requirements: &Requirements,
        candidate: &Candidate,
    ) -> Result<Vec<Planned>, Failed> {
        let profile = Profile::named(&run.options.profile).unwrap_or_default();
        let filter = filter(run.options.filter.as_deref())?;
        let missing = machine::missing();
        let mut planned = plan::select(
            catalogue,
            requirements,
            candidate,
            &missing,
            profile,
            &filter,
        );
        let same = planned.len() == run.cases.len()
            && planned
                .iter()
                .zip(&run.cases)
                .all(|(now, then)| now.key.id == then.id);
        if !same {
            return Err(Failed::usage(
                "the run cannot go on: its plan has other cases than this suite would plan",
            ));
        }
        for (now, then) in planned.iter_mut().zip(&run.cases) {
            if let (Some(skip), None) = (&now.skip, &then.skip) {
                return Err(Failed::infra(format!(
                    "the run cannot go on on this machine: case {} could be run when it began, and now {}",
                    then.id, skip.reason
                )));
            }
            now.skip.clone_from(&then.skip);
        }
        Ok(planned)
    }

    fn catalogue(
        &self,
        files: &[PathBuf],
        requirements: &Requirements,
    ) -> Result<Catalogue, Failed> {
        Ok(if files.is_empty() {
            Catalogue::embedded(requirements)?
        } else {
            Catalogue::from_files(files, requirements)?
        })
    }

    fn options(&self, jobs: u32, seed: u64, flock: Flock) -> Options {
        let mode = self.mode.unwrap_or_default();
        let without_limit = mode != Mode::Certify;
        Options {
            profile: self.profile.unwrap_or_default().as_str().into(),
            filter: self.filter.clone(),
            runs: self.runs.unwrap_or(match self.until_confidence {
                _ if without_limit => 0,
                Some(claim) => attempts_at_most(claim),
                None => 1,
            }),
            jobs,
            seed,
            flake_budget: self.flake_budget.unwrap_or_default(),
            fail_fast: self.fail_fast,
            mode,
            until_confidence: self.until_confidence,
            for_ms: self.for_ms,
            shard: self.shard,
            canaries: if self.canaries {
                flock.names()
            } else {
                Vec::new()
            },
        }
    }

    /// The first flag that says something else than the run that is to go on.
    fn contradicts(&self, run: &Options) -> Option<&'static str> {
        let other = |given: bool, flag| given.then_some(flag);
        let profile = self.profile.map(Profile::as_str);
        other(profile.is_some_and(|p| p != run.profile), "--profile")
            .or_else(|| {
                other(
                    self.filter.is_some() && self.filter != run.filter,
                    "--filter",
                )
            })
            .or_else(|| other(self.runs.is_some_and(|runs| runs != run.runs), "--runs"))
            .or_else(|| other(self.seed.is_some_and(|seed| seed != run.seed), "--seed"))
            .or_else(|| {
                let budget = self.flake_budget;
                other(
                    budget.is_some_and(|b| b != run.flake_budget),
                    "--flake-budget",
                )
            })
            .or_else(|| other(self.fail_fast && !run.fail_fast, "--fail-fast"))
            .or_else(|| other(self.mode.is_some_and(|mode| mode != run.mode), "--stress"))
            .or_else(|| {
                let claim = self.until_confidence;
                let differs = claim.is_some() && claim != run.until_confidence;
                other(differs, "--until-confidence")
            })
            .or_else(|| other(self.for_ms.is_some() && self.for_ms != run.for_ms, "--for"))
            .or_else(|| other(self.shard.is_some() && self.shard != run.shard, "--shard"))
            .or_else(|| other(self.waivers.is_some(), "--waivers"))
            .or_else(|| {
                let without = !self.canaries && !run.canaries.is_empty();
                other(without, "--no-canary")
            })
    }
}

/// Where a claim is to be decided and nothing else limits the attempts, they end here: ten times as many as prove it without a failure. A rate
/// so close to the bound that this does not decide it would take very long.
fn attempts_at_most(claim: Claim) -> u32 {
    u32::try_from(claim.attempts_without_failure().saturating_mul(10)).unwrap_or(u32::MAX)
}

/// Begins the log of a run in a directory that `--out` may have named.
pub(super) fn create(out: &Path) -> Result<Writing, Failed> {
    let place = out.display();
    Writing::create(out).map_err(|error| match error {
        DirectoryError::Taken { .. } => Failed::usage(format!(
            "--out {place}: it holds an earlier run (events.jsonl); name another directory or remove it"
        )),
        DirectoryError::Io { source, .. } => {
            Failed::usage(format!("--out {place}: it cannot be created: {source}"))
        }
        error => error.into(),
    })
}

impl From<CanaryError> for Failed {
    fn from(error: CanaryError) -> Self {
        match error {
            CanaryError::Scenario(problem) => problem.into(),
            CanaryError::Candidate(error) => error.into(),
        }
    }
}

fn suite(catalogue: &Catalogue) -> Suite {
    Suite {
        version: env!("CARGO_PKG_VERSION").into(),
        catalogue_digest: catalogue.digest(),
    }
}

fn filter(text: Option<&str>) -> Result<Filter, Failed> {
    match text {
        None => Ok(Filter::All),
        Some(text) => text.parse().map_err(Failed::usage),
    }
}

fn prepare(planned: &[Planned], seed: u64) -> Result<Cases, Failed> {
    Cases::prepare(planned, seed).map_err(|problems| {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        Failed::usage(lines.join("\n"))
    })
}

fn absolute(path: &Path) -> Result<String, Failed> {
    let found = std::path::absolute(path)
        .map_err(|error| Failed::usage(format!("{}: {error}", path.display())))?;
    Ok(found.display().to_string())
}
