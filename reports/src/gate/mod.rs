//! Whether a run is good enough to let a change in: one answer, with every reason for it.
//!
//! A gate must never open by mistake. So it is not enough that nothing failed: enough cases have to have run, few may be skipped, the
//! run has to be whole, known-bad proxies have to have been noticed in it, and what has to pass has to be there. A gate must not close by
//! mistake either: failures that the baseline has too, and those that are waived, stay visible and let the change in.
//!
//! ```text
//! report ─┐                                      ┌─ Closed: something is worse, fails, or is missing
//! baseline┼─ Gate::of (pure) ── Finding… ── verdict ── Flaky, Infra, TooFew
//! required┤                                      └─ Open: nothing speaks against it
//! waivers ┘
//! ```
//!
//! Not here: files and their errors (`harness gate`), and what is compared with a baseline ([`crate::compare`]).

mod render;

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::compare::{ALPHA, Comparison};
use crate::event::Verdict;
use crate::model::{CaseResult, CaseVerdict, Report, fisher_exact};
use crate::waiver::WaiverResult;

/// Version of the gate's JSON. Fields may be added without raising it.
pub const GATE_FORMAT_VERSION: u32 = 1;

/// What a run is held against.
#[derive(Debug, Clone)]
pub struct Rules<'a> {
    /// What passed so far: only what is worse than it closes the gate.
    pub baseline: Option<&'a Report>,
    /// Ids of the cases that have to pass, whatever the baseline says.
    pub required: BTreeSet<String>,
    /// So many cases have to pass or fail at least.
    pub min_cases: u64,
    /// So many cases may be skipped at most.
    pub skip_budget: u64,
    /// So many cases may pass only sometimes, besides those that did so in the baseline.
    pub flake_budget: u64,
}

/// Whether a run lets a change in, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Gate {
    /// Format of this document, see [`GATE_FORMAT_VERSION`].
    pub format_version: u32,
    /// The answer.
    pub verdict: GateVerdict,
    /// The exit code; a function of the verdict.
    pub exit_code: i32,
    /// Names the run among all others.
    pub run_id: String,
    /// Name of the candidate.
    pub candidate: String,
    /// Its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The run that it was held against.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<String>,
    /// Cases that passed or failed.
    pub executed: u64,
    /// Cases that have to be executed at least.
    pub min_cases: u64,
    /// Cases that were skipped.
    pub skipped: u64,
    /// Cases that may be skipped at most.
    pub skip_budget: u64,
    /// Cases that have to pass.
    pub required: u64,
    /// Everything that speaks against the run, the worst first.
    pub findings: Vec<Finding>,
    /// Cases that fail and let the run in all the same, and why.
    pub tolerated: Vec<Tolerated>,
    /// The waivers and what they do.
    pub waivers: Vec<WaiverResult>,
    /// What changed against the baseline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comparison: Option<Comparison>,
}

/// The answer of a gate. The worst finding decides.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum GateVerdict {
    /// Something fails, is worse than before or missing, or a waiver is out of order.
    Closed,
    /// More cases are flaky than the budget allows.
    Flaky,
    /// The run is not whole, or would not have noticed a bad proxy.
    Infra,
    /// Too little of the suite was run.
    TooFew,
    /// Nothing speaks against it.
    Open,
}

impl GateVerdict {
    /// 0 open; 1 closed; 3 closed only because of flakes; 4 the run is no basis for an answer; 5 too few cases ran.
    pub fn exit_code(self) -> i32 {
        match self {
            GateVerdict::Open => 0,
            GateVerdict::Closed => 1,
            GateVerdict::Flaky => 3,
            GateVerdict::Infra => 4,
            GateVerdict::TooFew => 5,
        }
    }

    /// The answer in words, as a heading begins.
    pub fn title(self) -> &'static str {
        match self {
            GateVerdict::Open => "Gate open",
            GateVerdict::Closed => "Gate closed",
            GateVerdict::Flaky => "Gate closed: flaky",
            GateVerdict::Infra => "Gate closed: the run is no basis for an answer",
            GateVerdict::TooFew => "Gate closed: too little was run",
        }
    }
}

/// Something that speaks against a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// What it makes of the gate, if there is nothing worse.
    pub verdict: GateVerdict,
    /// Which rule found it.
    pub rule: Rule,
    /// Id of the case that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub case: Option<String>,
    /// What is wrong, in a sentence.
    pub message: String,
}

