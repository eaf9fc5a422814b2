//! Which pairs of (transition, frontend, policy, fault) the generated histories have met, and how much a choice would add.
//!
//! An *event* is one transition of one Service, with every frontend and policy that the Service has and the fault that it happens under. Bugs of
//! proxies rarely need more than two of these to come together, so pairs are counted and not quadruples.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use super::{
    generate::Settings,
    kinds::{Disturbance, Frontend, Policy, Transition},
};

/// One side of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Aspect {
    /// What changed.
    Transition(Transition),
    /// How the Service is reached.
    Frontend(Frontend),
    /// How it chooses.
    Policy(Policy),
    /// What went wrong meanwhile.
    Fault(Disturbance),
}

impl Aspect {
    fn dimension(self) -> &'static str {
        match self {
            Self::Transition(_) => "transition",
            Self::Frontend(_) => "frontend",
            Self::Policy(_) => "policy",
            Self::Fault(_) => "fault",
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Transition(one) => one.as_str(),
            Self::Frontend(one) => one.as_str(),
            Self::Policy(one) => one.as_str(),
            Self::Fault(one) => one.as_str(),
        }
    }
}

/// Two aspects of different dimensions, the smaller one first.
pub type Pair = (Aspect, Aspect);

/// A transition of a Service and what it met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What changed.
    pub transition: Transition,
    /// Frontends of the Service, before or after.
    pub frontends: BTreeSet<Frontend>,
    /// Its policies, before or after.
    pub policies: BTreeSet<Policy>,
    /// What went wrong meanwhile.
    pub fault: Disturbance,
}

impl Event {
    /// The pairs that the event shows.
    pub fn pairs(&self) -> BTreeSet<Pair> {
        let frontends: Vec<Aspect> = self
            .frontends
            .iter()
            .copied()
            .map(Aspect::Frontend)
            .collect();
        let policies: Vec<Aspect> = self.policies.iter().copied().map(Aspect::Policy).collect();
        let transition = [Aspect::Transition(self.transition)];
        let fault = [Aspect::Fault(self.fault)];
        let sides: [&[Aspect]; 4] = [&transition, &frontends, &policies, &fault];
        let mut pairs = BTreeSet::new();
        for (at, one) in sides.iter().enumerate() {
            for other in &sides[at + 1..] {
                for a in *one {
                    pairs.extend(other.iter().map(|b| (*a, *b)));
                }
            }
        }
        pairs
    }
}

/// How often each pair was met.
#[derive(Clone, Debug)]
pub struct Coverage {
    universe: BTreeSet<Pair>,
    counts: BTreeMap<Pair, u32>,
}

impl Coverage {
    /// Nothing yet, of everything that the settings allow.
    pub fn new(settings: &Settings) -> Self {
        let dimensions: [Vec<Aspect>; 4] = [
            settings
                .transitions()
                .into_iter()
                .map(Aspect::Transition)
                .collect(),
            settings
                .frontends()
                .into_iter()
                .map(Aspect::Frontend)
                .collect(),
            settings
                .policies()
                .into_iter()
                .map(Aspect::Policy)
                .collect(),
            settings.faults().into_iter().map(Aspect::Fault).collect(),
        ];
        let mut universe = BTreeSet::new();
        for (at, one) in dimensions.iter().enumerate() {
            for other in &dimensions[at + 1..] {
                for a in one {
                    universe.extend(other.iter().map(|b| (*a, *b)));
                }
            }
        }
        Self {
            universe,
            counts: BTreeMap::new(),
        }
    }

    /// Counts an event.
    pub fn add(&mut self, event: &Event) {
        for pair in event.pairs() {
            if self.universe.contains(&pair) {
                *self.counts.entry(pair).or_default() += 1;
            }
        }
    }

    /// Counts what another one has counted.
    pub fn merge(&mut self, other: &Self) {
        for (pair, count) in &other.counts {
            *self.counts.entry(*pair).or_default() += count;
        }
    }

    /// How much an event would add: a pair that was never met counts most, one that was met often nothing.
    pub fn gain(&self, event: &Event) -> f64 {
        event
            .pairs()
            .iter()
            .filter(|pair| self.universe.contains(pair))
            .map(|pair| match self.counts.get(pair) {
                None => 1.0,
                Some(count) => 0.2 / f64::from(*count),
            })
            .sum()
    }

    /// Pairs that there are.
    pub fn total(&self) -> usize {
        self.universe.len()
    }

    /// Pairs that were met.
    pub fn met(&self) -> usize {
        self.counts.len()
    }

    /// Pairs that were not met, for people.
    pub fn missing(&self) -> Vec<String> {
        self.universe
            .iter()
            .filter(|pair| !self.counts.contains_key(pair))
            .map(|(a, b)| format!("{} x {}", a.as_str(), b.as_str()))
            .collect()
    }

    /// A table: per two dimensions the pairs met of all, and what was never met, up to `most` lines.
    pub fn table(&self, most: usize) -> String {
        let mut per: BTreeMap<(usize, usize), (usize, usize)> = BTreeMap::new();
        let rank = |aspect: Aspect| {
            ["transition", "frontend", "policy", "fault"]
                .iter()
                .position(|name| *name == aspect.dimension())
                .unwrap_or_default()
        };
        let names = ["transition", "frontend", "policy", "fault"];
        for pair in &self.universe {
            let entry = per.entry((rank(pair.0), rank(pair.1))).or_default();
            entry.1 += 1;
            entry.0 += usize::from(self.counts.contains_key(pair));
        }
        let mut text = format!("pairs met: {} of {}\n", self.met(), self.total());
        for ((a, b), (met, all)) in per {
            let _ = writeln!(
                text,
                "  {:<24} {met:>4} of {all}",
                format!("{} x {}", names[a], names[b])
            );
        }
        let missing = self.missing();
        for line in missing.iter().take(most) {
            let _ = writeln!(text, "  never met: {line}");
        }
        if missing.len() > most {
            let _ = writeln!(text, "  and {} more", missing.len() - most);
        }
        text
    }
}
