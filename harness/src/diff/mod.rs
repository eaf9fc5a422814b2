//! Two candidates compared: what changes for me if I replace one by the other?
//!
//! Both ran the same cases with the same seeds. What differs is said by requirement, because that is what a user relies on; then
//! the characteristics, and the medians of the convergence, which are measured and never decide anything.

mod render;

use std::collections::{BTreeMap, BTreeSet};

use reports::{
    event::CandidateInfo,
    model::{CaseResult, CaseVerdict, Counts, Distribution, Report},
};
use serde::Serialize;

/// What differs between two runs.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// The new one.
    pub candidate: CandidateInfo,
    /// The one that it is to replace.
    pub against: CandidateInfo,
    /// Cases of which both runs have a verdict about the proxy.
    pub compared: usize,
    /// How many of them differ.
    pub differing: usize,
    /// Why the runs may not be comparable: other scenarios, other seeds.
    pub caveats: Vec<String>,
    /// Requirements that are met differently, in the order of the catalogue.
    pub requirements: Vec<RequirementDifference>,
    /// Open choices that are made differently.
    pub characteristics: Vec<CharacteristicDifference>,
    /// The convergence by area, where both measured some.
    pub convergence: Vec<Convergence>,
    /// Cases that cannot be compared.
    pub not_compared: Vec<NotCompared>,
}

/// A requirement that is met differently.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RequirementDifference {
    /// Its id.
    pub id: String,
    /// Its area.
    pub area: String,
    /// Its level.
    pub level: String,
    /// The rule.
    pub text: String,
    /// The verdict on the one that is to be replaced.
    pub against: CaseVerdict,
    /// The verdict on the new one.
    pub candidate: CaseVerdict,
    /// The cases that differ for its sake.
    pub cases: Vec<CaseDifference>,
}

/// A case with two verdicts.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CaseDifference {
    /// Its id.
    pub id: String,
    /// The verdict on the one that is to be replaced.
    pub against: CaseVerdict,
    /// The verdict on the new one.
    pub candidate: CaseVerdict,
    /// What was wrong, or why it was skipped, on the side that did not pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// An open choice that is made differently.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CharacteristicDifference {
    /// Its id.
    pub id: String,
    /// The choice in a sentence.
    pub text: String,
    /// What the one that is to be replaced does; several values if it is not consistent.
    pub against: Vec<String>,
    /// What the new one does.
    pub candidate: Vec<String>,
}

/// How long changes took to have their effect.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Convergence {
    /// The area; `all` for the last row.
    pub area: String,
    /// Cases in which both measured it.
    pub cases: u64,
    /// The median over these cases of the one that is to be replaced, in milliseconds.
    pub against_ms: f64,
    /// The same of the new one.
    pub candidate_ms: f64,
}

/// A case that cannot be compared.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NotCompared {
    /// Its id.
    pub id: String,
    /// The verdict on the one that is to be replaced; absent when the case was not part of its run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub against: Option<CaseVerdict>,
    /// The verdict on the new one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub candidate: Option<CaseVerdict>,
}

impl Difference {
    /// Compares two runs.
    pub fn of(candidate: &Report, against: &Report) -> Self {
        let theirs: BTreeMap<&str, &CaseResult> = against
            .cases
            .iter()
            .map(|case| (case.id.as_str(), case))
            .collect();
        let mut pairs = Vec::new();
        let mut not_compared = Vec::new();
        for case in &candidate.cases {
            let other = theirs.get(case.id.as_str()).copied();
            match other {
                Some(other) if says_something(case) && says_something(other) => {
                    pairs.push((case, other));
                }
                _ => not_compared.push(NotCompared {
                    id: case.id.clone(),
                    against: other.map(|other| other.verdict),
                    candidate: Some(case.verdict),
                }),
            }
        }
        let ours: BTreeSet<&str> = candidate
            .cases
            .iter()
            .map(|case| case.id.as_str())
            .collect();
        for other in &against.cases {
            if !ours.contains(other.id.as_str()) {
                not_compared.push(NotCompared {
                    id: other.id.clone(),
                    against: Some(other.verdict),
                    candidate: None,
                });
            }
        }
        let differing: Vec<_> = pairs
            .iter()
            .copied()
            .filter(|(case, other)| case.verdict != other.verdict)
            .collect();
        Self {
            candidate: candidate.candidate.clone(),
            against: against.candidate.clone(),
            compared: pairs.len(),
            differing: differing.len(),
            caveats: caveats(candidate, against),
            requirements: requirements(candidate, against, &differing, &pairs),
            characteristics: characteristics(candidate, against),
            convergence: convergence(&pairs),
            not_compared,
        }
    }