/// The rules of a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// A case fails, and did not in the baseline.
    Failure,
    /// A case fails more often than in the baseline.
    Flakier,
    /// A case converges later than in the baseline.
    Slower,
    /// A case is not tried any more.
    NotTried,
    /// A case that has to pass does not.
    Required,
    /// A waiver is out of order.
    Waiver,
    /// A case passes only sometimes.
    Flaky,
    /// The run is not whole.
    Incomplete,
    /// It is not shown that the run would have noticed a bad proxy.
    Canary,
    /// Too few cases were executed.
    MinCases,
    /// Too many cases were skipped.
    SkipBudget,
}

impl Rule {
    /// The word used in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Rule::Failure => "failure",
            Rule::Flakier => "flakier",
            Rule::Slower => "slower",
            Rule::NotTried => "not-tried",
            Rule::Required => "required",
            Rule::Waiver => "waiver",
            Rule::Flaky => "flaky",
            Rule::Incomplete => "incomplete",
            Rule::Canary => "canary",
            Rule::MinCases => "min-cases",
            Rule::SkipBudget => "skip-budget",
        }
    }
}

/// A failing case that lets the run in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tolerated {
    /// Id of the case.
    pub case: String,
    /// What it says.
    pub verdict: CaseVerdict,
    /// Why it is let through.
    pub why: String,
}

impl Gate {
    /// Holds a run against the rules. Its waivers are those that are applied to it ([`crate::waiver::apply`]).
    pub fn of(report: &Report, rules: &Rules) -> Self {
        let mut found = Findings::default();
        let comparison = rules
            .baseline
            .map(|baseline| Comparison::of(baseline, report));
        found.whole(report);
        found.enough(report, rules);
        for result in &report.waivers {
            if let Some(objection) = result.state.objection() {
                let subject = result.waiver.subject();
                found.add(
                    GateVerdict::Closed,
                    Rule::Waiver,
                    None,
                    format!(
                        "the waiver of {subject} {objection}: {}",
                        result.waiver.words()
                    ),
                );
            }
        }
        if let Some(comparison) = &comparison {
            found.worse(report, comparison);
        }
        found.cases(report, rules);
        found.required(report, &rules.required);
        let Findings {
            mut findings,
            mut tolerated,
        } = found;
        // A flake that got worse is no flake of the baseline.
        tolerated.retain(|case| findings.iter().all(|f| f.case.as_ref() != Some(&case.case)));
        findings.sort_by_key(|finding| finding.verdict);
        let verdict = findings
            .first()
            .map_or(GateVerdict::Open, |finding| finding.verdict);
        Self {
            format_version: GATE_FORMAT_VERSION,
            verdict,
            exit_code: verdict.exit_code(),
            run_id: report.run_id.clone(),
            candidate: report.candidate.name.clone(),
            version: report.candidate.version.clone(),
            baseline: rules.baseline.map(|baseline| baseline.run_id.clone()),
            executed: executed(report),
            min_cases: rules.min_cases,
            skipped: report.totals.cases.skip,
            skip_budget: rules.skip_budget,
            required: rules.required.len() as u64,
            findings,
            tolerated,
            waivers: report.waivers.clone(),
            comparison,
        }
    }
}

/// Cases that say anything about the candidate.
fn executed(report: &Report) -> u64 {
    let tried = report.cases.iter().filter(|c| c.failure_rate.is_some());
    tried.count() as u64
}

#[derive(Default)]
struct Findings {
    findings: Vec<Finding>,
    tolerated: Vec<Tolerated>,
}

impl Findings {
    fn add(&mut self, verdict: GateVerdict, rule: Rule, case: Option<&str>, message: String) {
        self.findings.push(Finding {
            verdict,
            rule,
            case: case.map(str::to_owned),
            message,
        });
    }

    fn tolerate(&mut self, case: &CaseResult, why: String) {
        self.tolerated.push(Tolerated {
            case: case.id.clone(),
            verdict: case.verdict,
            why,
        });
    }

    /// Whether the run is whole and would have noticed a bad proxy.
    fn whole(&mut self, report: &Report) {
        for problem in &report.problems {
            self.add(GateVerdict::Infra, Rule::Incomplete, None, problem.clone());
        }
        if let Some(shard) = report.options.shard {
            self.add(
                GateVerdict::Infra,
                Rule::Incomplete,
                None,
                format!("the run is shard {shard}: merge all shards (harness merge), and hold the result against the gate"),
            );
        }
        if report.options.canaries.is_empty() {
            let message = "the run has no canaries (--no-canary, or an older suite), so it is not shown that it would have noticed a bad proxy";
            self.add(GateVerdict::Infra, Rule::Canary, None, message.to_owned());
        }
    }

