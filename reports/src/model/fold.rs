//! Folds a log into a report.
//!
//! A pure function of the events: it reads no clock and no file, and events of different cases may come in any order between
//! two `runResumed`. What
//! makes a log nonsense (two ends of one attempt, a case that was never planned) is an error; what makes it incomplete (no
//! end, lines lost, attempts missing) is a problem of the report, which then cannot conclude conformance.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;

use thiserror::Error;

use super::canary;
use super::report::{
    Attempt, BrokenStep, CaseResult, CharacteristicResult, CharacteristicValue, ClaimResult, End,
    ExperimentResult, GroupSummary, Measurement, REPORT_FORMAT_VERSION, Report, RequirementResult,
    Resumption, Totals,
};
use super::signature;
use super::stats::{self, Distribution, Rate};
use super::verdict::{CaseVerdict, Conclusion, Counts};
use crate::event::{
    AttemptFinished, CanaryFinished, EVENT_FORMAT_VERSION, Event, EventBody, Experiment,
    ExperimentFinished, FinishReason, Options, RunResumed, RunStarted, SetupFinished, Verdict,
};
use crate::log::{self, LogError};
use crate::sequential::{Claim, Decision, SequentialTest};
use crate::waiver;

/// Why a log is no description of a run.
#[derive(Debug, Error)]
pub enum ModelError {
    /// The log could not be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// There is no event at all.
    #[error("build report: the log has no events")]
    Empty,
    /// The first event is not the start of a run.
    #[error("build report: event {seq} comes before the start of the run")]
    NotStarted {
        /// Number of the event.
        seq: u64,
    },
    /// A second run starts.
    #[error("build report: event {seq} starts a second run, but one log describes one run")]
    StartedTwice {
        /// Number of the event.
        seq: u64,
    },
    /// The log was written by a newer suite.
    #[error(
        "build report: the log has format version {found}, this suite reads up to {EVENT_FORMAT_VERSION}"
    )]
    FormatVersion {
        /// Version the log claims.
        found: u32,
    },
    /// Two cases of the plan have the same id.
    #[error("build report: case {id:?} is planned twice")]
    PlannedTwice {
        /// Id of the case.
        id: String,
    },
    /// An event belongs to a case that is not in the plan.
    #[error("build report: event {seq} belongs to case {case:?}, which is not in the plan")]
    UnknownCase {
        /// Number of the event.
        seq: u64,
        /// Id of the case.
        case: String,
    },
    /// An attempt starts or ends twice.
    #[error("build report: event {seq}: attempt {attempt} of case {case:?} {what} twice")]
    Twice {
        /// Number of the event.
        seq: u64,
        /// Id of the case.
        case: String,
        /// Number of the attempt.
        attempt: u32,
        /// `starts` or `ends`.
        what: &'static str,
    },
    /// The run ends twice.
    #[error("build report: event {seq} ends the run a second time")]
    EndedTwice {
        /// Number of the event.
        seq: u64,
    },
    /// A time is not RFC 3339.
    #[error("build report: {time:?} is not a time: {source}")]
    Time {
        /// The text.
        time: String,
        /// What the reader says.
        source: jiff::Error,
    },
}

impl Report {
    /// The report of a run from its events.
    ///
    /// # Errors
    /// [`ModelError`] when the events do not describe one run. An incomplete run is no error, see [`Report::problems`].
    pub fn from_events(events: impl IntoIterator<Item = Event>) -> Result<Self, ModelError> {
        let mut builder = ReportBuilder::default();
        for event in events {
            builder.push(event)?;
        }
        builder.finish()
    }

    /// The report of a run from its log; a torn last line becomes one of the [`Report::problems`].
    ///
    /// # Errors
    /// As [`Report::from_events`], and [`ModelError::Log`] when the log cannot be read.
    pub fn from_log(path: impl AsRef<Path>) -> Result<Self, ModelError> {
        let mut builder = ReportBuilder::default();
        let mut reader = log::read(path)?;
        for event in reader.by_ref() {
            builder.push(event?)?;
        }
        if reader.truncated() {
            builder.truncated();
        }
        builder.finish()
    }
}

