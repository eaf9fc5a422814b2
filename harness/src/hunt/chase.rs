//! The hunt itself: documents side by side, and what becomes of one that fails.
//!
//! ```text
//!   generate ─> attempt ─> fails ─> known signature? ─ yes ─> counted
//!                 │                   │ no
//!               passes              again, with the same seed and all patience ── never fails ─> unconfirmed
//!                                     │ fails
//!                                   the reference, with the same seed ── fails ─> oracle-suspect
//!                                     │ passes
//!                                   counterexample ─> shrink ─> once more, patiently, with evidence
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use reports::{
    event::{AttemptFinished, EventBody, Failure, Verdict},
    model::Signature,
};
use tokio::sync::mpsc;

use super::{
    Coverage, Generated, Generator, Settings, claims, document,
    found::{self, Counterexample, Standing},
    prey::Prey,
    shrink::{self, Rates, Seen, Subject, Tally},
};
use crate::{
    candidate::Candidate,
    plan::attempt_seed,
    run::{
        self, Job,
        source::{Conditions, List},
        weigh,
    },
    scenario::{Case, Level, Scenario, read_documents, rehearse},
};

/// Attempts to see a failure again before it counts as unconfirmed.
const CONFIRM: u32 = 5;
/// Attempts to measure the rate of a failure that does not always show.
const MEASURE: u32 = 20;
/// What shows so often is measured well enough to shrink it.
const ENOUGH: u32 = 5;
/// An attempt that says nothing is made again so often.
const AGAIN: u32 = 3;

/// What a hunt is asked to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// Seed of all documents and attempts.
    pub seed: u64,
    /// What documents may contain.
    pub settings: Settings,
    /// Attempts side by side.
    pub jobs: usize,
    /// How long new documents are tried.
    pub duration: Duration,
    /// No more documents than these.
    pub documents: Option<u64>,
    /// It ends with so many counterexamples.
    pub most: Option<usize>,
    /// How long one counterexample may be shrunk; `None` to leave it as it is.
    pub shrink: Option<Duration>,
    /// Where counterexamples are written.
    pub out: PathBuf,
}

/// What was found.
#[derive(Clone, Debug)]
pub struct Catch {
    /// Counterexamples, suspects and what was not seen again, in the order of their discovery.
    pub found: Vec<Counterexample>,
    /// Documents that were tried with an outcome.
    pub documents: u64,
    /// Attempts of all kinds.
    pub attempts: u64,
    /// Why attempts said nothing.
    pub infra: Vec<String>,
    /// Documents that failed only by rules that nobody asked for.
    pub minor: u64,
    /// Documents that could not be used, which is a mistake of the generator.
    pub unusable: Vec<String>,
    /// Pairs that were met by documents with an outcome.
    pub coverage: Coverage,
    /// Seconds from the start to the end.
    pub seconds: f64,
    /// Somebody stopped it.
    pub interrupted: bool,
}

struct State {
    generator: Generator,
    coverage: Coverage,
    known: BTreeMap<Signature, usize>,
    found: Vec<Counterexample>,
    taken: u64,
    documents: u64,
    attempts: u64,
    infra: Vec<String>,
    minor: u64,
    unusable: Vec<String>,
}

/// A hunt in progress.
pub struct Hunt {
    prey: Prey,
    options: Options,
    started: Instant,
    stop: Arc<AtomicBool>,
    say: Box<dyn Fn(&str) + Send + Sync>,
    state: Mutex<State>,
}

/// What an attempt says.
enum Look {
    Passes,
    /// It fails by rules that were asked for: signatures and failures of the first step that failed.
    Fails(Vec<(Signature, Failure)>),
    /// It fails by other rules alone.
    Minor,
    Nothing(String),
}