    /// Whether enough of the suite was run.
    fn enough(&mut self, report: &Report, rules: &Rules) {
        // Whoever asks for nothing gets no answer out of nothing.
        let (executed, wanted) = (executed(report), rules.min_cases.max(1));
        if executed < wanted {
            let profile = &report.options.profile;
            let filtered = match &report.options.filter {
                Some(filter) => format!(" (it was filtered by {filter:?})"),
                None => String::new(),
            };
            self.add(
                GateVerdict::TooFew,
                Rule::MinCases,
                None,
                format!(
                    "{executed} cases were executed, and at least {wanted} have to be with profile {profile}{filtered}"
                ),
            );
        }
        let (skipped, most) = (report.totals.cases.skip, rules.skip_budget);
        if skipped > most {
            let mut reasons: BTreeMap<&str, u64> = BTreeMap::new();
            for skip in report.cases.iter().filter_map(|case| case.skip.as_ref()) {
                *reasons.entry(skip.reason.as_str()).or_default() += 1;
            }
            let mut reasons: Vec<(&str, u64)> = reasons.into_iter().collect();
            reasons.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
            let reasons: Vec<String> = reasons
                .into_iter()
                .take(3)
                .map(|(reason, count)| format!("{count}: {reason}"))
                .collect();
            self.add(
                GateVerdict::TooFew,
                Rule::SkipBudget,
                None,
                format!(
                    "{skipped} cases were skipped, and at most {most} may be ({})",
                    reasons.join("; ")
                ),
            );
        }
    }

    /// What is worse than the baseline, failures aside.
    fn worse(&mut self, report: &Report, comparison: &Comparison) {
        for problem in &comparison.base.problems {
            let message = format!("the baseline is incomplete: {problem}");
            self.add(GateVerdict::Infra, Rule::Incomplete, None, message);
        }
        if comparison.compared == 0 && comparison.added.is_empty() {
            let message = "no case was tried both in the baseline and in this run".to_owned();
            self.add(GateVerdict::TooFew, Rule::NotTried, None, message);
        }
        let waived = |id: &str| {
            let case = report.cases.iter().find(|case| case.id == id);
            case.is_some_and(|case| case.waived.is_some())
        };
        for case in comparison.flakier.iter().filter(|c| !waived(&c.case)) {
            let (old, new) = (case.base.unwrap_or(case.new), case.new);
            self.add(
                GateVerdict::Closed,
                Rule::Flakier,
                Some(&case.case),
                format!(
                    "failed {} of {} and now {} of {} (p {:.2e})",
                    old.failed,
                    old.of,
                    new.failed,
                    new.of,
                    case.p.unwrap_or(1.0)
                ),
            );
        }
        for case in &comparison.slower {
            self.add(
                GateVerdict::Closed,
                Rule::Slower,
                Some(&case.case),
                format!(
                    "converges in {:.1} ms (median) and did in {:.1} ms; slower in {:.0} % of pairs (p {:.2e})",
                    case.new_ms,
                    case.base_ms,
                    case.superiority * 100.0,
                    case.p
                ),
            );
        }
        // What the machine got in the way of says so itself, and is no fault of the candidate.
        let left_out = |id: &str| {
            let case = report.cases.iter().find(|case| case.id == id);
            case.is_none_or(|case| case.verdict == CaseVerdict::Skip)
        };
        let gone = comparison.newly_skipped.iter();
        for case in gone.filter(|gone| left_out(&gone.case)) {
            self.add(
                GateVerdict::Closed,
                Rule::NotTried,
                Some(&case.case),
                format!("was {} in the baseline, now: {}", case.was, case.reason),
            );
        }
    }

