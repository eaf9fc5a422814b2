//! Attempts side by side, each in its own world, and the event log they write.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures::StreamExt;
use reports::event::{AttemptFinished, EventBody, FinishReason, Skip, Verdict};
use tokio::sync::{Semaphore, mpsc};

use super::{
    attempt::{Attempt, Stop},
    evidence,
    findings::{Findings, Sink},
    pause,
    repro::Repro,
};
use crate::{candidate::Candidate, cluster::Settings, scenario::Case};

/// No attempt may take longer: the longest scenarios wait for timeouts of a few seconds, and a hung world must not hang the run.
const LONGEST: Duration = Duration::from_secs(300);
/// World, evidence and shutdown come on top; only a hang of ours takes longer, and it costs the evidence.
const HUNG: Duration = Duration::from_secs(480);

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
}

/// What a run needs to know besides its jobs.
#[derive(Clone)]
pub struct Outcome {
    /// How the run ended.
    pub reason: FinishReason,
}

/// Makes all attempts, of which `jobs` at a time run their steps; every event goes to `events`.
pub async fn run_plan(
    work: Vec<Job>,
    candidate: Arc<Candidate>,
    jobs: usize,
    out: Option<PathBuf>,
    fail_fast: bool,
    stop: Arc<AtomicBool>,
    events: mpsc::UnboundedSender<EventBody>,
) -> Outcome {
    let failed = Arc::new(AtomicBool::new(false));
    // A world that is being built or taken down keeps nobody waiting.
    let slots = Arc::new(Semaphore::new(jobs.max(1)));
    futures::stream::iter(work)
        .map(|job| {
            let (candidate, out, events) = (candidate.clone(), out.clone(), events.clone());
            let (failed, stop, slots) = (failed.clone(), stop.clone(), slots.clone());
            async move {
                // Whether there is a next attempt may depend on how this one ends: then they come strictly after one another.
                let (slots, _held) = if fail_fast {
                    (None, slots.acquire_owned().await.ok())
                } else {
                    (Some(slots), None)
                };
                if stop.load(Ordering::Relaxed) || (fail_fast && failed.load(Ordering::Relaxed)) {
                    return;
                }
                let finished = one(job, candidate, out, events.clone(), slots).await;
                if matches!(finished.verdict, Verdict::Fail | Verdict::Infra) {
                    failed.store(true, Ordering::Relaxed);
                }
                let _ = events.send(EventBody::AttemptFinished(finished));
            }
        })
        .buffer_unordered(2 * jobs.max(1))
        .collect::<Vec<()>>()
        .await;
    let reason = if stop.load(Ordering::Relaxed) {
        FinishReason::Interrupted
    } else if fail_fast && failed.load(Ordering::Relaxed) {
        FinishReason::FailFast
    } else {
        FinishReason::Completed
    };
    Outcome { reason }
}

async fn one(
    job: Job,
    candidate: Arc<Candidate>,
    out: Option<PathBuf>,
    events: mpsc::UnboundedSender<EventBody>,
    slots: Option<Arc<Semaphore>>,
) -> AttemptFinished {
    let sink = Sink {
        events: events.clone(),
        case: job.id.clone(),
        attempt: job.attempt,
    };
    let case = match job.case {
        Ok(case) => case,
        Err(skip) => {
            return AttemptFinished {
                verdict: Verdict::Skip,
                skip: Some(skip),
                ..finished(&job.id, job.attempt)
            };
        }
    };
    let _ = events.send(EventBody::AttemptStarted {
        case: job.id.clone(),
        attempt: job.attempt,
        seed: job.seed,
    });
    let started = Instant::now();
    // A task of its own: a panic of ours is infra for this attempt and leaves the others alone.
    let task = tokio::spawn(run_once(
        case,
        candidate,
        job.seed,
        job.attempt,
        out,
        Some(sink),
        slots,
    ));
    let abort = task.abort_handle();
    // Somebody who looks at a paused attempt may take as long as they want.
    let hung = if pause::requested() {
        Duration::MAX
    } else {
        HUNG
    };
    let mut result = match tokio::time::timeout(hung, task).await {
        Ok(Ok(result)) => return result,
        Ok(Err(panic)) => AttemptFinished {
            verdict: Verdict::Infra,
            infra: Some(format!("the harness failed: {panic}")),
            ..finished(&job.id, job.attempt)
        },
        Err(_) => {
            abort.abort();
            AttemptFinished {
                verdict: Verdict::Infra,
                infra: Some(format!("the attempt did not end within {HUNG:?}")),
                ..finished(&job.id, job.attempt)
            }
        }
    };
    result.duration_ms = started.elapsed().as_secs_f64() * 1e3;
    result
}