impl Look {
    fn of(finished: &AttemptFinished, requirements: &[String], level: Level) -> Self {
        match finished.verdict {
            Verdict::Pass => Self::Passes,
            Verdict::Fail => {
                let counts = |failure: &&Failure| {
                    failure.requirements.is_empty() || weigh(&failure.requirements, level).fails
                };
                let failures: Vec<Failure> =
                    finished.failures.iter().filter(counts).cloned().collect();
                // Logs differ with the faults of a history, and one bug must not be two.
                let mut all: Vec<(Signature, Failure)> =
                    Signature::all(requirements, &failures, None)
                        .map(|(signature, failure)| (signature, failure.clone()))
                        .collect();
                all.sort_by(|a, b| a.0.cmp(&b.0));
                if all.is_empty() {
                    Self::Minor
                } else {
                    Self::Fails(all)
                }
            }
            Verdict::Infra | Verdict::Skip => {
                let reason = finished.infra.clone();
                Self::Nothing(reason.unwrap_or_else(|| "no reason given".into()))
            }
        }
    }
}

/// How one failure shows: which cell of the matrix is wrong may be a matter of chance (the endpoint that a client was given before the mistake), so each in
/// which it was seen at first will do.
type Ways = BTreeSet<Signature>;

/// What the control says about a failure.
enum Controlled {
    Passes,
    Fails,
    Unclear(String),
}

/// A document that can be run, with the seed of all its attempts.
#[derive(Clone)]
struct Ready {
    scenario: Scenario,
    case: Arc<Case>,
    seed: u64,
}

fn ready(scenario: &Scenario, seed: u64) -> Result<Ready, String> {
    let text = document::text(scenario);
    let documents = read_documents(&scenario.id, &text).map_err(|error| error.to_string())?;
    let document = documents.first().ok_or("no document")?;
    let key = document.cases.first().ok_or("no case")?;
    let case = document.resolve(key).map_err(|error| error.to_string())?;
    rehearse(&case).map_err(|error| error.to_string())?;
    Ok(Ready {
        scenario: scenario.clone(),
        case: Arc::new(case),
        seed,
    })
}

