//! Do counts of choices fit given shares?
//!
//! One test per comparison, made once on all counts and never again on new ones: a verdict that may be tried until it pleases has no error rate.
//!
//! | what is judged | error ([`ALPHA`]) | power: what is wrong is seen in one comparison with |
//! |---|--:|---|
//! | an endpoint is never chosen, with [`attempts_to_see_all`] choices or more | 10⁻⁶ | certainty |
//! | one of 2, 3, 5 endpoints has twice the share of the others, 300 choices | 10⁻⁶ | 81 %, 82 %, 58 % |
//! | one of 3, 4 endpoints has twice the share of the others, 240 choices | 10⁻⁶ | 60 %, 50 % |
//! | one of 2, 3, 5 endpoints has three times the share of the others, 300 choices | 10⁻⁶ | above 99 % |
//!
//! The catalogue makes at least four comparisons of the second kind per case (`distribution-even`). The figures are computed by the test
//! `the_power_is_what_is_stated`.

use statrs::{
    distribution::{Binomial, ChiSquared, ContinuousCDF, DiscreteCDF},
    function::factorial::ln_factorial,
};

/// The probability of a false alarm that is accepted per comparison. A catalogue has some 10^4 comparisons, so that a
/// conformant proxy sees a false alarm in about one run of a hundred complete ones at worst.
pub const ALPHA: f64 = 1e-6;

/// The expected count per cell from which the chi-square approximation is good enough so far out in the tail.
const CHI_SQUARE_FROM: f64 = 50.0;

/// Outcomes that an exact multinomial test may sum over: all of up to 198 choices among three endpoints. More take too long for a test that
/// is made for every cell.
const SUMMED: f64 = 20_000.0;

/// The probability of counts that are at least as far from the weights as these, if choices are independent and
/// follow the weights. Values below [`ALPHA`] mean that they do not.
///
/// The exact multinomial test where its outcomes can be summed up, and Pearson's chi-square test with many counts. Between the two (few choices
/// among many endpoints), every count by its exact binomial tails with Bonferroni's correction, which never overstates the evidence. Few
/// counts therefore always fit. A single endpoint or no counts at all give 1.
///
/// # Panics
/// When there are not as many weights as counts.
pub fn distribution(counts: &[u64], weights: &[u32]) -> f64 {
    assert_eq!(counts.len(), weights.len(), "a weight for each count");
    let n: u64 = counts.iter().sum();
    let total: f64 = weights.iter().map(|w| f64::from(*w)).sum();
    if counts
        .iter()
        .zip(weights)
        .any(|(count, weight)| *count > 0 && *weight == 0)
    {
        return 0.0;
    }
    let cells: Vec<(u64, f64)> = counts
        .iter()
        .zip(weights)
        .filter(|(_, weight)| **weight > 0)
        .map(|(count, weight)| (*count, f64::from(*weight) / total))
        .collect();
    if cells.len() < 2 || n == 0 {
        return 1.0;
    }
    // Counts fit into 53 bits.
    let n_real = n as f64;
    if cells
        .iter()
        .all(|(_, share)| share * n_real >= CHI_SQUARE_FROM)
    {
        let statistic: f64 = cells
            .iter()
            .map(|(count, share)| (*count as f64 - share * n_real).powi(2) / (share * n_real))
            .sum();
        // Cannot fail: there are at least two cells.
        return ChiSquared::new(cells.len() as f64 - 1.0).map_or(1.0, |chi| chi.sf(statistic));
    }
    if outcomes(n, cells.len()) <= SUMMED {
        return exact(&cells, n);
    }
    let smallest = cells
        .iter()
        .map(|(count, share)| tail(*count, *share, n))
        .fold(1.0, f64::min);
    (2.0 * cells.len() as f64 * smallest).min(1.0)
}

/// In how many ways `n` choices can fall on so many cells.
fn outcomes(n: u64, cells: usize) -> f64 {
    (1..cells)
        .map(|i| (n as f64 + i as f64) / i as f64)
        .product()
}

/// The exact multinomial test: the probability of all outcomes that are no more probable than this one.
fn exact(cells: &[(u64, f64)], n: u64) -> f64 {
    // Equally probable outcomes differ in their last digits.
    const SAME: f64 = 1e-9;
    let (counts, shares): (Vec<u64>, Vec<f64>) = cells.iter().copied().unzip();
    let ways = ln_factorial(n);
    let ln_probability = |outcome: &[u64]| {
        let parts = outcome.iter().zip(&shares);
        ways + parts
            .map(|(count, share)| *count as f64 * share.ln() - ln_factorial(*count))
            .sum::<f64>()
    };
    let own = ln_probability(&counts) + SAME;
    let mut sum = 0.0;
    let mut outcome = vec![0; cells.len()];
    each_outcome(&mut outcome, 0, n, &mut |outcome| {
        let other = ln_probability(outcome);
        if other <= own {
            sum += other.exp();
        }
    });
    sum.min(1.0)
}

