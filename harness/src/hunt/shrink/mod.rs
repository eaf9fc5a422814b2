//! Delta debugging of scenario documents, also of failures that show only sometimes.
//!
//! ```text
//!   document that fails ──> what comes after the failure ──> faults, flows, Services ──> steps ──> pods, nodes ──> fields
//!                              each time: a smaller document is taken if the sequential test says that it fails as often
//! ```
//!
//! Nothing here runs anything: whether a document is valid, whether an attempt shows the failure, and whether there is time left, is asked of a [`Subject`].
//! Coarse reductions come first, because a document that is half as long is twice as fast to try.

pub mod decide;
pub mod reduce;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

pub use decide::{Rates, Tally};

use crate::scenario::{
    FrontendKind, Scenario,
    doc::{Converge, OneOrMany, Step, Target},
};

/// What an attempt of a document says about the failure that is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It shows, at this step (by its position); absent where it was none of a step's.
    Shown(Option<usize>),
    /// It does not, or another one does.
    NotShown,
    /// The attempt says nothing.
    Nothing,
}

/// Whoever can try documents.
pub trait Subject {
    /// Whether it could be run at all: it is read and rehearsed.
    fn is_valid(&mut self, scenario: &Scenario) -> bool;
    /// Makes one attempt.
    fn attempt(&mut self, scenario: &Scenario) -> Seen;
    /// Whether there is time for another attempt.
    fn has_time(&self) -> bool;
}

/// A document that is as small as it got.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// The document.
    pub scenario: Scenario,
    /// What was seen of it.
    pub tally: Tally,
    /// Attempts made.
    pub attempts: u32,
    /// Smaller documents taken, with what each was and its steps.
    pub taken: Vec<(String, usize)>,
    /// It ended because nothing smaller fails, and not for want of time.
    pub complete: bool,
}

/// Attempts in a row that may say nothing before a document counts as not deciding.
const SILENT: u32 = 3;

struct Shrinker<'a, S> {
    subject: &'a mut S,
    rates: Rates,
    best: Scenario,
    history: Vec<Scenario>,
    step: Option<usize>,
    tally: Tally,
    attempts: u32,
    taken: Vec<(String, usize)>,
    /// Documents that were tried and not taken.
    refused: BTreeSet<String>,
}

/// Makes the document smaller for as long as it fails at about the rate that was measured of it. `failed_at` is the step at which it fails.
pub fn shrink(
    subject: &mut impl Subject,
    scenario: &Scenario,
    rates: Rates,
    failed_at: Option<usize>,
) -> Shrunk {
    let mut shrinker = Shrinker {
        subject,
        rates,
        best: scenario.clone(),
        history: vec![scenario.clone()],
        step: failed_at,
        tally: Tally::default(),
        attempts: 0,
        taken: Vec::new(),
        refused: BTreeSet::new(),
    };
    shrinker.truncate();
    shrinker.coarse();
    loop {
        let before = shrinker.taken.len();
        shrinker.steps();
        shrinker.pods();
        shrinker.nodes();
        shrinker.services_one_by_one();
        shrinker.objects();
        shrinker.fields();
        if shrinker.taken.len() == before || !shrinker.subject.has_time() {
            break;
        }
    }
    shrinker.narrow();
    let complete = shrinker.subject.has_time();
    shrinker.stand_by();
    Shrunk {
        scenario: shrinker.best,
        tally: shrinker.tally,
        attempts: shrinker.attempts,
        taken: shrinker.taken,
        complete,
    }
}