    /// What the cases themselves say.
    fn cases(&mut self, report: &Report, rules: &Rules) {
        let before: BTreeMap<&str, &CaseResult> = rules
            .baseline
            .iter()
            .flat_map(|baseline| &baseline.cases)
            .map(|case| (case.id.as_str(), case))
            .collect();
        let mut flaky = Vec::new();
        for case in &report.cases {
            let was = before.get(case.id.as_str()).and_then(|c| c.failure_rate);
            match case.verdict {
                CaseVerdict::Fail | CaseVerdict::Flaky if case.waived.is_some() => {
                    let waiver = case.waived.as_ref().map(|waiver| waiver.words());
                    self.tolerate(case, format!("waived: {}", waiver.unwrap_or_default()));
                }
                // What has to pass is excused by no baseline, see below.
                CaseVerdict::Fail | CaseVerdict::Flaky if rules.required.contains(&case.id) => {}
                CaseVerdict::Fail | CaseVerdict::Flaky => match (was, case.failure_rate) {
                    (Some(was), Some(now)) if was.failed > 0 => {
                        // A flake that fails in the only attempt is no news; one that fails always now is.
                        let p = fisher_exact((was.failed, was.of), (now.failed, now.of));
                        let rate = format!("failed {} of {} in the baseline", was.failed, was.of);
                        if was.failed < was.of && case.verdict == CaseVerdict::Fail && p <= ALPHA {
                            let message = format!(
                                "{rate}, and fails always now (p {p:.2e}): {}",
                                example(case)
                            );
                            self.add(GateVerdict::Closed, Rule::Failure, Some(&case.id), message);
                        } else {
                            self.tolerate(case, rate);
                        }
                    }
                    _ if case.verdict == CaseVerdict::Flaky => flaky.push(case),
                    _ => self.add(
                        GateVerdict::Closed,
                        Rule::Failure,
                        Some(&case.id),
                        example(case),
                    ),
                },
                CaseVerdict::Infra | CaseVerdict::Undecided | CaseVerdict::NotRun => self.add(
                    GateVerdict::Infra,
                    Rule::Incomplete,
                    Some(&case.id),
                    incomplete(case),
                ),
                CaseVerdict::Pass | CaseVerdict::Skip => {}
            }
        }
        // A claim that is refuted is no tolerable flake.
        let refuted: BTreeSet<&str> = report.refuted().map(|case| case.id.as_str()).collect();
        let tolerable = |case: &&CaseResult| !refuted.contains(case.id.as_str());
        let beyond =
            flaky.iter().filter(|case| tolerable(case)).count() as u64 > rules.flake_budget;
        for case in flaky {
            if tolerable(&case) && !beyond {
                self.tolerate(case, "within the flake budget".to_owned());
                continue;
            }
            let rate = case
                .failure_rate
                .map(|r| format!("{} of {}", r.failed, r.of));
            let message = format!(
                "failed {} attempts: {}",
                rate.unwrap_or_default(),
                example(case)
            );
            self.add(GateVerdict::Flaky, Rule::Flaky, Some(&case.id), message);
        }
    }

    fn required(&mut self, report: &Report, required: &BTreeSet<String>) {
        let cases: BTreeMap<&str, &CaseResult> =
            report.cases.iter().map(|c| (c.id.as_str(), c)).collect();
        for id in required {
            let Some(case) = cases.get(id.as_str()) else {
                let message = "has to pass, and was not planned".to_owned();
                self.add(GateVerdict::Closed, Rule::Required, Some(id), message);
                continue;
            };
            let (verdict, message) = match case.verdict {
                CaseVerdict::Pass => continue,
                // Said already.
                CaseVerdict::Infra | CaseVerdict::Undecided | CaseVerdict::NotRun => continue,
                CaseVerdict::Fail | CaseVerdict::Flaky if case.waived.is_some() => continue,
                CaseVerdict::Fail => (
                    GateVerdict::Closed,
                    format!("has to pass, and fails: {}", example(case)),
                ),
                CaseVerdict::Flaky => (
                    GateVerdict::Flaky,
                    format!("has to pass, and is flaky: {}", example(case)),
                ),
                CaseVerdict::Skip => (
                    GateVerdict::Closed,
                    format!(
                        "has to pass, and was skipped: {}",
                        case.skip.as_ref().map_or("no reason given", |s| &s.reason)
                    ),
                ),
            };
            self.add(verdict, Rule::Required, Some(id), message);
        }
    }
}

/// One of the failures of a case, in a sentence.
fn example(case: &CaseResult) -> String {
    let mut failures = case
        .attempts_with(Verdict::Fail)
        .flat_map(|attempt| &attempt.failures);
    let first = failures.next();
    first.map_or("it fails".to_owned(), |failure| failure.message.clone())
}

/// Why a case says nothing.
fn incomplete(case: &CaseResult) -> String {
    let mut infra = case.attempts.iter().filter_map(|a| a.infra.as_deref());
    match (case.verdict, infra.next()) {
        (CaseVerdict::Infra, Some(infra)) => {
            format!("the machine or the harness got in the way: {infra}")
        }
        (CaseVerdict::Undecided, _) => {
            "passed too few times to prove what it was to prove".to_owned()
        }
        _ => "was not run to its end".to_owned(),
    }
}
