//! Every case until it is known whether its failure rate is below a bound.
//!
//! The test is `reports::sequential`: it may be asked after every attempt and still keeps its error rate, because attempts count by
//! their numbers and the first decision stays. An attempt that would come too late to matter is not begun: while those under way would prove
//! the claim if they all pass, the case waits for them.

use std::{collections::BTreeSet, time::Instant};

use reports::{
    event::AttemptFinished,
    sequential::{Claim, Decision, SequentialTest},
};

use super::{Done, Job, Source};
use crate::plan::Cases;

/// Attempts until a claim is decided for each case.
pub struct UntilConfident {
    cases: Cases,
    /// Attempts per case at most, those that say nothing included.
    most: u32,
    until: Option<Instant>,
    states: Vec<State>,
}

struct State {
    test: SequentialTest,
    done: BTreeSet<u32>,
    /// Number of the attempt to look at next; lower ones are done or under way.
    next: u32,
    skip_told: bool,
}

impl UntilConfident {
    /// Attempts until `claim` is decided for every case, at most `most` of each.
    pub fn new(cases: Cases, claim: Claim, most: u32) -> Self {
        let states = (0..cases.len())
            .map(|_| State {
                test: SequentialTest::new(claim),
                done: Default::default(),
                next: 1,
                skip_told: false,
            })
            .collect();
        Self {
            cases,
            most,
            until: None,
            states,
        }
    }

    /// No attempt begins after this.
    pub fn until(mut self, until: Option<Instant>) -> Self {
        self.until = until;
        self
    }

    /// Goes on after the attempts that finished already.
    pub fn after(mut self, done: &Done) -> Self {
        for (at, state) in self.states.iter_mut().enumerate() {
            for (attempt, verdict) in done.of(self.cases.id(at)) {
                state.test.add(attempt, verdict);
                state.done.insert(attempt);
                state.skip_told |= self.cases.is_skipped(at);
            }
        }
        self
    }

    /// How many cases are not decided yet.
    pub fn open(&self) -> usize {
        let open = |(at, state): &(usize, &State)| {
            !self.cases.is_skipped(*at) && state.test.decision() == Decision::Open
        };
        self.states.iter().enumerate().filter(open).count()
    }
}

impl State {
    /// The number of the next attempt, if there is to be one.
    fn next(&mut self, most: u32) -> Option<u32> {
        while self.done.contains(&self.next) {
            self.next += 1;
        }
        let more = self.test.decision() == Decision::Open
            && self.next <= most
            && !self.test.would_be_proven(self.next);
        more.then_some(self.next)
    }
}

impl Source for UntilConfident {
    fn next(&mut self) -> Option<Job> {
        if self.until.is_some_and(|until| Instant::now() >= until) {
            return None;
        }
        // The case that is behind comes first.
        let (mut best, mut attempt) = (None, u32::MAX);
        for (at, state) in self.states.iter_mut().enumerate() {
            if self.cases.is_skipped(at) {
                if !state.skip_told {
                    state.skip_told = true;
                    return Some(self.cases.job(at, 1));
                }
                continue;
            }
            if let Some(next) = state.next(self.most)
                && next < attempt
            {
                (best, attempt) = (Some(at), next);
            }
        }
        let at = best?;
        self.states[at].next += 1;
        Some(self.cases.job(at, attempt))
    }

    fn finished(&mut self, finished: &AttemptFinished) {
        let found = (0..self.cases.len()).find(|at| self.cases.id(*at) == finished.case);
        if let Some(at) = found {
            let test = &mut self.states[at].test;
            test.add(finished.attempt, finished.judged());
        }
    }
}

#[cfg(test)]
mod tests {
    use reports::event::Verdict;

    use super::*;
    use crate::run::source::tests::{cases, ended_with, finished};

    /// Runs a source to its end, `side_by_side` attempts at a time, which end in another order than they began in.
    fn made(
        source: &mut UntilConfident,
        side_by_side: usize,
        verdict: impl Fn(&str, u32) -> Verdict,
    ) -> Vec<(String, u32)> {
        let (mut under_way, mut made) = (Vec::new(), Vec::new());
        loop {
            while under_way.len() < side_by_side
                && let Some(job) = source.next()
            {
                under_way.push(job);
            }
            if under_way.is_empty() {
                return made;
            }
            let job = under_way.remove(made.len() % under_way.len());
            source.finished(&finished(
                &job.id,
                job.attempt,
                verdict(&job.id, job.attempt),
            ));
            made.push((job.id, job.attempt));
        }
    }

    fn count(made: &[(String, u32)], case: &str) -> usize {
        made.iter().filter(|(id, _)| id == case).count()
    }

    #[test]
    fn every_case_stops_as_soon_as_it_is_decided() {
        let claim: Claim = "rate<20% @95%".parse().unwrap();
        for side_by_side in [1, 2, 7] {
            let mut source = UntilConfident::new(cases(3, 1), claim, 1_000);
            let made = made(&mut source, side_by_side, |id, attempt| match id {
                "run-1" => Verdict::Fail,
                "run-2" if attempt % 3 == 0 => Verdict::Infra,
                _ => Verdict::Pass,
            });
            assert_eq!(source.open(), 0);
            // 14 passes prove it, and none is begun that cannot matter.
            assert_eq!(count(&made, "run-0"), 14, "{side_by_side}");
            let refuted = count(&made, "run-1");
            // Three failures refute it; others may be under way then.
            assert!((3..3 + 2 * side_by_side).contains(&refuted), "{refuted}");
            // What says nothing is made up for.
            assert_eq!(count(&made, "run-2"), 20, "{side_by_side}");
            assert_eq!(count(&made, "skip-0"), 1);
            let mut unique = made.clone();
            unique.sort();
            unique.dedup();
            assert_eq!(unique.len(), made.len(), "no attempt is made twice");
        }
    }

    #[test]
    fn a_limit_leaves_cases_open() {
        let claim: Claim = "rate<1% @95%".parse().unwrap();
        let mut source = UntilConfident::new(cases(2, 0), claim, 50);
        let made = made(&mut source, 3, |_, _| Verdict::Pass);
        assert_eq!((made.len(), source.open()), (100, 2));
    }

    #[test]
    fn it_goes_on_where_it_stopped_and_makes_void_attempts_again() {
        let claim: Claim = "rate<20% @95%".parse().unwrap();
        let mut done = Done::default();
        // Attempt 3 was under way when the process ended.
        for attempt in [1, 2, 4, 5] {
            done.note(&ended_with("run-0", attempt, Verdict::Pass));
        }
        let mut source = UntilConfident::new(cases(1, 0), claim, 1_000).after(&done);
        let made = made(&mut source, 1, |_, _| Verdict::Pass);
        let numbers: Vec<u32> = made.iter().map(|(_, attempt)| *attempt).collect();
        assert_eq!(numbers, [3, 6, 7, 8, 9, 10, 11, 12, 13, 14]);
    }
}
