//! Folds a log into a report.
//!
//! A pure function of the events: it reads no clock and no file, and events of different cases may come in any order. What
//! makes a log nonsense (two ends of one attempt, a case that was never planned) is an error; what makes it incomplete (no
//! end, lines lost, attempts missing) is a problem of the report, which then cannot conclude conformance.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use thiserror::Error;

use super::report::{
    Attempt, CaseResult, CharacteristicResult, CharacteristicValue, End, GroupSummary, Measurement,
    REPORT_FORMAT_VERSION, Report, RequirementResult, Totals,
};
use super::signature;
use super::stats::{Distribution, Rate};
use super::verdict::{CaseVerdict, Conclusion, Counts};
use crate::event::{
    AttemptFinished, EVENT_FORMAT_VERSION, Event, EventBody, FinishReason, RunStarted, Verdict,
};
use crate::log::{self, LogError};

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
#[derive(Debug, Default)]
pub struct ReportBuilder {
    run: Option<(String, RunStarted)>,
    end: Option<End>,
    cases: Vec<CaseFold>,
    index: HashMap<String, usize>,
    characteristics: BTreeMap<String, BTreeMap<String, Observed>>,
    events: u64,
    last_seq: u64,
    last_time: String,
    truncated: bool,
}

#[derive(Debug)]
struct CaseFold {
    result: CaseResult,
    attempts: BTreeMap<u32, AttemptFold>,
    measured: BTreeMap<(String, String), Vec<f64>>,
}

#[derive(Debug, Default)]
struct AttemptFold {
    started: Option<(String, u64)>,
    /// The last step that ended, and its verb.
    last_step: Option<(u32, String)>,
    finished: Option<AttemptFinished>,
}

#[derive(Debug, Default)]
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
        if time > self.last_time {
            self.last_time.clone_from(&time);
        }
        match body {
            EventBody::RunStarted(run) => self.start(seq, time, run),
            EventBody::AttemptStarted {
                case,
                attempt,
                seed,
            } => {
                let fold = self.attempt(seq, &case, attempt)?;
                if fold.started.replace((time, seed)).is_some() {
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
                ..
            } => {
                let fold = self.attempt(seq, &case, attempt)?;
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
                name,
                unit,
                value,
                ..
            } => {
                let measured = &mut self.case(seq, &case)?.measured;
                measured.entry((name, unit)).or_default().push(value);
                Ok(())
            }
            EventBody::Characteristic {
                case,
                id,
                value,
                text,
                ..
            } => {
                self.case(seq, &case)?;
                let values = self.characteristics.entry(id).or_default();
                let observed = values.entry(value).or_default();
                // The smallest text is kept, so that the order of events does not matter.
                if observed.text.is_empty() || text < observed.text {
                    observed.text = text;
                }
                observed.cases.insert(case);
                Ok(())
            }
            EventBody::AttemptFinished(finished) => {
                let (case, attempt) = (finished.case.clone(), finished.attempt);
                let fold = self.attempt(seq, &case, attempt)?;
                if fold.finished.replace(finished).is_some() {
                    return Err(ModelError::Twice {
                        seq,
                        case,
                        attempt,
                        what: "ends",
                    });
                }
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
                measured: BTreeMap::new(),
            });
        }
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
    pub fn finish(self) -> Result<Report, ModelError> {
        let Some((started, run)) = self.run else {
            return Err(ModelError::Empty);
        };
        let mut problems = Vec::new();
        if self.truncated {
            problems.push("the log ends in the middle of a line: its writer was killed".to_owned());
        }
        if self.last_seq + 1 != self.events {
            let (events, last) = (self.events, self.last_seq);
            problems.push(format!(
                "the log has holes: {events} events, the last of them with number {last}"
            ));
        }
        problems.extend(end_problem(self.end.as_ref()));

        let cases: Vec<CaseResult> = self.cases.into_iter().map(CaseFold::finish).collect();
        if self
            .end
            .as_ref()
            .is_some_and(|end| end.reason == FinishReason::Completed)
        {
            problems.extend(missing_attempts(&cases, run.options.runs));
        }

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
            totals.checks += attempt.checks;
            totals.positive_checks += attempt.positive_checks;
        }
        let catalogue = &run.requirements;
        let areas = catalogue
            .iter()
            .map(|requirement| requirement.area.as_str());
        let levels = catalogue
            .iter()
            .map(|requirement| requirement.level.as_str());
        let flake_budget = run.options.flake_budget;
        let conclusion = Conclusion::of(&totals.cases, problems.is_empty(), flake_budget);
        Ok(Report {
            format_version: REPORT_FORMAT_VERSION,
            run_id: run.run_id,
            conclusion,
            exit_code: conclusion.exit_code(),
            problems,
            duration_ms: milliseconds_between(&started, &self.last_time)?,
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
            requirements,
            characteristics: characteristics(self.characteristics),
            failure_groups: signature::groups(&cases),
            cases,
        })
    }
}