/// Folds events one at a time, so that a log of any length needs only the memory of its report.
#[derive(Debug, Default, Clone)]
pub struct ReportBuilder {
    run: Option<(String, RunStarted)>,
    end: Option<End>,
    cases: Vec<CaseFold>,
    index: HashMap<String, usize>,
    characteristics: BTreeMap<String, BTreeMap<String, Observed>>,
    canaries: Vec<CanaryFinished>,
    setup: Vec<SetupFinished>,
    events: u64,
    last_seq: u64,
    last_time: String,
    truncated: bool,
    resumed: Vec<Resumption>,
    /// When the process of these events took the run up; empty before the first event.
    session: String,
    /// Time that earlier processes spent on the run, in milliseconds.
    earlier_ms: f64,
}

#[derive(Debug, Clone)]
struct CaseFold {
    result: CaseResult,
    attempts: BTreeMap<u32, AttemptFold>,
    experiments: BTreeMap<Experiment, ExperimentResult>,
    measured: BTreeMap<(String, String), Vec<f64>>,
}

#[derive(Debug, Default, Clone)]
struct AttemptFold {
    started: Option<Started>,
    /// The last step that ended, and its verb.
    last_step: Option<(u32, String)>,
    /// The first step that did not hold.
    broke: Option<BrokenStep>,
    /// What is counted once it is known that the attempt is not void.
    pending: Vec<Pending>,
    finished: Option<AttemptFinished>,
}

#[derive(Debug, Clone)]
struct Started {
    time: String,
    seed: u64,
    stress: Option<String>,
    shape: Option<String>,
}

#[derive(Debug, Clone)]
enum Pending {
    Measured {
        name: String,
        unit: String,
        value: f64,
    },
    Observed {
        id: String,
        value: String,
        text: String,
    },
}

#[derive(Debug, Default, Clone)]
struct Observed {
    text: String,
    cases: BTreeSet<String>,
}

impl ReportBuilder {
    /// Adds an event.
    ///
    /// # Errors
    /// [`ModelError`] when the event does not fit those before it.
    pub fn push(&mut self, event: Event) -> Result<(), ModelError> {
        let Event { seq, time, body } = event;
        if self.run.is_none() && !matches!(body, EventBody::RunStarted(_)) {
            return Err(ModelError::NotStarted { seq });
        }
        self.events += 1;
        self.last_seq = self.last_seq.max(seq);
        if let EventBody::RunResumed(resumed) = body {
            return self.resume(time, resumed);
        }
        if time > self.last_time {
            self.last_time.clone_from(&time);
        }
        match body {
            EventBody::RunStarted(run) => self.start(seq, time, run),
            EventBody::RunResumed(_) => Ok(()),
            EventBody::AttemptStarted {
                case,
                attempt,
                seed,
                stress,
                shape,
            } => {
                let fold = self.attempt(seq, &case, attempt)?;
                let started = Started {
                    time,
                    seed,
                    stress,
                    shape,
                };
                if fold.started.replace(started).is_some() {
                    return Err(ModelError::Twice {
                        seq,
                        case,
                        attempt,
                        what: "starts",
                    });
                }
                Ok(())
            }
            EventBody::StepFinished {
                case,
                attempt,
                index,
                verb,
                summary,
                duration_ms,
                ok,
            } => {
                let fold = self.attempt(seq, &case, attempt)?;
                if !ok && fold.broke.as_ref().is_none_or(|first| index < first.index) {
                    fold.broke = Some(BrokenStep {
                        index,
                        verb: verb.clone(),
                        summary,
                        duration_ms,
                    });
                }
                if fold
                    .last_step
                    .as_ref()
                    .is_none_or(|(last, _)| index >= *last)
                {
                    fold.last_step = Some((index, verb));
                }
                Ok(())
            }
            EventBody::Measured {
                case,
                attempt,
                name,
                unit,
                value,
            } => self.found(seq, case, attempt, Pending::Measured { name, unit, value }),
            EventBody::Characteristic {
                case,
                attempt,
                id,
                value,
                text,
            } => self.found(seq, case, attempt, Pending::Observed { id, value, text }),
            EventBody::AttemptFinished(mut finished) => {
                let attempt = finished.attempt;
                let case = std::mem::take(&mut finished.case);
                let fold = self.attempt(seq, &case, attempt)?;
                if fold.finished.replace(finished).is_some() {
                    return Err(ModelError::Twice {
                        seq,
                        case,
                        attempt,
                        what: "ends",
                    });
                }
                let pending = std::mem::take(&mut fold.pending);
                let index = self.index[&case];
                for found in pending {
                    self.count(index, found);
                }
                Ok(())
            }
            EventBody::ExperimentFinished(finished) => self.experiment(seq, finished),
            EventBody::CanaryFinished(finished) => {
                self.canaries.push(finished);
                Ok(())
            }
            EventBody::SetupFinished(finished) => {
                self.setup.push(finished);
                Ok(())
            }
            EventBody::RunFinished { reason, message } => {
                if self.end.is_some() {
                    return Err(ModelError::EndedTwice { seq });
                }
                self.end = Some(End {
                    time,
                    reason,
                    message,
                });
                Ok(())
            }
        }
    }

