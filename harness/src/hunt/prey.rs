//! Who is hunted, and who has to pass what it fails.

use std::{sync::Arc, time::Duration};

use crate::{
    candidate::Candidate,
    scenario::{Scenario, Span},
    selftest::{Binary, Mutant},
};

/// While it is searched, a condition is waited for so long. Proxies take milliseconds to two seconds; one that takes longer is looked at again with all the
/// patience that documents have, and only that counts.
const QUICK: Span = Span::millis(5_000);
/// The same in documents with faults: clients of the API wait between tries, some seconds after several failures.
const QUICK_AFTER_FAULTS: Span = Span::millis(15_000);

/// What counts is waited for so long, also with proxies that are there to fail.
const CERTAIN: Span = Span::millis(10_000);
/// Nobody is waited for less than this.
const LEAST: Span = Span::millis(1_500);
/// So many times what it took before: what takes longer is another thing, and if not, the result of shrinking does not stand.
const MUCH_MORE: u32 = 10;

/// A candidate with its control.
#[derive(Clone, Debug)]
pub enum Prey {
    /// Somebody's proxy; the reference is the control, unless it is the reference itself.
    Candidate {
        /// The candidate.
        candidate: Box<Candidate>,
        /// The reference.
        control: Option<Box<Candidate>>,
    },
    /// A proxy with a known fault; the control is the same program without it.
    Mutant {
        /// The program.
        binary: Box<Binary>,
        /// Which of its mutants.
        mutant: Mutant,
    },
}

impl Prey {
    /// Its name.
    pub fn name(&self) -> &str {
        match self {
            Self::Candidate { candidate, .. } => &candidate.manifest.name,
            Self::Mutant { mutant, .. } => &mutant.name,
        }
    }

    /// For searching: waits no longer than it takes to be suspicious.
    pub fn quick(&self, scenario: &Scenario) -> Arc<Candidate> {
        self.within(scenario, None)
    }

    /// For shrinking: where it is known how long the candidate takes at most for what it does right, much more than that is enough.
    pub fn within(&self, scenario: &Scenario, slowest: Option<Duration>) -> Arc<Candidate> {
        let faults = has_faults(scenario);
        let mut candidate = self.patient_one(faults);
        let most = if faults { QUICK_AFTER_FAULTS } else { QUICK };
        let enough = slowest.map_or(most, |slowest| Span(slowest * MUCH_MORE).max(LEAST));
        let most = most.min(enough);
        candidate.patience = Some(candidate.patience.map_or(most, |own| own.min(most)));
        Arc::new(candidate)
    }

    /// For what counts: as patient as the document.
    pub fn patient(&self, scenario: &Scenario) -> Arc<Candidate> {
        Arc::new(self.patient_one(has_faults(scenario)))
    }

    /// Who has to pass, as patient; `None` if there is nobody who is not the candidate itself.
    pub fn control(&self, scenario: &Scenario) -> Option<Arc<Candidate>> {
        match self {
            Self::Candidate { control, .. } => control.as_deref().cloned().map(Arc::new),
            Self::Mutant { binary, .. } => {
                let mut control = binary.control(has_faults(scenario));
                control.patience = control.patience.map(|own| own.max(CERTAIN));
                Some(Arc::new(control))
            }
        }
    }

    fn patient_one(&self, faults: bool) -> Candidate {
        match self {
            Self::Candidate { candidate, .. } => (**candidate).clone(),
            Self::Mutant { binary, mutant } => {
                let mut candidate = binary.mutant(mutant, faults);
                candidate.patience = candidate.patience.map(|own| own.max(CERTAIN));
                candidate
            }
        }
    }
}

fn has_faults(scenario: &Scenario) -> bool {
    scenario.steps.iter().any(|step| step.value.fault.is_some())
}
