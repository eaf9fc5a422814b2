//! Canaries: proxies that are known to be bad, which have to be noticed before a run is believed.
//!
//! A harness that has gone blind is green, and nobody looks at what is green. So beside the first attempts of each certification two bad
//! proxies meet a case of the embedded catalogue, in the same worlds and through the same checks:
//! - `null` programs nothing at all,
//! - `canary` (`ci/candidates/canary.yaml`) is right in everything but that no NodePort answers.
//!
//! On a cluster that is made for the run they are tried one after the other before the candidate is installed. Where it is there already, nobody can
//! take its place. There two others show that the harness would notice: Services are asked for at addresses, or node ports, that no Service has
//! (`cluster::real::elsewhere`).
//!
//! The second one shows more: ClusterIPs work, so it takes a look at each frontend to notice it. It has to fail **by what is wrong with
//! it**; failures of anything else are a slow machine's, and it is tried again with more patience. What became of them is in the log, and a
//! run in which one was missed is no basis for conformance (`reports/src/model/canary.rs`).
//!
//! Not here: the mutants (`harness selftest`), which show the same for every requirement and need a program of their own.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use futures::future::BoxFuture;
use reports::event::{AttemptFinished, CanaryFinished, CanaryOutcome, EventBody, Verdict};
use tokio::sync::mpsc;

use crate::{
    candidate::{Candidate, CandidateError, Elsewhere, Form},
    cluster::real::opening::Forerunners,
    plan::{self, Cases, Catalogue, Filter, Missing, Profile, Requirements, filter::Property},
    run::{self, Job, source::List},
    scenario::{Problem, Span},
};

/// A proxy that is known to be bad.
struct Kind {
    /// Name of the candidate.
    name: &'static str,
    /// What is wrong with it.
    fault: &'static str,
    /// The scenario that it meets a case of.
    scenario: &'static str,
    /// The requirement that every failure has to blame; without one, every failure is its own.
    blames: Option<&'static str>,
    /// Where its Services are asked for, if it is the candidate itself that is made to look bad.
    elsewhere: Option<Elsewhere>,
}

const PROXIES: [Kind; 2] = [
    Kind {
        name: "null",
        fault: "it programs nothing",
        scenario: "clusterip-basic",
        blames: None,
        elsewhere: None,
    },
    Kind {
        name: "canary",
        fault: "no NodePort answers",
        scenario: "nodeport-basic",
        blames: Some("SVC-NP-1"),
        elsewhere: None,
    },
];

const ELSEWHERE: [Kind; 2] = [
    Kind {
        name: "elsewhere",
        fault: "no Service has the ClusterIP that is asked",
        scenario: "clusterip-basic",
        blames: None,
        elsewhere: Some(Elsewhere::ClusterIp),
    },
    Kind {
        name: "elsewhere-nodeport",
        fault: "no Service has the NodePort that is asked",
        scenario: "nodeport-basic",
        blames: Some("SVC-NP-1"),
        elsewhere: Some(Elsewhere::NodePort),
    },
];

/// Which canaries a run has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flock {
    /// Known-bad proxies, in worlds of their own.
    InWorlds,
    /// The same, one after the other on the cluster of the run, before the candidate is there.
    Before,
    /// The candidate, asked where it serves nothing, beside the first attempts.
    Beside,
}

impl Flock {
    fn kinds(self) -> &'static [Kind; 2] {
        match self {
            Self::InWorlds | Self::Before => &PROXIES,
            Self::Beside => &ELSEWHERE,
        }
    }

    /// Names of its canaries.
    pub fn names(self) -> Vec<String> {
        let kinds = self.kinds().iter();
        kinds.map(|kind| kind.name.to_owned()).collect()
    }
}

/// How long the proxy may take for what it does right, attempt by attempt: it never gets the rest done.
const PATIENCE: [Span; 3] = [
    Span::millis(1_000),
    Span::millis(8_000),
    Span::millis(30_000),
];

/// On a cluster: its controllers take their time, and each attempt takes long to prepare.
const PATIENCE_ON_CLUSTERS: [Span; 2] = [Span::millis(8_000), Span::millis(30_000)];

