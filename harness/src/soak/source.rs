//! The attempts of a soak.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Instant,
};

use reports::{
    event::{AttemptFinished, Event, EventBody},
    sequential::{Claim, Decision, SequentialTest},
};

use super::{Policy, Rotation, rotation::Turn, shape};
use crate::{
    plan::Cases,
    run::{Job, Source, source::Conditions},
    scenario::Case,
};

/// Chooses cases and conditions until the time is over or everything is decided.
pub struct Soak {
    cases: Cases,
    places: HashMap<String, usize>,
    policy: Policy,
    rotation: Rotation,
    states: Vec<State>,
    until: Option<Instant>,
    /// Stress of the attempts under way, by case and number.
    under_way: HashMap<(usize, u32), Option<String>>,
}

struct State {
    /// Numbers that are done or under way.
    taken: BTreeSet<u32>,
    /// The lowest number that may be free.
    next: u32,
    test: Option<SequentialTest>,
    skip_told: bool,
    larger: Option<Option<Arc<Case>>>,
}

impl Soak {
    /// A soak of these cases; with a claim it ends when that is decided for all of them.
    pub fn new(
        cases: Cases,
        seed: u64,
        rotation: Rotation,
        claim: Option<Claim>,
        until: Option<Instant>,
    ) -> Self {
        let mut policy = Policy::new(cases.len(), seed);
        let states = (0..cases.len())
            .map(|at| {
                if cases.is_skipped(at) {
                    policy.close(at);
                }
                State {
                    taken: BTreeSet::new(),
                    next: 1,
                    test: claim.map(SequentialTest::new),
                    skip_told: false,
                    larger: None,
                }
            })
            .collect();
        let places = (0..cases.len()).map(|at| (cases.id(at).to_owned(), at));
        Self {
            places: places.collect(),
            cases,
            policy,
            rotation,
            states,
            until,
            under_way: HashMap::new(),
        }
    }

    /// Takes note of an event of the run that an earlier process wrote.
    pub fn recall(&mut self, event: &Event) {
        match &event.body {
            EventBody::AttemptStarted {
                case,
                attempt,
                stress,
                ..
            } => {
                if let Some(at) = self.places.get(case) {
                    self.under_way.insert((*at, *attempt), stress.clone());
                }
            }
            EventBody::AttemptFinished(finished) => {
                let Some(at) = self.places.get(&finished.case).copied() else {
                    return;
                };
                let stress = self.under_way.remove(&(at, finished.attempt)).flatten();
                self.policy.recall(at, stress.as_deref(), finished);
                let state = &mut self.states[at];
                state.taken.insert(finished.attempt);
                state.skip_told |= self.cases.is_skipped(at);
                self.decide(at, finished);
            }
            // What was under way is void.
            EventBody::RunResumed(_) => self.under_way.clear(),
            _ => {}
        }
    }

    fn decide(&mut self, at: usize, finished: &AttemptFinished) {
        if let Some(test) = &mut self.states[at].test {
            test.add(finished.attempt, finished.judged());
            if test.decision() != Decision::Open {
                self.policy.close(at);
            }
        }
    }
}

impl Source for Soak {
    fn next(&mut self) -> Option<Job> {
        if self.until.is_some_and(|until| Instant::now() >= until) {
            return None;
        }
        for at in 0..self.cases.len() {
            if self.cases.is_skipped(at) && !self.states[at].skip_told {
                self.states[at].skip_told = true;
                return Some(self.cases.job(at, 1));
            }
        }
        let stress = match self.rotation.turn(self.under_way.len()) {
            Turn::Go(stress) => stress,
            Turn::Wait => return None,
        };
        let at = self.policy.choose()?;
        let state = &mut self.states[at];
        // Void attempts have the lowest free numbers, so they come first.
        while state.taken.remove(&state.next) {
            state.next += 1;
        }
        let attempt = state.next;
        state.next += 1;
        let mut job = self.cases.job(at, attempt);
        if let Ok(case) = &job.case {
            let (case, shape) = shape::of_attempt(case, &mut state.larger, job.seed);
            let stress = stress.filter(|stress| stress.suits(&case));
            job.case = Ok(case);
            job.conditions = Conditions { stress, shape };
        }
        let stress = job.conditions.stress.as_ref().map(|stress| stress.name());
        self.under_way.insert((at, attempt), stress);
        Some(job)
    }

