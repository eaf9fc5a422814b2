//! Where the attempts of a run come from.
//!
//! The scheduler asks for the next attempt when it has room for one, and tells how each ended. So a source can be a list, or decide
//! by what is known already which case to try next and when there is nothing more to learn.

mod confident;
mod done;
mod rounds;

use std::{collections::VecDeque, sync::Arc};

use reports::event::{AttemptFinished, Skip};

pub use confident::UntilConfident;
pub use done::Done;
pub use rounds::Rounds;

use super::stress::Stress;
use crate::scenario::Case;

/// One attempt that is to be made.
#[derive(Clone)]
pub struct Job {
    /// The case; `Err` when it is skipped, with the reason.
    pub case: Result<Arc<Case>, Skip>,
    /// Its id.
    pub id: String,
    /// Attempt number, from 1.
    pub attempt: u32,
    /// Seed of the attempt.
    pub seed: u64,
    /// What is different from an attempt that nobody disturbs.
    pub conditions: Conditions,
}

/// Under what an attempt is made.
#[derive(Clone, Default)]
pub struct Conditions {
    /// What makes life harder for it.
    pub stress: Option<Arc<dyn Stress>>,
    /// In what its world differs from the document's.
    pub shape: Option<String>,
}

/// Decides which attempts are made, in which order and when there are no more.
pub trait Source: Send {
    /// The next attempt. After `None` it is asked again when an attempt has finished; the run ends when none is under way any more.
    fn next(&mut self) -> Option<Job>;

    /// An attempt that this source gave out has ended. They end in any order.
    fn finished(&mut self, _attempt: &AttemptFinished) {}
}

impl Source for Box<dyn Source> {
    fn next(&mut self) -> Option<Job> {
        (**self).next()
    }

    fn finished(&mut self, attempt: &AttemptFinished) {
        (**self).finished(attempt);
    }
}

/// Attempts that are all known beforehand, in their order.
#[derive(Clone, Default)]
pub struct List(VecDeque<Job>);

impl From<Vec<Job>> for List {
    fn from(jobs: Vec<Job>) -> Self {
        Self(jobs.into())
    }
}

impl Source for List {
    fn next(&mut self) -> Option<Job> {
        self.0.pop_front()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::{Arc, OnceLock};

    use reports::event::{AttemptFinished, Event, EventBody, Skip, SkipKind, Verdict};

    use crate::{
        plan::Cases,
        scenario::{Case, read_documents},
    };

    const DOCUMENT: &str = "id: one-endpoint
title: A client reaches the only endpoint
requirement: [SVC-CIP-1]
topology:
  nodes: [{name: node1}]
  pods:
    - {name: web, node: node1, labels: {app: web}}
    - {name: client, node: node1}
objects:
  - apiVersion: v1
    kind: Service
    metadata: {name: web}
    spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
steps:
  - converge: {}
";

    /// So many cases that run, and so many that are skipped.
    pub fn cases(run: usize, skip: usize) -> Cases {
        static CASE: OnceLock<Arc<Case>> = OnceLock::new();
        let case = CASE.get_or_init(|| {
            let document = read_documents("test.yaml", DOCUMENT).unwrap().remove(0);
            Arc::new(document.resolve(&document.cases[0]).unwrap())
        });
        let reason = || Skip {
            kind: SkipKind::KernelMissing,
            reason: "of the test".into(),
        };
        let run = (0..run).map(|number| (format!("run-{number}"), Ok(case.clone())));
        let skip = (0..skip).map(|number| (format!("skip-{number}"), Err(reason())));
        Cases::named(run.chain(skip), 7)
    }

    /// The end of an attempt.
    pub fn finished(case: &str, attempt: u32, verdict: Verdict) -> AttemptFinished {
        AttemptFinished {
            case: case.into(),
            attempt,
            verdict,
            duration_ms: 1.0,
            convergence_ms: None,
            failures: Vec::new(),
            warnings: Vec::new(),
            skip: None,
            infra: None,
            complaint: None,
            evidence: None,
            checks: 1,
            positive_checks: 1,
        }
    }

    /// The same as an event.
    pub fn ended_with(case: &str, attempt: u32, verdict: Verdict) -> Event {
        Event {
            seq: 0,
            time: String::new(),
            body: EventBody::AttemptFinished(finished(case, attempt, verdict)),
        }
    }

    /// An attempt that passed.
    pub fn ended(case: &str, attempt: u32) -> Event {
        ended_with(case, attempt, Verdict::Pass)
    }
}