    /// Takes what an attempt found: it counts unless the attempt turns out to be void.
    fn found(
        &mut self,
        seq: u64,
        case: String,
        attempt: u32,
        found: Pending,
    ) -> Result<(), ModelError> {
        let fold = self.attempt(seq, &case, attempt)?;
        if fold.finished.is_none() {
            fold.pending.push(found);
        } else {
            self.count(self.index[&case], found);
        }
        Ok(())
    }

    fn count(&mut self, case: usize, found: Pending) {
        let case = &mut self.cases[case];
        match found {
            Pending::Measured { name, unit, value } => {
                let values = case.measured.entry((name, unit)).or_default();
                values.push(value);
            }
            Pending::Observed { id, value, text } => {
                let values = self.characteristics.entry(id).or_default();
                let observed = values.entry(value).or_default();
                // The smallest text is kept, so that the order of events does not matter.
                if observed.text.is_empty() || text < observed.text {
                    observed.text = text;
                }
                observed.cases.insert(case.result.id.clone());
            }
        }
    }

    /// The attempts that started and have not finished, in the order of the plan: should the run be resumed now, they are void.
    pub fn unfinished(&self) -> Vec<(String, u32)> {
        let of_case = |case: &CaseFold| {
            let unfinished = case.attempts.iter().filter(|(_, a)| a.finished.is_none());
            let id = case.result.id.clone();
            unfinished
                .map(|(number, _)| (id.clone(), *number))
                .collect::<Vec<_>>()
        };
        self.cases.iter().flat_map(of_case).collect()
    }

    /// The canaries that were made so far.
    pub fn canaries(&self) -> &[CanaryFinished] {
        &self.canaries
    }

    /// Whether the run has ended, and how.
    pub fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// How long processes have worked on the run until the last event, in milliseconds; the time between them does not count.
    ///
    /// # Errors
    /// [`ModelError::Time`] when the times are not RFC 3339.
    pub fn active_ms(&self) -> Result<f64, ModelError> {
        if self.session.is_empty() {
            return Ok(0.0);
        }
        Ok(self.earlier_ms + milliseconds_between(&self.session, &self.last_time)?)
    }

    fn resume(&mut self, time: String, resumed: RunResumed) -> Result<(), ModelError> {
        self.earlier_ms = self.active_ms()?;
        // A clock that went back (after a reboot, say) makes the pause no longer.
        self.session.clone_from(&time);
        self.last_time.clone_from(&time);
        self.end = None;
        let mut void_attempts = 0;
        for case in &mut self.cases {
            let before = case.attempts.len();
            case.attempts
                .retain(|_, attempt| attempt.finished.is_some());
            void_attempts += (before - case.attempts.len()) as u64;
        }
        self.resumed.push(Resumption {
            time,
            void_attempts,
            torn_bytes: resumed.torn_bytes,
            kernel: resumed.machine.kernel,
        });
        Ok(())
    }

    /// Notes that the log ends in the middle of a line.
    pub fn truncated(&mut self) {
        self.truncated = true;
    }

    fn start(&mut self, seq: u64, time: String, mut run: RunStarted) -> Result<(), ModelError> {
        if self.run.is_some() {
            return Err(ModelError::StartedTwice { seq });
        }
        if run.format_version > EVENT_FORMAT_VERSION {
            return Err(ModelError::FormatVersion {
                found: run.format_version,
            });
        }
        for case in std::mem::take(&mut run.cases) {
            let id = case.id.clone();
            if self.index.insert(id.clone(), self.cases.len()).is_some() {
                return Err(ModelError::PlannedTwice { id });
            }
            self.cases.push(CaseFold {
                result: CaseResult::planned(case),
                attempts: BTreeMap::new(),
                experiments: BTreeMap::new(),
                measured: BTreeMap::new(),
            });
        }
        self.session.clone_from(&time);
        self.run = Some((time, run));
        Ok(())
    }

