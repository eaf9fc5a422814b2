//! The plan: catalogue x candidate x options -> cases with stable ids and seeds.

mod catalogue;
pub mod filter;
mod requirements;

use std::{collections::BTreeMap, sync::Arc};

pub use catalogue::Catalogue;
pub use filter::Filter;
use reports::event::{PlannedCase, Skip, SkipKind};
pub use requirements::{Requirement, Requirements};

use crate::{
    candidate::Candidate,
    run::Job,
    scenario::{CaseKey, Document, Feature, Level, Problem, rehearse},
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
    fn includes(self, level: Level) -> bool {
        match self {
            Self::Core => level == Level::Core,
            Self::Extended => level <= Level::Extended,
            Self::All => true,
        }
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
    let sctp = key
        .axes
        .get("protocol")
        .is_some_and(|protocol| protocol == "SCTP");
    let needed = document
        .header
        .features
        .iter()
        .copied()
        .chain(sctp.then_some(Feature::Sctp));
    for feature in needed {
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
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let chunk = planned.len().div_ceil(threads).max(1);
    let resolved: Vec<Result<Option<Arc<crate::scenario::Case>>, Problem>> =
        std::thread::scope(|scope| {
            let handles: Vec<_> = planned
                .chunks(chunk)
                .map(|chunk| {
                    scope.spawn(move || {
                        chunk
                            .iter()
                            .map(|planned| match planned.skip {
                                Some(_) => Ok(None),
                                None => prepare(planned).map(Some),
                            })
                            .collect::<Vec<_>>()
                    })
                })
                .collect();
            handles
                .into_iter()
                .flat_map(|handle| handle.join().expect("preparing does not panic"))
                .collect()
        });
    let mut problems: Vec<Problem> = Vec::new();
    let mut cases = Vec::new();
    for result in resolved {
        match result {
            Ok(case) => cases.push(case),
            Err(problem) if problems.contains(&problem) => {}
            Err(problem) => problems.push(problem),
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut jobs = Vec::new();
    for attempt in 1..=runs {
        for (planned, case) in planned.iter().zip(&cases) {
            let case = match (case, &planned.skip) {
                (Some(case), _) => Ok(case.clone()),
                (None, Some(skip)) if attempt == 1 => Err(skip.clone()),
                _ => continue,
            };
            let seed = match (&case, planned.document.header.seed) {
                (_, Some(seed)) => seed,
                _ => attempt_seed(seed, &planned.key.id, attempt),
            };
            jobs.push(Job {
                case,
                id: planned.key.id.clone(),
                attempt,
                seed,
            });
        }
    }
    Ok(jobs)
}

fn prepare(planned: &Planned) -> Result<Arc<crate::scenario::Case>, Problem> {
    let case = planned.document.resolve(&planned.key)?;
    rehearse(&case)?;
    Ok(Arc::new(case))
}

/// The seed of one attempt.
pub fn attempt_seed(run: u64, case: &str, attempt: u32) -> u64 {
    let mut bytes = run.to_le_bytes().to_vec();
    bytes.extend_from_slice(case.as_bytes());
    bytes.extend_from_slice(&attempt.to_le_bytes());
    xxhash_rust::xxh3::xxh3_64(&bytes)
}
