//! A candidate meets cases, through the scheduler that `harness certify` uses.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use reports::event::{AttemptFinished, EventBody, Verdict};
use tokio::sync::mpsc;

use super::{Binary, Kill, Mutant};
use crate::{
    candidate::Candidate,
    plan::{self, Planned},
    run::{self, Job, source::List},
    scenario::Problem,
};

/// The cases that there are, each ready to be run.
#[derive(Clone)]
pub struct Plan {
    planned: Vec<Planned>,
    jobs: Vec<Job>,
    seed: u64,
}

impl Plan {
    /// Reads, checks and rehearses the cases, once for all mutants.
    ///
    /// # Errors
    ///
    /// Documents that cannot be used.
    pub fn new(planned: Vec<Planned>, seed: u64) -> Result<Self, Vec<Problem>> {
        let jobs = plan::jobs(&planned, 1, seed)?;
        Ok(Self {
            planned,
            jobs,
            seed,
        })
    }

    /// The cases.
    pub fn cases(&self) -> &[Planned] {
        &self.planned
    }

    /// The seed of everything.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The requirements that each scenario names.
    pub fn scenarios(&self) -> BTreeMap<String, Vec<String>> {
        self.planned
            .iter()
            .map(|case| {
                let header = &case.document.header;
                (header.id.clone(), header.requirement.clone())
            })
            .collect()
    }

    /// The cases that `keep` says; those that skip have nothing to say about a mutant.
    fn jobs(&self, keep: impl Fn(&Planned) -> bool) -> Vec<(usize, Job)> {
        self.planned
            .iter()
            .zip(&self.jobs)
            .enumerate()
            .filter(|(_, (case, _))| case.skip.is_none() && keep(case))
            .map(|(at, (_, job))| (at, job.clone()))
            .collect()
    }

    /// The cases for a mutant: of scenarios that name one of its requirements, or all of them. One case of each scenario comes before the second
    /// case of any, because most mutants fail all cases of the scenario that is about them; and scenarios that name the mutant's first requirement
    /// first come first.
    pub fn for_mutant(&self, mutant: &Mutant, exhaustive: bool) -> Vec<(usize, Job)> {
        let jobs =
            self.jobs(|case| exhaustive || mutant.concerns(&case.document.header.requirement));
        let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
        let mut ranked: Vec<_> = jobs
            .into_iter()
            .map(|(at, job)| {
                let header = &self.planned[at].document.header;
                let turn = seen.entry(&header.id).or_default();
                *turn += 1;
                let rank = |id: Option<&String>| {
                    id.and_then(|id| mutant.requirements.iter().position(|own| own == id))
                        .unwrap_or(usize::MAX)
                };
                let named = &header.requirement;
                let key = (*turn, rank(named.first()), !mutant.concerns(named));
                (key, (at, job))
            })
            .collect();
        ranked.sort_by_key(|(key, _)| *key);
        ranked.into_iter().map(|(_, job)| job).collect()
    }

    /// Why none of a scenario's cases runs here, if that is so.
    pub fn skip_of(&self, scenario: &str) -> Option<String> {
        let mut skips = self
            .planned
            .iter()
            .filter(|case| case.document.header.id == scenario)
            .map(|case| case.skip.as_ref().map(|skip| skip.reason.clone()));
        let first = skips.next()??;
        skips.all(|skip| skip.is_some()).then_some(first)
    }

    /// The cases of one scenario.
    pub fn of_scenario(&self, scenario: &str) -> Vec<(usize, Job)> {
        self.jobs(|case| case.document.header.id == scenario)
    }

    /// All cases, `runs` times.
    ///
    /// # Errors
    ///
    /// Documents that cannot be used.
    pub fn repeated(&self, runs: u32) -> Result<Vec<Job>, Vec<Problem>> {
        plan::jobs(&self.planned, runs, self.seed)
    }
}

/// How far a mutant's trial goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Until a scenario that names one of its requirements notices it.
    FirstKill,
    /// Each scenario until it notices it.
    Scenarios,
    /// Every case.
    Cases,
}

/// The reference, as impatiently as a mutant, in the cases that mutants failed: where it fails as well, the impatience or the machine is what
/// was noticed, and not the mutant.
#[derive(Debug, Default)]
pub struct Controls(tokio::sync::Mutex<BTreeMap<String, bool>>);

impl Controls {
    async fn passes(
        &self,
        plan: &Plan,
        binary: &Binary,
        job: Job,
        faults: bool,
        stop: &AtomicBool,
    ) -> bool {
        let id = job.id.clone();
        if let Some(known) = self.0.lock().await.get(&id) {
            return *known;
        }
        let reference = binary.control(faults);
        let trial = Trial::of_candidate(plan, reference, vec![job], 1, stop).await;
        let passes = trial.attempts > 0 && trial.kills.is_empty();
        self.0.lock().await.insert(id, passes);
        passes
    }
}

