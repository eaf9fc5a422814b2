//! How sure a rate is.

use statrs::distribution::{Beta, ContinuousCDF as _};

/// The exact (Clopper-Pearson) upper 95 % bound of the true rate, after `events` in `trials`: with a higher rate, so few events would be seen
/// in less than one of twenty runs. 1 when nothing was tried.
pub fn upper_bound(events: u64, trials: u64) -> f64 {
    if events >= trials {
        return 1.0;
    }
    Beta::new(events as f64 + 1.0, (trials - events) as f64)
        .map_or(1.0, |distribution| distribution.inverse_cdf(0.95))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_those_of_the_tables() {
        // Without an event it is 1 - 0.05^(1/n); the "rule of three" is its approximation 3/n.
        for (events, trials, bound) in [
            (0, 1, 0.95),
            (0, 10, 0.2589),
            (0, 100, 0.02951),
            (1, 10, 0.3942),
            (5, 100, 0.1022),
            (3, 3, 1.0),
            (0, 0, 1.0),
        ] {
            let found = upper_bound(events, trials);
            assert!((found - bound).abs() < 1e-3, "{events}/{trials}: {found}");
        }
    }
}
