//! Which case is tried next.
//!
//! Of every two turns, one goes to the case with the fewest attempts. So each of C cases has at least half of an even share: after N turns at
//! least N / 2C attempts (less one), and none starves, whatever the others do. The other turn is drawn at random, with a probability
//! proportional to
//!
//! ```text
//!   w = (U - L)²      U, L = Clopper-Pearson bounds of the failure rate, 5 % outside on either side,
//!                            for n attempts and f' = min(n, f + s/2) failures
//!   n = attempts that passed or failed, those under way taken for passes
//!   f = failures        s = slow outliers: passes whose convergence took more than 20 ms + 3 x the median of the
//!                           case's last 63 under the same stress, from the eighth on
//! ```
//!
//! The width U - L is how little is known. With no failure it falls like 3/n; with a failure rate p it falls like 3.3 √(p(1-p)/n), so cases
//! that fail sometimes are tried more often until their rate is known as well as that of the others; half a failure for a slow attempt
//! makes a case suspicious before it fails. The square makes the difference felt.

use std::collections::{HashMap, VecDeque};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use reports::{
    event::{AttemptFinished, Verdict},
    model::interval,
};

/// What is left outside of the interval on either side.
const TAIL: f64 = 0.05;
/// Convergences that the median is taken of.
const REMEMBERED: usize = 63;
/// With fewer of them nothing is an outlier.
const ENOUGH: usize = 8;
/// What is added to the threshold, in milliseconds: below it, the machine's own jitter is as large.
const JITTER_MS: f64 = 20.0;
const TIMES_THE_MEDIAN: f64 = 3.0;

/// Chooses among cases.
pub struct Policy {
    cases: Vec<Known>,
    random: StdRng,
    turns: u64,
}

struct Known {
    /// Whether it may be chosen.
    open: bool,
    /// Attempts given out, whatever came of them.
    given: u64,
    under_way: u64,
    of: u64,
    failed: u64,
    slow: u64,
    /// `w`, until something is learned.
    weight: Option<f64>,
    convergence: HashMap<Option<String>, VecDeque<f64>>,
}

impl Policy {
    /// For so many cases of which nothing is known. All choices follow from the seed and from what is learned.
    pub fn new(cases: usize, seed: u64) -> Self {
        let cases = (0..cases)
            .map(|_| Known {
                open: true,
                given: 0,
                under_way: 0,
                of: 0,
                failed: 0,
                slow: 0,
                weight: None,
                convergence: HashMap::new(),
            })
            .collect();
        Self {
            cases,
            random: StdRng::seed_from_u64(seed),
            turns: 0,
        }
    }

    /// The case is not tried any more.
    pub fn close(&mut self, case: usize) {
        self.cases[case].open = false;
    }

    /// The case that is tried next; `None` when there is none any more.
    pub fn choose(&mut self) -> Option<usize> {
        self.turns += 1;
        let open = || (0..self.cases.len()).filter(|at| self.cases[*at].open);
        let chosen = if self.turns % 2 == 1 {
            open().min_by_key(|at| self.cases[*at].given)?
        } else {
            let open: Vec<usize> = open().collect();
            let weights: Vec<f64> = open.iter().map(|at| self.cases[*at].weigh()).collect();
            let mut left = self.random.random::<f64>() * weights.iter().sum::<f64>();
            let drawn = weights.iter().position(|weight| {
                left -= weight;
                left < 0.0
            });
            // Rounding may leave a rest.
            *drawn.map_or_else(|| open.last(), |at| open.get(at))?
        };
        self.give(chosen);
        Some(chosen)
    }

    /// An attempt of the case begins without having been chosen here.
    pub fn give(&mut self, case: usize) {
        let known = &mut self.cases[case];
        known.given += 1;
        known.under_way += 1;
        known.weight = None;
    }

    /// An attempt that was given has ended.
    pub fn learn(&mut self, case: usize, stress: Option<&str>, finished: &AttemptFinished) {
        let known = &mut self.cases[case];
        known.under_way = known.under_way.saturating_sub(1);
        match finished.judged() {
            Verdict::Pass => {
                known.of += 1;
                if let Some(convergence) = finished.convergence_ms {
                    known.slow += u64::from(known.is_slow(stress, convergence));
                }
            }
            Verdict::Fail => {
                known.of += 1;
                known.failed += 1;
            }
            Verdict::Infra | Verdict::Skip => {}
        }
        known.weight = None;
    }

    /// An attempt that an earlier process of the run made.
    pub fn recall(&mut self, case: usize, stress: Option<&str>, finished: &AttemptFinished) {
        self.give(case);
        self.learn(case, stress, finished);
    }
}

