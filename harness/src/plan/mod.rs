//! The plan: catalogue x candidate x options -> cases with stable ids and seeds.

mod accounted;
mod cases;
mod catalogue;
pub mod filter;
mod requirements;

use std::{collections::BTreeMap, sync::Arc};

pub use accounted::accounted;
pub use cases::Cases;
pub use catalogue::Catalogue;
pub use filter::Filter;
use reports::event::{PlannedCase, Skip, SkipKind};
pub use requirements::{Requirement, Requirements};

use crate::{
    candidate::Candidate,
    cluster::{Netns, Provider},
    run::{
        Job,
        source::{Rounds, Source as _},
    },
    scenario::{CaseKey, Document, Feature, Level, Problem},
};

/// Which levels a run includes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Profile {
    /// What decides conformance.
    #[default]
    Core,
    /// Core and the optional features.
    Extended,
    /// Everything.
    All,
}

impl Profile {
    /// Whether cases of this level are run.
    pub fn includes(self, level: Level) -> bool {
        match self {
            Self::Core => level == Level::Core,
            Self::Extended => level <= Level::Extended,
            Self::All => true,
        }
    }

    /// The profile with this name.
    pub fn named(name: &str) -> Option<Self> {
        let all = [Self::Core, Self::Extended, Self::All];
        all.into_iter().find(|profile| profile.as_str() == name)
    }

    /// As on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Core => "core",
            Self::Extended => "extended",
            Self::All => "all",
        }
    }
}

/// A case that is part of a run.
#[derive(Clone, Debug)]
pub struct Planned {
    /// Where it comes from.
    pub document: Arc<Document>,
    /// Which of the document's cases.
    pub key: CaseKey,
    /// Requirement area.
    pub area: String,
    /// Why it will not run.
    pub skip: Option<Skip>,
}

/// What the machine cannot do, by feature.
pub type Missing = BTreeMap<Feature, String>;

/// Selects the cases of a run.
pub fn select(
    catalogue: &Catalogue,
    requirements: &Requirements,
    candidate: &Candidate,
    missing: &Missing,
    profile: Profile,
    filter: &Filter,
) -> Vec<Planned> {
    let mut planned = Vec::new();
    for document in &catalogue.documents {
        if !profile.includes(document.header.level) {
            continue;
        }
        let area = requirements.area(&document.header.requirement);
        for key in &document.cases {
            let subject = filter::Subject {
                document,
                key,
                area: &area,
            };
            if filter.matches(&subject) {
                planned.push(Planned {
                    document: document.clone(),
                    key: key.clone(),
                    area: area.clone(),
                    skip: skip(document, key, candidate, missing),
                });
            }
        }
    }
    planned
}

fn skip(
    document: &Document,
    key: &CaseKey,
    candidate: &Candidate,
    missing: &Missing,
) -> Option<Skip> {
    for feature in needed(document, key) {
        if let Some(reason) = missing.get(&feature) {
            return Some(Skip {
                kind: SkipKind::KernelMissing,
                reason: reason.clone(),
            });
        }
        if let Some(reason) = candidate.lacks(feature) {
            return Some(Skip {
                kind: SkipKind::CandidateUnsupported,
                reason,
            });
        }
    }
    None
}

/// Skips what the clusters of the run cannot do.
///
/// # Errors
/// A document that cannot be used.
pub fn skip_what_cannot(planned: &mut [Planned], provider: &dyn Provider) -> Result<(), Problem> {
    if provider.name() == Netns.name() {
        return Ok(());
    }
    for planned in planned.iter_mut().filter(|one| one.skip.is_none()) {
        let case = planned.document.resolve(&planned.key)?;
        planned.skip = provider.cannot(&case).map(|reason| Skip {
            kind: SkipKind::ProviderCannot,
            reason,
        });
    }
    Ok(())
}

/// The same cases in an order that follows from the seed: neighbours in the catalogue are none here.
pub fn mixed(planned: &[Planned], seed: u64) -> Vec<Planned> {
    let mut mixed = planned.to_vec();
    mixed.sort_by_cached_key(|planned| attempt_seed(seed, &planned.key.id, 0));
    mixed
}

/// What a case needs that not every candidate or machine has.
fn needed<'a>(document: &'a Document, key: &CaseKey) -> impl Iterator<Item = Feature> + 'a {
    let sctp = key
        .axes
        .get("protocol")
        .is_some_and(|protocol| protocol == "SCTP");
    let features = document.header.features.iter().copied();
    features.chain(sctp.then_some(Feature::Sctp))
}

/// Every case of a profile, none of them skipped: what somebody who has no candidate at hand can say about a run.
fn of_profile(
    catalogue: &Catalogue,
    requirements: &Requirements,
    profile: Profile,
) -> Vec<Planned> {
    let included = catalogue.documents.iter();
    let included = included.filter(|document| profile.includes(document.header.level));
    let cases = |document: &Arc<Document>| {
        let area = requirements.area(&document.header.requirement);
        let planned = |key: &CaseKey| Planned {
            document: document.clone(),
            key: key.clone(),
            area: area.clone(),
            skip: None,
        };
        document.cases.iter().map(planned).collect::<Vec<_>>()
    };
    included.flat_map(cases).collect()
}

impl Planned {
    /// For the event log.
    pub fn event(&self) -> PlannedCase {
        PlannedCase {
            id: self.key.id.clone(),
            scenario: self.document.header.id.clone(),
            title: self.document.header.title.clone(),
            area: self.area.clone(),
            level: level_name(self.document.header.level).into(),
            requirements: self.document.header.requirement.clone(),
            axes: self.key.axes.clone(),
            skip: self.skip.clone(),
        }
    }
}

/// As documents spell it.
pub fn level_name(level: Level) -> &'static str {
    match level {
        Level::Core => "core",
        Level::Extended => "extended",
        Level::Strict => "strict",
        Level::Info => "info",
    }
}

/// Makes the jobs of a run: every case `runs` times, round by round, each attempt with a seed that follows from the
/// run's seed, the case id and the attempt number. Every document is read, checked and rehearsed first.
pub fn jobs(planned: &[Planned], runs: u32, seed: u64) -> Result<Vec<Job>, Vec<Problem>> {
    let mut rounds = Rounds::new(Cases::prepare(planned, seed)?, Some(runs));
    Ok(std::iter::from_fn(|| rounds.next()).collect())
}

/// The seed of one attempt.
pub fn attempt_seed(run: u64, case: &str, attempt: u32) -> u64 {
    let mut bytes = run.to_le_bytes().to_vec();
    bytes.extend_from_slice(case.as_bytes());
    bytes.extend_from_slice(&attempt.to_le_bytes());
    xxhash_rust::xxh3::xxh3_64(&bytes)
}
