//! The two statistics of a report: how often something fails, and how a measured number is distributed.

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
}

impl Rate {
    /// The rate of `failed` out of `of`; `None` when nothing was tried.
    ///
    /// Source: C. J. Clopper, E. S. Pearson, Biometrika 26 (1934): quantiles of Beta distributions.
    pub fn new(failed: u64, of: u64) -> Option<Self> {
        if of == 0 || failed > of {
            return None;
        }
        let (k, n) = (failed as f64, of as f64);
        let tail = (1.0 - CONFIDENCE) / 2.0;
        let quantile = |a: f64, b: f64, p: f64| {
            Beta::new(a, b).map_or(f64::NAN, |distribution| distribution.inverse_cdf(p))
        };
        let low = match failed {
            0 => 0.0,
            _ => quantile(k, n - k + 1.0, tail),
        };
        let high = match failed {
            _ if failed == of => 1.0,
            _ => quantile(k + 1.0, n - k, 1.0 - tail),
        };
        Some(Self {
            failed,
            of,
            rate: rounded(k / n),
            low: rounded(low.clamp(0.0, 1.0)),
            high: rounded(high.clamp(0.0, 1.0)),
        })
    }
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
