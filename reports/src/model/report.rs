//! The types of the report. Every field says what it tells the reader; how it is computed is in `fold.rs`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::class::{Class, Evidence, Tally, classify};
use super::signature::{FailureGroup, InfraGroup};
use super::stats::{Distribution, Rate};
use super::verdict::{CaseVerdict, Conclusion, Counts};
use crate::event::{
    CanaryFinished, CandidateInfo, Experiment, Failure, FinishReason, Machine, Merged, Options,
    PlannedCase, SetupFinished, Skip, Suite, Verdict,
};
use crate::sequential::{Claim, Decision};
use crate::waiver::{Waiver, WaiverResult};

/// Version of the report format. Fields may be added without raising it; readers ignore those they do not know.
pub const REPORT_FORMAT_VERSION: u32 = 1;

/// What a run says about a candidate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Format of this document, see [`REPORT_FORMAT_VERSION`].
    pub format_version: u32,
    /// Names the run among all others.
    pub run_id: String,
    /// What the run says about the candidate as a whole.
    pub conclusion: Conclusion,
    /// The exit code of the command that made the run; a function of `conclusion`.
    pub exit_code: i32,
    /// Why the run cannot show conformance even if every case passes; empty for a complete run.
    pub problems: Vec<String>,
    /// When the run started: RFC 3339, UTC.
    pub started: String,
    /// How the run ended; absent when it was killed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<End>,
    /// From the first event to the last, in milliseconds.
    pub duration_ms: f64,
    /// As `durationMs`, without the time between the processes of a run that was resumed.
    #[serde(default)]
    pub active_ms: f64,
    /// Every time the run was resumed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resumed: Vec<Resumption>,
    /// The suite that ran.
    pub suite: Suite,
    /// The proxy under test.
    pub candidate: CandidateInfo,
    /// How clusters were made.
    pub provider: String,
    /// The machine the run happened on.
    pub machine: Machine,
    /// The options of the run that change what it says.
    pub options: Options,
    /// The runs that this one was merged from; absent when it was one run on one machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merged: Option<Merged>,
    /// The known-bad proxies that met a case, to show that this run would have noticed. What is wrong with that is among the problems.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub canaries: Vec<CanaryFinished>,
    /// What was done to the cluster that all attempts shared, in order; nothing where each had one of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub setup: Vec<SetupFinished>,
    /// The waivers of the run and what they do, on the day it started. They change no verdict.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waivers: Vec<WaiverResult>,
    /// Everything summed up.
    pub totals: Totals,
    /// The cases summed up by requirement area, in the order of the catalogue.
    pub areas: Vec<GroupSummary>,
    /// The cases summed up by level, in the order of the catalogue.
    pub levels: Vec<GroupSummary>,
    /// Every requirement of the catalogue and what the run says about it.
    pub requirements: Vec<RequirementResult>,
    /// What the candidate does where the Kubernetes API leaves a choice, by id.
    pub characteristics: Vec<CharacteristicResult>,
    /// Everything that was measured, over all cases, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub measurements: Vec<Measurement>,
    /// The failed attempts grouped by what went wrong, the largest group first.
    #[serde(default)]
    pub failure_groups: Vec<FailureGroup>,
    /// The same attempts by cause: groups that differ in nothing but family or protocol are one. The largest first.
    #[serde(default)]
    pub causes: Vec<FailureGroup>,
    /// The attempts that say nothing grouped by the reason, the largest group first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub infra_groups: Vec<InfraGroup>,
    /// Every planned case, in the order of the plan.
    pub cases: Vec<CaseResult>,
}

impl Report {
    /// The conclusion under another flake budget than the run's own.
    pub fn conclude(&self, flake_budget: u32) -> Conclusion {
        // A claim that is refuted is no tolerable flake.
        let budget = if self.refuted().next().is_some() {
            0
        } else {
            flake_budget
        };
        let mut cases = self.totals.cases;
        if self.options.shard.is_some() {
            // Nobody expected these here; that no attempt of a shard is missing is a matter of its problems.
            let elsewhere = self.cases.iter().filter(|case| self.is_elsewhere(case));
            let elsewhere = elsewhere.count() as u64;
            cases.not_run -= elsewhere;
            cases.total -= elsewhere;
        }
        let conclusion = Conclusion::of(&cases, self.problems.is_empty(), budget);
        let whole = self.options.shard.is_none();
        match conclusion {
            Conclusion::Conformant if !whole => Conclusion::ShardPassed,
            Conclusion::NothingRan if !whole && !self.cases.is_empty() => Conclusion::ShardPassed,
            conclusion => conclusion,
        }
    }

