//! Which cases converge later than before.
//!
//! Times have long tails and no known distribution, so they are compared by ranks: the Mann-Whitney U test, two-sided, with the
//! normal approximation and its corrections for ties and continuity. It needs [`FEWEST`] times on both sides. What is significant
//! may still be too small to matter, so the median has to have grown by [`FACTOR`] and by [`FLOOR_MS`].
//!
//! A machine that does something else meanwhile makes everything slower, and that is no proxy's fault. So where enough cases are
//! compared, the earlier times are first brought to the [pace](pace) of the new run, and a case is slower only beyond that. A proxy
//! that became slower in everything looks the same: the pace is shown, and who runs both on one machine at one time knows.
//!
//! Source: H. B. Mann, D. R. Whitney, Ann. Math. Statist. 18 (1947); the effect is the probability of superiority
//! (K. O. McGraw, S. P. Wong, Psych. Bull. 111 (1992)).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, Normal};

use super::{ALPHA, holm};
use crate::event::Verdict;
use crate::model::CaseResult;

/// The normal approximation is good from about here on.
const FEWEST: usize = 8;

/// The median has to be at least this many times the earlier one. Less than that one proxy does on a busy and on a quiet machine: the same case took 674 and
/// 881 ms in 20 runs each (`harness compare` of the two).
const FACTOR: f64 = 1.5;

/// And later by at least this much, in milliseconds: below it, machines differ more from day to day than proxies.
const FLOOR_MS: f64 = 5.0;

/// With fewer cases, the pace would be that of the very cases that it is to excuse.
const FEWEST_CASES: usize = 20;

/// How much longer everything takes than in the earlier run: the median over all cases of the ratio of their medians. 1 where too few cases have
/// times enough.
pub(super) fn pace(pairs: &[(&CaseResult, &CaseResult)]) -> f64 {
    let ratio = |(base, new): &(&CaseResult, &CaseResult)| {
        let (a, b) = (times(base), times(new));
        let enough = a.len() >= FEWEST && b.len() >= FEWEST && median(&a) > 0.0;
        enough.then(|| median(&b) / median(&a))
    };
    let mut ratios: Vec<f64> = pairs.iter().filter_map(ratio).collect();
    if ratios.len() < FEWEST_CASES {
        return 1.0;
    }
    ratios.sort_by(f64::total_cmp);
    median(&ratios)
}

/// A case that converges later.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Slower {
    /// Id of the case.
    pub case: String,
    /// Median of the earlier run, in milliseconds.
    pub base_ms: f64,
    /// Median of the new run, in milliseconds.
    pub new_ms: f64,
    /// The probability that an attempt of the new run takes longer than one of the earlier run, at the pace of the new one: 0.5 is no
    /// difference, 1 is always longer.
    pub superiority: f64,
    /// The p-value, corrected for the number of cases.
    pub p: f64,
}

/// The cases that are slower, of pairs of the same case, in a run of this pace. One that is faster excuses nothing.
pub(super) fn slower(pairs: &[(&CaseResult, &CaseResult)], pace: f64) -> Vec<Slower> {
    let pace = pace.max(1.0);
    let mut tests = 0;
    let mut found = Vec::new();
    for (base, new) in pairs {
        let (a, b) = (times(base), times(new));
        if a.len() < FEWEST || b.len() < FEWEST {
            continue;
        }
        tests += 1;
        let expected: Vec<f64> = a.iter().map(|ms| ms * pace).collect();
        let (superiority, p) = mann_whitney(&expected, &b);
        let (base_ms, new_ms) = (median(&a), median(&b));
        let grown = new_ms - base_ms * pace;
        if superiority > 0.5 && new_ms >= base_ms * pace * FACTOR && grown >= FLOOR_MS {
            let slower = Slower {
                case: new.id.clone(),
                base_ms,
                new_ms,
                superiority,
                p,
            };
            found.push((p, slower));
        }
    }
    holm(&mut found, tests);
    found
        .into_iter()
        .filter(|(p, _)| *p <= ALPHA)
        .map(|(p, slower)| Slower { p, ..slower })
        .collect()
}

