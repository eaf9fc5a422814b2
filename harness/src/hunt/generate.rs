//! Random but valid histories, one document after the other, from a seed.
//!
//! ```text
//!  seed ── document number ──> topology, Services, slices ──> phases ──> document
//!                                                              │
//!          ┌───────────────────────────────────────────────────┘
//!          └─> [fault begins] transitions [fault ends] ─> converge (and sweep) ─> flows that had to move ─> new flows
//! ```
//!
//! Each step is made on an API server without a network while it is chosen, as in a rehearsal: what the API refuses is never written down, and the oracle
//! says what may be asserted of each flow. Which transition comes next is a throw of dice that are loaded by [`Coverage`].

use std::collections::BTreeSet;

use super::{
    coverage::{Coverage, Event},
    document,
    history::History,
    kinds::{Disturbance, Frontend, Policy, Transition},
};
use crate::{
    plan::attempt_seed,
    scenario::{Feature, Level, Scenario},
};

/// What histories may contain.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Only what rules up to this level speak of.
    pub level: Level,
    /// What the candidate or the machine cannot do.
    pub lacking: BTreeSet<Feature>,
}

impl Settings {
    /// Everything up to a level.
    pub fn up_to(level: Level) -> Self {
        Self {
            level,
            lacking: BTreeSet::new(),
        }
    }

    /// Whether a feature may be used.
    pub fn has(&self, feature: Feature) -> bool {
        !self.lacking.contains(&feature)
    }

    fn allows(&self, level: Level, feature: Option<Feature>) -> bool {
        level <= self.level && feature.is_none_or(|feature| self.has(feature))
    }

    /// Transitions that histories have.
    pub fn transitions(&self) -> Vec<Transition> {
        let all = Transition::ALL.iter().copied();
        all.filter(|one| self.allows(one.level(), one.feature()))
            .collect()
    }

    /// Frontends that histories have.
    pub fn frontends(&self) -> Vec<Frontend> {
        Frontend::all()
            .filter(|one| self.allows(Level::Core, one.feature()))
            .collect()
    }

    /// Policies that histories have.
    pub fn policies(&self) -> Vec<Policy> {
        let all = Policy::ALL.iter().copied();
        all.filter(|one| self.allows(one.level(), one.feature()))
            .collect()
    }

    /// Faults that histories have.
    pub fn faults(&self) -> Vec<Disturbance> {
        let all = Disturbance::ALL.iter().copied();
        all.filter(|one| self.allows(one.level(), one.feature()))
            .collect()
    }
}

/// A generated history.
#[derive(Clone, Debug)]
pub struct Generated {
    /// Its number, from 1.
    pub number: u64,
    /// The document.
    pub scenario: Scenario,
    /// The document as text.
    pub text: String,
    /// What it covers.
    pub events: Vec<Event>,
}

/// Makes one document after the other. The same seed and settings make the same documents.
#[derive(Clone, Debug)]
pub struct Generator {
    seed: u64,
    settings: Settings,
    coverage: Coverage,
    next: u64,
    discarded: Vec<String>,
}

impl Generator {
    /// A generator at its first document.
    pub fn new(seed: u64, settings: Settings) -> Self {
        Self {
            coverage: Coverage::new(&settings),
            seed,
            settings,
            next: 1,
            discarded: Vec::new(),
        }
    }

    /// What the documents so far cover.
    pub fn coverage(&self) -> &Coverage {
        &self.coverage
    }

    /// Histories that could not be gone through to their end, with the reason. There should be none.
    pub fn discarded(&self) -> &[String] {
        &self.discarded
    }

    /// The next document.
    pub fn generate(&mut self) -> Generated {
        loop {
            let number = self.next;
            self.next += 1;
            let seed = attempt_seed(self.seed, "hunt", number as u32);
            let id = format!("hunt-{}-{number}", self.seed);
            match History::new(seed, &self.settings, &self.coverage).and_then(|history| {
                history.write(
                    &id,
                    &format!("Generated history {number} of seed {}", self.seed),
                )
            }) {
                Ok((scenario, events)) => {
                    for event in &events {
                        self.coverage.add(event);
                    }
                    return Generated {
                        number,
                        text: document::text(&scenario),
                        scenario,
                        events,
                    };
                }
                Err(error) => self.discarded.push(format!("{id}: {error}")),
            }
        }
    }
}