fn finished(case: &str, attempt: u32) -> AttemptFinished {
    AttemptFinished {
        case: case.into(),
        attempt,
        verdict: Verdict::Infra,
        duration_ms: 0.0,
        convergence_ms: None,
        failures: Vec::new(),
        warnings: Vec::new(),
        skip: None,
        infra: None,
        complaint: None,
        evidence: None,
        checks: 0,
        positive_checks: 0,
    }
}

/// Makes one attempt and writes its evidence if it does not pass. A slot is taken when the world is there and given back when the outcome is
/// known.
pub async fn run_once(
    case: Arc<Case>,
    candidate: Arc<Candidate>,
    seed: u64,
    attempt_number: u32,
    out: Option<PathBuf>,
    sink: Option<Sink>,
    slots: Option<Arc<Semaphore>>,
) -> AttemptFinished {
    let started = Instant::now();
    let settings = Settings {
        capture: out.is_some(),
    };
    let findings = Findings::new(sink);
    let mut result = finished(&case.key.id, attempt_number);
    let (mut took, mut waited) = (None, Duration::ZERO);
    let findings = match Attempt::start(&case, &candidate, seed, settings, findings).await {
        Err((mut findings, stop)) => {
            match stop {
                Stop::Infra(message) => findings.infra = Some(message),
                Stop::Candidate(failure) => findings.fail(*failure),
            }
            findings
        }
        Ok((mut attempt, stop)) => {
            let waiting = Instant::now();
            let slot = match slots {
                Some(slots) => slots.acquire_owned().await.ok(),
                None => None,
            };
            waited = waiting.elapsed();
            match stop {
                Some(stop) => attempt.stopped(stop),
                None => {
                    if tokio::time::timeout(LONGEST, attempt.run()).await.is_err() {
                        attempt.stopped(Stop::infra(format!(
                            "the steps did not end within {LONGEST:?}"
                        )));
                    }
                }
            }
            if let (true, Some(out)) = (attempt.findings.is_over(), &out) {
                let directory = evidence::directory(&case.key.id, attempt_number);
                let directory_of_it = out.join(&directory);
                let written = attempt
                    .write_evidence(&directory_of_it)
                    .await
                    .and_then(|()| {
                        let which = (case.key.id.as_str(), attempt_number, seed);
                        Repro::write(&directory_of_it, &candidate, which)
                    });
                match written {
                    Ok(()) => result.evidence = Some(directory.display().to_string()),
                    Err(error) => {
                        let case = &case.key.id;
                        tracing::error!(
                            case,
                            attempt_number,
                            "the evidence could not be written: {error}"
                        );
                        // What there was room for is better than nothing.
                        result.evidence = out
                            .join(&directory)
                            .exists()
                            .then(|| directory.display().to_string());
                    }
                }
            }
            let evidence = out.iter().zip(&result.evidence).next();
            let evidence = evidence.map(|(out, directory)| out.join(directory));
            attempt.pause(evidence.as_deref()).await;
            let Attempt {
                cluster, findings, ..
            } = attempt;
            if findings.is_over() {
                let complaints = cluster.instances().iter().map(|i| i.log.last_complaint());
                result.complaint = complaints.flatten().next();
            }
            took = Some(started.elapsed());
            drop(slot);
            cluster.shutdown().await;
            findings
        }
    };
    result.verdict = match (&findings.infra, findings.failures.is_empty()) {
        (Some(_), _) => Verdict::Infra,
        (None, true) => Verdict::Pass,
        (None, false) => Verdict::Fail,
    };
    let took = took.unwrap_or_else(|| started.elapsed()) - waited;
    result.duration_ms = took.as_secs_f64() * 1e3;
    result.convergence_ms = findings.convergence_ms;
    result.failures = findings.failures;
    result.warnings = findings.warnings;
    result.infra = findings.infra;
    result.checks = findings.checks;
    result.positive_checks = findings.positive_checks;
    result
}
