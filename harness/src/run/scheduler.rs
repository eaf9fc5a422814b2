//! Attempts side by side, each in its own world, and the event log they write.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{StreamExt as _, stream::FuturesUnordered};
use reports::event::{AttemptFinished, EventBody, FinishReason, Verdict};
use tokio::sync::{Semaphore, mpsc};

use super::{
    attempt::{Attempt, Stop},
    evidence,
    findings::{Findings, Sink},
    keep::Keep,
    pause,
    repro::Repro,
    source::{Job, Source},
    stress::Stress,
};
use crate::{candidate::Candidate, cluster::Settings, scenario::Case};

/// No attempt may take longer: the longest scenarios wait for timeouts of a few seconds, and a hung world must not hang the run.
const LONGEST: Duration = Duration::from_secs(300);
/// World, evidence and shutdown come on top; only a hang of ours takes longer, and it costs the evidence.
const HUNG: Duration = Duration::from_secs(480);

/// What a run needs to know besides its jobs.
#[derive(Clone)]
pub struct Outcome {
    /// How the run ended.
    pub reason: FinishReason,
}

/// Makes the attempts that a source asks for, of which `jobs` at a time run their steps; every event goes to `events`.
pub async fn run_plan(
    mut source: impl Source,
    candidate: Arc<Candidate>,
    jobs: usize,
    out: impl Into<Evidence>,
    fail_fast: bool,
    stop: Arc<AtomicBool>,
    events: mpsc::UnboundedSender<EventBody>,
) -> Outcome {
    let (jobs, evidence) = (jobs.max(1), out.into());
    // A world that is being built or taken down keeps nobody waiting, unless whether there is a next attempt depends on how this
    // one ends.
    let (most, slots) = if fail_fast {
        (jobs, None)
    } else {
        (2 * jobs, Some(Arc::new(Semaphore::new(jobs))))
    };
    let mut failed = false;
    let mut running = FuturesUnordered::new();
    loop {
        while running.len() < most && !stop.load(Ordering::Relaxed) && !(fail_fast && failed) {
            let Some(job) = source.next() else {
                break;
            };
            let (candidate, evidence) = (candidate.clone(), evidence.clone());
            running.push(one(job, candidate, evidence, events.clone(), slots.clone()));
        }
        let Some(finished) = running.next().await else {
            break;
        };
        failed |= matches!(finished.verdict, Verdict::Fail | Verdict::Infra);
        source.finished(&finished);
        let _ = events.send(EventBody::AttemptFinished(finished));
    }
    let reason = if stop.load(Ordering::Relaxed) {
        FinishReason::Interrupted
    } else if fail_fast && failed {
        FinishReason::FailFast
    } else {
        FinishReason::Completed
    };
    Outcome { reason }
}

/// Where evidence goes, and of which attempts.
#[derive(Clone)]
pub struct Evidence {
    out: Option<PathBuf>,
    keep: Arc<Keep>,
    /// Whether the disk was full once: what room there is belongs to the log then.
    full: Arc<AtomicBool>,
}

impl Evidence {
    /// Below a run's directory, of the attempts that `keep` wants.
    pub fn below(out: PathBuf, keep: Arc<Keep>) -> Self {
        Self {
            out: Some(out),
            keep,
            full: Arc::default(),
        }
    }
}

/// All evidence, below a run's directory; or none.
impl From<Option<PathBuf>> for Evidence {
    fn from(out: Option<PathBuf>) -> Self {
        Self {
            out,
            keep: Arc::new(Keep::all()),
            full: Arc::default(),
        }
    }
}

async fn one(
    job: Job,
    candidate: Arc<Candidate>,
    evidence: Evidence,
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
                ..unfinished(&job.id, job.attempt)
            };
        }
    };
    let _ = events.send(EventBody::AttemptStarted {
        case: job.id.clone(),
        attempt: job.attempt,
        seed: job.seed,
        stress: job.conditions.stress.as_ref().map(|stress| stress.name()),
        shape: job.conditions.shape.clone(),
    });
    let started = Instant::now();
    // A task of its own: a panic of ours is infra for this attempt and leaves the others alone.
    let task = tokio::spawn(run_attempt(
        case,
        candidate,
        job.seed,
        job.attempt,
        job.conditions.stress,
        evidence,
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
            ..unfinished(&job.id, job.attempt)
        },
        Err(_) => {
            abort.abort();
            AttemptFinished {
                verdict: Verdict::Infra,
                infra: Some(format!("the attempt did not end within {HUNG:?}")),
                ..unfinished(&job.id, job.attempt)
            }
        }
    };
    result.duration_ms = started.elapsed().as_secs_f64() * 1e3;
    result
}

