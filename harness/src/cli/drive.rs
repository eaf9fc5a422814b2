//! The attempts of a run, from its source to its log: what `certify`, `run` and `soak` share.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use reports::{
    directory::Writing,
    event::{Event, EventBody, FinishReason},
};
use tokio::sync::mpsc;

use super::{Failed, classify::Experiments, interrupt::interrupted, runtime};
use crate::{
    canary::Canaries,
    candidate::Candidate,
    run::{self, Evidence, Source},
};

/// How attempts are made.
pub(super) struct Drive {
    pub candidate: Arc<Candidate>,
    /// Worlds at a time.
    pub jobs: u32,
    pub evidence: Evidence,
    pub fail_fast: bool,
    /// Whether only somebody who stops it ends the run, so that being stopped is its proper end.
    pub endless: bool,
    /// Whether events that only say how an attempt that passed came to pass are left out of the log.
    pub brief: bool,
    /// The experiments that are made with what failed, if any are.
    pub look_into: Option<Experiments>,
    /// The known-bad proxies that have to be noticed, beside the first attempts.
    pub canaries: Option<Canaries>,
}

impl Drive {
    /// Makes the attempts that the source asks for and records them, until the last has ended; `each` is shown every event with the log
    /// that it is in.
    pub fn run(
        self,
        writing: &mut Writing,
        source: impl Source + 'static,
        mut each: impl FnMut(&Writing, &Event) -> Result<(), Failed>,
    ) -> Result<(), Failed> {
        let stop = Arc::new(AtomicBool::new(false));
        let began = Instant::now();
        let mut brief = self.brief.then(Brief::default);
        let mut record = |writing: &mut Writing, body: EventBody| -> Result<(), Failed> {
            let bodies = match &mut brief {
                Some(brief) => brief.pass_on(body),
                None => vec![body],
            };
            for body in bodies {
                let event = writing.record(body)?;
                each(writing, &event)?;
            }
            Ok(())
        };
        runtime()?.block_on(async {
            let (events, mut inbox) = mpsc::unbounded_channel();
            tokio::spawn(interrupted(stop.clone()));
            if let Some(canaries) = self.canaries {
                tokio::spawn(canaries.fly(stop.clone(), events.clone()));
            }
            let run = tokio::spawn(run::run_plan(
                source,
                self.candidate,
                self.jobs as usize,
                self.evidence,
                self.fail_fast,
                stop.clone(),
                events,
            ));
            let mut result = Ok(());
            while let Some(body) = inbox.recv().await {
                if result.is_ok() {
                    result = record(writing, body);
                    if result.is_err() {
                        stop.store(true, Ordering::Relaxed);
                    }
                }
            }
            let reason = run
                .await
                .map_or(FinishReason::Infra, |outcome| outcome.reason);
            result?;
            if let Some(experiments) = self.look_into
                && matches!(reason, FinishReason::Completed | FinishReason::FailFast)
            {
                experiments
                    .make(writing, began.elapsed(), &stop, &mut record)
                    .await?;
            }
            let (reason, message) = match reason {
                FinishReason::Interrupted if self.endless => (
                    FinishReason::Completed,
                    Some("somebody stopped it, as nothing else would have".to_owned()),
                ),
                reason => (reason, None),
            };
            record(writing, EventBody::RunFinished { reason, message })
        })
    }
}

/// Keeps the log of a run of thousands of attempts small: what leads to a verdict is held back until the verdict is there, and of a pass only
/// what reports show distributions of is passed on.
#[derive(Default)]
struct Brief {
    held: HashMap<(String, u32), Vec<EventBody>>,
    /// What candidates do where they may choose is told once: case, choice, value.
    told: HashSet<(String, String, String)>,
}

/// What is kept of an attempt that passed.
const KEPT: [&str; 7] = [
    "convergence",
    "blackout",
    "misdelivered",
    "connect latency p50",
    "connect latency p90",
    "connect latency p99",
    "connect latency max",
];

impl Brief {
    fn pass_on(&mut self, body: EventBody) -> Vec<EventBody> {
        let Some((case, attempt)) = body.attempt() else {
            return vec![body];
        };
        let key = (case.to_owned(), attempt);
        match &body {
            EventBody::StepFinished { .. }
            | EventBody::Measured { .. }
            | EventBody::Characteristic { .. } => {
                self.held.entry(key).or_default().push(body);
                Vec::new()
            }
            EventBody::AttemptFinished(finished) => {
                let mut bodies = self.held.remove(&key).unwrap_or_default();
                if finished.judged() == reports::event::Verdict::Pass {
                    bodies.retain(|body| match body {
                        EventBody::Measured { name, .. } => KEPT.contains(&name.as_str()),
                        EventBody::Characteristic { id, value, .. } => {
                            let choice = (key.0.clone(), id.clone(), value.clone());
                            self.told.insert(choice)
                        }
                        _ => false,
                    });
                }
                bodies.push(body);
                bodies
            }
            _ => vec![body],
        }
    }
}
