//! Change points: where the failure rate of a case changed, in a series of runs.
//!
//! The hypothesis that is tested is "all attempts of this stretch of runs fail with the same probability". Each place
//! between two runs is tested with Fisher's exact test of the attempts before it against those after it. The place with the
//! smallest p-value is a change if it is small enough; then both sides are searched in the same way (binary segmentation).
//!
//! Every test is paid for, so that a series without any change shows one with a probability of at most alpha:
//! - a series with `n` runs has `n - 1` places, so p-values are multiplied by `n - 1` (Bonferroni);
//! - the first search may use half of alpha, the searches of its two sides a quarter together, and so on. The places of
//!   all stretches of one level are together fewer than `n - 1`, so the same factor covers them;
//! - a caller who looks at many series divides alpha among those that can show a change at all (see
//!   [`super::trend`]): with no failure, with nothing but failures, or in a single run, the p-value is always 1.
//!
//! What it assumes: attempts fail independently of each other. A night on an overloaded machine breaks that, and shows as two
//! changes, there and back.

use serde::Serialize;

use crate::model::fisher_exact;

/// Attempts of one run that passed or failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    /// Attempts that failed.
    pub failed: u64,
    /// Attempts that passed or failed.
    pub of: u64,
}

impl Count {
    fn minus(self, other: Self) -> Self {
        Self {
            failed: self.failed - other.failed,
            of: self.of - other.of,
        }
    }
}

/// The failure rate changed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Change {
    /// Place in the series of the first run after the change.
    pub at: usize,
    /// The attempts from the change before this one (or the beginning) to here.
    pub before: Count,
    /// The attempts from here to the next change (or the end).
    pub after: Count,
    /// How likely a change as clear as this is in a series of this length that has none.
    pub p: f64,
}

/// The changes in a series, by their places. `alpha` is the probability that a series without a change shows one.
pub fn changes(series: &[Count], alpha: f64) -> Vec<Change> {
    let mut sums = vec![Count::default()];
    let mut sum = Count::default();
    for count in series {
        sum.failed += count.failed;
        sum.of += count.of;
        sums.push(sum);
    }
    let mut found = Vec::new();
    if series.len() > 1 {
        split(&sums, 0, series.len(), alpha / 2.0, &mut found);
    }
    found.sort_by_key(|(at, _)| *at);
    let place = |n: Option<usize>| n.and_then(|n| found.get(n)).map(|(at, _)| *at);
    (0..found.len())
        .map(|n| {
            let (at, p) = found[n];
            let start = place(n.checked_sub(1)).unwrap_or(0);
            let end = place(Some(n + 1)).unwrap_or(series.len());
            Change {
                at,
                before: sums[at].minus(sums[start]),
                after: sums[end].minus(sums[at]),
                p,
            }
        })
        .collect()
}

