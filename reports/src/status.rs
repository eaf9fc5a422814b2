//! `status.json`: a run in a few numbers, while it goes on and after it.
//!
//! Counted from the attempts that finished, one event at a time and in memory that does not grow with their number, so that a run
//! of a week can be looked at as cheaply as one of a minute. Attempts that never finished are not counted at all.

use std::collections::BTreeMap;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::directory::DirectoryError;
use crate::event::{AttemptFinished, Event, EventBody, FinishReason, Options, Verdict};
use crate::log;
use crate::model::{AttemptCounts, Rate, ReportBuilder, Signature, upper_bound};

/// Name of the file inside a run's directory.
pub const FILE_NAME: &str = "status.json";

/// Cases that a status names as the least certain ones.
const NAMED: usize = 10;

/// What is known about a run at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Names the run among all others.
    pub run_id: String,
    /// Name of the candidate.
    pub candidate: String,
    /// When this was true: RFC 3339, UTC.
    pub time: String,
    /// When the run started: RFC 3339, UTC.
    pub started: String,
    /// How long processes have worked on the run, in milliseconds.
    pub active_ms: f64,
    /// The options of the run.
    pub options: Options,
    /// How the run ended; absent while it goes on, and when it was killed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<FinishReason>,
    /// How often the run was resumed.
    pub resumed: u64,
    /// Attempts by verdict.
    pub attempts: AttemptCounts,
    /// How often attempts failed, over all cases; absent when none passed or failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// Planned cases that are not skipped.
    pub cases: u64,
    /// Those of them of which no attempt has passed or failed yet.
    pub untried: u64,
    /// The worst upper bound of a failure rate among the cases that decide conformance (level `core`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worst_core: Option<CaseStatus>,
    /// The cases with the highest upper bound, the worst first.
    pub least_certain: Vec<CaseStatus>,
    /// Failed attempts by what they have in common, the largest group first.
    pub failures: Vec<FailureStatus>,
    /// What makes life harder for the attempts that start now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stress: Option<String>,
}

/// A case of a status.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CaseStatus {
    /// Id of the case.
    pub case: String,
    /// Attempts that failed.
    pub failed: u64,
    /// Attempts that passed or failed.
    pub of: u64,
    /// One-sided upper bound of the failure rate at 95 %; 1 when nothing was tried.
    pub upper_bound: f64,
}

/// Failures of one signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailureStatus {
    /// What they have in common.
    pub signature: Signature,
    /// How many attempts failed this way.
    pub attempts: u64,
    /// The first of them: case and attempt.
    pub first: (String, u32),
    /// The last of them: case and attempt.
    pub last: (String, u32),
}

/// Counts the attempts of a run.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    run_id: String,
    candidate: String,
    started: String,
    options: Options,
    end: Option<FinishReason>,
    resumed: u64,
    attempts: AttemptCounts,
    cases: Vec<CaseTally>,
    index: BTreeMap<String, usize>,
    failures: BTreeMap<Signature, FailureStatus>,
}

#[derive(Debug, Clone)]
struct CaseTally {
    id: String,
    core: bool,
    skipped: bool,
    requirements: Vec<String>,
    failed: u64,
    of: u64,
}

impl Tally {
    /// Counts an event. Events of cases that are not in the plan are ignored; the report refuses them.
    pub fn push(&mut self, event: &Event) {
        match &event.body {
            EventBody::RunStarted(run) => {
                self.run_id.clone_from(&run.run_id);
                self.candidate.clone_from(&run.candidate.name);
                self.started.clone_from(&event.time);
                self.options = run.options.clone();
                for case in &run.cases {
                    self.index.insert(case.id.clone(), self.cases.len());
                    self.cases.push(CaseTally {
                        id: case.id.clone(),
                        core: case.level == "core",
                        skipped: case.skip.is_some(),
                        requirements: case.requirements.clone(),
                        failed: 0,
                        of: 0,
                    });
                }
            }
            EventBody::RunResumed(_) => {
                self.resumed += 1;
                self.end = None;
            }
            EventBody::RunFinished { reason, .. } => self.end = Some(*reason),
            EventBody::AttemptFinished(finished) => self.finished(finished),
            EventBody::AttemptStarted { .. }
            | EventBody::StepFinished { .. }
            | EventBody::Measured { .. }
            | EventBody::Characteristic { .. }
            | EventBody::ExperimentFinished(_)
            | EventBody::CanaryFinished(_)
            | EventBody::SetupFinished(_) => {}
        }
    }