    /// Whether nothing differs that was compared. Times do not count: they are never the same.
    pub fn is_empty(&self) -> bool {
        self.differing == 0 && self.requirements.is_empty() && self.characteristics.is_empty()
    }

    /// Whether trouble with the machine or the harness kept cases from being compared.
    pub fn is_incomplete(&self) -> bool {
        self.not_compared.iter().any(|case| {
            [case.against, case.candidate]
                .into_iter()
                .flatten()
                .any(|verdict| {
                    matches!(
                        verdict,
                        CaseVerdict::Infra | CaseVerdict::Undecided | CaseVerdict::NotRun
                    )
                })
        })
    }
}

/// Whether the verdict is about the proxy.
fn says_something(case: &CaseResult) -> bool {
    !matches!(
        case.verdict,
        CaseVerdict::Infra | CaseVerdict::Undecided | CaseVerdict::NotRun
    )
}

fn caveats(candidate: &Report, against: &Report) -> Vec<String> {
    let mut caveats = Vec::new();
    if candidate.suite != against.suite {
        caveats.push("the runs were made with different scenarios".to_owned());
    }
    if candidate.options.seed != against.options.seed {
        caveats.push(format!(
            "the runs have different seeds: {} and {}",
            candidate.options.seed, against.options.seed
        ));
    }
    if candidate.machine != against.machine {
        caveats.push("the runs were made on different machines".to_owned());
    }
    if candidate.options.runs != against.options.runs {
        caveats.push(format!(
            "the runs made different numbers of attempts: {} and {}",
            candidate.options.runs, against.options.runs
        ));
    }
    caveats
}

/// The rules that the failures of a case name; none for one that did not fail.
fn blamed(case: &CaseResult) -> BTreeSet<&str> {
    let failures = case.attempts.iter().flat_map(|attempt| &attempt.failures);
    failures
        .flat_map(|failure| match failure.requirements.is_empty() {
            true => &case.requirements,
            false => &failure.requirements,
        })
        .map(String::as_str)
        .collect()
}

fn requirements(
    candidate: &Report,
    against: &Report,
    differing: &[(&CaseResult, &CaseResult)],
    pairs: &[(&CaseResult, &CaseResult)],
) -> Vec<RequirementDifference> {
    let mut by_requirement: BTreeMap<&str, Vec<CaseDifference>> = BTreeMap::new();
    for &(case, other) in differing {
        let mut blamed_rules: BTreeSet<&str> = blamed(case);
        blamed_rules.extend(blamed(other));
        // A failure names every rule that its cell follows from. The rules that the case is about tell a reader more.
        let own = case.requirements.iter().map(String::as_str);
        let mut ids: BTreeSet<&str> = own.clone().filter(|id| blamed_rules.contains(id)).collect();
        if ids.is_empty() {
            ids.extend(own);
        }
        for id in ids {
            by_requirement.entry(id).or_default().push(CaseDifference {
                id: case.id.clone(),
                against: other.verdict,
                candidate: case.verdict,
                message: message(case).or_else(|| message(other)),
            });
        }
    }
    for (case, other) in pairs.iter().filter(|(case, other)| ran(case) && ran(other)) {
        let (ours, theirs) = (warned(case), warned(other));
        let met = |warnings: &BTreeMap<&str, String>, id: &str| match warnings.contains_key(id) {
            true => CaseVerdict::Fail,
            false => CaseVerdict::Pass,
        };
        for (id, message) in ours.iter().chain(&theirs) {
            if ours.contains_key(id) != theirs.contains_key(id) {
                by_requirement.entry(id).or_default().push(CaseDifference {
                    id: case.id.clone(),
                    against: met(&theirs, id),
                    candidate: met(&ours, id),
                    message: Some(message.clone()),
                });
            }
        }
    }
    let verdict = |report: &Report, id: &str| {
        report
            .requirements
            .iter()
            .find(|requirement| requirement.id == id)
            .map_or(CaseVerdict::NotRun, |requirement| requirement.verdict)
    };
    candidate
        .requirements
        .iter()
        .filter_map(|requirement| {
            let cases = by_requirement.remove(requirement.id.as_str())?;
            // A rule that a report knows nothing about is met as the cases say that are shown for it.
            let known =
                |verdict: CaseVerdict, of_case: fn(&CaseDifference) -> CaseVerdict| match verdict {
                    CaseVerdict::NotRun => cases.iter().map(of_case).collect::<Counts>().verdict(),
                    verdict => verdict,
                };
            let before = known(verdict(against, &requirement.id), |case| case.against);
            let after = known(requirement.verdict, |case| case.candidate);
            Some(RequirementDifference {
                id: requirement.id.clone(),
                area: requirement.area.clone(),
                level: requirement.level.clone(),
                text: requirement.text.clone(),
                against: before,
                candidate: after,
                cases,
            })
        })
        .collect()
}