impl<S: Subject> Shrinker<'_, S> {
    /// Takes the document if it fails as often.
    fn take(&mut self, what: &str, smaller: Scenario) -> bool {
        let key = fingerprint(&smaller);
        if key == fingerprint(&self.best) || self.refused.contains(&key) {
            return false;
        }
        if !self.subject.has_time() {
            return false;
        }
        let decided = self
            .subject
            .is_valid(&smaller)
            .then(|| self.decide(&smaller));
        if let Some(Some((true, tally, step))) = decided {
            self.taken.push((what.to_owned(), smaller.steps.len()));
            self.best = smaller.clone();
            self.history.push(smaller);
            self.tally = tally;
            self.step = step;
            return true;
        }
        self.refused.insert(key);
        false
    }

    /// Attempts until the test decides; `None` if it cannot.
    fn decide(&mut self, scenario: &Scenario) -> Option<(bool, Tally, Option<usize>)> {
        let mut test = self.rates.test();
        let mut step = None;
        let mut silent = 0;
        while self.subject.has_time() {
            self.attempts += 1;
            let shown = match self.subject.attempt(scenario) {
                Seen::Shown(at) => {
                    step = at;
                    true
                }
                Seen::NotShown => false,
                Seen::Nothing => {
                    silent += 1;
                    if silent == SILENT {
                        return None;
                    }
                    continue;
                }
            };
            silent = 0;
            if let Some(decided) = test.add(shown) {
                return Some((decided, test.tally(), step));
            }
        }
        None
    }

    /// What comes after the step that fails has no part in it.
    fn truncate(&mut self) {
        let Some(at) = self.step.filter(|at| at + 1 < self.best.steps.len()) else {
            return;
        };
        let mut smaller = self.best.clone();
        smaller.steps.truncate(at + 1);
        // An attempt ends with the step that fails, so this one needs no other: it was made already.
        if self.subject.is_valid(&smaller) {
            self.taken
                .push(("nothing after the failure".to_owned(), smaller.steps.len()));
            self.best = smaller.clone();
            self.history.push(smaller);
        }
    }

    /// Whole kinds of things: all of them at once, or else one after the other.
    fn coarse(&mut self) {
        let best = self.best.clone();
        let services = reduce::services(&best);
        let failing = self.failing_service();
        let others: BTreeSet<String> = services
            .iter()
            .filter(|name| Some(*name) != failing.as_ref())
            .cloned()
            .collect();
        let plain = without_faults(&without_other_flows(&best));
        if failing.is_some()
            && self.take(
                "the failing Service alone",
                reduce::without_services(&plain, &others),
            )
        {
            return;
        }
        if self.take("no other flows and no faults", plain) {
            self.one_service();
            return;
        }
        let smaller = without_other_flows(&self.best);
        self.take("no other flows", smaller);
        let smaller = without_faults(&self.best);
        self.take("no faults", smaller);
        self.one_service();
    }

    /// The Service that the failing step is about, where it says so; otherwise the one that changes come to most.
    fn failing_service(&self) -> Option<String> {
        let last = &self.best.steps.last()?.value;
        let name = last.flow.as_ref()?;
        let name = name
            .expect
            .as_ref()
            .or(name.stop.as_ref())
            .or(name.start.as_ref())?;
        self.best
            .steps
            .iter()
            .filter_map(|step| step.value.flow.as_ref())
            .find(|flow| flow.start.as_ref() == Some(name))
            .and_then(|flow| flow.to.as_ref()?.service.clone())
    }

    fn one_service(&mut self) {
        let services = reduce::services(&self.best);
        for keep in services.iter().filter(|_| services.len() > 1) {
            let others: BTreeSet<String> = services
                .iter()
                .filter(|name| *name != keep)
                .cloned()
                .collect();
            let smaller = reduce::without_services(&self.best, &others);
            if self.take("one Service", smaller) {
                break;
            }
        }
    }

    fn services_one_by_one(&mut self) {
        for name in reduce::services(&self.best) {
            let smaller = reduce::without_services(&self.best, &[name].into());
            self.take("a Service less", smaller);
        }
    }

    /// Delta debugging over the steps: halves, quarters, and so on.
    fn steps(&mut self) {
        let mut size = self.best.steps.len().div_ceil(2).max(1);
        loop {
            let mut end = self.best.steps.len();
            // From the end, so that positions before stay what they are.
            while end > 0 && self.subject.has_time() {
                let start = end.saturating_sub(size);
                let part: BTreeSet<usize> = (start..end).collect();
                let smaller = reduce::without_steps(&self.best, &part);
                self.take("fewer steps", smaller);
                end = start.min(self.best.steps.len());
            }
            if size == 1 {
                return;
            }
            size = size.div_ceil(2);
        }
    }

    fn pods(&mut self) {
        let names: Vec<String> = self
            .best
            .topology
            .pods
            .iter()
            .map(|pod| pod.name.clone())
            .collect();
        let mut size = names.len().div_ceil(2).max(1);
        loop {
            for part in names.chunks(size) {
                let part: BTreeSet<String> = part
                    .iter()
                    .filter(|name| self.best.topology.pods.iter().any(|pod| pod.name == **name))
                    .cloned()
                    .collect();
                if !part.is_empty() {
                    let smaller = reduce::without_pods(&self.best, &part);
                    self.take("fewer pods", smaller);
                }
            }
            if size == 1 {
                return;
            }
            size = size.div_ceil(2);
        }
    }

    fn nodes(&mut self) {
        if let Some(smaller) = reduce::on_one_node(&self.best) {
            self.take("one node", smaller);
        }
        if let Some(smaller) = reduce::without_last_node(&self.best) {
            self.take("a node less", smaller);
        }
    }

    /// Objects that are there from the start, one by one.
    fn objects(&mut self) {
        for at in (0..self.best.objects.len()).rev() {
            let mut smaller = self.best.clone();
            if at < smaller.objects.len() {
                smaller.objects.remove(at);
                self.take("an object less", reduce::repaired(smaller));
            }
        }
    }

    /// One field less, until no field can be spared. After one was, the paths are others.
    fn fields(&mut self) {
        let mut from = 0;
        loop {
            let choices = reduce::simpler_fields(&self.best);
            let Some((at, _)) = choices
                .into_iter()
                .enumerate()
                .skip(from)
                .find(|(_, smaller)| self.take("a field less", smaller.clone()))
            else {
                return;
            };
            from = at;
        }
    }

    /// The step that fails looks at much; what fails is mostly one source and one kind of frontend.
    fn narrow(&mut self) {
        let Some(converge) = self
            .best
            .steps
            .last()
            .and_then(|step| step.value.converge.clone())
        else {
            return;
        };
        if converge.from.as_slice().len() > 1 {
            for source in converge.from.as_slice() {
                let one = OneOrMany::One(source.clone());
                if self.take("one source", self.with_last(|converge| converge.from = one)) {
                    break;
                }
            }
        }
        let kinds = [
            FrontendKind::ClusterIp,
            FrontendKind::NodePort,
            FrontendKind::ExternalIp,
            FrontendKind::LoadBalancer,
        ];
        for kind in kinds {
            let to = OneOrMany::One(Target {
                frontend: Some(OneOrMany::One(kind)),
                ..Target::default()
            });
            if self.take(
                "one kind of frontend",
                self.with_last(|converge| converge.to = to),
            ) {
                break;
            }
        }
    }

    fn with_last(&self, change: impl FnOnce(&mut Converge)) -> Scenario {
        let mut smaller = self.best.clone();
        if let Some(converge) = smaller
            .steps
            .last_mut()
            .and_then(|step| step.value.converge.as_mut())
        {
            change(converge);
        }
        smaller
    }

    /// The result has to stand by itself: if it does not fail as often when it is tried again, the one before it is taken.
    fn stand_by(&mut self) {
        while self.history.len() > 1 && self.subject.has_time() {
            let best = self.best.clone();
            let again = self.decide(&best);
            match again {
                Some((true, tally, step)) => {
                    self.tally.attempts += tally.attempts;
                    self.tally.shown += tally.shown;
                    self.step = step;
                    return;
                }
                None => return,
                Some((false, ..)) => {
                    self.history.pop();
                    self.taken.pop();
                    self.tally = Tally::default();
                    if let Some(before) = self.history.last() {
                        self.best = before.clone();
                    }
                }
            }
        }
    }
}