/// The convergence of the attempts that passed, sorted. One that failed converged never, and counts elsewhere.
fn times(case: &CaseResult) -> Vec<f64> {
    let passed = case.attempts_with(Verdict::Pass);
    let mut times: Vec<f64> = passed
        .filter_map(|attempt| attempt.convergence_ms)
        .collect();
    times.sort_by(f64::total_cmp);
    times
}

/// Of sorted values.
fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 {
        sorted[middle]
    } else {
        (sorted[middle - 1] + sorted[middle]) / 2.0
    }
}

/// How probable it is that a value of `b` is larger than one of `a`, and the two-sided p-value for "neither is".
fn mann_whitney(a: &[f64], b: &[f64]) -> (f64, f64) {
    let (n, m) = (a.len() as f64, b.len() as f64);
    let mut all: Vec<(f64, bool)> = a.iter().map(|x| (*x, false)).collect();
    all.extend(b.iter().map(|x| (*x, true)));
    all.sort_by(|x, y| x.0.total_cmp(&y.0));
    let (mut ranks_of_b, mut ties) = (0.0, 0.0);
    let mut at = 0;
    for group in all.chunk_by(|x, y| x.0 == y.0) {
        let size = group.len() as f64;
        // The mean of the ranks at + 1 ..= at + size.
        let rank = at as f64 + (size + 1.0) / 2.0;
        ranks_of_b += rank * group.iter().filter(|(_, of_b)| *of_b).count() as f64;
        ties += size * size * size - size;
        at += group.len();
    }
    let u = ranks_of_b - m * (m + 1.0) / 2.0;
    let all = n + m;
    let variance = n * m / 12.0 * (all + 1.0 - ties / (all * (all - 1.0)));
    if variance <= 0.0 {
        return (0.5, 1.0);
    }
    let distance = ((u - n * m / 2.0).abs() - 0.5).max(0.0);
    let tail = Normal::standard().sf(distance / variance.sqrt());
    (u / (n * m), (2.0 * tail).min(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        // Computed by hand from the definition.
        let a = [1.0, 2.0, 3.0, 4.0];
        let b = [5.0, 6.0, 7.0, 8.0];
        let (superiority, p) = mann_whitney(&a, &b);
        assert_eq!(superiority, 1.0);
        // z = (16 - 8 - 0.5) / sqrt(16 * 9 / 12) = 2.16506
        assert!((p - 0.030_383).abs() < 1e-5, "{p}");
        let (superiority, p) = mann_whitney(&[1.0, 2.0, 2.0, 3.0], &[2.0, 3.0, 3.0, 4.0]);
        // Pairs: 11 won, 4 tied; ties 3 and 3: variance 16 / 12 * (9 - 48 / 56).
        assert!((superiority - 13.0 / 16.0).abs() < 1e-12, "{superiority}");
        let z = (13.0 - 8.0 - 0.5) / (16.0 / 12.0 * (9.0 - 48.0 / 56.0_f64)).sqrt();
        assert!((p - 2.0 * Normal::standard().sf(z)).abs() < 1e-12, "{p}");
        assert_eq!(mann_whitney(&[1.0; 9], &[1.0; 9]), (0.5, 1.0));
    }

    #[test]
    fn it_is_the_same_from_both_sides() {
        let a = [3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0, 6.0];
        let b = [5.0, 3.0, 5.0, 8.0, 9.0, 7.0, 9.0, 3.0, 2.0];
        let (s, p) = mann_whitney(&a, &b);
        let (t, q) = mann_whitney(&b, &a);
        assert!((s + t - 1.0).abs() < 1e-12 && (p - q).abs() < 1e-12);
    }

    #[test]
    fn medians() {
        assert_eq!(median(&[1.0, 2.0, 9.0]), 2.0);
        assert_eq!(median(&[1.0, 2.0, 4.0, 9.0]), 3.0);
    }
}
