//! Which cases experiments are made with: one for each cause of failures.

use std::time::Duration;

use reports::{
    event::Verdict,
    model::{Attempt, CaseResult, Evidence, FailureGroup, RERUNS, Report},
};

/// A case that stands for all that fail the same way.
#[derive(Clone, Debug, PartialEq)]
pub struct Representative {
    /// Its id.
    pub case: String,
    /// The seed of an attempt that failed: reruns repeat it.
    pub seed: u64,
    /// The case's own attempts, and experiments that an earlier process of the run made with it.
    pub known: Evidence,
    /// How long that attempt took.
    took: Duration,
}

impl Representative {
    /// The time that it may take to say that the case always fails: reruns alone, and one with longer deadlines.
    pub fn estimate(&self) -> Duration {
        self.took * (RERUNS as u32 + super::rerun::STRETCH)
    }
}

/// One case per cause, the causes with most failures first. It is the case whose failed attempt took least time; each case once.
pub fn representatives(report: &Report) -> Vec<Representative> {
    let mut found: Vec<Representative> = Vec::new();
    for group in &report.causes {
        let members = report
            .cases
            .iter()
            .filter(|case| group.cases.contains(&case.id));
        let candidates: Vec<Representative> = members
            .filter_map(|case| of(case, group))
            // A case that fails in two ways stands for both.
            .filter(|one| found.iter().all(|known| known.case != one.case))
            .collect();
        // One that was begun with goes on; the first of equals is the first in the order of the plan.
        let order = |one: &Representative| (one.known.experiments.is_empty(), one.took);
        found.extend(candidates.into_iter().min_by_key(order));
    }
    found
}

fn of(case: &CaseResult, group: &FailureGroup) -> Option<Representative> {
    // The example is an attempt with this very cause; of other cases the first that failed is taken.
    let example = |attempt: &&Attempt| {
        case.id == group.example_case && attempt.attempt == group.example_attempt
    };
    let mut failed = case.attempts_with(Verdict::Fail);
    let attempt = case
        .attempts_with(Verdict::Fail)
        .find(example)
        .or_else(|| failed.next())?;
    Some(Representative {
        case: case.id.clone(),
        seed: attempt.seed?,
        known: case.evidence(),
        took: Duration::from_secs_f64((attempt.duration_ms / 1e3).clamp(0.0, 3_600.0)),
    })
}