fn fingerprint(scenario: &Scenario) -> String {
    serde_json::to_string(scenario).unwrap_or_default()
}

/// Without all flows but the one that the last step is about.
fn without_other_flows(scenario: &Scenario) -> Scenario {
    let last = scenario
        .steps
        .last()
        .and_then(|step| step.value.flow.as_ref());
    let failing = last.and_then(|flow| {
        flow.expect
            .clone()
            .or_else(|| flow.stop.clone())
            .or_else(|| flow.start.clone())
    });
    let others = positions(scenario, |step| {
        step.flow.as_ref().is_some_and(|flow| {
            let name = flow
                .start
                .as_ref()
                .or(flow.expect.as_ref())
                .or(flow.stop.as_ref());
            name != failing.as_ref()
        })
    });
    reduce::without_steps(scenario, &others)
}

fn without_faults(scenario: &Scenario) -> Scenario {
    let faults = positions(scenario, |step| step.fault.is_some());
    reduce::without_steps(scenario, &faults)
}

/// Steps that are so, but for the last one.
fn positions(scenario: &Scenario, is_so: impl Fn(&Step) -> bool) -> BTreeSet<usize> {
    let last = scenario.steps.len().saturating_sub(1);
    let steps = scenario.steps.iter().enumerate();
    steps
        .filter(|(at, step)| *at != last && is_so(&step.value))
        .map(|(at, _)| at)
        .collect()
}
