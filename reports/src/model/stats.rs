//! The statistics of a report: how often something fails, how often it may fail at most, and how a measured number is
//! distributed.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use statrs::distribution::{Beta, ContinuousCDF};

/// Confidence of every interval in a report.
pub const CONFIDENCE: f64 = 0.95;

/// How often attempts failed, with the exact (Clopper-Pearson) two-sided 95 % confidence interval of the true rate.
///
/// The interval is what repeating buys: 0 failures of 20 still allow a rate of 16.8 %.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rate {
    /// Attempts that failed.
    pub failed: u64,
    /// Attempts that passed or failed; infra and skipped attempts say nothing about the candidate.
    pub of: u64,
    /// `failed / of`.
    pub rate: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
    /// One-sided upper bound of the true rate at 95 %: what to quote when nothing failed. See [`upper_bound`].
    #[serde(default = "one")]
    pub upper_bound: f64,
}

/// A report of an older suite says nothing about the bound.
fn one() -> f64 {
    1.0
}

/// The exact (Clopper-Pearson) one-sided upper bound of the true rate at 95 %, after `failed` of `of`: with a higher rate, so few
/// failures would be seen in less than one of twenty runs. 1 when nothing was tried.
///
/// It is lower than [`Rate::high`], which shares the error of 5 % with the other end of the interval.
pub fn upper_bound(failed: u64, of: u64) -> f64 {
    if failed >= of {
        return 1.0;
    }
    quantile(failed as f64 + 1.0, (of - failed) as f64, CONFIDENCE)
}

/// The ends of the exact (Clopper-Pearson) interval that leaves out so much on either side. Counts need not be whole, so that
/// something can count for half a failure.
///
/// Source: C. J. Clopper, E. S. Pearson, Biometrika 26 (1934): quantiles of Beta distributions.
pub fn interval(failed: f64, of: f64, tail: f64) -> (f64, f64) {
    let low = if failed <= 0.0 {
        0.0
    } else {
        quantile(failed, of - failed + 1.0, tail)
    };
    let high = if failed >= of {
        1.0
    } else {
        quantile(failed + 1.0, of - failed, 1.0 - tail)
    };
    (low, high)
}

fn quantile(a: f64, b: f64, p: f64) -> f64 {
    Beta::new(a, b).map_or(f64::NAN, |distribution| distribution.inverse_cdf(p))
}

/// A share as percent with two digits, rounded up, so that what was a bound still is one: 0.009969 is `1 %`.
pub fn at_most(share: f64) -> String {
    let percent = share * 100.0;
    if !percent.is_finite() || percent <= 0.0 {
        return "0 %".to_owned();
    }
    let digits = (1 - percent.log10().floor() as i32).max(0);
    let scale = 10_f64.powi(digits);
    // What is above a step by less than the quantile's accuracy is not rounded up to the next one.
    let up = (percent * scale - 1e-6).ceil() / scale;
    format!("{up} %")
}

/// `129909 runs, 48 failures, 0.037 % [0.027, 0.049]`: the rate and its interval in percent.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = |count: u64| if count == 1 { "" } else { "s" };
        write!(
            f,
            "{} run{}, {} failure{}, {:.3} % [{:.3}, {:.3}]",
            self.of,
            plural(self.of),
            self.failed,
            plural(self.failed),
            self.rate * 100.0,
            self.low * 100.0,
            self.high * 100.0
        )
    }
}

impl Rate {
    /// The rate of `failed` out of `of`; `None` when nothing was tried.
    pub fn new(failed: u64, of: u64) -> Option<Self> {
        Self::with_tails(failed, of, (1.0 - CONFIDENCE) / 2.0)
    }

    /// The same with another probability of missing the true rate on each side, as for one of several looks at a growing sample.
    pub fn with_tails(failed: u64, of: u64, tail: f64) -> Option<Self> {
        if of == 0 || failed > of {
            return None;
        }
        let (k, n) = (failed as f64, of as f64);
        let (low, high) = interval(k, n, tail);
        Some(Self {
            failed,
            of,
            rate: rounded(k / n),
            low: rounded(low.clamp(0.0, 1.0)),
            high: rounded(high.clamp(0.0, 1.0)),
            upper_bound: rounded(upper_bound(failed, of).clamp(0.0, 1.0)),
        })
    }