/// An attempt of which nothing is known yet.
pub(crate) fn unfinished(case: &str, attempt: u32) -> AttemptFinished {
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
    let evidence = out.into();
    run_attempt(
        case,
        candidate,
        seed,
        attempt_number,
        None,
        evidence,
        sink,
        slots,
    )
    .await
}

#[expect(
    clippy::too_many_arguments,
    reason = "what an attempt needs has nothing in common but the attempt"
)]
async fn run_attempt(
    case: Arc<Case>,
    candidate: Arc<Candidate>,
    seed: u64,
    attempt_number: u32,
    stress: Option<Arc<dyn Stress>>,
    evidence: Evidence,
    sink: Option<Sink>,
    slots: Option<Arc<Semaphore>>,
) -> AttemptFinished {
    let started = Instant::now();
    let Evidence { out, keep, full } = evidence;
    let settings = Settings {
        capture: out.is_some(),
    };
    let findings = Findings::new(sink);
    let mut result = unfinished(&case.key.id, attempt_number);
    let (mut took, mut waited) = (None, Duration::ZERO);
    let built = candidate.provider.build(&case, &candidate, settings).await;
    let findings = match built {
        Err(error) => {
            let mut findings = findings;
            match error.into() {
                Stop::Infra(message) => findings.infra = Some(message),
                Stop::Candidate(failure) => findings.fail(*failure),
            }
            findings
        }
        Ok((case, cluster)) => {
            let before = cluster.waited();
            let (mut attempt, stop) = Attempt::start(&case, cluster, seed, findings).await;
            let waiting = Instant::now();
            let slot = match slots {
                Some(slots) => slots.acquire_owned().await.ok(),
                None => None,
            };
            waited = before + waiting.elapsed();
            match stop {
                Some(stop) => attempt.stopped(stop),
                None => steps(&mut attempt, stress.as_deref()).await,
            }
            if attempt.findings.is_over() {
                result.complaint = attempt.cluster.complaint().await;
                result.failures.clone_from(&attempt.findings.failures);
                result.infra.clone_from(&attempt.findings.infra);
                result.verdict = verdict(&attempt.findings);
            }
            let requirements = &case.scenario.requirement;
            let wanted = attempt.findings.is_over() && keep.wants(requirements, &result);
            if attempt.findings.is_over() && !wanted {
                Keep::shorten(requirements, &mut result);
                attempt.findings.failures = std::mem::take(&mut result.failures);
            }
            if let (true, Some(out)) = (wanted && !full.load(Ordering::Relaxed), &out) {
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
                    Err(error) if is_full(&error) => {
                        // A verdict without evidence is worth more than a half of the evidence and no verdict.
                        let _ = std::fs::remove_dir_all(&directory_of_it);
                        if !full.swap(true, Ordering::Relaxed) {
                            tracing::error!(
                                "the disk of {} is full: from here on no evidence is kept",
                                out.display()
                            );
                        }
                    }
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
            took = Some(started.elapsed());
            drop(slot);
            cluster.shutdown().await;
            findings
        }
    };
    result.verdict = verdict(&findings);
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

/// Whether there is no room to write.
fn is_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
}

fn verdict(findings: &Findings) -> Verdict {
    match (&findings.infra, findings.failures.is_empty()) {
        (Some(_), _) => Verdict::Infra,
        (None, true) => Verdict::Pass,
        (None, false) => Verdict::Fail,
    }
}

/// The steps of an attempt, under a stress if there is one.
async fn steps(attempt: &mut Attempt<'_>, stress: Option<&dyn Stress>) {
    if let Some(stress) = stress {
        attempt.findings.note(format!("stress: {}", stress.name()));
        let entered = match attempt.cluster.netns() {
            Some(world) => stress.enter(world).await,
            None => Err("it needs a world of namespaces".into()),
        };
        if let Err(reason) = entered {
            attempt.stopped(Stop::infra(format!("{}: {reason}", stress.name())));
            return;
        }
    }
    if tokio::time::timeout(LONGEST, attempt.run()).await.is_err() {
        attempt.stopped(Stop::infra(format!(
            "the steps did not end within {LONGEST:?}"
        )));
    }
    if let Some((stress, world)) = stress.zip(attempt.cluster.netns())
        && let Err(reason) = stress.leave(world).await
        && !attempt.findings.is_over()
    {
        attempt.stopped(Stop::infra(format!("{}: {reason}", stress.name())));
    }
}