    /// Whether the run is a shard and all attempts of the case belong to other ones.
    pub fn is_elsewhere(&self, case: &CaseResult) -> bool {
        let Some(shard) = self.options.shard else {
            return false;
        };
        let runs = self.options.runs;
        case.verdict == CaseVerdict::NotRun && runs > 0 && shard.count(&case.id, runs, 1) == 0
    }

    /// The cases for which the claim of the run is refuted.
    pub fn refuted(&self) -> impl Iterator<Item = &CaseResult> {
        self.cases.iter().filter(|case| {
            let claim = case.claim.as_ref();
            claim.is_some_and(|claim| claim.decision == Decision::Refuted)
        })
    }

    /// Attempts that count for nothing, because the run broke off in the middle of them.
    pub fn void_attempts(&self) -> u64 {
        self.resumed
            .iter()
            .map(|resumed| resumed.void_attempts)
            .sum()
    }

    /// The exit code under a flake budget: 0 conformant, 1 not conformant, 3 flaky beyond the budget, 4 infrastructure
    /// trouble, 5 nothing ran.
    pub fn exit_code(&self, flake_budget: u32) -> i32 {
        self.conclude(flake_budget).exit_code()
    }

    /// Whether the flaky cases of the run are within its own budget.
    pub fn flakes_tolerated(&self) -> bool {
        self.totals.cases.flaky <= u64::from(self.options.flake_budget)
            && self.refuted().next().is_none()
    }

    /// The cases with one verdict, in the order of the plan.
    pub fn cases_with(&self, verdict: CaseVerdict) -> impl Iterator<Item = &CaseResult> {
        self.cases
            .iter()
            .filter(move |case| case.verdict == verdict)
    }
}

/// A run that went on in another process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resumption {
    /// When: RFC 3339, UTC.
    pub time: String,
    /// Attempts that were under way when the run broke off: they count for nothing and were made again.
    pub void_attempts: u64,
    /// Bytes of a torn last line that were cut off the log.
    pub torn_bytes: u64,
    /// Kernel release from there on.
    pub kernel: String,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct End {
    /// When: RFC 3339, UTC.
    pub time: String,
    /// Why.
    pub reason: FinishReason,
    /// More about the reason, for humans.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// Everything summed up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Totals {
    /// Cases by verdict.
    pub cases: Counts,
    /// Requirements by verdict.
    pub requirements: Counts,
    /// Attempts by verdict.
    pub attempts: AttemptCounts,
    /// Assertions that were evaluated.
    pub checks: u64,
    /// Those of them that expected traffic to arrive.
    pub positive_checks: u64,
}

/// How many attempts have which verdict.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AttemptCounts {
    /// All attempts.
    pub total: u64,
    /// Attempts that passed.
    pub pass: u64,
    /// Attempts that failed.
    pub fail: u64,
    /// Attempts that the machine or the harness got in the way of.
    pub infra: u64,
    /// Attempts that were skipped.
    pub skip: u64,
}

impl AttemptCounts {
    /// Counts one more attempt.
    pub fn add(&mut self, verdict: Verdict) {
        self.total += 1;
        match verdict {
            Verdict::Pass => self.pass += 1,
            Verdict::Fail => self.fail += 1,
            Verdict::Infra => self.infra += 1,
            Verdict::Skip => self.skip += 1,
        }
    }
}

/// The cases of one area or one level, summed up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GroupSummary {
    /// Name of the area or level.
    pub name: String,
    /// The worst verdict among its cases; skipped ones do not spoil those that pass.
    pub verdict: CaseVerdict,
    /// Its cases by verdict.
    pub cases: Counts,
    /// The convergence measured by its attempts, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub convergence_ms: Option<Distribution>,
}