    /// The rate in words, as far as it is known: `0 of 299: below 1 % at 95 %` or `3 of 20: 15 % [3.2, 38]`.
    pub fn words(&self) -> String {
        let (failed, of) = (self.failed, self.of);
        if failed == 0 {
            return format!("0 of {of}: below {} at 95 %", at_most(self.upper_bound));
        }
        let [rate, low, high] =
            [self.rate, self.low, self.high].map(|share| significant(share * 100.0));
        format!("{failed} of {of}: {rate} % [{low}, {high}]")
    }
}

/// Two significant digits, and no more than that behind the point.
fn significant(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let digits = (1 - value.log10().floor() as i32).clamp(0, 6);
    let scale = 10_f64.powi(digits);
    ((value * scale).round() / scale).to_string()
}

/// Nine decimal places: more than the quantile's accuracy, and the same on every platform.
fn rounded(value: f64) -> f64 {
    (value * 1e9).round() / 1e9
}

/// How a measured number is distributed. Percentiles are by nearest rank, so each of them is a value that was measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Distribution {
    /// Number of values.
    pub count: u64,
    /// The smallest value.
    pub min: f64,
    /// The median.
    pub p50: f64,
    /// Nine of ten values are at most this.
    pub p90: f64,
    /// 99 of 100 values are at most this.
    pub p99: f64,
    /// The largest value.
    pub max: f64,
}

/// Fewer values than this have no shape worth drawing.
const CURVE_FROM: usize = 5;

/// The values at 0 %, 2 %, 4 % and so on to 100 %, by nearest rank, of the finite ones of some values in whatever order. Empty when there are
/// fewer than five of them, or when they are all the same.
pub(super) fn curve(values: &[f64]) -> Vec<f64> {
    let finite = values.iter().copied().filter(|value| value.is_finite());
    let mut values: Vec<f64> = finite.collect();
    values.sort_by(f64::total_cmp);
    if values.len() < CURVE_FROM || values.first() == values.last() {
        return Vec::new();
    }
    let rank = |percent: usize| values[(values.len() * percent).div_ceil(100).max(1) - 1];
    (0..=100).step_by(2).map(rank).collect()
}

