//! Requirement areas as a grid, requirements in words, and how fast each area converges.

use std::collections::BTreeMap;

use super::Mark;
use super::plot::Scale;
use super::text::{Text, duration};
use crate::model::{CaseVerdict, Counts, Report, RequirementResult};

/// A card of the grid.
pub(super) struct Area {
    pub name: Text,
    pub verdict: Mark,
    /// Cases by verdict, those that occur.
    pub counts: Vec<(Mark, u64)>,
    /// Rules that some case violates, of whatever area.
    pub violated: usize,
    pub requirements: Vec<Short>,
    /// Whether the run says nothing about it at all.
    pub idle: bool,
}

/// A requirement by its id.
pub(super) struct Short {
    pub id: Text,
    pub verdict: Mark,
    pub rule: Text,
}

/// A requirement in words.
pub(super) struct Requirement {
    pub id: Text,
    pub area: Text,
    pub level: Text,
    pub verdict: Mark,
    pub rule: Text,
    pub source: Text,
    pub counts: Vec<(Mark, u64)>,
}

/// The convergence of an area: positions are percent of the width.
pub(super) struct AreaSpread {
    pub name: Text,
    pub count: u64,
    pub min: f64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub max: f64,
    pub words: [String; 4],
}

/// Areas that are shown.
const MAX_AREAS: usize = 200;

/// Requirements that are shown.
const MAX_REQUIREMENTS: usize = 2_000;

pub(crate) fn occurring(counts: &Counts) -> Vec<(Mark, u64)> {
    CaseVerdict::ALL
        .into_iter()
        .map(|verdict| (verdict.into(), counts.get(verdict)))
        .filter(|(_, count)| *count > 0)
        .collect()
}

pub(crate) fn is_violated(requirement: &RequirementResult) -> bool {
    matches!(requirement.verdict, CaseVerdict::Fail | CaseVerdict::Flaky)
}

fn violated(requirements: &[&RequirementResult]) -> usize {
    requirements.iter().filter(|r| is_violated(r)).count()
}

/// The worst verdict of an area's cases and of its rules: a case of another area may violate one, and then this area is not fine.
pub(crate) fn with_rules(cases: CaseVerdict, requirements: &[&RequirementResult]) -> CaseVerdict {
    let violated = requirements.iter().filter(|r| is_violated(r));
    let all: Counts = violated.map(|r| r.verdict).chain([cases]).collect();
    all.verdict()
}

/// A card per area: those that have cases, in the order of the catalogue, then those that only have requirements.
pub(super) fn cards(report: &Report) -> Vec<Area> {
    let mut by_area: BTreeMap<&str, Vec<&RequirementResult>> = BTreeMap::new();
    for requirement in report.requirements.iter().take(MAX_REQUIREMENTS) {
        let area = by_area.entry(requirement.area.as_str()).or_default();
        area.push(requirement);
    }
    let short = |requirement: &&RequirementResult| Short {
        id: Text::new(&requirement.id),
        verdict: requirement.verdict.into(),
        rule: Text::short(&requirement.text, 300),
    };
    let mut cards: Vec<Area> = Vec::new();
    for area in report.areas.iter().take(MAX_AREAS) {
        let requirements = by_area.remove(area.name.as_str()).unwrap_or_default();
        cards.push(Area {
            name: Text::new(&area.name),
            verdict: with_rules(area.verdict, &requirements).into(),
            counts: occurring(&area.cases),
            violated: violated(&requirements),
            requirements: requirements.iter().map(short).collect(),
            idle: false,
        });
    }
    let room = MAX_AREAS - cards.len();
    for (name, requirements) in by_area.into_iter().take(room) {
        cards.push(Area {
            name: Text::new(name),
            verdict: with_rules(CaseVerdict::NotRun, &requirements).into(),
            counts: Vec::new(),
            violated: violated(&requirements),
            requirements: requirements.iter().map(short).collect(),
            idle: requirements
                .iter()
                .all(|r| r.verdict == CaseVerdict::NotRun),
        });
    }
    cards
}

/// Every requirement in words, in the order of the catalogue.
pub(super) fn requirements(report: &Report) -> Vec<Requirement> {
    let requirement = |requirement: &RequirementResult| Requirement {
        id: Text::new(&requirement.id),
        area: Text::new(&requirement.area),
        level: Text::new(&requirement.level),
        verdict: requirement.verdict.into(),
        rule: Text::short(&requirement.text, 1_000),
        source: Text::short(&requirement.source, 400),
        counts: occurring(&requirement.cases),
    };
    let requirements = report.requirements.iter().take(MAX_REQUIREMENTS);
    requirements.map(requirement).collect()
}

/// How fast the attempts of each area converged, on one scale.
pub(super) fn spreads(report: &Report) -> Vec<AreaSpread> {
    let areas = || {
        let areas = report.areas.iter().take(MAX_AREAS);
        areas.filter_map(|area| Some((&area.name, area.convergence_ms?)))
    };
    let ends = areas().flat_map(|(_, spread)| [spread.min, spread.max]);
    let Some(scale) = Scale::over(ends, 0.0, 100.0) else {
        return Vec::new();
    };
    areas()
        .map(|(name, spread)| AreaSpread {
            name: Text::new(name),
            count: spread.count,
            min: scale.at(spread.min),
            p50: scale.at(spread.p50),
            p90: scale.at(spread.p90),
            p99: scale.at(spread.p99),
            max: scale.at(spread.max),
            words: [spread.p50, spread.p90, spread.p99, spread.max].map(duration),
        })
        .collect()
}