/// Whether attempts ran and said something about every rule of the case.
fn ran(case: &CaseResult) -> bool {
    matches!(
        case.verdict,
        CaseVerdict::Pass | CaseVerdict::Fail | CaseVerdict::Flaky
    )
}

/// Rules that weigh less than the case and did not hold, with what was wrong: they leave the case's verdict alone.
fn warned(case: &CaseResult) -> BTreeMap<&str, String> {
    let warnings = case.attempts.iter().flat_map(|attempt| &attempt.warnings);
    warnings
        .flat_map(|warning| {
            let message = format!("{}: {}", warning.kind, warning.message);
            let ids = warning.requirements.iter();
            ids.map(move |id| (id.as_str(), message.clone()))
        })
        .collect()
}

/// What was wrong in the first attempt that failed, or why the case was skipped.
fn message(case: &CaseResult) -> Option<String> {
    let failure = case
        .attempts
        .iter()
        .find_map(|attempt| attempt.failures.first())
        .map(|failure| format!("{}: {}", failure.kind, failure.message));
    let skip = || {
        let attempts = case
            .attempts
            .iter()
            .find_map(|attempt| attempt.skip.as_ref());
        let skip = case.skip.as_ref().or(attempts)?;
        Some(format!("{}: {}", skip.kind, skip.reason))
    };
    failure.or_else(skip)
}

/// Choices that both were seen to make, and not the same way.
fn characteristics(candidate: &Report, against: &Report) -> Vec<CharacteristicDifference> {
    let values = |values: &[reports::model::CharacteristicValue]| -> Vec<String> {
        let values: BTreeSet<String> = values.iter().map(|value| value.value.clone()).collect();
        values.into_iter().collect()
    };
    candidate
        .characteristics
        .iter()
        .filter_map(|own| {
            let other = against
                .characteristics
                .iter()
                .find(|other| other.id == own.id)?;
            let difference = CharacteristicDifference {
                id: own.id.clone(),
                text: own
                    .values
                    .first()
                    .map(|value| value.text.clone())
                    .unwrap_or_default(),
                against: values(&other.values),
                candidate: values(&own.values),
            };
            (difference.against != difference.candidate).then_some(difference)
        })
        .collect()
}

fn convergence(pairs: &[(&CaseResult, &CaseResult)]) -> Vec<Convergence> {
    let mut areas: Vec<(&str, Vec<f64>, Vec<f64>)> = Vec::new();
    for (case, other) in pairs {
        if let (Some(own), Some(theirs)) = (&case.convergence_ms, &other.convergence_ms) {
            let at = match areas.iter().position(|(area, ..)| *area == case.area) {
                Some(at) => at,
                None => {
                    areas.push((&case.area, Vec::new(), Vec::new()));
                    areas.len() - 1
                }
            };
            areas[at].1.push(own.p50);
            areas[at].2.push(theirs.p50);
        }
    }
    let own: Vec<f64> = areas.iter().flat_map(|area| area.1.clone()).collect();
    let theirs: Vec<f64> = areas.iter().flat_map(|area| area.2.clone()).collect();
    let mut rows: Vec<Convergence> = areas
        .into_iter()
        .filter_map(|(area, own, theirs)| medians(area, own, theirs))
        .collect();
    rows.extend(medians("all", own, theirs));
    rows
}