/// Searches the runs `from..to`.
fn split(sums: &[Count], from: usize, to: usize, alpha: f64, found: &mut Vec<(usize, f64)>) {
    let all = sums[to].minus(sums[from]);
    if all.failed == 0 || all.failed == all.of {
        return;
    }
    let places = (sums.len() - 2) as f64;
    let mut best: Option<(usize, f64)> = None;
    for at in from + 1..to {
        let (a, b) = (sums[at].minus(sums[from]), sums[to].minus(sums[at]));
        let p = fisher_exact((a.failed, a.of), (b.failed, b.of));
        if best.is_none_or(|(_, least)| p < least) {
            best = Some((at, p));
        }
    }
    let Some((at, p)) = best else {
        return;
    };
    let paid = (p * places).min(1.0);
    if paid > alpha {
        return;
    }
    found.push((at, paid));
    split(sums, from, at, alpha / 2.0, found);
    split(sums, at, to, alpha / 2.0, found);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(runs: &[(u64, u64)]) -> Vec<Count> {
        let count = |(failed, of): &(u64, u64)| Count {
            failed: *failed,
            of: *of,
        };
        runs.iter().map(count).collect()
    }

    fn places(runs: &[(u64, u64)], alpha: f64) -> Vec<usize> {
        changes(&series(runs), alpha).iter().map(|c| c.at).collect()
    }

    #[test]
    fn clear_changes_are_found_where_they_are() {
        let good = (0, 50);
        let bad = (10, 50);
        assert_eq!(places(&[good, good, good, bad, bad, bad], 0.05), [3]);
        assert_eq!(places(&[bad, bad, good, good], 0.05), [2]);
        assert_eq!(places(&[good, good, bad, bad, good, good], 0.05), [2, 4]);
        // The first failures at all, in a case that fails always from then on.
        assert_eq!(
            places(
                &[(0, 1); 12]
                    .iter()
                    .chain(&[(1, 1); 12])
                    .copied()
                    .collect::<Vec<_>>(),
                0.05
            ),
            [12]
        );
        let found = changes(&series(&[good, good, bad, bad, good, good]), 0.05);
        assert_eq!(found[0].before, Count { failed: 0, of: 100 });
        assert_eq!(
            found[0].after,
            Count {
                failed: 20,
                of: 100
            }
        );
        assert_eq!(
            found[1].before,
            Count {
                failed: 20,
                of: 100
            }
        );
        assert!(found[0].p < 1e-2, "{found:?}");
    }

    #[test]
    fn where_nothing_can_be_said_nothing_is() {
        for runs in [
            &[][..],
            &[(3, 9)],
            &[(0, 0), (0, 0)],
            &[(0, 100), (0, 100)],
            &[(5, 5), (7, 7)],
            &[(1, 100), (0, 100), (1, 100)],
            &[(0, 1), (1, 1), (0, 1)],
        ] {
            assert_eq!(places(runs, 0.05), [] as [usize; 0], "{runs:?}");
        }
    }

    /// A small generator of its own, so that the simulated data are the same everywhere.
    struct Dice(u64);

    impl Dice {
        fn fails(&mut self, rate: f64) -> bool {
            // SplitMix64.
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64 * 1.0 < rate
        }

        fn run(&mut self, of: u64, rate: f64) -> Count {
            let failed = (0..of).filter(|_| self.fails(rate)).count() as u64;
            Count { failed, of }
        }
    }

    #[test]
    fn series_without_a_change_show_one_at_most_as_often_as_promised() {
        let alpha = 0.05;
        for (rate, of, runs) in [(0.05, 20, 30), (0.3, 10, 40), (0.5, 1, 60), (0.01, 100, 20)] {
            let mut dice = Dice(7);
            let trials = 400;
            let wrong = (0..trials)
                .filter(|_| {
                    let series: Vec<Count> = (0..runs).map(|_| dice.run(of, rate)).collect();
                    !changes(&series, alpha).is_empty()
                })
                .count();
            // 400 trials at exactly 5 % show more than 36 with a probability below 1 in 2,000.
            assert!(wrong <= 36, "rate {rate}: {wrong} of {trials}");
        }
    }

    #[test]
    fn a_change_of_rate_is_found_near_its_place_and_only_once() {
        let mut dice = Dice(11);
        let trials = 200;
        let (mut found, mut near, mut more) = (0, 0, 0);
        for _ in 0..trials {
            let mut series: Vec<Count> = (0..20).map(|_| dice.run(100, 0.0)).collect();
            series.extend((0..20).map(|_| dice.run(100, 0.02)));
            let changes = changes(&series, 0.05);
            found += usize::from(!changes.is_empty());
            near += usize::from(changes.iter().any(|c| (17..=23).contains(&c.at)));
            more += usize::from(changes.len() > 1);
        }
        assert!(found >= 195, "found {found} of {trials}");
        assert!(near >= 190, "near {near} of {trials}");
        assert!(more <= 20, "more than one in {more} of {trials}");
    }
}
