//! What to try next with a failing case, from what is known: a pure function, so that all of it can be tried out without a world.
//!
//! The order is that of cost. Who else could be to blame is asked first, because it takes no time where nothing fails; contention and longer
//! deadlines are asked only where the reruns alone leave that open.

use reports::{
    event::Experiment,
    model::{Evidence, GIVEN_UP, LOOKS, RERUNS},
};

/// Reruns to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Under which condition.
    pub experiment: Experiment,
    /// How many; 0 if it is only to be said that they are not possible.
    pub attempts: u64,
    /// The first failure says all: no more reruns after it.
    pub until_failure: bool,
}

/// The next reruns; `None` when enough is known, or no more is to be had.
pub fn next(evidence: &Evidence, has_reference: bool) -> Option<Batch> {
    use Experiment::{Alone, Contention, Direct, Patient, Reference, ReferenceContention};
    let get = |experiment| evidence.get(experiment);
    let to = |experiment, size: u64, until_failure| {
        // What the machine got in the way of is tried again, but not for ever.
        let tally = get(experiment);
        let open = tally.of() < size && tally.infra < RERUNS;
        open.then(|| Batch {
            experiment,
            attempts: size - tally.of(),
            until_failure,
        })
    };
    // At most this many lost attempts; then nothing more is to be had from an experiment.
    let reference = |experiment| {
        if has_reference {
            to(experiment, RERUNS, true)
        } else {
            (!evidence.experiments.contains_key(&experiment)).then_some(Batch {
                experiment,
                attempts: 0,
                until_failure: false,
            })
        }
    };
    let suspicious = |experiment| get(experiment).is_suspicious();
    if get(Alone).attempts() == 0 {
        return to(Alone, 1, false);
    }
    if let Some(batch) = reference(Reference) {
        return (!suspicious(Reference)).then_some(batch);
    }
    if suspicious(Reference) {
        return None;
    }
    if !suspicious(Direct)
        && let Some(batch) = to(Direct, RERUNS, true)
    {
        return Some(batch);
    }
    let given_up = get(Alone).of() == 0 && get(Alone).infra >= GIVEN_UP;
    if suspicious(Direct) || given_up {
        return None;
    }
    let alone = get(Alone);
    if alone.passed == 0 {
        if evidence.always_fails() {
            let patient = get(Patient);
            return (patient.failed == 0)
                .then(|| to(Patient, RERUNS, true))
                .flatten();
        }
        return to(Alone, RERUNS, false);
    }
    if alone.failed > 0 && alone.of() >= RERUNS {
        return None;
    }
    for size in LOOKS {
        if let Some(batch) = to(Alone, size, false) {
            return Some(batch);
        }
        if get(Alone).failed > 0 {
            return None;
        }
        if let Some(batch) = to(Contention, size, false) {
            return Some(batch);
        }
        if evidence.fails_only_under_contention() {
            return match suspicious(ReferenceContention) {
                true => None,
                false => reference(ReferenceContention),
            };
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use reports::model::{Class, Tally, classify};

    use super::*;

    /// How often each experiment fails: with 0 or 1, what happens is no matter of chance.
    fn world(rates: &[(Experiment, f64)]) -> BTreeMap<Experiment, f64> {
        rates.iter().copied().collect()
    }

    /// Runs all experiments of a case against a world of rates, and gives the class and the reruns.
    fn play(run: (u64, u64), rates: &[(Experiment, f64)], has_reference: bool) -> (Class, u64) {
        let rates = world(rates);
        let mut evidence = Evidence {
            run: Tally {
                failed: run.0,
                passed: run.1,
                infra: 0,
            },
            experiments: BTreeMap::new(),
        };
        let mut reruns = 0;
        while let Some(batch) = next(&evidence, has_reference) {
            let rate = rates.get(&batch.experiment).copied().unwrap_or(0.0);
            let tally = evidence.experiments.entry(batch.experiment).or_default();
            for _ in 0..batch.attempts {
                reruns += 1;
                assert!(reruns < 500, "it never ends: {tally:?} {batch:?}");
                if rate < 0.0 {
                    tally.infra += 1;
                    continue;
                }
                // The nearest whole number of failures so far, so that no chance is needed.
                let due = (rate * (tally.of() + 1) as f64).round() as u64;
                if due > tally.failed {
                    tally.failed += 1;
                    if batch.until_failure {
                        break;
                    }
                } else {
                    tally.passed += 1;
                }
            }
        }
        (classify(&evidence).0, reruns)
    }

    #[test]
    fn every_kind_of_failure_is_found_out() {
        use Experiment::{Alone, Contention, Direct, Patient, Reference, ReferenceContention};
        type Rates<'a> = &'a [(Experiment, f64)];
        let cases: &[((u64, u64), Rates<'_>, Class, u64)] = &[
            (
                (1, 0),
                &[(Alone, 1.0), (Patient, 1.0), (Contention, 1.0)],
                Class::Broken,
                16,
            ),
            ((6, 0), &[(Alone, 1.0), (Patient, 1.0)], Class::Broken, 12),
            ((1, 0), &[(Alone, 1.0)], Class::Slow, 20),
            ((1, 0), &[(Alone, 0.4)], Class::Flaky, 15),
            (
                (1, 0),
                &[(Alone, 0.09), (Contention, 0.09)],
                Class::Flaky,
                25,
            ),
            ((1, 0), &[(Contention, 1.0)], Class::ContentionOnly, 25),
            ((1, 0), &[(Contention, 0.7)], Class::ContentionOnly, 30),
            ((1, 0), &[], Class::Undecided, 50),
            ((3, 50), &[], Class::Flaky, 50),
            (
                (1, 0),
                &[(Alone, 1.0), (Reference, 1.0)],
                Class::OracleSuspect,
                2,
            ),
            ((1, 0), &[(Alone, 1.0), (Direct, 1.0)], Class::Infra, 7),
            (
                (1, 0),
                &[(Contention, 1.0), (ReferenceContention, 1.0)],
                Class::OracleSuspect,
                21,
            ),
            ((1, 0), &[(Alone, -1.0)], Class::Infra, 16),
            (
                (1, 0),
                &[(Alone, 1.0), (Reference, -1.0), (Patient, 1.0)],
                Class::Undecided,
                16,
            ),
        ];
        for (run, rates, class, reruns) in cases {
            assert_eq!(
                play(*run, rates, true),
                (*class, *reruns),
                "{run:?} {rates:?}"
            );
        }
        // A reference that is the candidate itself cannot be suspected, and need not be asked.
        let own = play(
            (1, 0),
            &[(Alone, 1.0), (Patient, 1.0), (Reference, 1.0)],
            false,
        );
        assert_eq!(own, (Class::Broken, 11));
    }
}
