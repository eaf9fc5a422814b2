//! Repeating until a claim about a failure rate is proven or refuted, without losing the promised confidence.
//!
//! Looking at a fixed-size interval after every attempt and stopping when it suits is wrong more often than the interval
//! says. Here every look is paid for. Of the error α = 1 − confidence that "proven" may make, one part is spent on the look
//! after `n0` attempts without any failure, where `n0` is the smallest number with (1 − bound)^n0 ≤ α: 299 for
//! `rate<1% @95%`, which is the number everybody expects. What is left of α is spent on all other looks together, by a test
//! martingale: the likelihood of what was seen, averaged over all rates on one side of the bound, against the bound itself.
//! Under any rate on the other side its expectation never grows, so by Ville's inequality it ever exceeds 1/α with
//! probability at most α, however often one looks. "Refuted" is the same martingale for the other side, with an α of its own.
//!
//! Sources: A. Wald, *Sequential Analysis* (1947); J. Ville, *Étude critique de la notion de collectif* (1939);
//! H. Robbins, Ann. Math. Statist. 41 (1970), for mixtures. The tests compute the exact error of the rule, look by look.

use std::{collections::BTreeMap, fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use statrs::function::beta::{beta_reg, ln_beta};

use crate::event::Verdict;

/// "The failure rate is below `bound`, at this confidence": `rate<1% @95%`, which is also how JSON has it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Claim {
    /// The rate that must not be reached, between 0 and 1.
    pub bound: f64,
    /// Between 0 and 1: 0.95 allows a wrong decision in one of twenty claims.
    pub confidence: f64,
}

/// A claim's numbers are finite.
impl Eq for Claim {}

impl From<Claim> for String {
    fn from(claim: Claim) -> Self {
        claim.to_string()
    }
}

impl TryFrom<String> for Claim {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// What the attempts so far say about a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Decision {
    /// The rate is below the bound.
    Proven,
    /// The rate is not below the bound.
    Refuted,
    /// More attempts are needed.
    Open,
}

/// At least this share of α is kept for claims that are proven although there were failures.
const KEPT_FOR_FAILURES: f64 = 0.005;

impl Claim {
    /// What `failed` of `of` attempts say. May be asked after every attempt.
    pub fn decide(&self, failed: u64, of: u64) -> Decision {
        if of == 0 || failed > of {
            return Decision::Open;
        }
        let alpha = 1.0 - self.confidence;
        let without_failure = self.attempts_without_failure();
        if failed == 0 && of >= without_failure {
            return Decision::Proven;
        }
        let left = alpha - (1.0 - self.bound).powf(without_failure as f64);
        if self.evidence(failed, of, Side::Below) >= -left.ln() {
            return Decision::Proven;
        }
        if self.evidence(failed, of, Side::Above) >= -alpha.ln() {
            return Decision::Refuted;
        }
        Decision::Open
    }

    /// The number of attempts that prove the claim if none of them fails.
    pub fn attempts_without_failure(&self) -> u64 {
        let alpha = (1.0 - self.confidence) * (1.0 - KEPT_FOR_FAILURES);
        // The logarithms decide but for rounding at the boundary.
        let mut attempts = (alpha.ln() / (-self.bound).ln_1p()).floor().max(1.0) as u64;
        while (1.0 - self.bound).powf(attempts as f64) > alpha {
            attempts += 1;
        }
        attempts
    }

    /// Logarithm of the test martingale: the mean likelihood of the rates on one side of the bound, over the likelihood of
    /// the bound itself.
    fn evidence(&self, failed: u64, of: u64, side: Side) -> f64 {
        let (k, n, p) = (failed as f64, of as f64, self.bound);
        let (a, b) = (k + 1.0, n - k + 1.0);
        let (share, width) = match side {
            Side::Below => (beta_reg(a, b, p), p),
            // The complement, computed where it is small.
            Side::Above => (beta_reg(b, a, 1.0 - p), 1.0 - p),
        };
        ln_beta(a, b) + share.ln() - width.ln() - k * p.ln() - (n - k) * (-p).ln_1p()
    }
}

/// The claim about one case, decided as its attempts end.
///
/// Attempts side by side end in any order, and those that fail often take longer than those that pass. Counted as they end, early
/// looks would see too few failures, and the promised confidence would be gone. So they are counted by their numbers, as if they had been
/// made one after the other, and the first decision stays. Attempts that say nothing about the candidate are left out.
#[derive(Clone, Debug)]
pub struct SequentialTest {
    claim: Claim,
    /// Number of the attempt that is counted next.
    next: u32,
    /// Attempts that ended before one with a lower number did.
    early: BTreeMap<u32, Verdict>,
    failed: u64,
    of: u64,
    decision: Decision,
}

impl SequentialTest {
    /// A test with no attempts yet.
    pub fn new(claim: Claim) -> Self {
        Self {
            claim,
            next: 1,
            early: BTreeMap::new(),
            failed: 0,
            of: 0,
            decision: Decision::Open,
        }
    }