/// Why canaries cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum CanaryError {
    /// The scenario of a canary cannot be used.
    #[error(transparent)]
    Scenario(#[from] Problem),
    /// One of the built-in manifests cannot be used.
    #[error(transparent)]
    Candidate(#[from] CandidateError),
}

/// Canaries that are ready to meet their cases.
pub struct Canaries {
    run_id: String,
    flock: Flock,
    ready: Vec<(&'static Kind, Candidate, Option<Job>)>,
}

impl Canaries {
    /// Makes those ready that are not made yet, with cases of the embedded catalogue. Which case of its scenario a canary meets follows from the run's seed; `made` are the names of those that
    /// are in the log already. `beside` is the candidate of the run.
    ///
    /// # Errors
    ///
    /// [`CanaryError`] if what is built in is broken.
    #[expect(
        clippy::too_many_arguments,
        reason = "what a canary needs is what a run has"
    )]
    pub fn new(
        flock: Flock,
        beside: &Candidate,
        run_id: &str,
        seed: u64,
        catalogue: &Catalogue,
        requirements: &Requirements,
        missing: &Missing,
        made: &[CanaryFinished],
    ) -> Result<Self, CanaryError> {
        let mut ready = Vec::new();
        for kind in flock.kinds() {
            if made.iter().any(|canary| canary.canary == kind.name) {
                continue;
            }
            // Whatever the candidate declares not to have: what is not there need not be supported.
            let bad = kind.elsewhere.map_or(kind.name, |_| PROXIES[0].name);
            let mut candidate = Candidate::load_as(bad, beside.form)?;
            let mut planned = plan::select(
                catalogue,
                requirements,
                &candidate,
                missing,
                Profile::All,
                &Filter::Property(Property::Scenario, kind.scenario.to_owned()),
            );
            plan::skip_what_cannot(&mut planned, beside.provider.as_ref())?;
            if kind.elsewhere.is_some() {
                candidate = beside.clone();
                candidate.treatment.elsewhere = kind.elsewhere;
            }
            let able: Vec<_> = planned.iter().filter(|case| case.skip.is_none()).collect();
            let chosen = match able.len() {
                0 => None,
                cases => Some(able[(seed % cases as u64) as usize].clone()),
            };
            let cases = Cases::prepare(chosen.as_slice(), seed).map_err(|mut all| all.remove(0))?;
            let job = chosen.map(|_| cases.job(0, 1));
            ready.push((kind, candidate, job));
        }
        Ok(Self {
            run_id: run_id.to_owned(),
            flock,
            ready,
        })
    }

    /// Those that have their turns before the candidate, if these are such, and those that fly beside its first attempts.
    pub fn apart(
        self,
        stop: &Arc<AtomicBool>,
        events: &mpsc::UnboundedSender<EventBody>,
    ) -> (Option<Before>, Option<Self>) {
        match self.flock {
            Flock::Before => {
                let before = Before {
                    canaries: self,
                    stop: stop.clone(),
                    events: events.clone(),
                };
                (Some(before), None)
            }
            Flock::InWorlds | Flock::Beside => (None, Some(self)),
        }
    }

    /// Lets each canary meet its case and tells what became of it. After `stop` no more is begun.
    pub async fn fly(self, stop: Arc<AtomicBool>, events: mpsc::UnboundedSender<EventBody>) {
        let flights = self.ready.into_iter().map(|(kind, candidate, job)| {
            let (run_id, stop, events) = (&self.run_id, &stop, &events);
            async move {
                if let Some(finished) = fly(kind, candidate, job, run_id, stop).await {
                    let _ = events.send(EventBody::CanaryFinished(finished));
                }
            }
        });
        futures::future::join_all(flights).await;
    }
}

/// Canaries that have their turns on a cluster before the candidate is there.
pub struct Before {
    canaries: Canaries,
    stop: Arc<AtomicBool>,
    events: mpsc::UnboundedSender<EventBody>,
}

impl Forerunners for Before {
    fn candidates(&self) -> Vec<Candidate> {
        let ready = self.canaries.ready.iter();
        ready.map(|(_, candidate, _)| candidate.clone()).collect()
    }

