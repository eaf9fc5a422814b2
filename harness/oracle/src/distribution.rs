//! Do counts of choices fit given shares?

use statrs::distribution::{Binomial, ChiSquared, ContinuousCDF, DiscreteCDF};

/// The probability of a false alarm that is accepted per comparison. A catalogue has some 10^4 comparisons, so that a
/// conformant proxy sees a false alarm in about one run of a hundred complete ones at worst.
pub const ALPHA: f64 = 1e-6;

/// The expected count per cell from which the chi-square approximation is good enough so far out in the tail.
const CHI_SQUARE_FROM: f64 = 50.0;

/// The probability of counts that are at least as far from the weights as these, if choices are independent and
/// follow the weights. Values below [`ALPHA`] mean that they do not.
///
/// Chi-square with many counts; else every count by its exact binomial tails, with Bonferroni's correction, which never
/// overstates the evidence. Few counts therefore always fit. A single endpoint or no counts at all give 1.
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
    let smallest = cells
        .iter()
        .map(|(count, share)| tail(*count, *share, n))
        .fold(1.0, f64::min);
    (2.0 * cells.len() as f64 * smallest).min(1.0)
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
    fn unfair_choices_do_not_fit() {
        assert!(distribution(&[60, 0], &[1, 1]) < ALPHA);
        assert!(distribution(&[90, 10], &[1, 1]) < ALPHA);
        assert!(distribution(&[400, 200], &[1, 1]) < ALPHA);
        assert!(distribution(&[0, 1], &[1, 0]) < ALPHA);
        // An endpoint that is listed twice must not get twice the traffic.
        assert!(distribution(&[500, 250, 250], &[1, 1, 1]) < ALPHA);
        assert!(distribution(&[500, 250, 250], &[2, 1, 1]) > 0.9);
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
            assert!(
                never_chosen(endpoints, share, attempts) < ALPHA,
                "{endpoints}"
            );
            assert!(
                never_chosen(endpoints, share, attempts - 3) > ALPHA,
                "{endpoints}"
            );
        }
    }
}