    fn finished(&mut self, finished: &AttemptFinished) {
        let Some(case) = self.index.get(&finished.case) else {
            return;
        };
        let case = &mut self.cases[*case];
        let verdict = finished.judged();
        self.attempts.add(verdict);
        match verdict {
            Verdict::Pass => case.of += 1,
            Verdict::Fail => {
                case.of += 1;
                case.failed += 1;
                let Some((signature, _)) = Signature::of(
                    &case.requirements,
                    &finished.failures,
                    finished.complaint.as_deref(),
                ) else {
                    return;
                };
                let this = (finished.case.clone(), finished.attempt);
                let known = self.failures.entry(signature.clone());
                let group = known.or_insert_with(|| FailureStatus {
                    signature,
                    attempts: 0,
                    first: this.clone(),
                    last: this.clone(),
                });
                group.attempts += 1;
                group.last = this;
            }
            Verdict::Skip => case.skipped = true,
            Verdict::Infra => {}
        }
    }

    /// How often the run was resumed.
    pub fn resumed(&self) -> u64 {
        self.resumed
    }

    /// Attempts by verdict.
    pub fn attempts(&self) -> &AttemptCounts {
        &self.attempts
    }

    /// How often attempts failed, over all cases.
    pub fn rate(&self) -> Option<Rate> {
        let (failed, passed) = (self.attempts.fail, self.attempts.pass);
        Rate::new(failed, failed + passed)
    }

    /// What is known now.
    pub fn status(&self, active_ms: f64, stress: Option<String>) -> Status {
        let mut cases: Vec<(&CaseTally, CaseStatus)> = self
            .cases
            .iter()
            .filter(|case| !case.skipped)
            .map(|case| (case, case.status()))
            .collect();
        // Stable: equally uncertain ones stay in the order of the plan.
        cases.sort_by(|(_, a), (_, b)| b.upper_bound.total_cmp(&a.upper_bound));
        let mut failures: Vec<FailureStatus> = self.failures.values().cloned().collect();
        failures.sort_by_key(|group| std::cmp::Reverse(group.attempts));
        Status {
            run_id: self.run_id.clone(),
            candidate: self.candidate.clone(),
            time: log::now(),
            started: self.started.clone(),
            active_ms,
            options: self.options.clone(),
            end: self.end,
            resumed: self.resumed,
            attempts: self.attempts,
            rate: self.rate(),
            cases: cases.len() as u64,
            untried: cases.iter().filter(|(case, _)| case.of == 0).count() as u64,
            worst_core: cases
                .iter()
                .find(|(case, _)| case.core)
                .map(|(_, status)| status.clone()),
            least_certain: cases
                .into_iter()
                .take(NAMED)
                .map(|(_, status)| status)
                .collect(),
            failures,
            stress,
        }
    }
}

impl CaseTally {
    fn status(&self) -> CaseStatus {
        CaseStatus {
            case: self.id.clone(),
            failed: self.failed,
            of: self.of,
            upper_bound: upper_bound(self.failed, self.of),
        }
    }
}

/// The status of the run in a directory: as its process wrote it last, or else from its log.
///
/// # Errors
/// [`DirectoryError::NoRun`] if there is neither, and whatever is wrong with the log.
pub fn read(dir: &Path) -> Result<Status, DirectoryError> {
    let file = std::fs::read(dir.join(FILE_NAME)).ok();
    if let Some(status) = file.and_then(|text| serde_json::from_slice(&text).ok()) {
        return Ok(status);
    }
    let path = dir.join(log::FILE_NAME);
    if !path.is_file() {
        return Err(DirectoryError::NoRun {
            dir: dir.to_path_buf(),
            reason: "there is neither status.json nor events.jsonl".to_owned(),
        });
    }
    let mut tally = Tally::default();
    let mut builder = ReportBuilder::default();
    for event in log::read(&path)? {
        let event = event?;
        tally.push(&event);
        builder.push(event)?;
    }
    Ok(tally.status(builder.active_ms()?, None))
}
