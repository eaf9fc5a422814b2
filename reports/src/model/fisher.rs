//! Whether two failure rates differ: Fisher's exact test.
//!
//! The search for change points makes millions of these tests with up to millions of attempts. The two-sided test of statrs adds up
//! every possible table and takes probabilities for equal that differ by a ten-thousandth; this one begins at the table and stops
//! where nothing is left to add.

use statrs::function::factorial::ln_binomial;

/// Probabilities that differ by less than this factor are the same one, computed in two ways.
const TIE: f64 = 1.0 + 1e-7;

/// The two-sided p-value for "both have the same rate", given `(failed, of)` of each: the probability, if they have, of a
/// table at most as likely as this one. Exact at every sample size; 1 when nothing was tried.
///
/// Source: R. A. Fisher, J. Royal Stat. Soc. 98 (1935); two-sided as R's `fisher.test` has it.
pub fn fisher_exact(a: (u64, u64), b: (u64, u64)) -> f64 {
    let table = Table {
        of: [a.1, b.1],
        failed: a.0 + b.0,
    };
    if a.0 > a.1 || b.0 > b.1 {
        return f64::NAN;
    }
    let (low, high) = table.support();
    if low == high {
        return 1.0;
    }
    let seen = a.0;
    let at_most = table.ln_p(seen) + TIE.ln();
    let mode = table.mode();
    if seen == mode {
        // Every table is at most as likely.
        return 1.0;
    }
    // Probabilities fall on both sides of the mode. One tail begins at the table itself, the other is searched for.
    let (lower, upper) = if seen <= mode {
        let upper = table.first(|x| x >= mode && table.ln_p(x) <= at_most);
        (Some(seen), upper)
    } else {
        let above = table.first(|x| x > mode || table.ln_p(x) > at_most);
        let lower = above.unwrap_or(high + 1).checked_sub(1);
        (lower.filter(|lower| *lower >= low), Some(seen))
    };
    let lower = lower.map_or(0.0, |from| table.tail(from, Side::Lower));
    let upper = upper.map_or(0.0, |from| table.tail(from, Side::Upper));
    (lower + upper).min(1.0)
}

enum Side {
    Lower,
    Upper,
}

/// All tables with the same margins; one of them is told by how many failed in the first row.
struct Table {
    of: [u64; 2],
    failed: u64,
}

impl Table {
    fn support(&self) -> (u64, u64) {
        let low = self.failed.saturating_sub(self.of[1]);
        (low, self.failed.min(self.of[0]))
    }

    fn ln_p(&self, x: u64) -> f64 {
        let [n, m] = self.of;
        ln_binomial(n, x) + ln_binomial(m, self.failed - x) - ln_binomial(n + m, self.failed)
    }

    fn mode(&self) -> u64 {
        let [n, m] = self.of.map(u128::from);
        let mode = (n + 1) * (u128::from(self.failed) + 1) / (n + m + 2);
        let (low, high) = self.support();
        u64::try_from(mode).unwrap_or(high).clamp(low, high)
    }

    /// The first table for which a condition holds that, once it holds, holds for all after it.
    fn first(&self, holds: impl Fn(u64) -> bool) -> Option<u64> {
        let (mut low, high) = self.support();
        let mut end = high + 1;
        while low < end {
            let middle = low + (end - low) / 2;
            if holds(middle) {
                end = middle;
            } else {
                low = middle + 1;
            }
        }
        (end <= high).then_some(end)
    }

    /// The probability of this table and all beyond it.
    fn tail(&self, from: u64, side: Side) -> f64 {
        let [n, m] = self.of.map(|of| of as f64);
        let failed = self.failed as f64;
        let (low, high) = self.support();
        let mut p = self.ln_p(from).exp();
        let mut sum = p;
        let mut at = from;
        loop {
            let x = at as f64;
            match side {
                Side::Lower if at > low => {
                    p *= x * (m - failed + x) / ((n - x + 1.0) * (failed - x + 1.0));
                    at -= 1;
                }
                Side::Upper if at < high => {
                    p *= (n - x) * (failed - x) / ((x + 1.0) * (m - failed + x + 1.0));
                    at += 1;
                }
                _ => return sum,
            }
            sum += p;
            // Terms fall ever faster.
            if p <= sum * 1e-18 {
                return sum;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, term by term.
    fn naive(a: (u64, u64), b: (u64, u64)) -> f64 {
        fn choose(n: u64, k: u64) -> f64 {
            (0..k).fold(1.0, |product, i| product * (n - i) as f64 / (i + 1) as f64)
        }
        let failed = a.0 + b.0;
        let p = |x: u64| choose(a.1, x) * choose(b.1, failed - x) / choose(a.1 + b.1, failed);
        let all = failed.saturating_sub(b.1)..=failed.min(a.1);
        let seen = p(a.0);
        all.map(p)
            .filter(|p| *p <= seen * TIE)
            .sum::<f64>()
            .min(1.0)
    }

    #[test]
    fn every_small_table_matches_the_definition() {
        for n in 0..=9 {
            for m in 0..=9 {
                for x in 0..=n {
                    for y in 0..=m {
                        let (p, want) = (fisher_exact((x, n), (y, m)), naive((x, n), (y, m)));
                        assert!((p - want).abs() < 1e-9, "{x}/{n} {y}/{m}: {p} {want}");
                    }
                }
            }
        }
    }

    #[test]
    fn larger_tables_match_the_definition() {
        for (a, b) in [
            ((3, 100), (12, 90)),
            ((0, 299), (7, 150)),
            ((40, 60), (20, 70)),
            ((150, 150), (99, 100)),
            ((5, 12), (60, 160)),
        ] {
            for (a, b) in [(a, b), (b, a)] {
                let (p, want) = (fisher_exact(a, b), naive(a, b));
                assert!(
                    (p - want).abs() < 1e-9 * want.max(1e-3),
                    "{a:?} {b:?}: {p} {want}"
                );
            }
        }
    }

    #[test]
    fn known_values() {
        // Fisher's tea-tasting lady, and the table of R's own documentation of `fisher.test` (job satisfaction is larger).
        assert!((fisher_exact((1, 4), (3, 4)) - 0.485_714_286).abs() < 1e-8);
        // Convictions of like-sex twins (Fisher 1935): 2 of 17 and 10 of 13; R says 0.0005367.
        assert!((fisher_exact((2, 17), (10, 13)) - 0.000_536_7).abs() < 5e-8);
        assert_eq!(fisher_exact((0, 10), (0, 0)), 1.0);
        assert!(fisher_exact((2, 1), (0, 1)).is_nan());
    }

    #[test]
    fn a_million_attempts_are_quick_and_symmetric() {
        let (a, b) = ((400_000, 1_000_000), (401_500, 1_000_000));
        let (p, q) = (fisher_exact(a, b), fisher_exact(b, a));
        assert!((p - q).abs() < 1e-6 && (0.02..0.04).contains(&p), "{p} {q}");
        assert!(fisher_exact((0, 1_000_000), (50, 1_000_000)) < 1e-14);
    }
}