    fn fly(&self, candidate: Candidate) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let name = candidate.manifest.name.as_str();
            let mut ready = self.canaries.ready.iter();
            let Some((kind, _, job)) = ready.find(|(kind, ..)| kind.name == name) else {
                return;
            };
            let run_id = &self.canaries.run_id;
            let flown = fly(kind, candidate.clone(), job.clone(), run_id, &self.stop).await;
            if let Some(finished) = flown {
                let _ = self.events.send(EventBody::CanaryFinished(finished));
            }
        })
    }

    fn grounded(&self, name: &str, why: &str) {
        let mut ready = self.canaries.ready.iter();
        if let Some((kind, _, job)) = ready.find(|(kind, ..)| kind.name == name) {
            let mut finished = unfinished(kind, job.as_ref(), &self.canaries.run_id);
            finished.message = why.to_owned();
            let _ = self.events.send(EventBody::CanaryFinished(finished));
        }
    }
}

/// A canary of which nothing is known yet.
fn unfinished(kind: &Kind, job: Option<&Job>, run_id: &str) -> CanaryFinished {
    CanaryFinished {
        run_id: run_id.to_owned(),
        canary: kind.name.to_owned(),
        fault: kind.fault.to_owned(),
        case: job.map_or(kind.scenario, |job| &job.id).to_owned(),
        seed: 0,
        attempts: 0,
        outcome: CanaryOutcome::Unclear,
        message: "this machine can run none of its cases".to_owned(),
        duration_ms: 0.0,
    }
}

async fn fly(
    kind: &Kind,
    candidate: Candidate,
    job: Option<Job>,
    run_id: &str,
    stop: &Arc<AtomicBool>,
) -> Option<CanaryFinished> {
    let began = Instant::now();
    let mut finished = unfinished(kind, job.as_ref(), run_id);
    let Some(job) = job else {
        return Some(finished);
    };
    let patiences: &[Span] = match candidate.form {
        Form::Process => &PATIENCE,
        Form::Cluster => &PATIENCE_ON_CLUSTERS,
    };
    for patience in patiences {
        if stop.load(Ordering::Relaxed) {
            return None;
        }
        let mut impatient = candidate.clone();
        impatient.patience = impatient.patience.or(Some(*patience));
        let attempt = attempt(impatient, job.clone(), stop.clone()).await?;
        finished.attempts += 1;
        finished.seed = job.seed;
        (finished.outcome, finished.message) = judge(kind, &attempt);
        if finished.outcome != CanaryOutcome::Unclear {
            break;
        }
    }
    finished.duration_ms = began.elapsed().as_secs_f64() * 1e3;
    Some(finished)
}

async fn attempt(candidate: Candidate, job: Job, stop: Arc<AtomicBool>) -> Option<AttemptFinished> {
    let (events, mut inbox) = mpsc::unbounded_channel();
    let jobs = List::from(vec![job]);
    run::run_plan(jobs, Arc::new(candidate), 1, None, false, stop, events).await;
    let mut last = None;
    while let Some(body) = inbox.recv().await {
        if let EventBody::AttemptFinished(finished) = body {
            last = Some(finished);
        }
    }
    last
}

/// What an attempt says about whether the canary is noticed.
fn judge(kind: &Kind, attempt: &AttemptFinished) -> (CanaryOutcome, String) {
    let unclear = |why: &str| (CanaryOutcome::Unclear, why.to_owned());
    match attempt.judged() {
        Verdict::Pass => (
            CanaryOutcome::Missed,
            format!("all {} checks held", attempt.checks),
        ),
        Verdict::Fail => {
            let other = attempt.failures.iter().find(|failure| {
                let blames = |id: &str| failure.requirements.iter().any(|own| own == id);
                kind.blames.is_some_and(|id| !blames(id))
            });
            match (other, attempt.failures.first()) {
                (Some(other), _) => unclear(&format!(
                    "it failed by something else than what is wrong with it: {}",
                    other.message
                )),
                (None, Some(first)) => (CanaryOutcome::Caught, first.message.clone()),
                (None, None) => unclear("it failed without a reason"),
            }
        }
        Verdict::Infra => unclear(
            attempt
                .infra
                .as_deref()
                .unwrap_or("the attempt asserted nothing"),
        ),
        Verdict::Skip => unclear("its case was skipped"),
    }
}