impl CaseFold {
    fn finish(self) -> CaseResult {
        let mut result = self.result;
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
        if result.verdict == CaseVerdict::Skip {
            let stated = attempts.iter().find_map(|attempt| attempt.skip.clone());
            result.skip = stated.or(result.skip);
        }
        let count = |verdict| result.attempts_with(verdict).count() as u64;
        let (passed, failed) = (count(Verdict::Pass), count(Verdict::Fail));
        result.failure_rate = Rate::new(failed, passed + failed);
        result.convergence_ms = Distribution::of(attempts.iter().filter_map(|a| a.convergence_ms));
        result.measurements = self
            .measured
            .into_iter()
            .filter_map(|((name, unit), values)| {
                let values = Distribution::of(values)?;
                Some(Measurement { name, unit, values })
            })
            .collect();
        result
    }
}

impl AttemptFold {
    fn finish(self, number: u32) -> Attempt {
        let (started, seed) = self.started.unzip();
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
                duration_ms: 0.0,
                convergence_ms: None,
                checks: 0,
                positive_checks: 0,
                failures: Vec::new(),
                warnings: Vec::new(),
                skip: None,
                infra: Some(format!("the attempt never finished: the log stops {after}")),
                complaint: None,
                evidence: None,
            };
        };
        let mut attempt = Attempt {
            attempt: number,
            verdict: finished.verdict,
            seed,
            started,
            duration_ms: finished.duration_ms,
            convergence_ms: finished.convergence_ms,
            checks: finished.checks,
            positive_checks: finished.positive_checks,
            failures: finished.failures,
            warnings: finished.warnings,
            skip: finished.skip,
            infra: finished.infra,
            complaint: finished.complaint,
            evidence: finished.evidence,
        };
        // A pass has to be earned, whatever the log calls it.
        if attempt.verdict == Verdict::Pass && !attempt.failures.is_empty() {
            attempt.verdict = Verdict::Fail;
        } else if attempt.verdict == Verdict::Pass && attempt.checks == 0 {
            attempt.verdict = Verdict::Infra;
            attempt.infra = Some("the attempt asserted nothing".to_owned());
        }
        attempt
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

/// Cases of a completed run with fewer attempts than asked for: some of the log, or of the run, is missing.
fn missing_attempts(cases: &[CaseResult], runs: u32) -> Option<String> {
    let missing = |case: &&CaseResult| {
        let done = case.attempts.len() as u64;
        case.verdict != CaseVerdict::Skip && done < u64::from(runs)
    };
    let mut short = cases.iter().filter(missing);
    let first = short.next()?;
    let (id, done, more) = (&first.id, first.attempts.len(), short.count());
    let others = match more {
        0 => String::new(),
        _ => format!(" (and {more} more cases)"),
    };
    Some(format!("case {id} has {done} of {runs} attempts{others}"))
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
    let mut members: HashMap<&str, Vec<&CaseResult>> = HashMap::new();
    for case in cases {
        members.entry(key(case)).or_default().push(case);
    }
    for name in catalogue.chain(cases.iter().map(|case| key(case).as_str())) {
        if members.contains_key(name) && !order.contains(&name) {
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
    let parse = |time: &str| {
        time.parse::<jiff::Timestamp>()
            .map_err(|source| ModelError::Time {
                time: time.to_owned(),
                source,
            })
    };
    let micros = parse(end)?.as_microsecond() - parse(start)?.as_microsecond();
    Ok(micros as f64 / 1000.0)
}
