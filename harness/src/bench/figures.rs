//! Several measurements of one thing, summed up.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How one thing that was measured several times spreads, in milliseconds. Quantiles are nearest-rank, so each of them
/// is a value that was seen.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spread {
    /// How often it was measured.
    pub count: usize,
    /// The smallest.
    pub min_ms: f64,
    /// Half of them were not above.
    pub median_ms: f64,
    /// Nine of ten were not above.
    pub p90_ms: f64,
    /// The largest.
    pub max_ms: f64,
}

impl Spread {
    /// Sums up; `None` when nothing was measured.
    pub fn of(mut times: Vec<Duration>) -> Option<Self> {
        times.sort_unstable();
        let quantile = |share: f64| {
            let rank = (share * times.len() as f64).ceil() as usize;
            times
                .get(rank.clamp(1, times.len().max(1)) - 1)
                .map(|time| milliseconds(*time))
        };
        Some(Self {
            count: times.len(),
            min_ms: quantile(0.0)?,
            median_ms: quantile(0.5)?,
            p90_ms: quantile(0.9)?,
            max_ms: quantile(1.0)?,
        })
    }
}

/// As all figures are given: milliseconds, rounded to microseconds.
pub(super) fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_seen() {
        let spread =
            Spread::of((1..=10).rev().map(Duration::from_millis).collect()).expect("ten values");
        let want = Spread {
            count: 10,
            min_ms: 1.0,
            median_ms: 5.0,
            p90_ms: 9.0,
            max_ms: 10.0,
        };
        assert_eq!(spread, want);
        let one = Spread::of(vec![Duration::from_micros(1500)]).expect("one value");
        assert_eq!(
            (one.min_ms, one.median_ms, one.p90_ms, one.max_ms),
            (1.5, 1.5, 1.5, 1.5)
        );
        assert_eq!(Spread::of(Vec::new()), None);
    }
}