#[cfg(test)]
mod tests {
    use reports::event::Failure;

    use super::*;

    #[test]
    fn the_scenarios_are_about_what_is_wrong() {
        let requirements = Requirements::embedded().unwrap();
        let catalogue = Catalogue::embedded(&requirements).unwrap();
        for kind in PROXIES.iter().chain(&ELSEWHERE) {
            let mut documents = catalogue.documents.iter();
            let document = documents.find(|d| d.header.id == kind.scenario).unwrap();
            let named = &document.header.requirement;
            let names = |id: &str| named.iter().any(|own| own == id);
            assert!(kind.blames.is_none_or(names), "{}", kind.name);
            let built_in = Candidate::is_built_in(kind.name);
            assert_eq!(built_in, kind.elsewhere.is_none(), "{}", kind.name);
        }
    }

    #[test]
    fn every_seed_finds_a_case_of_the_scenario() {
        let requirements = Requirements::embedded().unwrap();
        let catalogue = Catalogue::embedded(&requirements).unwrap();
        let (mut met, missing) = (std::collections::BTreeSet::new(), Missing::new());
        for seed in 0..8 {
            for flock in [Flock::InWorlds, Flock::Before, Flock::Beside] {
                let form = match flock {
                    Flock::InWorlds => Form::Process,
                    Flock::Before | Flock::Beside => Form::Cluster,
                };
                let candidate = Candidate::load_as("reference", form).unwrap();
                let canaries = Canaries::new(
                    flock,
                    &candidate,
                    "run-1",
                    seed,
                    &catalogue,
                    &requirements,
                    &missing,
                    &[],
                );
                let canaries = canaries.unwrap();
                assert_eq!(canaries.ready.len(), 2);
                for (kind, bad, job) in canaries.ready {
                    let job = job.unwrap();
                    assert!(job.id.starts_with(&format!("{}[", kind.scenario)));
                    assert_eq!(bad.treatment.elsewhere.is_some(), flock == Flock::Beside);
                    met.insert(job.id);
                }
            }
        }
        // Two families, two protocols, two scenarios.
        assert_eq!(met.len(), 8, "{met:?}");
    }

    #[test]
    fn what_an_attempt_says() {
        let blaming = |ids: &[&str]| Failure {
            requirements: ids.iter().map(|id| (*id).to_owned()).collect(),
            step: None,
            verb: "converge".into(),
            kind: "refused".into(),
            cell: None,
            expected: "an answer".into(),
            actual: "none".into(),
            message: "no answer".into(),
        };
        let attempt = |verdict, failures: &[Failure]| AttemptFinished {
            verdict,
            checks: 3,
            failures: failures.to_vec(),
            infra: (verdict == Verdict::Infra).then(|| "no world".to_owned()),
            ..crate::run::unfinished("nodeport-basic[ipv4,TCP]", 1)
        };
        let (own, other) = (blaming(&["EP-1", "SVC-NP-1"]), blaming(&["EP-1"]));
        let [null, canary] = &PROXIES;
        use CanaryOutcome::{Caught, Missed, Unclear};
        for (kind, attempt, outcome) in [
            (
                canary,
                attempt(Verdict::Fail, std::slice::from_ref(&own)),
                Caught,
            ),
            (
                canary,
                attempt(Verdict::Fail, &[own, other.clone()]),
                Unclear,
            ),
            (null, attempt(Verdict::Fail, &[other]), Caught),
            (null, attempt(Verdict::Fail, &[]), Unclear),
            (null, attempt(Verdict::Pass, &[]), Missed),
            (canary, attempt(Verdict::Infra, &[]), Unclear),
        ] {
            let (says, why) = judge(kind, &attempt);
            assert_eq!(says, outcome, "{}: {why}", kind.name);
        }
        // An attempt that asserted nothing is no pass, and so no miss either.
        let idle = AttemptFinished {
            checks: 0,
            ..attempt(Verdict::Pass, &[])
        };
        assert_eq!(judge(null, &idle).0, Unclear);
    }
}