impl Known {
    fn weigh(&mut self) -> f64 {
        *self.weight.get_or_insert_with(|| {
            let n = (self.of + self.under_way) as f64;
            let suspicion = (self.failed as f64 + self.slow as f64 / 2.0).min(n);
            let (low, high) = interval(suspicion, n, TAIL);
            (high - low).powi(2)
        })
    }

    /// Whether a convergence is far beyond those before it, which it is then one of.
    fn is_slow(&mut self, stress: Option<&str>, ms: f64) -> bool {
        let before = self
            .convergence
            .entry(stress.map(str::to_owned))
            .or_default();
        let mut sorted: Vec<f64> = before.iter().copied().collect();
        sorted.sort_by(f64::total_cmp);
        let slow =
            sorted.len() >= ENOUGH && ms > JITTER_MS + TIMES_THE_MEDIAN * sorted[sorted.len() / 2];
        before.push_back(ms);
        if before.len() > REMEMBERED {
            before.pop_front();
        }
        slow
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::run::source::tests::finished;

    /// Makes so many attempts, `under_way` at a time, and counts them by case.
    fn tried(
        policy: &mut Policy,
        cases: usize,
        turns: usize,
        under_way: usize,
        mut outcome: impl FnMut(usize, u64) -> AttemptFinished,
    ) -> Vec<u64> {
        let mut counts = vec![0; cases];
        let mut running = VecDeque::new();
        for _ in 0..turns {
            running.push_back(policy.choose().unwrap());
            if running.len() > under_way {
                let case = running.pop_front().unwrap();
                counts[case] += 1;
                policy.learn(case, None, &outcome(case, counts[case]));
            }
        }
        counts
    }

    fn passed() -> AttemptFinished {
        finished("case", 1, Verdict::Pass)
    }

    fn failed() -> AttemptFinished {
        finished("case", 1, Verdict::Fail)
    }

    proptest! {
        #[test]
        fn no_case_starves_whatever_happens(
            cases in 1_usize..12, under_way in 0_usize..5, seed in any::<u64>(),
            rates in prop::collection::vec(0_u8..=100, 12),
        ) {
            let mut policy = Policy::new(cases, seed);
            let turns = 400;
            let counts = tried(&mut policy, cases, turns, under_way, |case, attempt| {
                if attempt * 37 % 100 < u64::from(rates[case]) { failed() } else { passed() }
            });
            let share = (turns / (2 * cases)) as u64;
            for count in counts {
                prop_assert!(count + 2 + under_way as u64 >= share, "{} of at least {}", count, share);
            }
        }
    }

    #[test]
    fn cases_that_never_fail_are_tried_alike() {
        let mut policy = Policy::new(10, 1);
        let counts = tried(&mut policy, 10, 2_000, 2, |_, _| passed());
        assert!(
            counts.iter().all(|count| (150..260).contains(count)),
            "{counts:?}"
        );
    }

    #[test]
    fn failures_draw_attempts() {
        let mut policy = Policy::new(10, 2);
        let counts = tried(&mut policy, 10, 1_000, 2, |case, attempt| {
            if case == 7 && attempt % 5 == 0 {
                failed()
            } else {
                passed()
            }
        });
        let others = (1_000 - counts[7]) / 9;
        assert!(counts[7] * 2 > 3 * others, "{counts:?}");
    }

    #[test]
    fn slow_outliers_draw_attempts() {
        let slow = |ms| AttemptFinished {
            convergence_ms: Some(ms),
            ..passed()
        };
        let mut policy = Policy::new(10, 3);
        let counts = tried(&mut policy, 10, 1_000, 2, |case, attempt| {
            slow(if case == 4 && attempt % 5 == 0 {
                500.0
            } else {
                15.0
            })
        });
        let others = (1_000 - counts[4]) / 9;
        assert!(counts[4] * 4 > 5 * others, "{counts:?}");
        // What is slow under one stress is usual under another.
        let mut known = Policy::new(1, 4).cases.remove(0);
        for _ in 0..20 {
            assert!(!known.is_slow(None, 10.0));
            assert!(!known.is_slow(Some("cpu"), 400.0));
        }
        assert!(known.is_slow(None, 400.0));
    }

    #[test]
    fn closed_cases_are_left_alone() {
        let mut policy = Policy::new(3, 5);
        policy.close(1);
        assert_eq!(tried(&mut policy, 3, 100, 0, |_, _| passed())[1], 0);
        policy.close(0);
        policy.close(2);
        assert_eq!(policy.choose(), None);
    }
}
