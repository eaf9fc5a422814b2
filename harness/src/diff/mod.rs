//! Two candidates compared: what changes for me if I replace one by the other?
//!
//! Both ran the same cases with the same seeds. What differs is said by requirement, because that is what a user relies on; then
//! the characteristics, and the medians of the convergence, which are measured and never decide anything.

mod render;

use std::collections::{BTreeMap, BTreeSet};

use reports::{
    event::CandidateInfo,
    model::{CaseResult, CaseVerdict, Distribution, Report},
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
            requirements: requirements(candidate, against, &differing),
            characteristics: characteristics(candidate, against),
            convergence: convergence(&pairs),
            not_compared,
        }
    }

    /// Whether nothing differs that was compared. Times do not count: they are never the same.
    pub fn is_empty(&self) -> bool {
        self.differing == 0 && self.characteristics.is_empty()
    }

    /// Whether trouble with the machine or the harness kept cases from being compared.
    pub fn is_incomplete(&self) -> bool {
        self.not_compared.iter().any(|case| {
            [case.against, case.candidate]
                .into_iter()
                .any(|verdict| matches!(verdict, Some(CaseVerdict::Infra | CaseVerdict::NotRun)))
        })
    }
}

/// Whether the verdict is about the proxy.
fn says_something(case: &CaseResult) -> bool {
    !matches!(case.verdict, CaseVerdict::Infra | CaseVerdict::NotRun)
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

/// The requirements for whose sake a case failed; none for one that did not fail.
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
) -> Vec<RequirementDifference> {
    let mut by_requirement: BTreeMap<&str, Vec<CaseDifference>> = BTreeMap::new();
    for (case, other) in differing {
        let mut ids: BTreeSet<&str> = blamed(case);
        ids.extend(blamed(other));
        if ids.is_empty() {
            ids.extend(case.requirements.iter().map(String::as_str));
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
            Some(RequirementDifference {
                id: requirement.id.clone(),
                area: requirement.area.clone(),
                level: requirement.level.clone(),
                text: requirement.text.clone(),
                against: verdict(against, &requirement.id),
                candidate: requirement.verdict,
                cases,
            })
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
    let all = |side: fn(&(&str, Vec<f64>, Vec<f64>)) -> Vec<f64>| -> Vec<f64> {
        areas.iter().flat_map(side).collect()
    };
    let (own, theirs) = (all(|area| area.1.clone()), all(|area| area.2.clone()));
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