impl Hunt {
    /// Hunts until the time is over, enough was found, or `stop`.
    pub async fn run(
        prey: Prey,
        options: Options,
        stop: Arc<AtomicBool>,
        say: Box<dyn Fn(&str) + Send + Sync>,
    ) -> Catch {
        let generator = Generator::new(options.seed, options.settings.clone());
        let hunt = Arc::new(Self {
            state: Mutex::new(State {
                coverage: Coverage::new(&options.settings),
                generator,
                known: BTreeMap::new(),
                found: Vec::new(),
                taken: 0,
                documents: 0,
                attempts: 0,
                infra: Vec::new(),
                minor: 0,
                unusable: Vec::new(),
            }),
            prey,
            options,
            started: Instant::now(),
            stop,
            say,
        });
        let workers: Vec<_> = (0..hunt.options.jobs.max(1))
            .map(|_| tokio::spawn(hunt.clone().work()))
            .collect();
        for worker in workers {
            if let Err(error) = worker.await {
                hunt.state()
                    .infra
                    .push(format!("the harness failed: {error}"));
            }
        }
        let state = hunt.state();
        let mut unusable = state.unusable.clone();
        unusable.extend(state.generator.discarded().iter().cloned());
        Catch {
            found: state.found.clone(),
            documents: state.documents,
            attempts: state.attempts,
            infra: state.infra.clone(),
            minor: state.minor,
            unusable,
            coverage: state.coverage.clone(),
            seconds: hunt.started.elapsed().as_secs_f64(),
            interrupted: hunt.stop.load(Ordering::Relaxed),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self, state: &State) -> bool {
        let counterexamples = state
            .found
            .iter()
            .filter(|one| one.standing == Standing::Counterexample);
        self.stop.load(Ordering::Relaxed)
            || self.started.elapsed() >= self.options.duration
            || self
                .options
                .documents
                .is_some_and(|most| state.taken >= most)
            || self
                .options
                .most
                .is_some_and(|most| counterexamples.count() >= most)
    }

    async fn work(self: Arc<Self>) {
        loop {
            let generated = {
                let mut state = self.state();
                if self.is_over(&state) {
                    return;
                }
                state.taken += 1;
                state.generator.generate()
            };
            self.try_document(generated).await;
        }
    }

    async fn try_document(self: &Arc<Self>, generated: Generated) {
        let seed = attempt_seed(self.options.seed, &generated.scenario.id, 1);
        let ready = match ready(&generated.scenario, seed) {
            Ok(ready) => ready,
            Err(error) => {
                self.state().unusable.push(error);
                return;
            }
        };
        let look = self
            .attempt(&ready, self.prey.quick(&ready.scenario), None, None)
            .await;
        let failures = {
            let mut state = self.state();
            match look {
                Look::Nothing(reason) => {
                    state.infra.push(format!("{}: {reason}", ready.scenario.id));
                    return;
                }
                Look::Passes => Vec::new(),
                Look::Minor => {
                    state.minor += 1;
                    Vec::new()
                }
                Look::Fails(failures) => failures,
            }
        };
        let (number, signature, ways) = {
            let mut state = self.state();
            state.documents += 1;
            for event in &generated.events {
                state.coverage.add(event);
            }
            let Some((signature, failure)) = failures.first().cloned() else {
                return;
            };
            let known = failures
                .iter()
                .find_map(|(one, _)| state.known.get(one).copied());
            if let Some(at) = known {
                state.found[at].seen += 1;
                return;
            }
            let at = state.found.len();
            for (one, _) in &failures {
                state.known.insert(one.clone(), at);
            }
            let signatures = failures.into_iter().map(|(one, _)| one);
            let ways: Ways = signatures
                .filter(|one| one.kind == signature.kind)
                .collect();
            state.found.push(Counterexample::new(
                at + 1,
                &ready.scenario,
                ready.seed,
                signature.clone(),
                failure,
            ));
            (at, signature, ways)
        };
        (self.say)(&format!(
            "{} fails: {signature}; trying again",
            ready.scenario.id
        ));
        self.confirm(number, ready, ways).await;
    }

    /// One attempt, through the scheduler of all runs. The longest convergence of what was right is kept in `slowest`.
    async fn attempt(
        &self,
        ready: &Ready,
        candidate: Arc<Candidate>,
        out: Option<PathBuf>,
        slowest: Option<&Mutex<Duration>>,
    ) -> Look {
        let requirements = &ready.scenario.requirement;
        let level = self.options.settings.level;
        let job = Job {
            case: Ok(ready.case.clone()),
            id: ready.case.key.id.clone(),
            attempt: 1,
            seed: ready.seed,
            conditions: Conditions::default(),
        };
        let (events, mut inbox) = mpsc::unbounded_channel();
        let go_on = Arc::new(AtomicBool::new(false));
        let source = List::from(vec![job]);
        run::run_plan(source, candidate, 1, out, false, go_on, events).await;
        self.state().attempts += 1;
        while let Some(body) = inbox.recv().await {
            if let EventBody::AttemptFinished(finished) = body {
                if let (Some(slowest), Some(took)) = (slowest, finished.convergence_ms) {
                    let mut slowest = slowest.lock().unwrap_or_else(PoisonError::into_inner);
                    *slowest = (*slowest).max(Duration::from_secs_f64(took / 1e3));
                }
                return Look::of(&finished, requirements, level);
            }
        }
        Look::Nothing("the attempt has no end".into())
    }

    /// Like an attempt, and again while it says nothing.
    async fn certain_attempt(&self, ready: &Ready, candidate: &Arc<Candidate>) -> Look {
        self.slow_attempt(ready, candidate, None).await
    }

    async fn slow_attempt(
        &self,
        ready: &Ready,
        candidate: &Arc<Candidate>,
        slowest: Option<&Mutex<Duration>>,
    ) -> Look {
        let mut look = self.attempt(ready, candidate.clone(), None, slowest).await;
        for _ in 1..AGAIN {
            if !matches!(look, Look::Nothing(_)) {
                break;
            }
            look = self.attempt(ready, candidate.clone(), None, slowest).await;
        }
        look
    }

    /// The failure as this attempt shows it, if it does.
    fn shown<'a>(look: &'a Look, ways: &Ways) -> Option<&'a (Signature, Failure)> {
        let Look::Fails(all) = look else { return None };
        all.iter().find(|(one, _)| ways.contains(one))
    }

    fn shows(look: &Look, ways: &Ways) -> bool {
        Self::shown(look, ways).is_some()
    }

    /// The step that fails.
    fn step_of(look: &Look, ways: &Ways) -> Option<usize> {
        let (_, failure) = Self::shown(look, ways)?;
        failure.step.map(|step| step as usize)
    }

    async fn confirm(self: &Arc<Self>, number: usize, ready: Ready, ways: Ways) {
        let patient = self.prey.patient(&ready.scenario);
        let mut confirmed = None;
        let mut tries = 0;
        for _ in 0..CONFIRM {
            tries += 1;
            let look = self.certain_attempt(&ready, &patient).await;
            if Self::shows(&look, &ways) {
                confirmed = Some(look);
                break;
            }
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
        }
        let Some(confirmed) = confirmed else {
            self.settle(number, Standing::Unconfirmed, true);
            return;
        };
        let control = self.prey.control(&ready.scenario);
        if let Some(control) = &control {
            // As often as it took to see the failure.
            match self.control(&ready, control, &ways, tries).await {
                Controlled::Passes => {}
                Controlled::Fails => {
                    self.settle(number, Standing::OracleSuspect, false);
                    return;
                }
                Controlled::Unclear(reason) => {
                    self.state().infra.push(format!("the control: {reason}"));
                    self.settle(number, Standing::Unconfirmed, true);
                    return;
                }
            }
        }
        let (signature, more) = {
            let mut state = self.state();
            let before = state.found.iter();
            let before = before.filter(|one| one.standing == Standing::Counterexample);
            // What is more than what was asked for is written as it is.
            let more = self.options.most.is_some_and(|most| before.count() >= most);
            let one = &mut state.found[number];
            one.standing = Standing::Counterexample;
            one.controlled = control.is_some();
            one.seconds = self.started.elapsed().as_secs_f64();
            (one.signature.clone(), more)
        };
        (self.say)(&format!(
            "counterexample {} after {:.0} s: {signature}",
            number + 1,
            self.started.elapsed().as_secs_f64()
        ));
        let step = Self::step_of(&confirmed, &ways);
        self.reduce(number, ready, ways, step, more).await;
    }

    /// The control has to pass so many attempts. A machine that does other things makes it fail now and then in other ways, so what counts against the
    /// failure is that it shows with the control too, or that the control never passes.
    async fn control(
        &self,
        ready: &Ready,
        control: &Arc<Candidate>,
        ways: &Ways,
        passes: u32,
    ) -> Controlled {
        let mut passed = 0;
        let mut reason = "it never passed".to_owned();
        for _ in 0..passes + AGAIN - 1 {
            match self.certain_attempt(ready, control).await {
                Look::Passes | Look::Minor => passed += 1,
                look if Self::shows(&look, ways) => return Controlled::Fails,
                Look::Fails(all) => {
                    if let Some((other, _)) = all.first() {
                        reason = format!("{}: {other}", ready.scenario.id);
                    }
                }
                Look::Nothing(why) => reason = why,
            }
            if passed == passes {
                return Controlled::Passes;
            }
        }
        match passed {
            0 => Controlled::Fails,
            _ => Controlled::Unclear(reason),
        }
    }

    /// How often the failure shows, well enough to shrink it.
    async fn measure(
        &self,
        ready: &Ready,
        ways: &Ways,
        slowest: &Mutex<Duration>,
    ) -> (Tally, Option<usize>) {
        let quick = self.prey.quick(&ready.scenario);
        let mut tally = Tally::default();
        let mut step = None;
        while tally.attempts < MEASURE && !self.stop.load(Ordering::Relaxed) {
            let look = self.slow_attempt(ready, &quick, Some(slowest)).await;
            if matches!(look, Look::Nothing(_)) {
                break;
            }
            let shown = Self::shows(&look, ways);
            if shown {
                step = Self::step_of(&look, ways);
            }
            tally.add(shown);
            let always = tally.shown == tally.attempts;
            if tally.shown >= ENOUGH || (always && tally.attempts == 2) {
                break;
            }
        }
        (tally, step)
    }

    async fn reduce(
        self: &Arc<Self>,
        number: usize,
        ready: Ready,
        ways: Ways,
        step: Option<usize>,
        more: bool,
    ) {
        let original = ready.clone();
        let mut best = ready;
        let mut tally = Tally {
            attempts: 1,
            shown: 1,
        };
        if let Some(budget) = self.options.shrink.filter(|_| !more) {
            let slowest = Mutex::new(Duration::ZERO);
            let (measured, quick_step) = self.measure(&best, &ways, &slowest).await;
            let slowest = slowest.into_inner().unwrap_or_else(PoisonError::into_inner);
            tally = measured;
            let until = Instant::now() + budget;
            if measured.shown > 0 {
                let subject = Real {
                    hunt: self.clone(),
                    handle: tokio::runtime::Handle::current(),
                    ways: ways.clone(),
                    seed: best.seed,
                    until,
                    slowest: (slowest > Duration::ZERO).then_some(slowest),
                    last: None,
                };
                let scenario = best.scenario.clone();
                let shrunk = tokio::task::spawn_blocking(move || {
                    let mut subject = subject;
                    let rates = Rates::measured(measured);
                    shrink::shrink(&mut subject, &scenario, rates, quick_step.or(step))
                })
                .await;
                if let Ok(shrunk) = shrunk
                    && let Ok(smaller) = self::ready(&shrunk.scenario, best.seed)
                {
                    if shrunk.tally.attempts > 0 {
                        tally = shrunk.tally;
                    }
                    best = smaller;
                    self.state().found[number].shrinking(&shrunk);
                }
            }
        }
        // What counts is that it fails with all the patience of the document, and that the control passes it.
        if best.scenario.steps.len() < original.scenario.steps.len()
            && !self.stands(&best, &ways, tally).await
        {
            tracing::debug!(
                "the smaller document does not stand:\n{}",
                document::text(&best.scenario)
            );
            best = original.clone();
            self.state().found[number].not_shrunk();
        }
        self.write(number, &original, &best, &ways, tally).await;
    }

    async fn stands(&self, ready: &Ready, ways: &Ways, tally: Tally) -> bool {
        if let Some(control) = self.prey.control(&ready.scenario)
            && !matches!(
                self.control(ready, &control, ways, 1).await,
                Controlled::Passes
            )
        {
            tracing::debug!("the control does not pass the smaller document");
            return false;
        }
        let patient = self.prey.patient(&ready.scenario);
        for _ in 0..tries(tally) {
            if Self::shows(&self.certain_attempt(ready, &patient).await, ways) {
                return true;
            }
        }
        false
    }

    /// Writes the documents, the explanation, and evidence of one more attempt that fails.
    async fn write(
        &self,
        number: usize,
        original: &Ready,
        best: &Ready,
        ways: &Ways,
        tally: Tally,
    ) {
        let directory = {
            let mut state = self.state();
            let one = &mut state.found[number];
            one.scenario = best.scenario.clone();
            one.scenario.requirement = found::requirements(&best.scenario);
            one.tally = tally;
            self.options.out.join("found").join(one.name())
        };
        if let Err(error) = std::fs::create_dir_all(&directory) {
            self.state()
                .infra
                .push(format!("{}: {error}", directory.display()));
            return;
        }
        let patient = self.prey.patient(&best.scenario);
        for _ in 0..tries(tally) {
            let look = self
                .attempt(best, patient.clone(), Some(directory.clone()), None)
                .await;
            if let Some((signature, failure)) = Self::shown(&look, ways).cloned() {
                let one = &mut self.state().found[number];
                one.signature = signature;
                one.failure = failure;
                break;
            }
        }
        let one = self.state().found[number].clone();
        if let Err(error) = one.write(&directory, &original.scenario, self.prey.name()) {
            self.state()
                .infra
                .push(format!("{}: {error}", directory.display()));
        }
        (self.say)(&format!(
            "counterexample {}: {} steps of {}, {}",
            number + 1,
            best.scenario.steps.len(),
            original.scenario.steps.len(),
            directory.join("scenario.yaml").display()
        ));
    }

    /// The end for what is no counterexample. What was not seen again may come again.
    fn settle(&self, number: usize, standing: Standing, forget: bool) {
        let mut state = self.state();
        state.found[number].standing = standing;
        if forget {
            state.known.retain(|_, at| *at != number);
        }
        let one = state.found[number].clone();
        drop(state);
        let directory = self.options.out.join(standing.directory()).join(one.name());
        let written = std::fs::create_dir_all(&directory)
            .and_then(|()| one.write(&directory, &one.scenario, self.prey.name()));
        if let Err(error) = written {
            self.state()
                .infra
                .push(format!("{}: {error}", directory.display()));
        }
        (self.say)(&format!("{}: {}", one.scenario.id, standing.as_str()));
    }
}

