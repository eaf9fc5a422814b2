//! Every case as often as every other: so many rounds, or rounds until the time is over.

use std::time::Instant;

use reports::shard::Shard;

use super::{Done, Job, Source};
use crate::plan::Cases;

/// Attempts round by round, each round with one attempt of every case.
#[derive(Clone)]
pub struct Rounds {
    cases: Cases,
    /// Rounds in all; `None` for no end.
    runs: Option<u32>,
    shard: Option<Shard>,
    until: Option<Instant>,
    done: Done,
    round: u32,
    at: usize,
}

impl Rounds {
    /// So many rounds, or rounds without an end.
    pub fn new(cases: Cases, runs: Option<u32>) -> Self {
        // Where everything is skipped, the first round says all there is to say.
        let nothing = (0..cases.len()).all(|at| cases.is_skipped(at));
        Self {
            runs: if nothing { Some(1) } else { runs },
            cases,
            shard: None,
            until: None,
            done: Done::default(),
            round: 1,
            at: 0,
        }
    }

    /// Only the attempts of a shard.
    pub fn shard(mut self, shard: Option<Shard>) -> Self {
        self.shard = shard;
        self
    }

    /// No attempt begins after this.
    pub fn until(mut self, until: Option<Instant>) -> Self {
        self.until = until;
        self
    }

    /// Without the attempts that finished already.
    pub fn without(mut self, done: Done) -> Self {
        self.done = done;
        self
    }

    /// How many attempts are left, where that is known.
    pub fn left(&self) -> Option<u64> {
        if self.runs.is_none() || self.until.is_some() {
            return None;
        }
        let mut rest = self.clone();
        Some(std::iter::from_fn(|| rest.next()).count() as u64)
    }
}

impl Source for Rounds {
    fn next(&mut self) -> Option<Job> {
        loop {
            if self.at == self.cases.len() {
                self.at = 0;
                self.round += 1;
            }
            let over = self.runs.is_some_and(|runs| self.round > runs);
            if over || self.until.is_some_and(|until| Instant::now() >= until) {
                return None;
            }
            let at = self.at;
            if at < self.cases.len() {
                self.at += 1;
            } else {
                // There is no case at all.
                return None;
            }
            let id = self.cases.id(at);
            let wanted = !(self.cases.is_skipped(at) && self.round > 1)
                && self.shard.is_none_or(|shard| shard.holds(id, self.round))
                && !self.done.has(id, self.round);
            if wanted {
                return Some(self.cases.job(at, self.round));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::run::source::tests::{cases, ended};

    fn all(mut rounds: Rounds) -> Vec<(String, u32, u64)> {
        std::iter::from_fn(|| rounds.next())
            .map(|job| (job.id, job.attempt, job.seed))
            .collect()
    }

    #[test]
    fn rounds_come_one_after_the_other_and_skips_once() {
        let names: Vec<_> = all(Rounds::new(cases(2, 1), Some(3)))
            .into_iter()
            .map(|(id, attempt, _)| format!("{id}#{attempt}"))
            .collect();
        assert_eq!(
            names,
            [
                "run-0#1", "run-1#1", "skip-0#1", "run-0#2", "run-1#2", "run-0#3", "run-1#3"
            ]
        );
    }

    #[test]
    fn nothing_to_do_has_an_end() {
        assert_eq!(all(Rounds::new(cases(0, 2), None)).len(), 2);
        assert_eq!(all(Rounds::new(cases(0, 0), None)).len(), 0);
        assert_eq!(all(Rounds::new(cases(0, 0), Some(3))).len(), 0);
        let over = Rounds::new(cases(2, 0), None).until(Some(Instant::now()));
        assert_eq!(all(over).len(), 0);
    }

    proptest! {
        #[test]
        fn shards_are_the_whole_run_and_what_is_done_is_not_done_again(
            of in 1_u32..7, runs in 1_u32..6, some in 0_usize..6, skips in 0_usize..3, done in prop::collection::vec(any::<bool>(), 40),
        ) {
            let cases = cases(some, skips);
            let mut whole = all(Rounds::new(cases.clone(), Some(runs)));
            let mut union = Vec::new();
            for index in 1..=of {
                let shard = || Rounds::new(cases.clone(), Some(runs)).shard(Some(Shard { index, of }));
                let part = all(shard());
                prop_assert_eq!(shard().left(), Some(part.len() as u64));
                // The process was killed when some of them had finished, and another one goes on.
                let mut known = Done::default();
                for (at, (case, attempt, _)) in part.iter().enumerate() {
                    if done[at % done.len()] {
                        known.note(&ended(case, *attempt));
                    }
                }
                let rest = all(shard().without(known.clone()));
                prop_assert_eq!(rest.len() + known.len(), part.len());
                prop_assert!(rest.iter().all(|(case, attempt, _)| !known.has(case, *attempt)));
                prop_assert!(rest.iter().all(|job| part.contains(job)));
                union.extend(part);
            }
            union.sort();
            whole.sort();
            prop_assert_eq!(union, whole);
        }
    }
}