    fn finished(&mut self, finished: &AttemptFinished) {
        let Some(at) = self.places.get(&finished.case).copied() else {
            return;
        };
        let stress = self.under_way.remove(&(at, finished.attempt)).flatten();
        if !self.cases.is_skipped(at) {
            self.policy.learn(at, stress.as_deref(), finished);
        }
        self.decide(at, finished);
    }
}

#[cfg(test)]
mod tests {
    use reports::event::{Machine, RunResumed, Verdict};

    use super::*;
    use crate::run::source::tests::{cases, ended_with, finished};

    fn soak(claim: Option<&str>) -> Soak {
        let claim = claim.map(|claim| claim.parse().unwrap());
        Soak::new(cases(3, 1), 5, Rotation::new(Vec::new(), 0), claim, None)
    }

    fn started(job: &Job) -> Event {
        event(EventBody::AttemptStarted {
            case: job.id.clone(),
            attempt: job.attempt,
            seed: job.seed,
            stress: None,
            shape: None,
        })
    }

    fn event(body: EventBody) -> Event {
        Event {
            seq: 0,
            time: String::new(),
            body,
        }
    }

    fn resumed() -> Event {
        event(EventBody::RunResumed(RunResumed {
            machine: Machine {
                kernel: String::new(),
                cpus: 1,
                memory_bytes: 0,
                arch: String::new(),
                os: String::new(),
                nft: None,
                iptables: None,
                calibration: None,
            },
            jobs: 1,
            torn_bytes: 0,
        }))
    }

    #[test]
    fn killed_again_and_again_it_makes_every_attempt_once() {
        let mut log: Vec<Event> = Vec::new();
        let mut made: Vec<(String, u32)> = Vec::new();
        for life in 0..40 {
            let mut soak = soak(None);
            if life > 0 {
                log.push(resumed());
            }
            log.iter().for_each(|event| soak.recall(event));
            let mut under_way = Vec::new();
            for turn in 0..(7 + life % 5) {
                while under_way.len() < 3 {
                    let job = soak.next().unwrap();
                    log.push(started(&job));
                    under_way.push(job);
                }
                let job = under_way.remove(turn % 3);
                let skipped = job.case.is_err();
                let verdict = if skipped {
                    Verdict::Skip
                } else {
                    Verdict::Pass
                };
                let end = ended_with(&job.id, job.attempt, verdict);
                soak.finished(&finished(&job.id, job.attempt, verdict));
                log.push(end);
                made.push((job.id, job.attempt));
            }
        }
        let unique: BTreeSet<_> = made.iter().collect();
        assert_eq!(unique.len(), made.len(), "none is made twice");
        // Numbers have no holes but those of attempts that were under way when the last life ended.
        for case in ["run-0", "run-1", "run-2"] {
            let mut numbers: Vec<u32> = made
                .iter()
                .filter(|(id, _)| id == case)
                .map(|(_, attempt)| *attempt)
                .collect();
            numbers.sort_unstable();
            let holes = *numbers.last().unwrap() as usize - numbers.len();
            assert!(holes <= 2, "{case}: {numbers:?}");
        }
        assert_eq!(made.iter().filter(|(id, _)| id == "skip-0").count(), 1);
    }

    #[test]
    fn it_ends_when_everything_is_decided() {
        let mut soak = soak(Some("rate<20% @95%"));
        let mut made = 0;
        while let Some(job) = soak.next() {
            let verdict = match job.id.as_str() {
                "skip-0" => Verdict::Skip,
                "run-1" => Verdict::Fail,
                _ => Verdict::Pass,
            };
            soak.finished(&finished(&job.id, job.attempt, verdict));
            made += 1;
            assert!(made < 1_000);
        }
        // 14 passes, 3 failures, 14 passes and a skip.
        assert_eq!(made, 32);
    }

    #[test]
    fn the_time_ends_it() {
        let mut soak = soak(None);
        soak.until = Some(Instant::now());
        assert!(soak.next().is_none());
    }
}