/// Attempts in which a failure of this rate shows with 95 %, a few at least and not too many.
fn tries(tally: Tally) -> u32 {
    if tally.shown == 0 || tally.shown == tally.attempts {
        return 3;
    }
    let rate = f64::from(tally.shown) / f64::from(tally.attempts);
    ((0.05_f64.ln() / (1.0 - rate).ln()).ceil() as u32).clamp(3, 40)
}

/// Documents that are tried for real.
struct Real {
    hunt: Arc<Hunt>,
    handle: tokio::runtime::Handle,
    ways: Ways,
    seed: u64,
    until: Instant,
    slowest: Option<Duration>,
    last: Option<(String, Ready)>,
}

impl Real {
    fn ready(&mut self, scenario: &Scenario) -> Option<Ready> {
        let text = document::text(scenario);
        if let Some((known, ready)) = &self.last
            && *known == text
        {
            return Some(ready.clone());
        }
        let ready = ready(scenario, self.seed).ok()?;
        claims::hold(&ready.case).ok()?;
        self.last = Some((text, ready.clone()));
        Some(ready)
    }
}

impl Subject for Real {
    fn is_valid(&mut self, scenario: &Scenario) -> bool {
        self.ready(scenario).is_some()
    }

    fn attempt(&mut self, scenario: &Scenario) -> Seen {
        let Some(ready) = self.ready(scenario) else {
            return Seen::Nothing;
        };
        let hunt = self.hunt.clone();
        let candidate = hunt.prey.within(scenario, self.slowest);
        let look = self
            .handle
            .block_on(hunt.attempt(&ready, candidate, None, None));
        match &look {
            Look::Nothing(_) => Seen::Nothing,
            look if Hunt::shows(look, &self.ways) => Seen::Shown(Hunt::step_of(look, &self.ways)),
            _ => Seen::NotShown,
        }
    }

    fn has_time(&self) -> bool {
        Instant::now() < self.until && !self.hunt.stop.load(Ordering::Relaxed)
    }
}
