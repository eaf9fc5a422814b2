//! What is worse and what is better in a new run than in an earlier one, case by case.
//!
//! Chance makes two runs of the same proxy differ. So a rate or a time that got worse counts only if it is significant:
//! failure rates by Fisher's exact test, convergence by the Mann-Whitney test with an effect that is large enough to matter.
//! All tests of one comparison share one alpha (Holm's correction), so that comparing a proxy with itself finds something with
//! a probability of at most [`ALPHA`] for rates, and the same for times.
//!
//! A case that failed never and now fails always needs no test: it is a new failure.
//!
//! Not here: two candidates side by side, requirement by requirement (`harness diff`).

mod render;
mod slower;

use std::collections::HashMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(crate) use render::p_words;
pub use slower::Slower;

use crate::event::Verdict;
use crate::model::{CaseResult, CaseVerdict, Rate, Report, fisher_exact};

/// The probability that a comparison calls anything flakier, or anything slower, although nothing has changed.
pub const ALPHA: f64 = 0.05;

/// Version of the comparison's JSON. Fields may be added without raising it.
pub const COMPARISON_FORMAT_VERSION: u32 = 1;

/// What changed from one run to another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Comparison {
    /// Format of this document, see [`COMPARISON_FORMAT_VERSION`].
    pub format_version: u32,
    /// The earlier run.
    pub base: Side,
    /// The new run.
    pub new: Side,
    /// Cases that passed or failed in both.
    pub compared: u64,
    /// Cases that fail always now and did not before.
    pub new_failures: Vec<Changed>,
    /// Cases that fail more often, significantly so.
    pub flakier: Vec<Changed>,
    /// Cases that fail more often by what may be chance. They decide nothing.
    pub maybe_flakier: Vec<Changed>,
    /// How much longer everything takes than in the earlier run, by its machine or by the proxy: cases count as slower beyond that. 1 where too
    /// few cases were repeated often enough to tell.
    #[serde(default = "same_pace")]
    pub pace: f64,
    /// Cases that converge later, significantly so and by much.
    pub slower: Vec<Slower>,
    /// Cases that were tried before, and are now skipped, not run, or not planned.
    pub newly_skipped: Vec<Gone>,
    /// Cases that failed and pass now. Of a flaky one that may be chance: see the p-value.
    pub fixed: Vec<Changed>,
    /// Cases that the earlier run did not try. What fails among them is a new failure.
    pub added: Vec<String>,
}

fn same_pace() -> f64 {
    1.0
}

/// One of the two runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Side {
    /// Names the run among all others.
    pub run_id: String,
    /// Name of the candidate.
    pub candidate: String,
    /// Its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Digest of the catalogue.
    pub catalogue: String,
    /// Why the run says less than it should.
    pub problems: Vec<String>,
}

impl Side {
    fn of(report: &Report) -> Self {
        Self {
            run_id: report.run_id.clone(),
            candidate: report.candidate.name.clone(),
            version: report.candidate.version.clone(),
            catalogue: report.suite.catalogue_digest.clone(),
            problems: report.problems.clone(),
        }
    }
}

/// A case whose failures changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Changed {
    /// Id of the case.
    pub case: String,
    /// Its rate in the earlier run; absent when it was not tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Rate>,
    /// Its rate in the new run.
    pub new: Rate,
    /// The probability of a difference like this by chance alone (Fisher, two-sided), corrected for the number of cases where
    /// the case counts as flakier; absent when there is nothing to compare with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p: Option<f64>,
    /// One of the failures, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub example: Option<String>,
}

/// A case that is not tried any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Gone {
    /// Id of the case.
    pub case: String,
    /// What it said before.
    pub was: CaseVerdict,
    /// Why it is not tried.
    pub reason: String,
}