    fn case(&mut self, seq: u64, case: &str) -> Result<&mut CaseFold, ModelError> {
        match self.index.get(case) {
            Some(index) => Ok(&mut self.cases[*index]),
            None => Err(ModelError::UnknownCase {
                seq,
                case: case.to_owned(),
            }),
        }
    }

    /// Several events of one experiment add up.
    fn experiment(&mut self, seq: u64, finished: ExperimentFinished) -> Result<(), ModelError> {
        let ExperimentFinished {
            case,
            experiment,
            attempts,
            failed,
            infra,
            what,
            message,
        } = finished;
        let known = &mut self.case(seq, &case)?.experiments;
        let sum = known
            .entry(experiment)
            .or_insert_with(|| ExperimentResult::new(experiment));
        sum.attempts += u64::from(attempts);
        sum.failed += u64::from(failed);
        sum.infra += u64::from(infra);
        sum.what = what;
        sum.message = sum.message.take().or(message);
        Ok(())
    }

    fn attempt(
        &mut self,
        seq: u64,
        case: &str,
        attempt: u32,
    ) -> Result<&mut AttemptFold, ModelError> {
        Ok(self.case(seq, case)?.attempts.entry(attempt).or_default())
    }

    /// The report of everything pushed so far.
    ///
    /// # Errors
    /// [`ModelError::Empty`] when nothing was, [`ModelError::Time`] when the run's times are not RFC 3339.
    pub fn finish(mut self) -> Result<Report, ModelError> {
        let active_ms = self.active_ms()?;
        for index in 0..self.cases.len() {
            let attempts = self.cases[index].attempts.values_mut();
            let pending: Vec<Pending> = attempts
                .flat_map(|attempt| std::mem::take(&mut attempt.pending))
                .collect();
            for found in pending {
                self.count(index, found);
            }
        }
        let Some((started, run)) = self.run else {
            return Err(ModelError::Empty);
        };
        let mut problems = Vec::new();
        if self.truncated {
            problems.push("the log ends in the middle of a line: its writer was killed".to_owned());
        }
        if self.last_seq.checked_add(1) != Some(self.events) {
            let (events, last) = (self.events, self.last_seq);
            problems.push(format!(
                "the log has holes: {events} events, the last of them with number {last}"
            ));
        }
        problems.extend(end_problem(self.end.as_ref()));

        // All values of the run, by what was measured.
        let mut measured: BTreeMap<(String, String), Vec<f64>> = BTreeMap::new();
        for case in &self.cases {
            for (key, values) in &case.measured {
                measured.entry(key.clone()).or_default().extend(values);
            }
        }
        let claim = run.options.until_confidence;
        let mut cases: Vec<CaseResult> = self
            .cases
            .into_iter()
            .map(|case| case.finish(claim))
            .collect();
        let (failure_groups, causes) = signature::groups(&mut cases);
        if self
            .end
            .as_ref()
            .is_some_and(|end| end.reason == FinishReason::Completed)
        {
            problems.extend(missing_attempts(&cases, &run.options));
        }
        problems.extend(undecided(&cases));
        problems.extend(canary::problems(&run, &self.canaries));
        let day = timestamp(&started)?
            .to_zoned(jiff::tz::TimeZone::UTC)
            .date();
        let waivers = waiver::apply(&run.waivers, &mut cases, day, None);

        let requirements = requirements(&run, &cases);
        let mut totals = Totals {
            cases: cases.iter().map(|case| case.verdict).collect(),
            requirements: requirements
                .iter()
                .map(|requirement| requirement.verdict)
                .collect(),
            ..Totals::default()
        };
        for attempt in cases.iter().flat_map(|case| &case.attempts) {
            totals.attempts.add(attempt.verdict);
            // What an attempt says of itself has no bound.
            totals.checks = totals.checks.saturating_add(attempt.checks);
            let positive = totals.positive_checks;
            totals.positive_checks = positive.saturating_add(attempt.positive_checks);
        }
        let catalogue = &run.requirements;
        let areas = catalogue
            .iter()
            .map(|requirement| requirement.area.as_str());
        let levels = catalogue
            .iter()
            .map(|requirement| requirement.level.as_str());
        let mut report = Report {
            format_version: REPORT_FORMAT_VERSION,
            run_id: run.run_id,
            conclusion: Conclusion::Infra,
            exit_code: 0,
            problems,
            duration_ms: milliseconds_between(&started, &self.last_time)?.max(0.0),
            active_ms,
            resumed: self.resumed,
            started,
            end: self.end,
            suite: run.suite,
            candidate: run.candidate,
            provider: run.provider,
            machine: run.machine,
            totals,
            areas: groups(areas, &cases, |case| &case.area),
            levels: groups(levels, &cases, |case| &case.level),
            options: run.options,
            merged: run.merged,
            canaries: self.canaries,
            setup: self.setup,
            waivers,
            requirements,
            characteristics: characteristics(self.characteristics),
            failure_groups,
            causes,
            infra_groups: signature::infra_groups(&cases),
            measurements: measurements(measured, true),
            cases,
        };
        report.conclusion = report.conclude(report.options.flake_budget);
        report.exit_code = report.conclusion.exit_code();
        Ok(report)
    }
}