/// All ways in which `left` choices can fall on the cells from `at` on.
fn each_outcome(outcome: &mut [u64], at: usize, left: u64, see: &mut impl FnMut(&[u64])) {
    if at + 1 == outcome.len() {
        outcome[at] = left;
        see(outcome);
        return;
    }
    for count in 0..=left {
        outcome[at] = count;
        each_outcome(outcome, at + 1, left - count, see);
    }
}

/// The smaller of the two tails of the binomial distribution that contain `count`.
fn tail(count: u64, share: f64, n: u64) -> f64 {
    // Cannot fail: the share is between 0 and 1.
    let Ok(binomial) = Binomial::new(share, n) else {
        return 1.0;
    };
    let low = binomial.cdf(count);
    let high = if count == 0 {
        1.0
    } else {
        binomial.sf(count - 1)
    };
    low.min(high)
}

/// The probability that some of `endpoints` equal endpoints is never chosen in `attempts` independent choices (an
/// upper bound).
pub(crate) fn never_chosen(endpoints: usize, share: f64, attempts: usize) -> f64 {
    (endpoints as f64 * (1.0 - share).powf(attempts as f64)).min(1.0)
}

/// How many attempts it takes until an endpoint that is never chosen is noticed, among `endpoints` equal ones.
pub fn attempts_to_see_all(endpoints: usize) -> usize {
    if endpoints < 2 {
        return 1;
    }
    let share = 1.0 / endpoints as f64;
    let needed = (ALPHA / endpoints as f64).ln() / (1.0 - share).ln();
    needed.ceil() as usize + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A small generator of its own, so that the tests draw the same numbers for ever.
    struct Lcg(u64);

    impl Lcg {
        fn below(&mut self, n: usize) -> usize {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            ((self.0 >> 33) as usize) % n
        }
    }

    fn draw(lcg: &mut Lcg, endpoints: usize, n: usize) -> Vec<u64> {
        let mut counts = vec![0; endpoints];
        for _ in 0..n {
            counts[lcg.below(endpoints)] += 1;
        }
        counts
    }

    #[test]
    fn fair_choices_fit() {
        let mut lcg = Lcg(7);
        for endpoints in [2, 3, 5, 16, 64, 400] {
            for n in [1, 10, 50, 100, 1000, 40_000] {
                for _ in 0..20 {
                    let counts = draw(&mut lcg, endpoints, n);
                    let p = distribution(&counts, &vec![1; endpoints]);
                    assert!(
                        p > ALPHA,
                        "{endpoints} endpoints, {n} choices: {p} {counts:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn p_values_are_not_too_small_too_often() {
        // About 1 % of fair draws may have p < 0.01; with 2000 draws, 50 are far out.
        let mut lcg = Lcg(11);
        for (endpoints, n) in [(3, 60), (3, 600), (10, 200), (10, 1000)] {
            let low = (0..2000)
                .filter(|_| distribution(&draw(&mut lcg, endpoints, n), &vec![1; endpoints]) < 0.01)
                .count();
            assert!(
                low < 50,
                "{endpoints} endpoints, {n} choices: {low} of 2000"
            );
        }
    }

    #[test]
    fn the_exact_test_is_the_sum_of_all_that_is_no_more_probable() {
        // By hand: of 10 choices among two, (0, 10) and (10, 0) have 2 / 1024; with (1, 9) and (9, 1), 22 / 1024.
        for (counts, p) in [([0, 10], 2.0), ([1, 9], 22.0), ([5, 5], 1024.0)] {
            let found = distribution(&counts, &[1, 1]);
            assert!((found - p / 1024.0).abs() < 1e-12, "{counts:?}: {found}");
        }
        // Of 3 choices among three, all on one: 3 of 27 outcomes, each as improbable as it gets.
        assert!((distribution(&[3, 0, 0], &[1, 1, 1]) - 3.0 / 27.0).abs() < 1e-12);
        // Weights: one choice of the endpoint with a quarter, or worse.
        assert!((distribution(&[1, 0], &[1, 3]) - 0.25).abs() < 1e-12);
    }

    #[test]
    fn false_alarms_of_the_exact_test_have_the_stated_probability() {
        // Not by drawing: all outcomes that the test calls unfair, with their probabilities.
        for (endpoints, n) in [(2, 60), (2, 99), (3, 40), (4, 20)] {
            let weights = vec![1; endpoints];
            let mut alarms = 0.0;
            each_outcome(&mut vec![0; endpoints], 0, n, &mut |outcome| {
                // What is nearly even is looked at by nobody, and takes the most time.
                let most = outcome.iter().max().copied().unwrap_or_default();
                if most * endpoints as u64 > n * 3 / 2 && distribution(outcome, &weights) < ALPHA {
                    let mut ln = ln_factorial(n) - n as f64 * (endpoints as f64).ln();
                    ln -= outcome
                        .iter()
                        .map(|count| ln_factorial(*count))
                        .sum::<f64>();
                    alarms += ln.exp();
                }
            });
            assert!(
                alarms < ALPHA,
                "{endpoints} endpoints, {n} choices: {alarms}"
            );
            assert!(
                alarms > ALPHA / 1e4,
                "{endpoints} endpoints, {n} choices: {alarms}"
            );
        }
    }

    /// How often a first endpoint that has so many times the share of each other one is noticed.
    fn power(endpoints: usize, n: usize, times: usize) -> f64 {
        const DRAWS: usize = 2_000;
        let mut lcg = Lcg(23);
        let seen = (0..DRAWS).filter(|_| {
            let slots = draw(&mut lcg, endpoints - 1 + times, n);
            let mut counts = vec![slots[..times].iter().sum()];
            counts.extend(&slots[times..]);
            distribution(&counts, &vec![1; endpoints]) < ALPHA
        });
        seen.count() as f64 / DRAWS as f64
    }

    #[test]
    fn the_power_is_what_is_stated() {
        // As the head of this file, README and docs/decisions.md say. Drawn 2,000 times: the standard error is 1 %.
        for (endpoints, n, times, stated) in [
            (2, 300, 2, 0.81),
            (3, 300, 2, 0.82),
            (5, 300, 2, 0.58),
            (3, 240, 2, 0.60),
            (4, 240, 2, 0.50),
            (2, 300, 3, 1.0),
            (3, 300, 3, 1.0),
            (5, 300, 3, 1.0),
        ] {
            let found = power(endpoints, n, times);
            assert!(
                (found - stated).abs() < 0.04,
                "{endpoints} endpoints, {n} choices, {times} times: {found}, stated {stated}"
            );
        }
    }

    #[test]
    fn unfair_choices_do_not_fit() {
        assert!(distribution(&[60, 0], &[1, 1]) < ALPHA);
        assert!(distribution(&[90, 10], &[1, 1]) < ALPHA);
        assert!(distribution(&[400, 200], &[1, 1]) < ALPHA);
        assert!(distribution(&[0, 1], &[1, 0]) < ALPHA);
        // An endpoint that is listed twice must not get twice the traffic.
        assert!(distribution(&[500, 250, 250], &[1, 1, 1]) < ALPHA);
        assert!(distribution(&[500, 250, 250], &[2, 1, 1]) > 0.9);
    }

    /// Each of the three tests, with what it comes to by hand (and binomial sums by Python's `math.comb`).
    #[test]
    fn each_test_gives_what_it_comes_to() {
        // Pearson's: (120 - 125)² / 125 + (60 - 62.5)² / 62.5 + (70 - 62.5)² / 62.5 = 1.2, with two degrees of freedom exp(-0.6).
        // It begins with 50 expected in every cell; one less, and both tails of the binomial distribution are summed.
        // Among ten, twenty times the smallest tail: P(X >= 14) of 40, P(X = 0) of 90.
        let among_ten = |first: u64, n: u64| -> Vec<u64> {
            let (each, more) = ((n - first) / 9, (n - first) % 9);
            let others = (0..9).map(|at| each + u64::from(at < more));
            std::iter::once(first).chain(others).collect()
        };
        let cases: [(Vec<u64>, Vec<u32>, f64); 7] = [
            (vec![120, 60, 70], vec![2, 1, 1], 0.548_811_636_094_026_4),
            (vec![40, 60], vec![1, 1], 0.045_500_263_896_358_42),
            (vec![20, 40], vec![1, 1], 0.013_489_293_731_191_86),
            // 12,341 outcomes, few enough to sum up those that are no more probable.
            (vec![18, 8, 7, 7], vec![1; 4], 0.058_476_759_881_691_41),
            (among_ten(14, 40), vec![1; 10], 0.000_369_494_753_527_574_5),
            (among_ten(0, 90), vec![1; 10], 0.001_523_546_960_917_327_9),
            // Who has no share takes no part.
            (vec![20, 0, 40], vec![1, 0, 1], 0.013_489_293_731_191_86),
        ];
        for (counts, weights, p) in cases {
            let found = distribution(&counts, &weights);
            assert!(
                (found / p - 1.0).abs() < 1e-6,
                "{counts:?}: {found}, not {p}"
            );
        }
    }

    #[test]
    fn nothing_can_be_said_about_too_little() {
        assert_eq!(distribution(&[], &[]), 1.0);
        assert_eq!(distribution(&[0, 0], &[1, 1]), 1.0);
        assert_eq!(distribution(&[9], &[1]), 1.0);
        assert!(distribution(&[5, 0], &[1, 1]) > ALPHA);
    }

    #[test]
    fn attempts_suffice_and_are_not_far_too_many() {
        for endpoints in 2..100 {
            let attempts = attempts_to_see_all(endpoints);
            let share = 1.0 / endpoints as f64;
            // One is to spare.
            assert!(
                never_chosen(endpoints, share, attempts - 1) < ALPHA,
                "{endpoints}"
            );
            assert!(
                never_chosen(endpoints, share, attempts - 2) > ALPHA,
                "{endpoints}"
            );
        }
    }
}