impl Distribution {
    /// The distribution of the finite ones of some values, in whatever order; `None` when there is none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values
            .into_iter()
            .filter(|value| value.is_finite())
            .collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let rank = |percent: usize| values[(values.len() * percent).div_ceil(100) - 1];
        Some(Self {
            count: values.len() as u64,
            min,
            p50: rank(50),
            p90: rank(90),
            p99: rank(99),
            max,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_runs_from_the_smallest_value_to_the_largest() {
        let values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        let drawn = curve(&values);
        assert_eq!(drawn.len(), 51);
        assert_eq!(
            (drawn[0], drawn[1], drawn[25], drawn[50]),
            (1.0, 2.0, 50.0, 100.0)
        );
        assert_eq!(curve(&[1.0, 2.0, 3.0, f64::NAN, 4.0]), Vec::<f64>::new());
        assert_eq!(curve(&[7.0; 9]), Vec::<f64>::new());
        assert_eq!(curve(&[1.0, 1.0, 1.0, 1.0, 2.0]).last(), Some(&2.0));
    }

    #[test]
    fn clopper_pearson_matches_published_values() {
        // 0/n and n/n have the closed form 1 - (alpha/2)^(1/n); the others are R's binom.test.
        for (failed, of, low, high) in [
            (0, 1, 0.0, 0.975),
            (1, 1, 0.025, 1.0),
            (0, 20, 0.0, 0.168_433_471),
            (20, 20, 0.831_566_529, 1.0),
            (0, 50, 0.0, 0.071_121_737),
            (1, 10, 0.002_528_579, 0.445_016_117),
            (5, 10, 0.187_086_028, 0.812_913_972),
            (1, 20, 0.001_265_089, 0.248_732_763),
            (10, 100, 0.049_004_689, 0.176_222_596),
        ] {
            let rate = Rate::new(failed, of).unwrap();
            assert!((rate.low - low).abs() < 2e-7, "{failed}/{of}: {rate:?}");
            assert!((rate.high - high).abs() < 2e-7, "{failed}/{of}: {rate:?}");
        }
    }

    #[test]
    fn intervals_have_the_promised_tails_and_hold_the_rate() {
        // The definition itself, against a separately written binomial tail: P(X >= k | low) = P(X <= k | high) = 2.5 %.
        fn at_most(k: u64, n: u64, p: f64) -> f64 {
            if p > 0.5 {
                // The other half of the coin; the sum below would start from an underflow.
                return match k {
                    _ if k == n => 1.0,
                    _ => 1.0 - at_most(n - k - 1, n, 1.0 - p),
                };
            }
            let mut term = (1.0 - p).powf(n as f64);
            let mut sum = term;
            for i in 0..k {
                term *= (n - i) as f64 / (i + 1) as f64 * p / (1.0 - p);
                sum += term;
            }
            sum
        }
        for of in [1, 2, 3, 7, 20, 100, 500] {
            for failed in 0..=of {
                let rate = Rate::new(failed, of).unwrap();
                assert!(rate.low <= rate.rate && rate.rate <= rate.high, "{rate:?}");
                if failed > 0 {
                    let tail = 1.0 - at_most(failed - 1, of, rate.low);
                    assert!((tail - 0.025).abs() < 1e-5, "{rate:?} lower tail {tail}");
                }
                if failed < of {
                    let tail = at_most(failed, of, rate.high);
                    assert!((tail - 0.025).abs() < 1e-5, "{rate:?} upper tail {tail}");
                }
            }
        }
    }

    #[test]
    fn upper_bounds_are_those_of_the_tables() {
        // Without a failure it is 1 - 0.05^(1/n); the "rule of three" is its approximation 3/n.
        for (failed, of, bound) in [
            (0, 1, 0.95),
            (0, 10, 0.2589),
            (0, 100, 0.02951),
            (0, 299, 0.009969),
            (1, 10, 0.3942),
            (5, 100, 0.1022),
            (3, 3, 1.0),
            (0, 0, 1.0),
        ] {
            let found = upper_bound(failed, of);
            assert!((found - bound).abs() < 1e-4, "{failed}/{of}: {found}");
        }
    }

    #[test]
    fn rates_in_words() {
        for (failed, of, words) in [
            (0, 1, "0 of 1: below 95 % at 95 %"),
            (0, 20, "0 of 20: below 14 % at 95 %"),
            (0, 298, "0 of 298: below 1.1 % at 95 %"),
            (0, 299, "0 of 299: below 1 % at 95 %"),
            (0, 598, "0 of 598: below 0.5 % at 95 %"),
            (0, 100_000, "0 of 100000: below 0.003 % at 95 %"),
            (3, 20, "3 of 20: 15 % [3.2, 38]"),
            (5, 5, "5 of 5: 100 % [48, 100]"),
            (48, 129_909, "48 of 129909: 0.037 % [0.027, 0.049]"),
        ] {
            assert_eq!(Rate::new(failed, of).unwrap().words(), words);
        }
        assert_eq!(
            Rate::new(48, 129_909).unwrap().to_string(),
            "129909 runs, 48 failures, 0.037 % [0.027, 0.049]"
        );
        assert_eq!(
            Rate::new(1, 1).unwrap().to_string(),
            "1 run, 1 failure, 100.000 % [2.500, 100.000]"
        );
    }

    #[test]
    fn bounds_are_rounded_up() {
        for (share, text) in [
            (0.0, "0 %"),
            (0.5, "50 %"),
            (0.001_01, "0.11 %"),
            (0.001, "0.1 %"),
            (0.123_4, "13 %"),
            (1.0, "100 %"),
        ] {
            assert_eq!(at_most(share), text);
        }
    }

    #[test]
    fn nothing_tried_has_no_rate() {
        assert_eq!(Rate::new(0, 0), None);
        assert_eq!(Rate::new(2, 1), None);
    }

    #[test]
    fn large_samples_stay_finite_and_narrow() {
        let rate = Rate::new(10, 1_000_000).unwrap();
        assert!(rate.low > 4e-6 && rate.high < 2e-5, "{rate:?}");
    }

    #[test]
    fn percentiles_are_nearest_rank_whatever_the_order() {
        let values = (1..=100).rev().map(f64::from);
        let distribution = Distribution::of(values).unwrap();
        assert_eq!(
            distribution,
            Distribution {
                count: 100,
                min: 1.0,
                p50: 50.0,
                p90: 90.0,
                p99: 99.0,
                max: 100.0
            }
        );
        let single = Distribution::of([3.5, f64::NAN]).unwrap();
        assert_eq!((single.count, single.p50, single.p99), (1, 3.5, 3.5));
        assert_eq!(Distribution::of([]), None);
        let two = Distribution::of([1.0, 9.0]).unwrap();
        assert_eq!((two.p50, two.p90), (1.0, 9.0));
    }
}