impl CaseFold {
    fn finish(self, claim: Option<Claim>) -> CaseResult {
        let mut result = self.result;
        result.experiments = self.experiments.into_values().collect();
        result.attempts = self
            .attempts
            .into_iter()
            .map(|(number, attempt)| attempt.finish(number))
            .collect();
        let attempts = &result.attempts;
        result.verdict = match CaseVerdict::of_attempts(attempts.iter().map(|a| a.verdict)) {
            CaseVerdict::NotRun if result.skip.is_some() => CaseVerdict::Skip,
            verdict => verdict,
        };
        if let Some(claim) = claim
            && !matches!(result.verdict, CaseVerdict::Skip | CaseVerdict::NotRun)
        {
            let mut trial = SequentialTest::new(claim);
            for attempt in attempts {
                trial.add(attempt.attempt, attempt.verdict);
            }
            result.claim = Some(ClaimResult {
                claim,
                decision: trial.decision(),
                attempts: trial.counted(),
            });
            if result.verdict == CaseVerdict::Pass && trial.decision() != Decision::Proven {
                result.verdict = CaseVerdict::Undecided;
            }
        }
        if result.verdict == CaseVerdict::Skip {
            let stated = attempts.iter().find_map(|attempt| attempt.skip.clone());
            result.skip = stated.or(result.skip);
        }
        let count = |verdict| result.attempts_with(verdict).count() as u64;
        let (passed, failed) = (count(Verdict::Pass), count(Verdict::Fail));
        result.failure_rate = Rate::new(failed, passed + failed);
        result.convergence_ms = Distribution::of(attempts.iter().filter_map(|a| a.convergence_ms));
        result.measurements = measurements(self.measured, false);
        result
    }
}

impl AttemptFold {
    fn finish(self, number: u32) -> Attempt {
        let (mut started, mut seed, mut stress, mut shape) = (None, None, None, None);
        if let Some(start) = self.started {
            (started, seed) = (Some(start.time), Some(start.seed));
            (stress, shape) = (start.stress, start.shape);
        }
        let Some(finished) = self.finished else {
            let after = match self.last_step {
                Some((index, verb)) => format!("after step {index} ({verb})"),
                None => "before its first step ended".to_owned(),
            };
            return Attempt {
                attempt: number,
                verdict: Verdict::Infra,
                seed,
                started,
                stress,
                shape,
                duration_ms: 0.0,
                convergence_ms: None,
                checks: 0,
                positive_checks: 0,
                broke: self.broke,
                failures: Vec::new(),
                warnings: Vec::new(),
                skip: None,
                infra: Some(format!("the attempt never finished: the log stops {after}")),
                complaint: None,
                evidence: None,
            };
        };
        let verdict = finished.judged();
        let asserted_nothing = verdict == Verdict::Infra && finished.verdict == Verdict::Pass;
        Attempt {
            attempt: number,
            verdict,
            seed,
            started,
            stress,
            shape,
            duration_ms: finished.duration_ms,
            convergence_ms: finished.convergence_ms,
            checks: finished.checks,
            positive_checks: finished.positive_checks,
            broke: self.broke.filter(|_| verdict != Verdict::Pass),
            failures: finished.failures,
            warnings: finished.warnings,
            skip: finished.skip,
            infra: if asserted_nothing {
                Some("the attempt asserted nothing".to_owned())
            } else {
                finished.infra
            },
            complaint: finished.complaint,
            evidence: finished.evidence,
        }
    }
}

