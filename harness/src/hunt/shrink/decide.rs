//! Is a smaller document as good as the one before? A sequential test, so that flaky failures can be shrunk too.
//!
//! Two hypotheses about the rate at which a document shows the failure: *often*, which is what was measured of the document that was found, and *rarely*,
//! a fraction of that. Wald's sequential probability ratio test takes attempts until one of them is 19 times as likely as the other, so that each of the two
//! wrong decisions happens in at most 5 % of the cases in which its hypothesis is true. For a failure that always showed, one attempt decides.
//!
//! Source: A. Wald, Sequential Tests of Statistical Hypotheses (1945).

/// The share of wrong decisions, of either kind, where one of the hypotheses is true.
pub const ERROR: f64 = 0.05;

/// Attempts of a document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Attempts that said something.
    pub attempts: u32,
    /// Those of them that showed the failure.
    pub shown: u32,
}

impl Tally {
    /// Counts an attempt.
    pub fn add(&mut self, shown: bool) {
        self.attempts += 1;
        self.shown += u32::from(shown);
    }
}

/// The two hypotheses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// The failure shows at least at this rate.
    pub often: f64,
    /// The failure shows at most at this rate.
    pub rarely: f64,
}

impl Rates {
    /// The hypotheses that follow from what was measured of the document that was found. One success among many attempts is as likely to be luck as a high
    /// rate, so the estimate is drawn a little to the middle.
    pub fn measured(tally: Tally) -> Self {
        let often = if tally.shown == tally.attempts {
            1.0 - ERROR
        } else {
            (f64::from(tally.shown) + 0.5) / (f64::from(tally.attempts) + 1.0)
        };
        let often = often.clamp(0.02, 1.0 - ERROR);
        Self {
            often,
            rarely: (often / 4.0).min(1.0 - often),
        }
    }

    /// A test that has seen nothing.
    pub fn test(self) -> Sequential {
        Sequential {
            rates: self,
            evidence: 0.0,
            tally: Tally::default(),
        }
    }
}

/// A test that goes on.
#[derive(Clone, Debug)]
pub struct Sequential {
    rates: Rates,
    evidence: f64,
    tally: Tally,
}

impl Sequential {
    /// Adds an attempt; `Some(true)` when *often* is decided, `Some(false)` when *rarely* is.
    pub fn add(&mut self, shown: bool) -> Option<bool> {
        let Rates { often, rarely } = self.rates;
        self.tally.add(shown);
        self.evidence += if shown {
            (often / rarely).ln()
        } else {
            ((1.0 - often) / (1.0 - rarely)).ln()
        };
        // One attempt decides where both say 19 to 1, whatever the last digit.
        let bound = ((1.0 - ERROR) / ERROR).ln() - 1e-9;
        if self.evidence >= bound {
            Some(true)
        } else if self.evidence <= -bound {
            Some(false)
        } else {
            None
        }
    }

    /// What was seen.
    pub fn tally(&self) -> Tally {
        self.tally
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng, rngs::StdRng};

    use super::*;

    fn decide(rates: Rates, truth: f64, rng: &mut StdRng) -> (bool, u32) {
        let mut test = rates.test();
        loop {
            if let Some(decided) = test.add(rng.random_bool(truth)) {
                return (decided, test.tally().attempts);
            }
        }
    }

    #[test]
    fn one_attempt_decides_where_the_failure_always_showed() {
        let rates = Rates::measured(Tally {
            attempts: 3,
            shown: 3,
        });
        assert_eq!(rates.test().add(true), Some(true));
        assert_eq!(rates.test().add(false), Some(false));
    }

    #[test]
    fn wrong_decisions_are_as_rare_as_stated() {
        let mut rng = StdRng::seed_from_u64(7);
        for shown in [2, 5, 10, 18] {
            let rates = Rates::measured(Tally {
                attempts: 20,
                shown,
            });
            let runs = 4_000;
            let wrong = |truth: f64, decision: bool, rng: &mut StdRng| {
                let wrong = (0..runs).filter(|_| decide(rates, truth, rng).0 == decision);
                wrong.count() as f64 / f64::from(runs)
            };
            let lost = wrong(rates.often, false, &mut rng);
            let kept = wrong(rates.rarely, true, &mut rng);
            // Three standard deviations of the experiment on top.
            let most = ERROR + 3.0 * (ERROR * (1.0 - ERROR) / f64::from(runs)).sqrt();
            assert!(lost <= most, "{shown} of 20: {lost} of good ones are lost");
            assert!(kept <= most, "{shown} of 20: {kept} of bad ones are kept");
        }
    }

    #[test]
    fn hypotheses_stay_apart() {
        for attempts in 1..=30 {
            for shown in 1..=attempts {
                let rates = Rates::measured(Tally { attempts, shown });
                assert!(
                    0.0 < rates.rarely && rates.rarely < rates.often && rates.often < 1.0,
                    "{rates:?}"
                );
                assert!(rates.often / rates.rarely > 2.0, "{rates:?}");
            }
        }
    }
}