impl Comparison {
    /// Compares two runs.
    pub fn of(base: &Report, new: &Report) -> Self {
        let before: HashMap<&str, &CaseResult> =
            base.cases.iter().map(|c| (c.id.as_str(), c)).collect();
        let now: HashMap<&str, &CaseResult> =
            new.cases.iter().map(|c| (c.id.as_str(), c)).collect();
        let mut found = Self {
            format_version: COMPARISON_FORMAT_VERSION,
            base: Side::of(base),
            new: Side::of(new),
            compared: 0,
            new_failures: Vec::new(),
            flakier: Vec::new(),
            maybe_flakier: Vec::new(),
            pace: 1.0,
            slower: Vec::new(),
            newly_skipped: newly_skipped(base, &now),
            fixed: Vec::new(),
            added: Vec::new(),
        };
        let mut flakier = Vec::new();
        let mut timed = Vec::new();
        for case in &new.cases {
            let Some(rate) = case.failure_rate else {
                continue;
            };
            let was = before.get(case.id.as_str());
            let old = was.and_then(|was| was.failure_rate);
            let changed = |p| Changed {
                case: case.id.clone(),
                base: old,
                new: rate,
                p,
                example: example(case),
            };
            let Some(old) = old else {
                found.added.push(case.id.clone());
                if rate.failed > 0 {
                    found.new_failures.push(changed(None));
                }
                continue;
            };
            found.compared += 1;
            let p = fisher_exact((old.failed, old.of), (rate.failed, rate.of));
            if rate.failed == rate.of && old.failed < old.of {
                found.new_failures.push(changed(Some(p)));
            } else if rate.failed == 0 && old.failed > 0 {
                found.fixed.push(Changed {
                    example: was.and_then(|was| example(was)),
                    ..changed(Some(p))
                });
            } else if rate.rate > old.rate {
                flakier.push(changed(Some(p)));
            }
            if let Some(was) = was
                && rate.failed < rate.of
            {
                timed.push((*was, case));
            }
        }
        // Every compared case was looked at, also those that turned out better.
        let tests = found.compared as usize;
        let mut flakier: Vec<(f64, Changed)> = flakier
            .into_iter()
            .map(|c| (c.p.unwrap_or(1.0), c))
            .collect();
        let certain = holm(&mut flakier, tests);
        for (at, (p, case)) in flakier.into_iter().enumerate() {
            let case = Changed { p: Some(p), ..case };
            if at < certain {
                found.flakier.push(case);
            } else {
                found.maybe_flakier.push(case);
            }
        }
        found.pace = slower::pace(&timed);
        found.slower = slower::slower(&timed, found.pace);
        found
    }

    /// Whether anything got worse.
    pub fn is_worse(&self) -> bool {
        let worse = [&self.new_failures, &self.flakier];
        worse.iter().any(|cases| !cases.is_empty())
            || !self.slower.is_empty()
            || !self.newly_skipped.is_empty()
    }

    /// Whether one of the runs is incomplete, so that what it does not say may be worse.
    pub fn is_incomplete(&self) -> bool {
        !self.base.problems.is_empty() || !self.new.problems.is_empty()
    }
}

/// Sorts by p-value, replaces each by the one that is corrected for so many tests (Holm 1979), and returns how many are
/// significant.
fn holm<T>(found: &mut [(f64, T)], tests: usize) -> usize {
    found.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut largest: f64 = 0.0;
    for (at, (p, _)) in found.iter_mut().enumerate() {
        let left = tests.saturating_sub(at).max(1);
        largest = largest.max((*p * left as f64).min(1.0));
        *p = largest;
    }
    found.iter().take_while(|(p, _)| *p <= ALPHA).count()
}

fn newly_skipped(base: &Report, now: &HashMap<&str, &CaseResult>) -> Vec<Gone> {
    let tried = |case: &&CaseResult| case.failure_rate.is_some();
    base.cases
        .iter()
        .filter(tried)
        .filter_map(|case| {
            let reason = match now.get(case.id.as_str()) {
                None => "it is not planned".to_owned(),
                Some(now) if now.failure_rate.is_some() => return None,
                Some(now) => match (&now.skip, now.verdict) {
                    (Some(skip), _) => skip.reason.clone(),
                    (None, CaseVerdict::Infra) => {
                        "the machine or the harness got in the way".to_owned()
                    }
                    (None, _) => "it was not run".to_owned(),
                },
            };
            Some(Gone {
                case: case.id.clone(),
                was: case.verdict,
                reason,
            })
        })
        .collect()
}

fn example(case: &CaseResult) -> Option<String> {
    let mut failed = case.attempts_with(Verdict::Fail);
    failed.find_map(|attempt| Some(attempt.failures.first()?.message.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holm_corrects_step_by_step_and_never_downwards() {
        let mut found = vec![(0.04, 'c'), (0.001, 'a'), (0.012, 'b')];
        assert_eq!(holm(&mut found, 4), 2);
        let p: Vec<(f64, char)> = found;
        assert_eq!(p.iter().map(|(_, c)| *c).collect::<String>(), "abc");
        for ((p, _), want) in p.iter().zip([0.004, 0.036, 0.08]) {
            assert!((p - want).abs() < 1e-12, "{p} {want}");
        }
        let mut same = vec![(0.02, 1), (0.02, 2)];
        assert_eq!(holm(&mut same, 2), 2);
        assert_eq!(same[1].0, same[0].0);
        assert_eq!(holm::<u8>(&mut [], 0), 0);
    }
}
