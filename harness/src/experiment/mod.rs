//! Experiments: a failing case is rerun under chosen conditions, to find out what kind of failure it has.
//!
//! ```text
//!   report so far ──[who]──> one case per cause ──────[next]──> condition ──> reruns ──> counts ──┐
//!                                                       ^                                         │
//!                                                       └─────────────────────────────────────────┘  until decided, or the budget ends
//! ```
//!
//! What counts mean is decided by the `reports` crate, from the event log alone (`docs/verdicts.md`). Here it is only decided what to try next.

mod next;
mod rerun;
mod who;

pub use next::{Batch, next};
pub use rerun::{CONTENTION, Subjects, once};
pub use who::{Representative, representatives};

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use reports::{
    event::ExperimentFinished,
    model::{Evidence, Report, Tally},
};

use crate::scenario::Case;

/// How long experiments may take.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    until: Instant,
    all: Duration,
}

/// The least that a run spends on its failures, however short it was.
const LEAST: Duration = Duration::from_secs(10);
/// The most that a run spends on them if nobody says otherwise: a case that waits 30 s for its deadline needs four minutes to be called broken.
const MOST: Duration = Duration::from_secs(300);

impl Budget {
    /// From now on, so long.
    pub fn of(time: Duration) -> Self {
        Self {
            until: Instant::now() + time,
            all: time,
        }
    }

    /// What a run gets that took so long: it is not more than doubled, except for very short ones.
    pub fn for_run(took: Duration) -> Self {
        Self::of(took.clamp(LEAST, MOST))
    }

    /// What there was at first.
    pub fn all(self) -> Duration {
        self.all
    }

    fn left(self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }
}

/// What [`classify`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Causes that experiments were made for.
    pub tried: usize,
    /// Causes that there was no time for.
    pub left: usize,
}

/// Makes experiments with one case of each cause until all are decided or the budget ends. An attempt that is under way then is finished.
///
/// `cases` gives failed cases, ready to be run, by their ids, and `tell` gets the outcome of each experiment.
///
/// # Errors
///
/// What `tell` says.
pub async fn classify<E>(
    report: &Report,
    cases: impl Fn(&str) -> Option<Arc<Case>>,
    subjects: &Subjects,
    budget: Budget,
    stop: &AtomicBool,
    mut tell: impl FnMut(ExperimentFinished) -> Result<(), E>,
) -> Result<Done, E> {
    let mut done = Done::default();
    let mut waiting: Vec<Representative> = representatives(report)
        .into_iter()
        .filter(|one| cases(&one.case).is_some())
        .collect();
    while !waiting.is_empty() {
        // The most frequent of those that there is time for; and when there is time for none, the most frequent gets what is left.
        let affordable = |one: &Representative| one.estimate() <= budget.left();
        let at = waiting.iter().position(affordable).unwrap_or(0);
        let one = waiting.remove(at);
        if stop.load(Ordering::Relaxed) || budget.left().is_zero() {
            done.left += 1;
            continue;
        }
        let Some(case) = cases(&one.case) else {
            continue;
        };
        done.tried += 1;
        investigate(
            &case, one.seed, one.known, subjects, budget, stop, &mut tell,
        )
        .await?;
    }
    Ok(done)
}

/// Makes experiments with one failing case until it is decided what kind of failure it has, or the budget ends. `seed` is that of an attempt
/// that failed, and `evidence` what is known: the case's own attempts, and experiments of an earlier process of the run.
///
/// # Errors
///
/// What `tell` says.
pub async fn investigate<E>(
    case: &Arc<Case>,
    seed: u64,
    mut evidence: Evidence,
    subjects: &Subjects,
    budget: Budget,
    stop: &AtomicBool,
    tell: &mut impl FnMut(ExperimentFinished) -> Result<(), E>,
) -> Result<Evidence, E> {
    let over = || stop.load(Ordering::Relaxed) || budget.left().is_zero();
    while !over()
        && let Some(batch) = next(&evidence, subjects.has_reference())
    {
        let finished = rerun::rerun(case, seed, batch, subjects, over).await;
        let known = evidence.experiments.entry(batch.experiment).or_default();
        add(known, &finished);
        tell(finished)?;
    }
    Ok(evidence)
}

fn add(known: &mut Tally, finished: &ExperimentFinished) {
    let (failed, infra) = (u64::from(finished.failed), u64::from(finished.infra));
    known.failed += failed;
    known.infra += infra;
    known.passed += u64::from(finished.attempts) - failed - infra;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_at_most_doubled_unless_it_is_very_short() {
        for (took, budget) in [(0, 10), (3, 10), (60, 60), (299, 299), (3_600, 300)] {
            let found = Budget::for_run(Duration::from_secs(took)).all();
            assert_eq!(found, Duration::from_secs(budget), "{took}");
        }
    }
}