fn medians(area: &str, own: Vec<f64>, theirs: Vec<f64>) -> Option<Convergence> {
    let (own, theirs) = (Distribution::of(own)?, Distribution::of(theirs)?);
    Some(Convergence {
        area: area.into(),
        cases: own.count,
        against_ms: theirs.p50,
        candidate_ms: own.p50,
    })
}

#[cfg(test)]
mod tests {
    use reports::{
        event::{
            AttemptFinished, CandidateInfo, Event, EventBody, Failure, FinishReason, Machine,
            Options, PlannedCase, RequirementInfo, RunStarted, Skip, SkipKind, Suite, Verdict,
        },
        model::ReportBuilder,
    };

    use super::*;

    const RULES: &[(&str, &str)] = &[
        ("SVC-1", "A proxy MUST deliver to a ready endpoint."),
        ("UDP-1", "Flows MUST move when their endpoint goes."),
        ("CP-1", "A proxy SHOULD leave nothing behind."),
    ];

    fn rules() -> Vec<RequirementInfo> {
        RULES
            .iter()
            .map(|(id, text)| RequirementInfo {
                id: (*id).into(),
                area: id.split('-').next().unwrap_or(id).to_lowercase(),
                level: "core".into(),
                text: (*text).into(),
                source: "of the test".into(),
            })
            .collect()
    }

    fn started(name: &str, cases: &[(&str, &str)]) -> RunStarted {
        RunStarted {
            run_id: name.into(),
            format_version: 1,
            suite: Suite {
                version: "1".into(),
                catalogue_digest: "sha256:c0ffee".into(),
            },
            candidate: CandidateInfo {
                name: name.into(),
                version: Some("1.2.3".into()),
                url: None,
                digest: None,
                features_unsupported: Vec::new(),
            },
            provider: "netns".into(),
            machine: Machine {
                kernel: "6.18".into(),
                cpus: 2,
                memory_bytes: 1 << 30,
                arch: "x86_64".into(),
                os: "Linux".into(),
                nft: None,
                iptables: None,
                calibration: None,
            },
            options: Options {
                profile: "core".into(),
                runs: 1,
                jobs: 2,
                seed: 42,
                ..Options::default()
            },
            invocation: None,
            cases: cases
                .iter()
                .map(|(id, rule)| PlannedCase {
                    id: (*id).into(),
                    scenario: (*id).into(),
                    title: "T".into(),
                    area: rule.split('-').next().unwrap_or(rule).to_lowercase(),
                    level: "core".into(),
                    requirements: vec![(*rule).into()],
                    axes: BTreeMap::new(),
                    skip: None,
                })
                .collect(),
            requirements: rules(),
            waivers: Vec::new(),
            merged: None,
        }
    }

    fn failure() -> Failure {
        Failure {
            requirements: Vec::new(),
            step: Some(1),
            verb: "converge".into(),
            kind: "wrong-endpoint".into(),
            cell: None,
            expected: "answered by web".into(),
            actual: "timed out".into(),
            message: "pod client to ClusterIP <b>10.96.0.10</b>: timed out".into(),
        }
    }

    /// What a lesser rule has to say about a case that passes.
    fn left_behind() -> Failure {
        Failure {
            requirements: vec!["CP-1".into()],
            kind: "left-behind".into(),
            message: "node1 still has an element for 10.96.0.10".into(),
            ..failure()
        }
    }

    /// One attempt of a case, as the log tells it.
    fn attempt(case: &str, verdict: Verdict, convergence_ms: f64) -> [EventBody; 2] {
        let finished = serde_json::json!({
            "case": case, "attempt": 1, "verdict": verdict, "durationMs": 10.0,
            "convergenceMs": (verdict == Verdict::Pass).then_some(convergence_ms),
            "failures": (verdict == Verdict::Fail).then(failure).into_iter().collect::<Vec<_>>(),
            "skip": (verdict == Verdict::Skip).then_some(Skip {
                kind: SkipKind::CandidateUnsupported,
                reason: "not implemented".into(),
            }),
            "infra": (verdict == Verdict::Infra).then_some("no world could be built"),
            "checks": 4, "positiveChecks": 4,
        });
        let finished: AttemptFinished = serde_json::from_value(finished).expect("an attempt");
        [
            EventBody::AttemptStarted {
                case: case.into(),
                attempt: 1,
                seed: 1,
                stress: None,
                shape: None,
            },
            EventBody::AttemptFinished(finished),
        ]
    }

