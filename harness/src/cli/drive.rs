//! The attempts of a run, from its source to its log: what `certify`, `run` and `soak` share.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use reports::{
    directory::Writing,
    event::{Event, EventBody, FinishReason, SetupFinished, Verdict},
};
use tokio::sync::mpsc;

use super::{Failed, classify::Experiments, interrupt::interrupted, runtime};
use crate::{
    canary::Canaries,
    candidate::Candidate,
    cluster::real::opening::{Forerunners, Real, Told},
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
    /// The cluster of all attempts, where it is not a world per attempt.
    pub real: Option<Arc<Real>>,
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
            let setup = events.clone();
            let told = Told::new(
                move |finished| drop(setup.send(EventBody::SetupFinished(finished))),
                |what| tracing::info!("waiting: {what}"),
            );
            let canaries = self.canaries;
            let canaries = canaries.map(|canaries| canaries.apart(&stop, &events));
            let (before, mut beside) = canaries.unwrap_or_default();
            let real = self.real;
            if let (Some(canaries), None) = (beside.take_if(|_| real.is_none()), &real) {
                tokio::spawn(canaries.fly(stop.clone(), events.clone()));
            }
            let opened = Arc::new(OnceLock::new());
            let plan = {
                let (real, opened, stop) = (real.clone(), opened.clone(), stop.clone());
                let candidate = self.candidate;
                let (jobs, evidence, fail_fast) = (self.jobs, self.evidence, self.fail_fast);
                async move {
                    if let Some(real) = real {
                        // Whatever comes of it, the attempts say so.
                        let none = ();
                        let forerunners: &dyn Forerunners = match &before {
                            Some(before) => before,
                            None => &none,
                        };
                        if let Some(why) = beside
                            .as_ref()
                            .and_then(|_| real.opening().takes_forerunners(&candidate).err())
                        {
                            told.notes(&format!("no known-bad proxy can take the candidate's place, since {why}: Services are asked for where there are none"));
                        }
                        let opening = real.open_after(forerunners, &candidate, &told);
                        let ready = tokio::select! {
                            opened = opening => opened.is_ok(),
                            () = asked_to(&stop) => false,
                        };
                        let _ = opened.set(Instant::now());
                        // On a cluster that is not there they would say what the attempts say.
                        if let Some(canaries) = beside.filter(|_| ready) {
                            tokio::spawn(canaries.fly(stop.clone(), events.clone()));
                        }
                    }
                    let jobs = jobs as usize;
                    run::run_plan(source, candidate, jobs, evidence, fail_fast, stop, events).await
                }
            };
            let run = tokio::spawn(plan);
            let mut result = Ok(());
            let (mut first, mut failed) = (real.is_some(), false);
            while let Some(body) = inbox.recv().await {
                if let EventBody::AttemptFinished(finished) = &body {
                    failed |= !matches!(finished.verdict, Verdict::Pass | Verdict::Skip);
                }
                let is_first = first
                    && matches!(&body, EventBody::AttemptFinished(one) if one.verdict != Verdict::Skip);
                if result.is_ok() {
                    result = record(writing, body);
                    if is_first && result.is_ok() {
                        first = false;
                        let since: Option<&Instant> = opened.get();
                        let setup = SetupFinished {
                            what: "finish the first case".into(),
                            duration_ms: since.map_or(0.0, |at| at.elapsed().as_secs_f64() * 1e3),
                            failed: None,
                        };
                        result = record(writing, EventBody::SetupFinished(setup));
                    }
                    if result.is_err() {
                        stop.store(true, Ordering::Relaxed);
                    }
                }
            }
            let reason = run
                .await
                .map_or(FinishReason::Infra, |outcome| outcome.reason);
            if let Some(experiments) = self.look_into
                && result.is_ok()
                && matches!(reason, FinishReason::Completed | FinishReason::FailFast)
            {
                result = experiments
                    .make(writing, began.elapsed(), &stop, &mut record)
                    .await;
            }
            if let Some(real) = real {
                // Also after a disk that is full: what was made is taken away.
                let (setups, mut closing) = mpsc::unbounded_channel();
                let told = Told::new(
                    move |finished| drop(setups.send(finished)),
                    |what| tracing::info!("waiting: {what}"),
                );
                real.close(failed && result.is_ok(), &told).await;
                drop(told);
                while let Some(setup) = closing.recv().await {
                    if let Some(why) = &setup.failed {
                        eprintln!("{}: {why}", setup.what);
                    }
                    if result.is_ok() {
                        result = record(writing, EventBody::SetupFinished(setup));
                    }
                }
            }
            result?;
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

/// Ends when somebody has asked for it.
async fn asked_to(stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        // A poll of a flag that a signal sets.
        tokio::time::sleep(Duration::from_millis(50)).await;
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