    /// An attempt has ended. Each number counts once.
    pub fn add(&mut self, attempt: u32, verdict: Verdict) {
        if attempt < self.next || self.decision != Decision::Open {
            return;
        }
        self.early.insert(attempt, verdict);
        while let Some(verdict) = self.early.remove(&self.next) {
            self.next += 1;
            match verdict {
                Verdict::Fail => self.failed += 1,
                Verdict::Pass => {}
                Verdict::Infra | Verdict::Skip => continue,
            }
            self.of += 1;
            self.decision = self.claim.decide(self.failed, self.of);
            if self.decision != Decision::Open {
                self.early.clear();
                return;
            }
        }
    }

    /// What is known.
    pub fn decision(&self) -> Decision {
        self.decision
    }

    /// How many attempts that passed or failed are counted.
    pub fn counted(&self) -> u64 {
        self.of
    }

    /// Whether the claim is proven if every attempt with a lower number that has not ended yet passes.
    pub fn would_be_proven(&self, below: u32) -> bool {
        let mut test = self.clone();
        for attempt in self.next..below {
            if !self.early.contains_key(&attempt) {
                test.add(attempt, Verdict::Pass);
            }
        }
        test.decision == Decision::Proven
    }
}

#[derive(Clone, Copy)]
enum Side {
    Below,
    Above,
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "rate<{}% @{}%",
            percent(self.bound),
            percent(self.confidence)
        )
    }
}

/// Without the digits that only binary fractions have.
fn percent(share: f64) -> f64 {
    (share * 1e8).round() / 1e6
}

impl FromStr for Claim {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |what: &str| {
            format!("'{text}': {what}; a claim is like 'rate<1% @95%' or 'rate<0.01 @0.95'")
        };
        let rest = text
            .trim()
            .strip_prefix("rate")
            .map(str::trim_start)
            .and_then(|rest| rest.strip_prefix('<'))
            .ok_or_else(|| wrong("it does not begin with 'rate<'"))?;
        let (bound, confidence) = rest
            .split_once('@')
            .ok_or_else(|| wrong("it has no '@' with the confidence"))?;
        let share = |part: &str, name: &str| {
            let part = part.trim();
            let (number, scale) = match part.strip_suffix('%') {
                Some(number) => (number.trim_end(), 100.0),
                None => (part, 1.0),
            };
            number
                .parse::<f64>()
                .ok()
                // No finer than it is written, so that a claim out of a log is the one that went in.
                .map(|value| (value / scale * 1e8).round() / 1e8)
                .filter(|value| *value > 0.0 && *value < 1.0)
                .ok_or_else(|| wrong(&format!("the {name} '{part}' is not between 0 and 100 %")))
        };
        let claim = Self {
            bound: share(bound, "rate")?,
            confidence: share(confidence, "confidence")?,
        };
        if claim.confidence < 0.5 {
            return Err(wrong("a confidence below 50 % says nothing"));
        }
        Ok(claim)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn claim(text: &str) -> Claim {
        text.parse().unwrap()
    }

    #[test]
    fn claims_are_read_and_written() {
        for (text, bound, confidence) in [
            ("rate<1% @95%", 0.01, 0.95),
            ("rate < 0.5% @ 99%", 0.005, 0.99),
            ("rate<0.01@0.95", 0.01, 0.95),
        ] {
            let read = claim(text);
            assert!((read.bound - bound).abs() < 1e-12, "{text}: {read:?}");
            assert!((read.confidence - confidence).abs() < 1e-12, "{text}");
            assert_eq!(claim(&read.to_string()), read);
        }
        assert_eq!(claim("rate<0.5%@99%").to_string(), "rate<0.5% @99%");
        for (text, complaint) in [
            ("1% @95%", "does not begin with 'rate<'"),
            ("rate<1%", "no '@'"),
            ("rate<120% @95%", "the rate '120%'"),
            ("rate<1% @100%", "the confidence '100%'"),
            ("rate<1% @5%", "below 50 %"),
        ] {
            let error = text.parse::<Claim>().unwrap_err();
            assert!(error.contains(complaint), "{text}: {error}");
        }
    }

    #[test]
    fn the_numbers_everybody_knows() {
        assert_eq!(claim("rate<1% @95%").attempts_without_failure(), 299);
        assert_eq!(claim("rate<1% @95%").decide(0, 298), Decision::Open);
        assert_eq!(claim("rate<1% @95%").decide(0, 299), Decision::Proven);
        // Whatever always fails is found out at once.
        assert_eq!(claim("rate<1% @95%").decide(1, 1), Decision::Refuted);
        assert_eq!(claim("rate<20% @95%").decide(1, 1), Decision::Open);
        assert_eq!(claim("rate<20% @95%").decide(4, 4), Decision::Refuted);
        assert_eq!(claim("rate<1% @95%").decide(0, 0), Decision::Open);
    }