/// What the run's end says against its completeness.
fn end_problem(end: Option<&End>) -> Option<String> {
    let Some(end) = end else {
        return Some("the log has no end: the run was killed".to_owned());
    };
    let what = match end.reason {
        FinishReason::Completed => return None,
        FinishReason::Interrupted => "the run was interrupted",
        FinishReason::FailFast => "the run stopped at its first failure",
        FinishReason::Infra => "the run was given up because of the machine or the harness",
    };
    Some(match &end.message {
        Some(message) => format!("{what}: {message}"),
        None => what.to_owned(),
    })
}

/// What was measured by name, with the shape of the distribution if it is to be drawn.
fn measurements(measured: BTreeMap<(String, String), Vec<f64>>, drawn: bool) -> Vec<Measurement> {
    let distribution = |((name, unit), values): (_, Vec<f64>)| {
        let curve = if drawn {
            stats::curve(&values)
        } else {
            Vec::new()
        };
        Some(Measurement {
            name,
            unit,
            values: Distribution::of(values)?,
            curve,
        })
    };
    measured.into_iter().filter_map(distribution).collect()
}

/// Attempts per case among which those of a shard are counted for a message.
const MOST_TOLD: u32 = 100_000;

/// Cases of a completed run with fewer attempts than asked for: some of the log, or of the run, is missing.
fn missing_attempts(cases: &[CaseResult], options: &Options) -> Option<String> {
    if options.until_confidence.is_some() || options.for_ms.is_some() {
        // Then the number is a limit and not an order.
        return None;
    }
    let (runs, shard) = (options.runs, options.shard);
    // Counted no further than needed, for the number of runs is what the log says.
    let wanted = |case: &CaseResult, most: usize| match shard {
        None => (runs as usize).min(most),
        Some(shard) => shard.count(&case.id, runs, most),
    };
    let missing = |case: &&CaseResult| {
        let done = case.attempts.len();
        case.verdict != CaseVerdict::Skip && done < wanted(case, done + 1)
    };
    let mut short = cases.iter().filter(missing);
    let first = short.next()?;
    let (id, done, more) = (&first.id, first.attempts.len(), short.count());
    let wanted = match shard {
        Some(_) if runs > MOST_TOLD => "more".to_owned(),
        _ => wanted(first, usize::MAX).to_string(),
    };
    let others = and_more(more);
    Some(format!("case {id} has {done} of {wanted} attempts{others}"))
}

/// Cases for which the attempts do not decide the claim that they were to decide.
fn undecided(cases: &[CaseResult]) -> Option<String> {
    let open = |case: &&CaseResult| {
        let claim = case.claim.as_ref();
        claim.is_some_and(|claim| claim.decision == Decision::Open)
    };
    let mut open = cases.iter().filter(open);
    let first = open.next()?;
    let claim = first.claim.as_ref()?;
    let (id, others) = (&first.id, and_more(open.count()));
    Some(format!(
        "{} is neither proven nor refuted for case {id} after {} attempts{others}",
        claim.claim, claim.attempts
    ))
}

fn and_more(more: usize) -> String {
    match more {
        0 => String::new(),
        _ => format!(" (and {more} more cases)"),
    }
}

/// Requirements that warnings of the case violate: always, or in some of the attempts that say anything.
fn warned(case: &CaseResult) -> BTreeMap<&str, CaseVerdict> {
    let tried = case
        .attempts
        .iter()
        .filter(|attempt| matches!(attempt.verdict, Verdict::Pass | Verdict::Fail));
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for attempt in tried.clone() {
        let ids: BTreeSet<&str> = attempt
            .warnings
            .iter()
            .flat_map(|warning| warning.requirements.iter().map(String::as_str))
            .collect();
        for id in ids {
            *counts.entry(id).or_default() += 1;
        }
    }
    let all = tried.count();
    counts
        .into_iter()
        .map(|(id, count)| {
            let always = count == all;
            let says = if always {
                CaseVerdict::Fail
            } else {
                CaseVerdict::Flaky
            };
            (id, says)
        })
        .collect()
}