/// What a candidate met.
#[derive(Clone, Debug, Default)]
pub struct Trial {
    /// Failed attempts.
    pub kills: Vec<Kill>,
    /// Scenarios of which an attempt ended with a verdict.
    pub tried: Vec<String>,
    /// Attempts that passed or failed.
    pub attempts: u32,
    /// Why attempts said nothing.
    pub infra: Vec<String>,
}

impl Trial {
    /// A mutant meets cases, one after the other, until `stop`. A failed attempt is a kill only if the reference passes the same one.
    pub async fn of_mutant(
        plan: &Plan,
        binary: &Binary,
        mutant: &Mutant,
        jobs: Vec<(usize, Job)>,
        depth: Depth,
        controls: &Controls,
        stop: &AtomicBool,
    ) -> Self {
        let mut trial = Self::default();
        let impatient = Arc::new(binary.mutant(mutant, false));
        let patient = Arc::new(binary.mutant(mutant, true));
        for (at, job) in jobs {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let case = &plan.planned[at];
            let scenario = &case.document.header.id;
            if depth == Depth::Scenarios
                && trial.kills.iter().any(|kill| kill.scenario == *scenario)
            {
                continue;
            }
            // After a fault, how long a proxy takes depends on how long it was cut off and on its own patience.
            let steps = job.case.as_ref().map(|case| case.scenario.steps.as_slice());
            let faults =
                steps.is_ok_and(|steps| steps.iter().any(|step| step.value.fault.is_some()));
            let candidate = if faults { &patient } else { &impatient };
            let before = trial.kills.len();
            trial
                .run(vec![job.clone()], candidate.clone(), 1, stop, |finished| {
                    Kill::of(case, finished)
                })
                .await;
            if trial.kills.len() > before
                && !controls.passes(plan, binary, job, faults, stop).await
                && let Some(void) = trial.kills.pop()
            {
                trial.infra.push(format!(
                    "{}: the reference, as impatient, did not pass either",
                    void.case
                ));
            }
            let noticed = |kill: &Kill| mutant.concerns(&kill.requirements);
            if depth == Depth::FirstKill && trial.kills.last().is_some_and(noticed) {
                break;
            }
        }
        trial
    }

    /// A candidate meets cases, `side_by_side` at a time.
    pub async fn of_candidate(
        plan: &Plan,
        candidate: Candidate,
        jobs: Vec<Job>,
        side_by_side: usize,
        stop: &AtomicBool,
    ) -> Self {
        let mut trial = Self::default();
        let by_id: BTreeMap<&str, &Planned> = plan
            .planned
            .iter()
            .map(|case| (case.key.id.as_str(), case))
            .collect();
        let kill = |finished: &AttemptFinished| {
            let case = by_id.get(finished.case.as_str());
            case.and_then(|case| Kill::of(case, finished))
        };
        trial
            .run(jobs, Arc::new(candidate), side_by_side, stop, kill)
            .await;
        trial
    }

    async fn run(
        &mut self,
        jobs: Vec<Job>,
        candidate: Arc<Candidate>,
        side_by_side: usize,
        stop: &AtomicBool,
        kill: impl Fn(&AttemptFinished) -> Option<Kill>,
    ) {
        let (events, mut inbox) = mpsc::unbounded_channel();
        let stopped = Arc::new(AtomicBool::new(false));
        let attempts = run::run_plan(
            List::from(jobs),
            candidate,
            side_by_side,
            None,
            false,
            stopped.clone(),
            events,
        );
        let watch = async {
            while let Some(body) = inbox.recv().await {
                if stop.load(Ordering::Relaxed) {
                    stopped.store(true, Ordering::Relaxed);
                }
                if let EventBody::AttemptFinished(finished) = body {
                    self.count(&finished, &kill);
                }
            }
        };
        let (_, ()) = tokio::join!(attempts, watch);
    }

    fn count(
        &mut self,
        finished: &AttemptFinished,
        kill: &impl Fn(&AttemptFinished) -> Option<Kill>,
    ) {
        let scenario = finished.case.split('[').next().unwrap_or_default();
        match finished.verdict {
            Verdict::Pass | Verdict::Fail => {
                self.attempts += 1;
                if !self.tried.iter().any(|known| known == scenario) {
                    self.tried.push(scenario.to_owned());
                }
            }
            Verdict::Infra => {
                let reason = finished.infra.as_deref().unwrap_or("no reason given");
                self.infra.push(format!("{}: {reason}", finished.case));
            }
            Verdict::Skip => {}
        }
        if finished.verdict == Verdict::Fail {
            self.kills.extend(kill(finished));
        }
    }
}