    #[test]
    fn failures_delay_a_proof_and_do_not_prevent_it() {
        let claim = claim("rate<1% @95%");
        for failed in 1..5 {
            let proven = (1..100_000).find(|of| claim.decide(failed, *of) == Decision::Proven);
            let proven = proven.expect("proven some time");
            assert!(proven > 299 && proven < 3_000, "{failed}: {proven}");
        }
    }

    /// The exact probability of each decision within `looks` attempts, one look after each, when the true rate is `rate`.
    fn decided(claim: &Claim, rate: f64, looks: usize) -> (f64, f64) {
        let (mut proven, mut refuted) = (0.0, 0.0);
        // probability[k]: k failures so far and no decision yet.
        let mut probability = vec![1.0];
        for of in 1..=looks {
            let mut next = vec![0.0; probability.len() + 1];
            for (failed, p) in probability.iter().enumerate() {
                next[failed] += p * (1.0 - rate);
                next[failed + 1] += p * rate;
            }
            for (failed, p) in next.iter_mut().enumerate() {
                if *p < 1e-15 {
                    continue;
                }
                match claim.decide(failed as u64, of as u64) {
                    Decision::Proven => proven += std::mem::take(p),
                    Decision::Refuted => refuted += std::mem::take(p),
                    Decision::Open => {}
                }
            }
            while next.len() > 1 && next.last().is_some_and(|p| *p < 1e-15) {
                next.pop();
            }
            probability = next;
        }
        (proven, refuted)
    }

    #[test]
    fn the_error_stays_within_the_promise_however_often_one_looks() {
        for text in ["rate<1% @95%", "rate<5% @95%", "rate<10% @99%"] {
            let claim = claim(text);
            let alpha = 1.0 - claim.confidence;
            for worse in [1.0, 1.2, 2.0] {
                let (proven, _) = decided(&claim, claim.bound * worse, 2_000);
                assert!(proven <= alpha, "{text}: {proven} at {worse} x the bound");
            }
            for better in [1.0, 0.8, 0.5] {
                let (_, refuted) = decided(&claim, claim.bound * better, 2_000);
                assert!(
                    refuted <= alpha,
                    "{text}: {refuted} at {better} x the bound"
                );
            }
        }
    }

    #[test]
    fn attempts_count_by_their_numbers_whatever_ends_first() {
        let claim = claim("rate<20% @95%");
        let mut test = SequentialTest::new(claim);
        // Fourteen passes would prove it, but the first attempt is still under way.
        assert_eq!(claim.attempts_without_failure(), 14);
        for attempt in 2..=30 {
            test.add(attempt, Verdict::Pass);
        }
        assert_eq!((test.decision(), test.counted()), (Decision::Open, 0));
        let mut late = test.clone();
        test.add(1, Verdict::Pass);
        assert_eq!((test.decision(), test.counted()), (Decision::Proven, 14));
        late.add(1, Verdict::Fail);
        assert_eq!(late.decision(), Decision::Open);
        // What comes after a decision changes nothing.
        for attempt in 31..200 {
            test.add(attempt, Verdict::Fail);
        }
        assert_eq!((test.decision(), test.counted()), (Decision::Proven, 14));
    }

    #[test]
    fn what_says_nothing_is_not_counted() {
        let mut test = SequentialTest::new(claim("rate<50% @95%"));
        for attempt in 1..=100 {
            test.add(attempt, Verdict::Infra);
        }
        assert_eq!((test.decision(), test.counted()), (Decision::Open, 0));
        assert!(!test.would_be_proven(105));
        assert!(test.would_be_proven(106));
        test.add(103, Verdict::Fail);
        assert!(!test.would_be_proven(106));
    }

    proptest! {
        #[test]
        fn the_order_in_which_attempts_end_does_not_matter(
            verdicts in prop::collection::vec(prop::sample::select(vec![Verdict::Pass, Verdict::Pass, Verdict::Fail, Verdict::Infra]), 1..80),
            keys in prop::collection::vec(any::<u32>(), 80),
        ) {
            let claim = claim("rate<30% @90%");
            // The simple model: one after the other, and stop.
            let (mut failed, mut of, mut want) = (0, 0, Decision::Open);
            for verdict in &verdicts {
                if want == Decision::Open && matches!(verdict, Verdict::Pass | Verdict::Fail) {
                    of += 1;
                    failed += u64::from(*verdict == Verdict::Fail);
                    want = claim.decide(failed, of);
                }
            }
            let mut order: Vec<(u32, Verdict)> = (1..).zip(verdicts).collect();
            order.sort_by_key(|(attempt, _)| keys[*attempt as usize - 1]);
            let mut test = SequentialTest::new(claim);
            for (attempt, verdict) in order {
                test.add(attempt, verdict);
            }
            prop_assert_eq!((test.decision(), test.counted()), (want, of));
        }
    }

    #[test]
    fn clear_cases_are_decided() {
        let claim = claim("rate<5% @95%");
        let (proven, _) = decided(&claim, 0.002, 2_000);
        assert!(proven > 0.99, "{proven}");
        let (_, refuted) = decided(&claim, 0.2, 2_000);
        assert!(refuted > 0.99, "{refuted}");
    }
}
