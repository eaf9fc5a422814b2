//! Shrinking against failures that are made up: some always show, some now and then.

use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{Rates, Seen, Shrunk, Subject, Tally, shrink};
use crate::{
    hunt::{Generator, Settings, claims, document},
    scenario::{Level, Scenario, doc::PodVerb, read_documents, rehearse},
};

/// A bug that needs some things to come together.
struct Fake<F> {
    needs: F,
    rate: f64,
    rng: StdRng,
    left: u32,
}

impl<F: Fn(&Scenario) -> bool> Subject for Fake<F> {
    fn is_valid(&mut self, scenario: &Scenario) -> bool {
        let text = document::text(scenario);
        let Ok(documents) = read_documents("x.yaml", &text) else {
            return false;
        };
        let case = documents[0].resolve(&documents[0].cases[0]);
        case.is_ok_and(|case| rehearse(&case).is_ok() && claims::hold(&case).is_ok())
    }

    fn attempt(&mut self, scenario: &Scenario) -> Seen {
        self.left = self.left.saturating_sub(1);
        if (self.needs)(scenario) && self.rng.random_bool(self.rate) {
            Seen::Shown(None)
        } else {
            Seen::NotShown
        }
    }

    fn has_time(&self) -> bool {
        self.left > 0
    }
}

fn patches_policy(scenario: &Scenario) -> bool {
    scenario.steps.iter().any(|step| {
        step.value
            .patch
            .as_ref()
            .is_some_and(|patch| !patch.patch["spec"]["internalTrafficPolicy"].is_null())
    })
}

fn pod_goes(scenario: &Scenario) -> bool {
    let stops = |step: &crate::scenario::doc::Step| {
        step.pod
            .as_ref()
            .is_some_and(|action| action.action == PodVerb::Stop)
    };
    let at = scenario.steps.iter().position(|step| stops(&step.value));
    at.is_some_and(|at| {
        scenario.steps[at..]
            .iter()
            .any(|step| step.value.converge.is_some())
    })
}

fn shrink_all(needs: fn(&Scenario) -> bool, rate: f64, attempts: u32) -> Vec<(Scenario, Shrunk)> {
    let mut generator = Generator::new(31, Settings::up_to(Level::Extended));
    let mut found = Vec::new();
    while found.len() < 3 {
        let scenario = generator.generate().scenario;
        if !needs(&scenario) {
            continue;
        }
        let mut subject = Fake {
            needs,
            rate,
            rng: StdRng::seed_from_u64(found.len() as u64),
            left: attempts,
        };
        let measured = Tally {
            attempts: 30,
            shown: (30.0 * rate).round() as u32,
        };
        let shrunk = shrink(&mut subject, &scenario, Rates::measured(measured), None);
        found.push((scenario, shrunk));
    }
    found
}

#[test]
fn what_is_left_still_fails_is_valid_and_is_small() {
    for needs in [patches_policy as fn(&Scenario) -> bool, pod_goes] {
        for (before, shrunk) in shrink_all(needs, 1.0, 2_000) {
            let after = &shrunk.scenario;
            assert!(needs(after), "{}", document::text(after));
            assert!(shrunk.complete);
            assert!(
                after.steps.len() <= 4,
                "{} of {} steps\n{}",
                after.steps.len(),
                before.steps.len(),
                document::text(after)
            );
            assert!(after.topology.nodes.len() == 1, "{}", document::text(after));
            assert!(after.topology.pods.len() <= 3, "{}", document::text(after));
            assert_eq!(shrunk.tally.attempts, shrunk.tally.shown);
            let mut subject = Fake {
                needs,
                rate: 1.0,
                rng: StdRng::seed_from_u64(0),
                left: 1,
            };
            assert!(subject.is_valid(after), "{}", document::text(after));
            let again = super::reduce::repaired(after.clone());
            assert_eq!(
                document::text(&again),
                document::text(after),
                "nothing is left to repair"
            );
        }
    }
}

#[test]
fn failures_that_show_now_and_then_are_shrunk_too() {
    for (rate, most_lost) in [(0.5, 1), (0.2, 1)] {
        let all = shrink_all(pod_goes, rate, 6_000);
        let lost = all
            .iter()
            .filter(|(_, shrunk)| !pod_goes(&shrunk.scenario))
            .count();
        // It never shows in a document without the bug, so nothing can be taken for a failure that is none.
        assert_eq!(lost, 0);
        let large = all
            .iter()
            .filter(|(_, shrunk)| shrunk.scenario.steps.len() > 8)
            .count();
        assert!(
            large <= most_lost,
            "{large} of {} are still large at a rate of {rate}",
            all.len()
        );
        for (_, shrunk) in &all {
            assert!(shrunk.tally.shown > 0 && shrunk.tally.shown <= shrunk.tally.attempts);
        }
    }
}

#[test]
fn it_ends_with_its_time_and_with_what_it_has() {
    for (before, shrunk) in shrink_all(patches_policy, 1.0, 7) {
        assert!(shrunk.attempts <= 7);
        assert!(!shrunk.complete);
        assert!(patches_policy(&shrunk.scenario));
        assert!(shrunk.scenario.steps.len() <= before.steps.len());
    }
}

#[test]
fn what_never_shows_again_stays_as_it_is() {
    let mut generator = Generator::new(32, Settings::up_to(Level::Extended));
    let scenario = generator.generate().scenario;
    let mut subject = Fake {
        needs: |_: &Scenario| false,
        rate: 1.0,
        rng: StdRng::seed_from_u64(0),
        left: 60,
    };
    let shrunk = shrink(
        &mut subject,
        &scenario,
        Rates::measured(Tally {
            attempts: 3,
            shown: 3,
        }),
        None,
    );
    assert_eq!(document::text(&shrunk.scenario), document::text(&scenario));
    assert!(shrunk.taken.is_empty());
}