/// A requirement and what the run says about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RequirementResult {
    /// Id of the requirement.
    pub id: String,
    /// Area it belongs to.
    pub area: String,
    /// Level: `core`, `extended` or `provisional`.
    pub level: String,
    /// The rule, with MUST or SHOULD.
    pub text: String,
    /// Where the rule comes from.
    pub source: String,
    /// `pass` when everything that ran for it passed, `not-run` when nothing proves or refutes it.
    pub verdict: CaseVerdict,
    /// The cases that name it, by what each says about this requirement. A case that fails for the sake of another
    /// requirement says nothing about this one and counts as `notRun`.
    pub cases: Counts,
}

/// What the candidate does where the Kubernetes API leaves a choice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CharacteristicResult {
    /// Id of the choice.
    pub id: String,
    /// What was observed; more than one entry when the candidate is not consistent.
    pub values: Vec<CharacteristicValue>,
}

/// One observed behaviour.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CharacteristicValue {
    /// What the candidate does.
    pub value: String,
    /// The choice in a sentence.
    pub text: String,
    /// Ids of the cases that observed it.
    pub cases: Vec<String>,
}

/// A planned case and what became of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CaseResult {
    /// Id that never changes, such as `udp-endpoint-replaced[ipv6,nodePort]`.
    pub id: String,
    /// Id of the scenario document.
    pub scenario: String,
    /// The scenario's title.
    pub title: String,
    /// Requirement area.
    pub area: String,
    /// Level: `core`, `extended` or `provisional`.
    pub level: String,
    /// Ids of the requirements the case proves.
    pub requirements: Vec<String>,
    /// The matrix axes that make this case of the scenario.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub axes: BTreeMap<String, String>,
    /// Verdict over all attempts.
    pub verdict: CaseVerdict,
    /// Why the case was skipped, when it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skip: Option<Skip>,
    /// The waiver that covers its failures. It changes no verdict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waived: Option<Waiver>,
    /// How often it failed; absent when no attempt passed or failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_rate: Option<Rate>,
    /// Whether the claim that it was repeated for is proven.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<ClaimResult>,
    /// The convergence its attempts measured, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub convergence_ms: Option<Distribution>,
    /// Everything else its attempts measured, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub measurements: Vec<Measurement>,
    /// What kind of failure it has, where experiments were made with it or with one that fails the same way. It changes no verdict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classification: Option<Classification>,
    /// The experiments that were made with it. Their reruns are no attempts: nothing else counts them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub experiments: Vec<ExperimentResult>,
    /// Its attempts, by number.
    pub attempts: Vec<Attempt>,
}

/// What kind of failure a case has, by the policy of `docs/verdicts.md`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Classification {
    /// The kind.
    pub class: Class,
    /// The counts that decided: failed of all, of the run's attempts and of each experiment.
    pub why: String,
    /// How often it fails, when it is flaky.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// The case that the experiments were made with, when it was another one with the same signature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub representative: Option<String>,
}

/// What reruns of a case under one condition came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExperimentResult {
    /// The condition.
    pub experiment: Experiment,
    /// Reruns that were made; none where the experiment is not possible.
    pub attempts: u64,
    /// Those of them that failed.
    pub failed: u64,
    /// Those of them that say nothing; the rest passed.
    pub infra: u64,
    /// What was done.
    pub what: String,
    /// What the first failed rerun says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl ExperimentResult {
    pub(super) fn new(experiment: Experiment) -> Self {
        Self {
            experiment,
            attempts: 0,
            failed: 0,
            infra: 0,
            what: String::new(),
            message: None,
        }
    }

    /// The counts.
    pub fn tally(&self) -> Tally {
        Tally {
            failed: self.failed,
            passed: self.attempts.saturating_sub(self.failed + self.infra),
            infra: self.infra,
        }
    }
}

impl CaseResult {
    pub(super) fn planned(case: PlannedCase) -> Self {
        Self {
            id: case.id,
            scenario: case.scenario,
            title: case.title,
            area: case.area,
            level: case.level,
            requirements: case.requirements,
            axes: case.axes,
            verdict: CaseVerdict::NotRun,
            skip: case.skip,
            waived: None,
            failure_rate: None,
            claim: None,
            convergence_ms: None,
            measurements: Vec::new(),
            classification: None,
            experiments: Vec::new(),
            attempts: Vec::new(),
        }
    }