    /// A run of these cases: id, rule, verdict, convergence; and what it does at loopback.
    fn report(name: &str, cases: &[(&str, &str, Verdict, f64)], loopback: &str) -> Report {
        let planned: Vec<(&str, &str)> = cases.iter().map(|case| (case.0, case.1)).collect();
        let mut bodies = vec![EventBody::RunStarted(started(name, &planned))];
        for (id, _, verdict, convergence_ms) in cases {
            let [begin, mut end] = attempt(id, *verdict, *convergence_ms);
            if let EventBody::AttemptFinished(finished) = &mut end
                && name == "new-proxy"
                && *verdict == Verdict::Pass
            {
                finished.warnings.push(left_behind());
            }
            bodies.push(begin);
            if *verdict == Verdict::Pass {
                bodies.push(EventBody::Characteristic {
                    case: (*id).into(),
                    attempt: 1,
                    id: "nodeport-localhost".into(),
                    value: loopback.into(),
                    text: "Whether NodePorts are served on loopback addresses.".into(),
                });
            }
            bodies.push(end);
        }
        bodies.push(EventBody::RunFinished {
            reason: FinishReason::Completed,
            message: None,
        });
        let mut builder = ReportBuilder::default();
        for (seq, body) in (0..).zip(bodies) {
            let time = format!("2026-11-22T16:10:19.{seq:06}Z");
            builder
                .push(Event { seq, time, body })
                .expect("events in order");
        }
        builder.finish().expect("a report")
    }

    fn two() -> Difference {
        use Verdict::{Fail, Infra, Pass, Skip};
        let old = report(
            "old-proxy",
            &[
                ("basic[ipv4]", "SVC-1", Pass, 40.0),
                ("basic[ipv6]", "SVC-1", Pass, 60.0),
                ("hints", "SVC-1", Pass, 5.0),
                ("udp-replaced", "UDP-1", Fail, 0.0),
                ("udp-moved", "UDP-1", Pass, 30.0),
                ("only-old", "UDP-1", Pass, 1.0),
            ],
            "answered",
        );
        let new = report(
            "new-proxy",
            &[
                ("basic[ipv4]", "SVC-1", Pass, 4.0),
                ("basic[ipv6]", "SVC-1", Fail, 0.0),
                ("hints", "SVC-1", Skip, 0.0),
                ("udp-replaced", "UDP-1", Pass, 2.0),
                ("udp-moved", "UDP-1", Infra, 0.0),
            ],
            "refused",
        );
        Difference::of(&new, &old)
    }

    #[test]
    fn what_changes_is_said_by_requirement() {
        let difference = two();
        assert!(!difference.is_empty());
        assert!(difference.is_incomplete());
        insta::assert_snapshot!("text", difference.text());
        insta::assert_snapshot!("markdown", difference.markdown());
    }

    #[test]
    fn a_run_does_not_differ_from_itself_nor_by_its_times() {
        let cases = |ms: f64| [("basic", "SVC-1", Verdict::Pass, ms)];
        let one = report("proxy", &cases(1.0), "refused");
        let slower = report("proxy", &cases(1000.0), "refused");
        let difference = Difference::of(&one, &slower);
        assert!(difference.is_empty() && !difference.is_incomplete());
        assert_eq!(difference.compared, 1);
        assert!(difference.caveats.is_empty(), "{:?}", difference.caveats);
    }

    #[test]
    fn runs_that_were_made_otherwise_say_so() {
        let one = report("proxy", &[("basic", "SVC-1", Verdict::Pass, 1.0)], "x");
        let mut other = one.clone();
        other.options.seed = 43;
        other.suite.catalogue_digest = "sha256:tea".into();
        let difference = Difference::of(&one, &other);
        assert_eq!(
            difference.caveats,
            [
                "the runs were made with different scenarios",
                "the runs have different seeds: 42 and 43"
            ]
        );
    }
}
