//! Reruns of one case under one condition, one after the other.

use std::{sync::Arc, time::Duration};

use reports::event::{AttemptFinished, Experiment, ExperimentFinished, Verdict};

use super::next::Batch;
use crate::{candidate::Candidate, nemesis::Stress, run, scenario::Case};

/// How many times as long deadlines are for a candidate that may be slow.
pub const STRETCH: u32 = 3;

/// What contention is: who wants a CPU without waiting for anything gets a fifth of it. With more hogs, machines become too slow to judge anybody.
pub const CONTENTION: Stress = Stress::Cpu { hogs: 4 };

/// A rerun that has not ended by then hangs, which is ours: the longest attempt, with everything around it.
const HUNG: Duration = Duration::from_secs(480);

/// Who takes part in experiments.
#[derive(Clone, Debug)]
pub struct Subjects {
    candidate: Candidate,
    reference: Option<Candidate>,
}

impl Subjects {
    /// A candidate, and the reference proxy, unless that is the candidate.
    pub fn new(candidate: Candidate, reference: Option<Candidate>) -> Self {
        Self {
            candidate,
            reference,
        }
    }

    /// Whether the reference can be asked.
    pub fn has_reference(&self) -> bool {
        self.reference.is_some()
    }

    /// Who is run, and what that means in words.
    fn of(&self, experiment: Experiment) -> Option<(Candidate, String)> {
        let (candidate, what) = match experiment {
            Experiment::Alone => (
                self.candidate.clone(),
                "alone, with the same seed".to_owned(),
            ),
            Experiment::Contention => (self.candidate.clone(), "with the same seed".to_owned()),
            Experiment::Reference => (
                self.reference.clone()?,
                "the reference proxy, alone, with the same seed".to_owned(),
            ),
            Experiment::ReferenceContention => (
                self.reference.clone()?,
                "the reference proxy, with the same seed".to_owned(),
            ),
            Experiment::Direct => (
                self.candidate.clone().absent(),
                "no proxy; the same sources ask the endpoints at their own addresses".to_owned(),
            ),
            Experiment::Patient => (
                self.candidate.clone().stretched(STRETCH),
                format!("alone, with the same seed and {STRETCH} times the deadlines"),
            ),
        };
        Some((candidate, what))
    }
}

/// Makes the reruns of a batch, or as many as there is time for. None are made under a condition that cannot be had.
pub(super) async fn rerun(
    case: &Arc<Case>,
    seed: u64,
    batch: Batch,
    subjects: &Subjects,
    over: impl Fn() -> bool,
) -> ExperimentFinished {
    let mut finished = ExperimentFinished {
        case: case.key.id.clone(),
        experiment: batch.experiment,
        attempts: 0,
        failed: 0,
        infra: 0,
        what: "not possible: the candidate is the reference proxy".to_owned(),
        message: None,
    };
    let Some((candidate, what)) = subjects.of(batch.experiment) else {
        return finished;
    };
    finished.what = what;
    let candidate = Arc::new(candidate);
    let busy = matches!(
        batch.experiment,
        Experiment::Contention | Experiment::ReferenceContention
    );
    let contention = match busy.then(|| CONTENTION.begin()).transpose() {
        Ok(contention) => contention,
        Err(error) => {
            finished.attempts = 1;
            finished.infra = 1;
            finished.message = Some(format!("no contention can be made: {error}"));
            return finished;
        }
    };
    for made in 0..batch.attempts {
        if made > 0 && over() {
            break;
        }
        let attempt = once(case.clone(), candidate.clone(), seed).await;
        finished.attempts += 1;
        match attempt.verdict {
            // A pass has to be earned, here as in a run.
            Verdict::Pass if attempt.checks > 0 => {}
            Verdict::Fail => {
                finished.failed += 1;
                if let Some(first) = attempt.failures.first() {
                    finished
                        .message
                        .get_or_insert_with(|| first.message.clone());
                }
                if batch.until_failure {
                    break;
                }
            }
            Verdict::Pass | Verdict::Infra | Verdict::Skip => finished.infra += 1,
        }
    }
    if let Some(contention) = contention {
        let without = match contention.end() {
            Ok(effect) => {
                let share = effect.effect.value * 100.0;
                let hogs = effect.dose.value;
                finished.what = format!(
                    "{}, beside {hogs} busy threads per CPU, which had {share:.0} % of all CPU time",
                    finished.what
                );
                (!effect.took).then(|| "the busy threads had no CPU time".to_owned())
            }
            Err(error) => Some(error.to_string()),
        };
        if without.is_some() {
            // What did nothing has shown nothing.
            finished.infra = finished.attempts;
            finished.failed = 0;
            finished.message = without;
        }
    }
    finished
}

/// Makes one attempt that leaves no evidence and no event.
pub async fn once(case: Arc<Case>, candidate: Arc<Candidate>, seed: u64) -> AttemptFinished {
    let id = case.key.id.clone();
    // A task of its own: a panic of ours is infra for this rerun and leaves the others alone.
    let task = tokio::spawn(run::run_once(case, candidate, seed, 1, None, None, None));
    let abort = task.abort_handle();
    let why = match tokio::time::timeout(HUNG, task).await {
        Ok(Ok(finished)) => return finished,
        Ok(Err(panic)) => format!("the harness failed: {panic}"),
        Err(_) => {
            abort.abort();
            format!("the rerun did not end within {HUNG:?}")
        }
    };
    AttemptFinished {
        infra: Some(why),
        ..run::unfinished(&id, 1)
    }
}