/// What each requirement's cases say about it. Requirements that only the plan names come last, without text.
fn requirements(run: &RunStarted, cases: &[CaseResult]) -> Vec<RequirementResult> {
    let mut counts: HashMap<&str, Counts> = HashMap::new();
    let mut unlisted: Vec<(&str, &CaseResult)> = Vec::new();
    let listed: BTreeSet<&str> = run.requirements.iter().map(|r| r.id.as_str()).collect();
    for case in cases {
        let blamed: BTreeSet<&str> = case
            .attempts
            .iter()
            .flat_map(|attempt| &attempt.failures)
            .flat_map(|failure| failure.requirements.iter().map(String::as_str))
            .collect();
        let own: BTreeSet<&str> = case.requirements.iter().map(String::as_str).collect();
        // A failure that blames nothing in particular blames all.
        let blames_all = case
            .attempts_with(Verdict::Fail)
            .any(|a| a.failures.is_empty() || a.failures.iter().any(|f| f.requirements.is_empty()));
        let warned = warned(case);
        for (id, says) in &warned {
            if !listed.contains(id) && !counts.contains_key(id) {
                unlisted.push((id, case));
            }
            counts.entry(id).or_default().add(*says);
        }
        for id in own.union(&blamed) {
            if warned.contains_key(id) {
                // It is counted already, as violated.
                continue;
            }
            let says = match case.verdict {
                CaseVerdict::Fail | CaseVerdict::Flaky if !blames_all && !blamed.contains(id) => {
                    CaseVerdict::NotRun
                }
                verdict => verdict,
            };
            if !listed.contains(id) && !counts.contains_key(id) {
                unlisted.push((id, case));
            }
            counts.entry(id).or_default().add(says);
        }
    }
    let result = |id: &str, area: &str, level: &str, text: &str, source: &str| {
        let cases = counts.get(id).copied().unwrap_or_default();
        RequirementResult {
            id: id.to_owned(),
            area: area.to_owned(),
            level: level.to_owned(),
            text: text.to_owned(),
            source: source.to_owned(),
            verdict: cases.verdict(),
            cases,
        }
    };
    let catalogue = run.requirements.iter();
    let catalogue = catalogue.map(|r| result(&r.id, &r.area, &r.level, &r.text, &r.source));
    let others = unlisted
        .iter()
        .map(|(id, case)| result(id, &case.area, &case.level, "", ""));
    catalogue.chain(others).collect()
}

/// Sums cases up by a key, the catalogue's keys first; keys without a planned case are left out.
fn groups<'a>(
    catalogue: impl Iterator<Item = &'a str>,
    cases: &'a [CaseResult],
    key: impl Fn(&'a CaseResult) -> &'a String,
) -> Vec<GroupSummary> {
    let mut order: Vec<&str> = Vec::new();
    let mut known: HashSet<&str> = HashSet::new();
    let mut members: HashMap<&str, Vec<&CaseResult>> = HashMap::new();
    for case in cases {
        members.entry(key(case)).or_default().push(case);
    }
    for name in catalogue.chain(cases.iter().map(|case| key(case).as_str())) {
        if members.contains_key(name) && known.insert(name) {
            order.push(name);
        }
    }
    let summary = |name: &&str| {
        let cases = &members[*name];
        let counts: Counts = cases.iter().map(|case| case.verdict).collect();
        let attempts = cases.iter().flat_map(|case| &case.attempts);
        GroupSummary {
            name: (*name).to_owned(),
            verdict: counts.verdict(),
            cases: counts,
            convergence_ms: Distribution::of(attempts.filter_map(|a| a.convergence_ms)),
        }
    };
    order.iter().map(summary).collect()
}

fn characteristics(
    observed: BTreeMap<String, BTreeMap<String, Observed>>,
) -> Vec<CharacteristicResult> {
    let value = |(value, observed): (String, Observed)| CharacteristicValue {
        value,
        text: observed.text,
        cases: observed.cases.into_iter().collect(),
    };
    observed
        .into_iter()
        .map(|(id, values)| CharacteristicResult {
            id,
            values: values.into_iter().map(value).collect(),
        })
        .collect()
}

fn milliseconds_between(start: &str, end: &str) -> Result<f64, ModelError> {
    let micros = timestamp(end)?.as_microsecond() - timestamp(start)?.as_microsecond();
    Ok(micros as f64 / 1000.0)
}

fn timestamp(time: &str) -> Result<jiff::Timestamp, ModelError> {
    time.parse().map_err(|source| ModelError::Time {
        time: time.to_owned(),
        source,
    })
}