    /// What is known about how it fails.
    pub fn evidence(&self) -> Evidence {
        let mut run = Tally::default();
        self.attempts
            .iter()
            .for_each(|attempt| run.add(attempt.verdict));
        let experiments = self.experiments.iter();
        Evidence {
            run,
            experiments: experiments.map(|e| (e.experiment, e.tally())).collect(),
        }
    }

    /// The class that its own experiments give it; `None` without any.
    pub(super) fn classify(&self) -> Option<Classification> {
        if self.experiments.is_empty() {
            return None;
        }
        let evidence = self.evidence();
        let (class, rate) = classify(&evidence);
        Some(Classification {
            class,
            why: evidence.to_string(),
            rate,
            representative: None,
        })
    }

    /// The attempts with one verdict.
    pub fn attempts_with(&self, verdict: Verdict) -> impl Iterator<Item = &Attempt> {
        self.attempts
            .iter()
            .filter(move |attempt| attempt.verdict == verdict)
    }

    /// The time all attempts took, in milliseconds.
    pub fn duration_ms(&self) -> f64 {
        self.attempts
            .iter()
            .map(|attempt| attempt.duration_ms)
            .sum()
    }
}

/// What a case's attempts say about the claim of the run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClaimResult {
    /// The claim.
    pub claim: Claim,
    /// `open` when there were too few attempts to decide it: then it is not proven.
    pub decision: Decision,
    /// How many attempts that passed or failed the decision took, or all of them while there is none.
    pub attempts: u64,
}

/// `rate<1% @95% is proven after 299 attempts`.
impl std::fmt::Display for ClaimResult {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let decision = match self.decision {
            Decision::Proven => "is proven",
            Decision::Refuted => "is refuted",
            Decision::Open => "is undecided",
        };
        write!(
            f,
            "{} {decision} after {} attempts",
            self.claim, self.attempts
        )
    }
}

/// The distribution of a measured number over some attempts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Measurement {
    /// What was measured.
    pub name: String,
    /// Unit of the values.
    pub unit: String,
    /// The values.
    pub values: Distribution,
    /// The values at 0 %, 2 %, 4 % and so on to 100 %, by nearest rank: the shape of the distribution, to be drawn. Only of the run as a
    /// whole, and only where there are 5 values or more, which are not all the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub curve: Vec<f64>,
}

/// A step of a scenario that did not hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BrokenStep {
    /// Position of the step in the scenario, counted from 0.
    pub index: u32,
    /// Its verb.
    pub verb: String,
    /// The step in one line, for humans.
    pub summary: String,
    /// How long it took, in milliseconds.
    pub duration_ms: f64,
}

/// One attempt of a case.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    /// Number of the attempt, counted from 1.
    pub attempt: u32,
    /// The attempt's verdict. A `pass` of the log that evaluated no assertion is `infra` here.
    pub verdict: Verdict,
    /// Seed that repeats it; absent when the attempt never started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// When it started: RFC 3339, UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<String>,
    /// What made life harder for it, with the dose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stress: Option<String>,
    /// In what its world differed from the one of the document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<String>,
    /// How long it took, in milliseconds; 0 when it never finished.
    pub duration_ms: f64,
    /// The longest convergence it measured, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub convergence_ms: Option<f64>,
    /// Assertions that were evaluated.
    pub checks: u64,
    /// Those of them that expected traffic to arrive.
    pub positive_checks: u64,
    /// The first step that did not hold; absent when the attempt passed, or when the log names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broke: Option<BrokenStep>,
    /// What did not hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<Failure>,
    /// What did not hold of rules that weigh less than the case's level: counted for these rules, not for the case.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Failure>,
    /// Why it was skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skip: Option<Skip>,
    /// What got in its way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub infra: Option<String>,
    /// The candidate's last complaint in its log, when it made one and the attempt did not pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub complaint: Option<String>,
    /// Directory of the evidence, relative to the report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
}
